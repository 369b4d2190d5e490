//! The machine as what containers stand on: how each object of the ledger is made and undone in the kernel.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::create::Making;
use crate::error::{Context, Error};
use crate::failpoint;
use crate::id::Id;
use crate::ledger::{self, Ground, Object};
use crate::machine::Machine;
use crate::recovery::{self, Survivor, Verdict};
use crate::snapshot::Snapshot;
use crate::supervisor;

impl Ground for Machine {
    type Making = Making;
    type Survivor = Survivor;

    fn make(&self, making: &mut Making, object: Object) -> Result<(), Error> {
        failpoint::reach(format_args!("make {object:?}"));
        making.make(object)?;
        failpoint::reach(format_args!("made {object:?}"));
        Ok(())
    }

    fn undo(&self, id: Id, object: Object) -> Result<(), Error> {
        failpoint::reach(format_args!("undo {object:?}"));
        match object {
            Object::Snapshot => self.withdraw(id),
            Object::Network => self.network.detach(id),
            Object::Processes => self.end_processes(id),
            // It goes with the directory.
            Object::Spec => Ok(()),
            Object::Cgroups => self.cgroups.remove(id, Instant::now() + self.patience()),
            Object::Directory => self.depot.remove(id),
            Object::Leases => {
                self.network.release_ports(id);
                if let Some(held) = self.pools.take(id) {
                    self.network.give_back(id, held);
                }
                Ok(())
            }
        }
    }

    fn discard(&self, id: Id) -> Result<(), Error> {
        // Where an earlier daemon's trash has its name, that goes first.
        self.depot.discard(id).map(drop).or_else(|_| self.depot.remove(id))
    }

    fn known(&self) -> Result<Vec<Id>, Error> {
        let found = [self.depot.containers()?, self.depot.set_aside(), self.cgroups.parent.leftovers()];
        let ids: BTreeSet<Id> = found.into_iter().flatten().collect();
        Ok(ids.into_iter().collect())
    }

    fn judge(&self, id: Id) -> Result<Option<Survivor>, Error> {
        let directory = self.depot.directory(id);
        let judged = recovery::judge(id, &directory);
        let snapshot = match &judged {
            Ok(snapshot) => Some(snapshot),
            Err((_, snapshot)) => snapshot.as_deref(),
        };
        let leases = snapshot.map(|snapshot| {
            self.pools.adopt(id, snapshot.network, snapshot.network_v6, snapshot.user, snapshot.ids)
        });
        if leases.is_none()
            && let Some(spec) = self.depot.read_spec(id)
        {
            // Should its processes not die, nobody else becomes them.
            self.pools.adopt_ids(id, spec.user.id, spec.ids);
        }
        match (judged, leases) {
            (Ok(snapshot), Some(leases)) => Ok(Some(Survivor { snapshot, leases })),
            (Err((reason @ Verdict::Unreadable(_), _)), _) => {
                reason.check_version(&directory)?;
                tracing::error!(container = %id, %reason, "a container of an earlier daemon is removed");
                Ok(None)
            }
            (Err((reason, _)), _) => {
                tracing::info!(container = %id, %reason, "a container of an earlier daemon is removed");
                Ok(None)
            }
            (Ok(_), None) => Ok(None),
        }
    }

    fn restore(&self, survivors: &mut Vec<Survivor>, others: &[Id]) -> Result<(), Error> {
        // What could not be destroyed stays off the network.
        let (held, connected): (Vec<_>, Vec<_>) =
            survivors.iter().partition(|survivor| survivor.snapshot.quarantined);
        let networks = connected.into_iter().map(Survivor::network).collect();
        let others: Vec<_> =
            others.iter().copied().chain(held.iter().map(|survivor| survivor.snapshot.id)).collect();
        let refused = self.network.restore(networks, &others)?;
        for survivor in held {
            self.network.hold_ports(survivor.snapshot.id, &survivor.snapshot.opened.net_in);
        }
        for (id, error) in refused {
            tracing::error!(container = %id, %error, "a container is left alone: its rules cannot be made");
            survivors.retain(|survivor| survivor.snapshot.id != id);
        }
        Ok(())
    }
}

impl Machine {
    /// Ends what there is of a container and removes all it owns; from its id alone, as often as one likes.
    pub(crate) fn destroy(&self, id: Id) -> Result<(), Error> {
        ledger::destroy(self, id, &Object::ALL)
    }

    /// The same for a container whose snapshot its actor keeps, and has withdrawn.
    pub(crate) fn clear(&self, id: Id) -> Result<(), Error> {
        ledger::destroy(self, id, Object::ALL.split_last().map_or(&[], |(_, below)| below))
    }

    /// Ends iomux, then whatever runs in the container.
    fn end_processes(&self, id: Id) -> Result<(), Error> {
        let ended = supervisor::end(&self.depot.spec_path(id));
        let killed = self.cgroups.kill(id, Instant::now() + self.patience());
        Error::join([ended, killed].into_iter().filter_map(Result::err).collect()).map_or(Ok(()), Err)
    }

    /// Writes down that a container is being destroyed, so that nobody takes it over any more.
    fn withdraw(&self, id: Id) -> Result<(), Error> {
        Snapshot::withdraw(&self.depot.directory(id))
            .context(|| format!("withdrawing the snapshot of container {id}"))
    }
}
