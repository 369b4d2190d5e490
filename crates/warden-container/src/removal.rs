//! What takes the kernel long when a container is destroyed, and what nobody waits for: iomux's own end, cgroups, files.
//!
//! A destruction is answered when nothing of the container runs and its handle, its addresses and its directory are out
//! of the way; it leaves its id here. A thread that exists only while there is something to do removes all that was left
//! meanwhile. Should containers ever be destroyed faster than that, those that are being made wait. What a daemon
//! that is killed leaves here is found by its successor: it has a cgroup, or is in the trash.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::error::Error;
use crate::id::Id;
use crate::machine::{self, Machine};
use crate::pool::lock;
use crate::process::Process;

/// How long ids are gathered, out of the way of the requests that follow.
const GATHERING: Duration = Duration::from_millis(50);
/// How long iomux may take to end after its init.
const END_TIME: Duration = Duration::from_secs(5);
/// Destroyed containers that may be left before creations wait.
const MOST: usize = 256;
/// How long a creation waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a removal is tried, and the pause before it is tried again.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Destroyed containers of which something is left.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    left: Mutex<Left>,
    /// There is room again.
    room: Notify,
    /// Nothing is left.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Left {
    waiting: Vec<(Id, u32)>,
    /// With those whose iomux is still ending, and those that are being removed.
    count: usize,
    /// Whether there is a thread.
    working: bool,
}

impl Removals {
    /// Waits until there is room for another container.
    pub(crate) async fn room(&self) -> Result<(), Error> {
        if self.count() < MOST {
            return Ok(());
        }
        tracing::warn!(left = self.count(), "creations wait for the removal of destroyed containers");
        let waiting = async {
            loop {
                let room = self.room.notified();
                if self.count() < MOST {
                    return;
                }
                room.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.map_err(|_| Error::TimedOut {
            action: format!("waiting for the removal of {} destroyed containers", self.count()),
            seconds: PATIENCE.as_secs(),
        })
    }

    /// Waits until nothing is left, but not for ever. Blocks.
    pub(crate) fn settle(&self, patience: Duration) {
        let left = lock(&self.left);
        let busy = |left: &mut Left| left.count > 0;
        drop(self.done.wait_timeout_while(left, patience, busy).unwrap_or_else(PoisonError::into_inner));
    }

    fn count(&self) -> usize {
        lock(&self.left).count
    }

    /// Takes all that wait; where there are none, the thread must end.
    fn take(&self) -> Option<Vec<(Id, u32)>> {
        let mut left = lock(&self.left);
        if left.waiting.is_empty() {
            left.working = false;
            return None;
        }
        Some(std::mem::take(&mut left.waiting))
    }

    fn finish(&self, count: usize) {
        let mut left = lock(&self.left);
        left.count -= count;
        if left.count < MOST {
            self.room.notify_waiters();
        }
        if left.count == 0 {
            self.done.notify_all();
        }
    }
}

impl Machine {
    /// Removes what is left of a container in which nothing runs, later, once its iomux has ended.
    pub(crate) fn remove_later(self: &Arc<Self>, id: Id, iomux: Option<Process>) {
        lock(&self.removals.left).count += 1;
        let machine = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(process) = iomux {
                process.end_within(END_TIME).await;
            }
            machine.enqueue(id);
        });
    }

    fn enqueue(self: &Arc<Self>, id: Id) {
        {
            let mut left = lock(&self.removals.left);
            left.waiting.push((id, 1));
            if std::mem::replace(&mut left.working, true) {
                return;
            }
        }
        let machine = Arc::clone(self);
        let started = thread::Builder::new().name("removal".to_owned()).spawn(move || machine.remove_all());
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for the removal of containers");
            self.remove_all();
        }
    }

    fn remove_all(&self) {
        loop {
            thread::sleep(GATHERING);
            let Some(batch) = self.removals.take() else { return };
            let failed: Vec<_> = batch.iter().filter_map(|&(id, attempt)| self.remove(id, attempt)).collect();
            self.removals.finish(batch.len() - failed.len());
            if !failed.is_empty() {
                thread::sleep(PAUSE);
                lock(&self.removals.left).waiting.extend(failed);
            }
        }
    }

    /// Removes what is left of one; where that fails, gives what is to be tried again.
    fn remove(&self, id: Id, attempt: u32) -> Option<(Id, u32)> {
        let removed = match self.cgroups.remove(id, Instant::now()) {
            Ok(()) => self.depot.remove(id),
            // Something has got into them that was no process of the container's own.
            Err(_) => machine::teardown(&self.depot, &self.cgroups, id),
        };
        match removed {
            Ok(()) => None,
            Err(error) if attempt < ATTEMPTS => {
                tracing::warn!(container = %id, %error, "a destroyed container is not wholly removed yet");
                Some((id, attempt + 1))
            }
            Err(error) => {
                tracing::error!(container = %id, %error, "something of a destroyed container is left to the next daemon");
                None
            }
        }
    }
}
