//! What is done when iomux cannot be heard any more, or the container's init has ended: another iomux takes over, or the
//! container is stopped with an event that says so, and whoever waits for something inside is told.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::actor::Actor;
use crate::copies;
use crate::error::Error;
use crate::link::{Link, Lost};
use crate::machine::KILL_TIME;
use crate::state::State;

/// How many iomuxes of one container may say what is not understood before it is ended.
pub(crate) const MAX_MISUNDERSTOOD: u32 = 3;

impl Actor {
    /// The link has ended: with iomux, if nothing was wrong before. One that is not understood is ended: what it holds
    /// wshd holds too.
    pub(crate) fn hear_no_more(&mut self, lost: &Lost) {
        if !matches!(lost, Lost::Closed) {
            self.misunderstood += 1;
        }
        if self.can_be_replaced() && self.misunderstood <= MAX_MISUNDERSTOOD {
            self.replace_supervisor(lost);
        } else {
            self.lose(lost);
        }
    }

    /// Goes on when iomux has ended.
    pub(crate) fn supervisor_exited(&mut self) {
        self.process = None;
        // What it said before is still to be heard; its socket may be held open by somebody else.
        while let Some(event) = self.link.as_mut().and_then(Link::next_now) {
            match event {
                Ok(event) => self.hear(event),
                Err(lost) => self.hear_no_more(&lost),
            }
        }
        if self.link.is_some() {
            self.hear_no_more(&Lost::Closed);
        }
        self.end_after_exit();
    }

    /// Goes on when all that ran inside has ended.
    pub(crate) fn init_died(&mut self) {
        self.link = None;
        self.idle = true;
        self.end_jobs();
        self.end_copies(copies::ENDED);
        if self.ending.is_none() {
            self.died("init died");
            self.shared.set_state(State::Stopped);
            self.save_later();
        }
        self.stop_ended(Ok(()));
        self.end_after_gone();
    }

    /// Goes on without iomux: nothing that happens inside can be known any more, so nothing may run inside.
    pub(crate) fn lose(&mut self, lost: &Lost) {
        self.link = None;
        self.shared.jobs.measure();
        self.end_jobs();
        self.end_copies(copies::ENDED);
        if self.ending.is_none() {
            tracing::error!(container = %self.shared.id, error = %lost, "lost iomux");
            self.died("supervisor died");
            self.shared.set_state(State::Stopped);
            self.save_later();
            if let Some(process) = &self.process {
                process.kill();
            }
            self.kill_processes();
        }
        let error = self.no_supervisor("stopping");
        self.stop_ended(Err(error));
        self.end_after_loss();
    }

    /// Kills what runs inside, off the async threads; a destruction looks for survivors itself.
    fn kill_processes(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = shared.machine.cgroups.kill(shared.id, Instant::now() + KILL_TIME) {
                tracing::error!(container = %shared.id, %error, "processes of a lost container still run");
            }
        });
    }

    fn died(&mut self, event: &str) {
        tracing::error!(container = %self.shared.id, event, "the container has ended by itself");
        self.shared.add_event(event);
    }

    pub(crate) fn no_supervisor(&self, action: &str) -> Error {
        Error::Failed {
            action: format!("{action} container {}", self.shared.id),
            source: io::Error::other("it has ended"),
        }
    }
}
