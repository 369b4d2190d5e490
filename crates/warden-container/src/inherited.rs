//! What an earlier daemon has left in the trash. It holds nothing but room on the disk: nobody waits for it, and what clients
//! destroy meanwhile does not wait behind it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::id::Id;
use crate::machine::Machine;
use crate::pool::lock;
use crate::removal::PAUSE;

/// The trash of an earlier daemon, until it is empty.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// The containers that are still to be removed; what else there is comes after them.
    left: Mutex<Option<BTreeSet<Id>>>,
    /// Disconnected when the thread has ended.
    working: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Inherited {
    /// Takes charge of the trash, with these containers in it.
    pub(crate) fn take(&self, containers: BTreeSet<Id>) {
        *lock(&self.left) = Some(containers);
    }

    /// Whether an entry of the trash is removed by this, sooner or later.
    pub(crate) fn holds(&self, name: &str) -> bool {
        let is_left = |left: &BTreeSet<Id>| Id::parse(name.as_bytes()).is_none_or(|id| left.contains(&id));
        lock(&self.left).as_ref().is_some_and(is_left)
    }

    /// Leaves to the next daemon what is not removed yet; waits for what is under way, but not for ever. Blocks.
    pub(crate) fn leave(&self, patience: Duration) {
        if let Some(working) = lock(&self.working).take() {
            let _ = working.recv_timeout(patience);
        }
    }

    fn next(&self) -> Option<Id> {
        lock(&self.left).as_ref()?.first().copied()
    }

    fn removed(&self, id: Id) {
        if let Some(left) = &mut *lock(&self.left) {
            left.remove(&id);
        }
    }
}

impl Machine {
    /// Removes what is inherited, one after the other, until the daemon ends.
    pub(crate) fn remove_inherited(self: &Arc<Self>) {
        let (running, working) = mpsc::channel();
        *lock(&self.inherited.working) = Some(working);
        let machine = Arc::clone(self);
        let work = move || {
            machine.work_off();
            drop((machine, running));
        };
        if let Err(error) = thread::Builder::new().name("inherited".to_owned()).spawn(work) {
            tracing::warn!(%error, "no thread for what an earlier daemon left: it is removed as left over");
            *lock(&self.inherited.left) = None;
        }
    }

    fn work_off(&self) {
        while let Some(id) = self.inherited.next() {
            let mut attempt = 1;
            while let Some((_, next)) = self.remove(id, attempt) {
                attempt = next;
                thread::sleep(PAUSE);
                if self.check_open().is_err() {
                    return;
                }
            }
            self.inherited.removed(id);
            if self.check_open().is_err() {
                return;
            }
        }
        if let Err(error) = self.depot.empty_trash() {
            tracing::warn!(%error, "the trash was not emptied");
        }
        *lock(&self.inherited.left) = None;
    }
}
