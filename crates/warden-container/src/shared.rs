//! What a container's actor and those who act beside it share: what the container is, and how it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use warden_init::spec::IdRange;
use warden_iomux::message::ExitCause;

use crate::admission::{Operation, admit};
use crate::error::Error;
use crate::id::Id;
use crate::info::{BandwidthStat, Info};
use crate::jobs::{Jobs, Limits};
use crate::leases::Leases;
use crate::limits::ContainerLimits;
use crate::machine::Machine;
use crate::pool::lock;
use crate::recovery::Survivor;
use crate::registry::Registry;
use crate::settings::Addresses;
use crate::state::State;

/// One container, for everybody who holds it.
///
/// Once it has an actor, only that one changes its state, its events and whether it is stopping or quarantined; what an
/// actor that a fault has ended leaves is cleared without it. Its limits, its network, its counters and what is on the disk
/// change beside the actor, by the tasks and blocking threads of requests: each is atomic, or has a lock of its own.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: Id,
    pub(crate) handle: Vec<u8>,
    /// Its place in the order in which containers were handed out.
    pub(crate) birth: u64,
    pub(crate) path: PathBuf,
    pub(crate) machine: Arc<Machine>,
    /// Where clients find it; weak, because it is found there.
    registry: Weak<Registry>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) limits: ContainerLimits,
    /// How many copies were begun: the next one's number.
    copies: AtomicU32,
    /// Its grace time.
    pub(crate) grace: Option<Duration>,
    pub(crate) addresses: Addresses,
    /// The inside id of vcap.
    pub(crate) user: u32,
    pub(crate) ids: Option<IdRange>,
    /// Whether its jobs are being ended.
    pub(crate) stopping: AtomicBool,
    /// Whether destroying it has failed.
    pub(crate) quarantined: AtomicBool,
    /// How often its memory had run out when that was last told, or when it was first watched.
    pub(crate) out_of_memory: AtomicU64,
    /// Jobs whose excess of output was told, with their status.
    pub(crate) accounted: Mutex<BTreeMap<u32, u32>>,
    /// Changes since its beginning of what its snapshot tells; and those that are on the disk.
    pub(crate) changes: AtomicU64,
    pub(crate) saved: AtomicU64,
    /// Held by who writes it.
    pub(crate) saving: Mutex<()>,
    status: Mutex<Status>,
    /// Held while what an actor left is cleared without it.
    pub(crate) clearing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Status {
    state: State,
    events: Vec<String>,
    /// Its info when its destruction began: what late answers tell.
    obituary: Option<Info>,
    gone: bool,
}

impl Shared {
    /// Describes a container that is being handed out.
    pub(crate) fn new(
        id: Id,
        handle: Vec<u8>,
        machine: Arc<Machine>,
        registry: &Arc<Registry>,
        leases: Leases,
        grace: Option<Duration>,
    ) -> Arc<Self> {
        let birth = machine.next_birth();
        Arc::new(Self { birth, ..Self::of(id, handle, machine, registry, leases, grace) })
    }

    /// Describes a container that an earlier daemon has made.
    pub(crate) fn recovered(
        machine: Arc<Machine>,
        registry: &Arc<Registry>,
        survivor: Survivor,
    ) -> Arc<Self> {
        let Survivor { snapshot, leases } = survivor;
        let grace = snapshot.grace_time.map(Duration::from_secs);
        let shared = Self::of(snapshot.id, snapshot.handle, machine, registry, leases, grace);
        let ended = snapshot.jobs.into_iter().filter_map(|(job, status)| Some((job, status?)));
        Arc::new(Self {
            birth: snapshot.birth,
            limits: ContainerLimits::recovered(snapshot.limits),
            stopping: AtomicBool::new(snapshot.stopping),
            quarantined: AtomicBool::new(snapshot.quarantined),
            out_of_memory: AtomicU64::new(snapshot.out_of_memory),
            accounted: Mutex::new(ended.collect()),
            // It is on the disk.
            changes: AtomicU64::new(0),
            status: Mutex::new(Status {
                state: snapshot.state,
                events: snapshot.events,
                obituary: None,
                gone: false,
            }),
            ..shared
        })
    }

    fn of(
        id: Id,
        handle: Vec<u8>,
        machine: Arc<Machine>,
        registry: &Arc<Registry>,
        leases: Leases,
        grace: Option<Duration>,
    ) -> Self {
        let path = machine.depot.directory(id);
        let settings = &machine.settings;
        let limits = Limits { count: settings.max_finished_jobs, bytes: settings.max_finished_bytes };
        Self {
            id,
            handle,
            birth: 0,
            jobs: Jobs::new(path.join("jobs"), limits),
            path,
            machine,
            limits: ContainerLimits::default(),
            copies: AtomicU32::new(0),
            registry: Arc::downgrade(registry),
            grace,
            addresses: leases.addresses,
            user: leases.user,
            ids: leases.ids,
            stopping: AtomicBool::new(false),
            quarantined: AtomicBool::new(false),
            out_of_memory: AtomicU64::new(0),
            accounted: Mutex::default(),
            changes: AtomicU64::new(1),
            saved: AtomicU64::new(0),
            saving: Mutex::default(),
            status: Mutex::new(Status {
                state: State::Born,
                events: Vec::new(),
                obituary: None,
                gone: false,
            }),
            clearing: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn state(&self) -> State {
        lock(&self.status).state
    }

    pub(crate) fn set_state(&self, state: State) {
        lock(&self.status).state = state;
        self.changed();
    }

    pub(crate) fn state_and_events(&self) -> (State, Vec<String>) {
        let status = lock(&self.status);
        (status.state, status.events.clone())
    }

    /// Adds something that clients show to their users, unless it has been told already: what repeats would grow
    /// without bound, with each snapshot and each answer.
    pub(crate) fn add_event(&self, text: &str) {
        {
            let events = &mut lock(&self.status).events;
            if events.iter().any(|event| event == text) {
                return;
            }
            events.push(text.to_owned());
        }
        self.changed();
    }

    /// Tells that a job has written too much.
    pub(crate) fn account_excess(&self, job: u32) {
        let status = ExitCause::OutputLimit.status();
        if lock(&self.accounted).insert(job, status).is_none() {
            self.add_event("command exceeded maximum output");
        }
    }

    /// Notes how often its memory has run out; whether that is more often than it was told. Blocks.
    pub(crate) fn account_memory(&self) -> bool {
        let count = match self.machine.cgroups.out_of_memory(self.id) {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(container = %self.id, %error, "how often its memory has run out is not known");
                return false;
            }
        };
        let before = self.out_of_memory.swap(count, Ordering::SeqCst);
        if before != count {
            self.changed();
        }
        count > before
    }

    /// Admits an operation, or refuses it.
    pub(crate) fn admit(&self, operation: Operation) -> Result<(), Error> {
        self.machine.check_open()?;
        admit(self.state(), operation)
    }

    /// Numbers a copy that begins.
    pub(crate) fn next_copy(&self) -> u32 {
        self.copies.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes the obituary, unless there is one, or no job whose answer it would be a part of.
    pub(crate) fn write_obituary(&self) {
        if !self.jobs.exist() {
            return;
        }
        let info = self.look();
        lock(&self.status).obituary.get_or_insert(info);
    }

    /// What late answers tell of it, once its destruction has begun.
    pub(crate) fn obituary(&self) -> Option<Info> {
        lock(&self.status).obituary.clone()
    }

    /// Notes that nothing is left: its name is free again.
    pub(crate) fn gone(&self) {
        {
            let mut status = lock(&self.status);
            status.state = State::Destroyed;
            status.gone = true;
        }
        if let Some(registry) = self.registry.upgrade() {
            registry.remove(&self.handle);
        }
        self.machine.activity.changed();
    }

    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.status).gone
    }

    /// Asks the kernel for its limits of bandwidth, which it may let wait. Blocks.
    pub(crate) fn look_at_bandwidth(&self) -> Result<BandwidthStat, Error> {
        match self.limits.requested().bandwidth {
            Some(asked) => self.machine.network.bandwidth(self.id, asked),
            None => Ok(BandwidthStat::default()),
        }
    }

    /// Looks at all of it but its limits of bandwidth.
    pub(crate) fn look(&self) -> Info {
        let (state, events) = self.state_and_events();
        Info {
            state,
            events,
            host_ip: self.addresses.host,
            container_ip: self.addresses.container,
            ipv6: self.addresses.v6.map(|v6| (v6.host, v6.container)),
            path: self.path.clone(),
            memory: self.machine.cgroups.memory(self.id),
            cpu: self.machine.cgroups.cpu(self.id),
            disk: self.machine.depot.disk_stat(self.id),
            pressure: self.machine.cgroups.pressure(self.id),
            bandwidth: BandwidthStat::default(),
            jobs: self.jobs.running(),
        }
    }
}
