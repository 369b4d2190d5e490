//! What an earlier daemon left, however it ended, and how its containers are taken over.
//!
//! ```text
//!                              directory in the depot, or cgroup
//!                                            |
//!        no snapshot: never handed out ------+------ its init is dead (the machine was rebooted, say)
//!        no snapshot that can be read -------+------ its destruction had begun
//!                          |                 |                            |
//!                          +------> ended, and removed later <------------+
//!                                            |         (what does not die: quarantined, under its handle)
//!                                            |
//!                       else: adopted, with its rules, limits, jobs, addresses, grace time
//! ```
//!
//! [`ledger::recover`] takes what they hold out of the pools before anything is given out; the packet filter's table is
//! replaced once, by one that has the survivors' rules. Then all of them are adopted at the same time, and are found by clients
//! in the order of their creation. A container that lives and cannot be adopted keeps what it holds and is left alone.

// What arrives here may be anything: no length, index or sum may be taken on trust.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::task::JoinSet;
use warden_iomux::layout::Layout;
use warden_linux::socket::PacketSocket;

use crate::cgroup::oom::Watch;
use crate::container::Container;
use crate::dns;
use crate::error::{Context, Error, blocking};
use crate::id::Id;
use crate::leases::Leases;
use crate::ledger::{self, Remains};
use crate::leftovers::{processes, reconcile};
use crate::limits;
use crate::machine::Machine;
use crate::network::ContainerNetwork;
use crate::pool::lock;
use crate::registry::{Registry, Reservation};
use crate::shared::Shared;
use crate::snapshot::{self, Snapshot, Unreadable};
use crate::state::State;
use crate::supervisor::{Supervisor, is_absence};

pub(crate) mod jobs;

/// How many containers are removed at the same time.
const AT_A_TIME: usize = 8;

/// A container whose init lives.
#[derive(Debug)]
pub(crate) struct Survivor {
    pub(crate) snapshot: Snapshot,
    pub(crate) leases: Leases,
}

impl Survivor {
    /// Its part of the network.
    pub(crate) fn network(&self) -> ContainerNetwork {
        ContainerNetwork {
            id: self.snapshot.id,
            addresses: self.leases.addresses,
            records: self.snapshot.opened.clone(),
        }
    }
}

/// Why a container cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Verdict {
    #[error("it was never handed out")]
    NeverHandedOut,
    #[error("its snapshot cannot be read: {0}")]
    Unreadable(#[source] Unreadable),
    #[error("its destruction had begun")]
    Ending,
    #[error("its init is dead")]
    Dead,
}

impl Verdict {
    /// Refuses to judge a newer daemon's container: it is none to be removed by an older one.
    pub(crate) fn check_version(&self, directory: &Path) -> Result<(), Error> {
        let Self::Unreadable(Unreadable::Version(version)) = self else { return Ok(()) };
        let source = io::Error::other(format!("version {version}, of another wardend"));
        Err(source).context(|| format!("reading {}", directory.join(snapshot::NAME).display()))
    }
}

/// Finds what an earlier daemon left, and ends what cannot be taken over; gives what can, in the order of creation.
pub(crate) fn start(machine: &Machine) -> Result<Vec<Survivor>, Error> {
    let Remains { mut survivors, doomed } = ledger::recover(machine)?;
    for id in doomed.iter().copied().chain(survivors.iter().map(|survivor| survivor.snapshot.id)) {
        machine.ids.pass(id);
    }
    if !doomed.is_empty()
        && let Err(error) = processes::end(machine.depot.path(), |id| doomed.contains(&id))
    {
        tracing::error!(%error, "a supervisor of an earlier daemon's container still runs");
    }
    // One that takes long, or cannot be ended, keeps none of the others from it.
    let next = AtomicUsize::new(0);
    let undying = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..doomed.len().min(AT_A_TIME) {
            scope.spawn(|| {
                while let Some(&id) = doomed.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = ledger::end(machine, id) {
                        tracing::error!(container = %id, %error, "an earlier daemon's container is still there");
                        lock(&undying).push((id, error));
                    }
                }
            });
        }
    });
    let undying = undying.into_inner().unwrap_or_else(PoisonError::into_inner);
    let is_ended = |id: &Id| !undying.iter().any(|(undying, _)| undying == id);
    machine.inherited.take(doomed.into_iter().filter(is_ended).collect());
    for (id, error) in undying {
        match named_again(machine, id, &error) {
            Some(survivor) => survivors.push(survivor),
            None => machine.quarantine.add(id),
        }
    }
    reconcile::at_start(machine);
    machine.cgroups.parent.share()?;
    if machine.network.count() > 0 {
        // What runs on may have been told to ask here.
        machine.dns.serve(&machine.network, &fs::read(dns::RESOLV_CONF).unwrap_or_default());
    }
    Ok(survivors)
}

/// Gives a container whose destruction an earlier daemon had begun, and which cannot be destroyed, to whoever asked for
/// that: in quarantine, under its handle, with all that it holds.
fn named_again(machine: &Machine, id: Id, error: &Error) -> Option<Survivor> {
    let directory = machine.depot.directory(id);
    let read = Snapshot::read(&directory).ok().flatten();
    let mut snapshot = read.filter(|snapshot| snapshot.id == id)?;
    snapshot.events.push(format!("quarantined: {error}"));
    (snapshot.state, snapshot.stopping, snapshot.quarantined) = (State::Stopped, false, true);
    if let Err(error) = snapshot.write(&directory) {
        // It reads there that it is being destroyed, which is true as well.
        tracing::warn!(container = %id, %error, "that a container is quarantined was not written down");
    }
    let Snapshot { network, network_v6, user, ids, .. } = snapshot;
    let leases = machine.pools.adopt(id, network, network_v6, user, ids);
    machine.network.hold_ports(id, &snapshot.opened.net_in);
    Some(Survivor { snapshot, leases })
}

/// Whether a directory is that of a container which can be taken over.
pub(crate) fn judge(id: Id, directory: &Path) -> Result<Snapshot, (Verdict, Option<Box<Snapshot>>)> {
    let snapshot = match Snapshot::read(directory) {
        Ok(None) => return Err((Verdict::NeverHandedOut, None)),
        Ok(Some(snapshot)) if snapshot.id == id => snapshot,
        Ok(Some(snapshot)) => {
            let value = snapshot.id.to_string();
            return Err((Verdict::Unreadable(Unreadable::Value { key: "container_id", value }), None));
        }
        Err(error) => return Err((Verdict::Unreadable(error), None)),
    };
    let verdict = match snapshot.state {
        State::Destroyed | State::Born => Verdict::Ending,
        State::Active | State::Stopped if !snapshot.quarantined && is_dead(directory) => Verdict::Dead,
        State::Active | State::Stopped => return Ok(snapshot),
    };
    Err((verdict, Some(Box::new(snapshot))))
}

/// Whether nobody serves a container's init socket: the kernel closes it with the init, and with nothing before.
fn is_dead(directory: &Path) -> bool {
    let path = Layout::new(directory).wshd_socket();
    PacketSocket::connect(&path).is_err_and(|error| is_absence(&error))
}

/// Takes all survivors over.
pub(crate) async fn adopt(machine: &Arc<Machine>, registry: &Arc<Registry>, survivors: Vec<Survivor>) {
    let mut tasks = JoinSet::new();
    for survivor in survivors {
        let (machine, registry) = (Arc::clone(machine), Arc::clone(registry));
        tasks.spawn(async move { adopt_one(machine, &registry, survivor).await });
    }
    let mut adopted: Vec<_> = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        match outcome {
            Ok(container) => adopted.extend(container),
            Err(error) => tracing::error!(%error, "taking over a container"),
        }
    }
    adopted.sort_by_key(|(container, ..)| (container.birth(), container.id()));
    for (container, reservation, grace) in adopted {
        reservation.fill_adopted(container, grace);
    }
}

/// Takes one over, or says why not.
async fn adopt_one(
    machine: Arc<Machine>,
    registry: &Arc<Registry>,
    survivor: Survivor,
) -> Option<(Arc<Container>, Reservation, Option<Duration>)> {
    let id = survivor.snapshot.id;
    let reservation = match registry.reserve(survivor.snapshot.handle.clone()) {
        Ok(reservation) => reservation,
        Err(error) => {
            tracing::error!(container = %id, %error, "a container is left alone");
            return None;
        }
    };
    let is_quarantined = survivor.snapshot.quarantined;
    let shared = Shared::recovered(Arc::clone(&machine), registry, survivor);
    if is_quarantined {
        tracing::error!(container = %id, "quarantined: an earlier daemon could not destroy it");
        let grace = shared.grace;
        return Some((Container::quarantined(shared), reservation, grace));
    }
    match take(&shared).await {
        Ok(adoption) => {
            let grace = shared.grace;
            tracing::info!(container = %id, jobs = shared.jobs.running().len(), "taken over");
            Some((Container::adopt(shared, adoption), reservation, grace))
        }
        Err(error) => {
            tracing::error!(container = %id, %error, "a container that lives is left alone: it cannot be taken over");
            None
        }
    }
}

/// What the actor of a container that is taken over begins with.
#[derive(Debug)]
pub(crate) struct Adoption {
    pub(crate) supervisor: Supervisor,
    pub(crate) watch: Option<Watch>,
    /// Its memory ran out while no daemon watched it.
    pub(crate) ran_out_of_memory: bool,
}

async fn take(shared: &Arc<Shared>) -> Result<Adoption, Error> {
    let machine = &shared.machine;
    let spec = machine.depot.spec_path(shared.id);
    let supervisor = match Supervisor::find(&spec).await? {
        Some(supervisor) => supervisor,
        None => {
            tracing::warn!(container = %shared.id, "iomux is dead: another takes over");
            Supervisor::take_over(&machine.supervisors, &spec).await?
        }
    };
    let shared = Arc::clone(shared);
    let (watch, ran_out_of_memory) = blocking(move || {
        // iomux has done by now what the earlier daemon had asked of it: the files tell all.
        let found =
            jobs::scan(&shared.path).context(|| format!("reading the jobs of container {}", shared.id))?;
        shared.machine.pass_jobs(found.highest);
        for job in &found.jobs {
            if job.exceeded_its_limit() {
                shared.account_excess(job.number);
            }
            shared.jobs.recover(job.number, &job.found);
        }
        let watch = limits::restore(&shared)?;
        shared.save()?;
        // Written with its event, or not at all.
        let ran_out = watch.is_some() && shared.account_memory();
        Ok((watch, ran_out))
    })
    .await?;
    Ok(Adoption { supervisor, watch, ran_out_of_memory })
}
