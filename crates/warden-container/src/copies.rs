//! Copies between the host and a container, as its actor sees them: iomux does the work, the actor answers when it is
//! done, fails, makes no progress, or is waited for no more.

use std::collections::HashMap;
use std::io;
use std::time::Instant;

use tokio::sync::mpsc;
use warden_copy::Totals;
use warden_iomux::message::{CopyFailure, CopyOrder, Request, Side};

use crate::actor::{Actor, Command, Reply};
use crate::admission::Operation;
use crate::error::Error;
use crate::request::Direction;

/// Copies at a time in one container: each is two processes.
const MAX_COPIES: usize = 16;

/// Why there is none in a container without processes.
pub(crate) const ENDED: &str = "the container has ended";

/// The copies that go on.
#[derive(Debug, Default)]
pub(crate) struct Copies(HashMap<u32, Copying>);

#[derive(Debug)]
struct Copying {
    /// What is being done, for people.
    action: String,
    totals: Totals,
    /// When something of it was last heard.
    heard: Instant,
    reply: Reply<Totals>,
}

impl Copying {
    /// What was being done, and how far it came.
    fn so_far(&self, totals: Totals) -> String {
        format!("{}: {} entries and {} bytes had arrived", self.action, totals.entries, totals.bytes)
    }
}

impl Copies {
    /// When the first of them has made no progress for too long.
    pub(crate) fn deadline(&self, patience: std::time::Duration) -> Option<Instant> {
        self.0.values().map(|copying| copying.heard + patience).min()
    }
}

/// Cancels a copy that nobody waits for any more.
#[derive(Debug)]
pub(crate) struct CancelOnDrop {
    pub(crate) number: u32,
    pub(crate) inbox: mpsc::Sender<Command>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let command = Command::CancelCopy { number: self.number };
        if let Err(mpsc::error::TrySendError::Full(command)) = self.inbox.try_send(command) {
            let inbox = self.inbox.clone();
            // A closed inbox means that the container, and the copy with it, is gone.
            tokio::spawn(async move { drop(inbox.send(command).await) });
        }
    }
}

impl Actor {
    pub(crate) fn copy(&mut self, order: CopyOrder, reply: Reply<Totals>) {
        if let Err(refusal) = self.ask_for_copy(&order) {
            drop(reply.send(Err(refusal)));
            return;
        }
        let copying =
            Copying { action: describe(&order), totals: Totals::default(), heard: Instant::now(), reply };
        self.copies.0.insert(order.copy, copying);
    }

    fn ask_for_copy(&mut self, order: &CopyOrder) -> Result<(), Error> {
        let operation = match order.direction {
            Direction::In => Operation::CopyIn,
            Direction::Out => Operation::CopyOut,
        };
        self.shared.admit(operation)?;
        if self.copies.0.len() >= MAX_COPIES {
            return Err(Error::TooManyCopies(MAX_COPIES));
        }
        let failed = |source| Error::Failed { action: describe(order), source };
        let link = self.link.as_mut().ok_or_else(|| failed(io::Error::other(ENDED)))?;
        link.send(&Request::Copy(order.clone()), None).map_err(failed)
    }

    pub(crate) fn copy_progressed(&mut self, number: u32, totals: Totals) {
        if let Some(copying) = self.copies.0.get_mut(&number) {
            copying.totals = totals;
            copying.heard = Instant::now();
        }
    }

    pub(crate) fn copy_ended(&mut self, number: u32, totals: Totals, failure: Option<CopyFailure>) {
        // One that was given up, or that nobody waits for any more.
        let Some(copying) = self.copies.0.remove(&number) else { return };
        let outcome = match failure {
            None => Ok(totals),
            Some(failure) => Err(copying.failed(totals, &failure)),
        };
        drop(copying.reply.send(outcome));
    }

    pub(crate) fn cancel_copy(&mut self, number: u32) {
        if self.copies.0.remove(&number).is_some() {
            self.send(&Request::CancelCopy { copy: number });
        }
    }

    /// Gives up the copies that have made no progress for too long.
    pub(crate) fn give_up_stalled_copies(&mut self, now: Instant) {
        let patience = self.shared.machine.settings.copy_stall_time;
        let stalled = |copying: &Copying| copying.heard + patience <= now;
        let numbers: Vec<u32> =
            self.copies.0.iter().filter(|(_, copying)| stalled(copying)).map(|(number, _)| *number).collect();
        for number in numbers {
            let Some(copying) = self.copies.0.remove(&number) else { continue };
            self.send(&Request::CancelCopy { copy: number });
            let action = format!("{}, and then no progress", copying.so_far(copying.totals));
            drop(copying.reply.send(Err(Error::TimedOut { action, seconds: patience.as_secs() })));
        }
    }

    /// Ends all of them: iomux, or the whole container, cannot be heard any more.
    pub(crate) fn end_copies(&mut self, why: &str) {
        for copying in std::mem::take(&mut self.copies.0).into_values() {
            let source = io::Error::other(why.to_owned());
            let error = Error::Failed { action: copying.so_far(copying.totals), source };
            drop(copying.reply.send(Err(error)));
        }
    }
}

impl Copying {
    fn failed(&self, totals: Totals, failure: &CopyFailure) -> Error {
        let place = match failure.side {
            Side::Inside => " in the container",
            Side::Outside => "",
        };
        let action = match failure.step {
            Some(step) => format!("{}, then {step} {}{place}", self.so_far(totals), show(&failure.path.0)),
            None => self.so_far(totals),
        };
        Error::Failed { action, source: io::Error::from_raw_os_error(failure.errno) }
    }
}

fn describe(order: &CopyOrder) -> String {
    let (source, target) = (show(&order.source.0), show(&order.target.0));
    match order.direction {
        Direction::In => format!("copying {source} in to {target}"),
        Direction::Out => format!("copying {source} out to {target}"),
    }
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
