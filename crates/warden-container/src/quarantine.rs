//! What is left of containers that nobody can name: those of an earlier daemon, and those that were never handed out, which
//! could not be removed. They keep their leases and directories, and are tried again, ever more rarely. Those that clients
//! know are kept by their actors ([`crate::ending`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::error::blocking;
use crate::id::Id;
use crate::machine::Machine;
use crate::pool::lock;

/// The first pause between two attempts; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How often it can double.
const DOUBLINGS: u32 = 6;

/// How long to wait after this many failures more than the first.
pub(crate) fn pause(failures: u32) -> Duration {
    FIRST_PAUSE * (1 << failures.min(DOUBLINGS))
}

/// The nameless, each with how often it was tried in vain and when it is tried again.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    held: Mutex<BTreeMap<Id, (u32, Instant)>>,
    added: Arc<Notify>,
}

impl Quarantine {
    /// Takes in what could not be removed, or could not once more.
    pub(crate) fn add(&self, id: Id) {
        let mut held = lock(&self.held);
        let failures = held.get(&id).map_or(0, |(failures, _)| failures.saturating_add(1));
        held.insert(id, (failures, Instant::now() + pause(failures)));
        self.added.notify_one();
    }

    /// Lets go of one.
    fn remove(&self, id: Id) {
        lock(&self.held).remove(&id);
    }

    /// The next one to be tried.
    fn next(&self) -> Option<(Instant, Id)> {
        lock(&self.held).iter().map(|(id, (_, due))| (*due, *id)).min()
    }
}

/// Tries again, as long as there is a machine; wakes up only when something is due.
pub(crate) async fn keep(machine: Weak<Machine>) {
    loop {
        let Some((next, added)) = machine
            .upgrade()
            .map(|machine| (machine.quarantine.next(), Arc::clone(&machine.quarantine.added)))
        else {
            return;
        };
        let Some((due, id)) = next else {
            added.notified().await;
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => retry(&machine, id).await,
            () = added.notified() => {}
        }
    }
}

async fn retry(machine: &Weak<Machine>, id: Id) {
    let Some(machine) = machine.upgrade() else { return };
    let attempt = Arc::clone(&machine);
    match blocking(move || attempt.destroy(id)).await {
        Ok(()) => {
            tracing::info!(container = %id, "removed what was quarantined");
            machine.quarantine.remove(id);
        }
        Err(error) => {
            tracing::error!(container = %id, %error, "quarantined: it cannot be removed");
            machine.quarantine.add(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rare_and_never_cease() {
        let pauses: Vec<_> = (0..9).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(pause(u32::MAX).as_secs(), 64);
    }

    #[test]
    fn the_first_that_is_due_is_next() {
        let quarantine = Quarantine::default();
        assert!(quarantine.next().is_none());
        let [first, second] = [b"00000000001", b"00000000002"].map(|id| Id::parse(id).unwrap());
        quarantine.add(first);
        quarantine.add(second);
        assert_eq!(quarantine.next().unwrap().1, first);
        quarantine.add(first);
        assert_eq!(quarantine.next().unwrap().1, second);
        quarantine.remove(second);
        assert_eq!(quarantine.next().unwrap().1, first);
    }
}
