//! How the jobs of a container are ended: who waits for it, and what is sent when ([`crate::stop_plan`]).

use std::sync::atomic::Ordering;
use std::time::Instant;

use warden_iomux::message::Request;

use crate::actor::{Actor, Reply};
use crate::admission::Operation;
use crate::error::Error;
use crate::request::Stop;
use crate::state::State;
use crate::stop_plan::{Due, StopPlan};

/// A stop under way.
#[derive(Debug)]
pub(crate) struct Stopping {
    plan: StopPlan,
    waiters: Vec<Reply<()>>,
}

impl Stopping {
    /// When there is something to be done.
    pub(crate) fn deadline(&self) -> Instant {
        self.plan.next()
    }
}

impl Actor {
    /// Begins to stop the container, or joins who has begun; the state changes at once.
    pub(crate) fn stop(&mut self, stop: Stop, reply: Reply<()>) {
        if let Err(refusal) = self.shared.admit(Operation::Stop) {
            drop(reply.send(Err(refusal)));
            return;
        }
        self.shared.set_state(State::Stopped);
        if self.idle {
            self.answer_saved(reply, Ok(()));
            return;
        }
        if self.link.is_none() {
            drop(reply.send(Err(self.no_supervisor("stopping"))));
            return;
        }
        if stop.background {
            self.begin_stop(stop.kill, None);
            self.answer_saved(reply, Ok(()));
        } else {
            self.begin_stop(stop.kill, Some(reply));
            self.save_later();
        }
    }

    /// Begins to end the jobs, or hurries who has begun.
    pub(crate) fn begin_stop(&mut self, kill: bool, waiter: Option<Reply<()>>) {
        let now = Instant::now();
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.changed();
        let stopping = self
            .stopping
            .get_or_insert_with(|| Stopping { plan: StopPlan::new(now, kill), waiters: Vec::new() });
        stopping.waiters.extend(waiter);
        if kill {
            stopping.plan.hurry(now);
        }
        self.stop_further(now);
    }

    /// Does what is due of a stop.
    pub(crate) fn stop_further(&mut self, now: Instant) {
        let Some(stopping) = &mut self.stopping else { return };
        match stopping.plan.due(now) {
            Due::Wait => {}
            Due::Signal(signal) => self.send(&Request::SignalAll { signal }),
            Due::End => {
                tracing::warn!(container = %self.shared.id, "wshd does not answer: the container ends as a whole");
                self.send(&Request::Kill);
            }
            Due::GiveUp => {
                let error = Error::TimedOut {
                    action: format!("stopping container {}", self.shared.id),
                    seconds: StopPlan::limit().as_secs(),
                };
                // Who waits for it is told.
                if self.stopping.as_ref().is_none_or(|stopping| stopping.waiters.is_empty()) {
                    tracing::error!(container = %self.shared.id, %error, "it does not stop");
                }
                self.stop_ended(Err(error));
            }
        }
    }

    /// Answers those who wait for the stop; a destruction goes on with or without its success.
    pub(crate) fn stop_ended(&mut self, outcome: Result<(), Error>) {
        if outcome.is_ok() && self.shared.stopping.swap(false, Ordering::SeqCst) {
            self.shared.changed();
            // A destruction writes it all down in a moment.
            if self.ending.is_none() {
                self.save_later();
            }
        }
        for waiter in self.stopping.take().map(|stopping| stopping.waiters).unwrap_or_default() {
            self.answer_saved(waiter, outcome.as_ref().copied().map_err(Error::again));
        }
        self.end_after_stop();
    }

    /// Notes that nothing runs inside but wshd.
    pub(crate) fn became_idle(&mut self) {
        // A signal of our own or of an operator: only after a stop can nothing be started any more.
        if self.shared.state() != State::Active {
            self.idle = true;
            self.stop_ended(Ok(()));
        }
    }
}
