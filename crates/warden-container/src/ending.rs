//! How a container is destroyed, step by step, each with a deadline:
//!
//! ```text
//! stop the jobs --> kill init --> set aside (network, directory) --> gone; the rest is removed later
//!                       |             |
//!                       |             +-- failed --> quarantined
//!                       |                            ^  |
//!                       |                     failed |  | retried
//!                       |                            |  v
//!                       +--> reap iomux, kill what is left, remove all --> gone
//!                        iomux does not say that all inside has ended
//! ```
//!
//! What cannot be removed, mostly because a process does not die, is in quarantine: whoever waits is told why at once, the
//! container is stopped with an event that says so, it keeps its address, user, ids and directory, and it is tried again
//! ever more rarely, also by the next daemon. Nothing else waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use warden_iomux::message::Request;

use crate::actor::{Actor, Reply};
use crate::error::Error;
use crate::network::Namespace;
use crate::quarantine;
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
    /// How often removing it has failed.
    failures: u32,
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
    /// It could not be removed; it is tried again at this moment.
    Quarantined(Instant),
}

impl Ending {
    /// The moment by which the phase must be over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Killing(deadline) | Phase::Reaping(deadline) | Phase::Quarantined(deadline) => {
                Some(deadline)
            }
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
            if matches!(ending.phase, Phase::Quarantined(_)) {
                self.clear();
            }
            return;
        }
        self.shared.write_obituary();
        self.ending = Some(Ending { phase: Phase::Stopping, waiters: vec![reply], failures: 0 });
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
            Phase::Reaping(deadline) | Phase::Quarantined(deadline) if deadline <= now => self.clear(),
            _ => {}
        }
    }

    /// Answers when all is removed; when not, the container is quarantined.
    pub(crate) fn cleared(&mut self, outcome: Result<(), Error>) {
        match &outcome {
            Ok(()) => {
                tracing::info!(container = %self.shared.id, "destroyed");
                self.shared.gone();
                self.finished = true;
            }
            Err(error) => self.quarantine(error),
        }
        let waiters = self.ending.as_mut().map(|ending| std::mem::take(&mut ending.waiters));
        for waiter in waiters.unwrap_or_default() {
            // Written, so that the next daemon goes on with it.
            self.answer_saved(waiter, outcome.as_ref().copied().map_err(Error::again));
        }
    }

    fn quarantine(&mut self, error: &Error) {
        let Some(ending) = &mut self.ending else { return };
        let pause = quarantine::pause(ending.failures);
        ending.failures = ending.failures.saturating_add(1);
        ending.phase = Phase::Quarantined(Instant::now() + pause);
        tracing::error!(container = %self.shared.id, %error, again_in = pause.as_secs(), "quarantined: it cannot be destroyed");
        if !self.shared.quarantined.swap(true, Ordering::SeqCst) {
            self.shared.add_event(&format!("quarantined: {error}"));
        }
        self.shared.set_state(State::Stopped);
        if ending.waiters.is_empty() {
            self.save_later();
        }
    }

    /// Takes over a container that an earlier daemon could not destroy, and tries again.
    pub(crate) fn go_on_ending(&mut self) {
        self.idle = true;
        self.shared.write_obituary();
        self.ending = Some(Ending { phase: Phase::Stopping, waiters: Vec::new(), failures: 0 });
        self.clear();
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
        // Its interface goes with its namespace, and with that whether a packet has ever passed.
        let namespace = Namespace::hold(self.init);
        tokio::task::spawn_blocking(move || {
            // A daemon that follows ends what was begun.
            if let Err(error) = shared.withdraw() {
                tracing::warn!(container = %shared.id, %error, "that it is being destroyed was not written down");
            }
            if let Err(error) = shared.machine.network.detach(shared.id) {
                tracing::warn!(container = %shared.id, %error, "disconnecting failed at first");
            }
            drop(namespace);
        });
    }

    fn kill_supervisor(&mut self) {
        tracing::error!(container = %self.shared.id, "iomux did not kill its container in time");
        self.link = None;
        if let Some(process) = &self.process {
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
        self.enter(Phase::Clearing(tokio::task::spawn_blocking(move || {
            let outcome = machine.set_aside(id);
            match (&outcome, iomux) {
                (Ok(()), iomux) => machine.remove_later(id, iomux),
                // It is destroyed again, as a whole.
                (Err(_), Some(iomux)) => Handle::current().block_on(iomux.end_within(REAP_TIME)),
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
