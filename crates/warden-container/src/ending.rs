//! How a container is destroyed, step by step, each with a deadline:
//!
//! ```text
//! stop the jobs --> kill init --> set aside (network, directory) --> gone; the rest is removed later
//!                       |             |
//!                       |             +-- failed: stopped, and can be destroyed again
//!                       |             |
//!                       +--> reap iomux, kill what is left, remove all --> gone
//!                        iomux does not say that all inside has ended
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use warden_iomux::message::Request;

use crate::actor::{Actor, Reply};
use crate::error::{Error, blocking};
use crate::state::State;

/// How long a killed init may take to be gone, with all its processes.
const KILL_TIME: Duration = Duration::from_secs(10);
/// How long iomux may take to end after its init.
const REAP_TIME: Duration = Duration::from_secs(5);

/// A destruction under way.
#[derive(Debug)]
pub(crate) struct Ending {
    phase: Phase,
    waiters: Vec<Reply<()>>,
}

#[derive(Debug)]
enum Phase {
    /// The jobs are asked to end, then killed.
    Stopping,
    /// iomux was told to kill init; until this moment.
    Killing(Instant),
    /// Nothing runs inside; iomux ends, until this moment.
    Reaping(Instant),
    /// What the container owned is being removed.
    Clearing(JoinHandle<Result<(), Error>>),
}

impl Ending {
    /// The moment by which the phase must be over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Killing(deadline) | Phase::Reaping(deadline) => Some(deadline),
            Phase::Stopping | Phase::Clearing(_) => None,
        }
    }

    /// The removal, while it is under way.
    pub(crate) fn clearing(&mut self) -> Option<&mut JoinHandle<Result<(), Error>>> {
        match &mut self.phase {
            Phase::Clearing(task) => Some(task),
            _ => None,
        }
    }
}

impl Actor {
    /// Begins to destroy the container, or joins who has begun.
    pub(crate) fn destroy(&mut self, reply: Reply<()>) {
        if let Some(ending) = &mut self.ending {
            ending.waiters.push(reply);
            return;
        }
        self.shared.write_obituary();
        self.ending = Some(Ending { phase: Phase::Stopping, waiters: vec![reply] });
        if self.shared.state() == State::Active && self.link.is_some() {
            self.shared.set_state(State::Stopped);
            self.begin_stop(false, None);
        } else {
            self.kill();
        }
    }

    /// Whether another iomux would be of use: the container is not being killed.
    pub(crate) fn can_be_replaced(&self) -> bool {
        matches!(self.ending, None | Some(Ending { phase: Phase::Stopping, .. }))
    }

    /// Goes on when the jobs have ended, or will not.
    pub(crate) fn end_after_stop(&mut self) {
        if matches!(self.ending, Some(Ending { phase: Phase::Stopping, .. })) {
            self.kill();
        }
    }

    /// Goes on when nothing runs inside any more.
    pub(crate) fn end_after_gone(&mut self) {
        if matches!(self.ending, Some(Ending { phase: Phase::Stopping | Phase::Killing(_), .. })) {
            self.set_aside();
        }
    }

    /// Goes on when nothing can be known of what runs inside.
    pub(crate) fn end_after_loss(&mut self) {
        if matches!(self.ending, Some(Ending { phase: Phase::Stopping | Phase::Killing(_), .. })) {
            self.reap();
        }
    }

    /// Goes on when iomux has ended.
    pub(crate) fn end_after_exit(&mut self) {
        if matches!(self.ending, Some(Ending { phase: Phase::Reaping(_), .. })) {
            self.clear();
        }
    }

    /// Goes on when a phase has taken too long.
    pub(crate) fn end_further(&mut self, now: Instant) {
        let Some(Ending { phase, .. }) = &self.ending else { return };
        match *phase {
            Phase::Killing(deadline) if deadline <= now => self.kill_supervisor(),
            // The removal kills what it finds, and names what it cannot kill.
            Phase::Reaping(deadline) if deadline <= now => self.clear(),
            _ => {}
        }
    }

    /// Answers when all is removed; when not, the container stays and can be destroyed again.
    pub(crate) fn cleared(&mut self, outcome: Result<(), Error>) {
        match &outcome {
            Ok(()) => {
                tracing::info!(container = %self.shared.id, "destroyed");
                self.shared.gone();
                self.finished = true;
            }
            Err(error) => {
                tracing::error!(container = %self.shared.id, %error, "destroying failed");
                self.shared.set_state(State::Stopped);
                self.save_later();
            }
        }
        for waiter in self.ending.take().map(|ending| ending.waiters).unwrap_or_default() {
            drop(waiter.send(outcome.as_ref().copied().map_err(Error::again)));
        }
    }

    fn kill(&mut self) {
        self.shared.set_state(State::Destroyed);
        self.disconnect();
        if self.link.is_none() {
            return self.reap();
        }
        self.enter(Phase::Killing(Instant::now() + KILL_TIME));
        self.send(&Request::Kill);
    }

    /// Takes the container off the network while it is killed; the removal does it again where this has failed.
    fn disconnect(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            // A daemon that follows ends what was begun.
            if let Err(error) = shared.save() {
                tracing::warn!(container = %shared.id, %error, "that it is being destroyed was not written down");
            }
            if let Err(error) = shared.machine.network.detach(shared.id) {
                tracing::warn!(container = %shared.id, %error, "disconnecting failed at first");
            }
        });
    }

    fn kill_supervisor(&mut self) {
        tracing::error!(container = %self.shared.id, "iomux did not kill its container in time");
        self.link = None;
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.lose(&crate::link::Lost::Closed);
    }

    fn reap(&mut self) {
        if self.process.is_none() {
            return self.clear();
        }
        self.enter(Phase::Reaping(Instant::now() + REAP_TIME));
    }

    /// iomux has said that it ends, and is waited for by nobody; what it holds open it closes.
    fn set_aside(&mut self) {
        self.shared.jobs.keep_files_of_held();
        let (id, machine, iomux) = (self.shared.id, Arc::clone(&self.shared.machine), self.process.take());
        self.enter(Phase::Clearing(tokio::spawn(async move {
            let outcome = {
                let machine = Arc::clone(&machine);
                blocking(move || machine.set_aside(id)).await
            };
            match (&outcome, iomux) {
                (Ok(()), iomux) => machine.remove_later(id, iomux),
                // It is destroyed again, as a whole.
                (Err(_), Some(iomux)) => iomux.end_within(REAP_TIME).await,
                (Err(_), None) => {}
            }
            outcome
        })));
    }

    fn clear(&mut self) {
        self.shared.jobs.keep_files_of_held();
        let shared = Arc::clone(&self.shared);
        self.enter(Phase::Clearing(tokio::task::spawn_blocking(move || shared.machine.clear(shared.id))));
    }

    fn enter(&mut self, phase: Phase) {
        if let Some(ending) = &mut self.ending {
            ending.phase = phase;
        }
    }
}
