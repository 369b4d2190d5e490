//! What takes the kernel long when a container is destroyed, and what nobody waits for: iomux's own end, cgroups, files.
//!
//! A destruction is answered when nothing of the container runs, nobody reaches it, and its handle and its directory are
//! out of the way; it leaves its id here. A thread that exists only while there is something to do undoes the rest of the
//! [ledger](crate::ledger) of all that were left meanwhile. Who finds a pool empty waits for it; so do all creations should
//! containers ever be destroyed faster than removed. What a daemon that is killed leaves here is found by its successor:
//! it has a cgroup, or is in the trash.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::Error;
use crate::failpoint;
use crate::id::Id;
use crate::leases::Leases;
use crate::machine::Machine;
use crate::pool::lock;
use crate::process::Process;

/// How long ids are gathered, out of the way of the requests that follow.
const GATHERING: Duration = Duration::from_millis(50);
/// How much longer for each container that stands: the end of a memory cgroup makes the kernel look at every superblock of
/// the machine, while it lets nobody make a cgroup. Many in a row hinder fewer creations than one now and then.
const GATHERING_MORE: Duration = Duration::from_micros(100);
const GATHERING_MOST: Duration = Duration::from_millis(300);
/// How long iomux may take to end after its init.
const END_TIME: Duration = Duration::from_secs(5);
/// Destroyed containers that may be left before creations wait.
const MOST: u64 = 256;
/// How long a creation waits for room, or for what it needs of the pools.
const PATIENCE: Duration = Duration::from_secs(30);
/// Containers that are removed at a time.
const AT_A_TIME: usize = 4;
/// How often a removal is tried, and the pause before it is tried again.
const ATTEMPTS: u32 = 10;
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Destroyed containers of which something is left.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    left: Mutex<Left>,
    /// There is room again.
    room: Notify,
    /// Somebody waits.
    hurried: Condvar,
    /// Some are removed.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Left {
    waiting: Vec<(Id, u32)>,
    /// How many have ever been left, those whose iomux is still ending among them, and how many are removed.
    begun: u64,
    finished: u64,
    /// Whether there is a thread.
    working: bool,
    /// Whether somebody waits for it.
    hurried: bool,
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

    /// Waits until nothing is left, as long as that becomes less. Blocks.
    pub(crate) fn finish_all(&self, patience: Duration) {
        loop {
            let before = lock(&self.left).finished;
            self.settle(patience);
            let left = lock(&self.left);
            if left.count() == 0 {
                return;
            }
            if left.finished == before {
                tracing::warn!(
                    left = left.count(),
                    "something of destroyed containers is left to the next daemon"
                );
                return;
            }
        }
    }

    /// Waits until as many are removed as are left now, but not for ever. Blocks.
    pub(crate) fn settle(&self, patience: Duration) {
        let mut left = lock(&self.left);
        left.hurried = left.count() > 0;
        self.hurried.notify_all();
        let all = left.begun;
        let busy = |left: &mut Left| left.finished < all;
        drop(self.done.wait_timeout_while(left, patience, busy).unwrap_or_else(PoisonError::into_inner));
    }

    fn count(&self) -> u64 {
        lock(&self.left).count()
    }

    /// Takes all that wait after a while; where there are none, the thread must end.
    fn take(&self, gathering: Duration) -> Option<Vec<(Id, u32)>> {
        let left = lock(&self.left);
        let patient = |left: &mut Left| !left.hurried;
        let waited = self.hurried.wait_timeout_while(left, gathering, patient);
        let (mut left, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if left.waiting.is_empty() {
            left.working = false;
            return None;
        }
        Some(std::mem::take(&mut left.waiting))
    }

    fn finish(&self, count: usize) {
        let mut left = lock(&self.left);
        left.finished += count as u64;
        if left.count() < MOST {
            self.room.notify_waiters();
        }
        left.hurried &= left.count() > 0;
        self.done.notify_all();
    }
}

impl Left {
    fn count(&self) -> u64 {
        self.begun - self.finished
    }
}

fn gathering(standing: usize) -> Duration {
    let more = GATHERING_MORE.saturating_mul(u32::try_from(standing).unwrap_or(u32::MAX));
    GATHERING.saturating_add(more).min(GATHERING_MOST)
}

impl Machine {
    /// Leases what a container needs; what is on its way back to a pool that is empty is waited for. Blocks.
    pub(crate) fn lease(&self, id: Id, network: Option<&[u8]>) -> Result<Leases, Error> {
        self.pools.lease(id, network).or_else(|_| {
            self.removals.settle(PATIENCE);
            self.network.settle();
            self.pools.lease(id, network)
        })
    }

    /// Takes a container in which nothing runs out of everybody's way.
    pub(crate) fn set_aside(&self, id: Id) -> Result<(), Error> {
        let detached = self.network.detach(id);
        failpoint::reach(format_args!("discard"));
        let outcomes = [detached, self.depot.discard(id).map(drop)];
        failpoint::reach(format_args!("discarded"));
        match Error::join(outcomes.into_iter().filter_map(Result::err).collect()) {
            Some(error) => Err(error),
            None => {
                self.network.release_ports(id);
                Ok(())
            }
        }
    }

    /// Removes what is left of a container in which nothing runs, later, once its iomux has ended.
    pub(crate) fn remove_later(self: &Arc<Self>, id: Id, iomux: Option<Process>) {
        lock(&self.removals.left).begun += 1;
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
            let Some(batch) = self.removals.take(gathering(self.network.count())) else { return };
            let failed = Mutex::new(Vec::new());
            let next = AtomicUsize::new(0);
            let work = || {
                while let Some(&(id, attempt)) = batch.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match self.remove(id, attempt) {
                        None => self.removals.finish(1),
                        Some(again) => lock(&failed).push(again),
                    }
                }
            };
            // The kernel lets each of them wait for something else.
            thread::scope(|scope| {
                for _ in 1..batch.len().min(AT_A_TIME) {
                    // Without another thread it takes longer.
                    let _ = thread::Builder::new().spawn_scoped(scope, work);
                }
                work();
            });
            let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
            if !failed.is_empty() {
                thread::sleep(PAUSE);
                lock(&self.removals.left).waiting.extend(failed);
            }
        }
    }

    /// Removes what is left of one; where that fails, gives what is to be tried again.
    pub(crate) fn remove(&self, id: Id, attempt: u32) -> Option<(Id, u32)> {
        // What fails here fails again in what follows, and is told then.
        let _ = self.depot.shed(id);
        match self.clear(id) {
            Ok(()) => {
                // What it held can be leased again.
                self.activity.changed();
                None
            }
            Err(error) if attempt < ATTEMPTS => {
                tracing::warn!(container = %id, %error, "a destroyed container is not wholly removed yet");
                Some((id, attempt + 1))
            }
            Err(error) => {
                tracing::error!(container = %id, %error, "something of a destroyed container is still there");
                self.quarantine.add(id);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(removals: &Removals, count: u64) {
        lock(&removals.left).begun += count;
    }

    #[test]
    fn the_more_containers_stand_the_more_are_removed_in_a_row() {
        let milliseconds = |standing| gathering(standing).as_millis();
        assert_eq!([0, 10, 1_000, 2_000, 10_000].map(milliseconds), [50, 51, 150, 250, 300]);
        assert_eq!(gathering(usize::MAX), GATHERING_MOST);
    }

    #[tokio::test]
    async fn creations_wait_while_too_many_are_left() {
        let removals = Arc::new(Removals::default());
        left(&removals, MOST - 1);
        removals.room().await.unwrap();
        left(&removals, 1);
        let waiting = tokio::spawn({
            let removals = Arc::clone(&removals);
            async move { removals.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        removals.finish(1);
        waiting.await.unwrap().unwrap();
    }

    #[test]
    fn the_end_waits_as_long_as_something_is_removed() {
        let removals = Arc::new(Removals::default());
        left(&removals, 3);
        let pause = Duration::from_secs(2);
        let waiting = thread::spawn({
            let removals = Arc::clone(&removals);
            move || removals.finish_all(pause)
        });
        for _ in 0..3 {
            // Longer in all than nothing may happen.
            thread::sleep(pause * 2 / 5);
            assert!(!waiting.is_finished());
            removals.finish(1);
        }
        waiting.join().unwrap();
        left(&removals, 1);
        removals.finish_all(Duration::from_millis(1));
        assert_eq!(removals.count(), 1, "what is not removed is not waited for");
    }

    #[test]
    fn who_settles_waits_for_what_is_left_now_and_not_for_what_comes() {
        let removals = Arc::new(Removals::default());
        removals.settle(PATIENCE);
        left(&removals, 2);
        let waiting = thread::spawn({
            let removals = Arc::clone(&removals);
            move || removals.settle(PATIENCE)
        });
        while !lock(&removals.left).hurried {
            thread::yield_now();
        }
        left(&removals, 5);
        removals.finish(2);
        waiting.join().unwrap();
        assert_eq!(removals.count(), 5);
    }
}
