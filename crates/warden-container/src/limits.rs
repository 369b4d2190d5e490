//! The limits of one container that clients change while it runs: each request is checked whole before it changes
//! anything, and two at the same time take turns.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::actor::Command;
use crate::cgroup::oom::Watch;
use crate::cgroup::{cpu, memory};
use crate::disk;
use crate::error::{Context, Error, blocking};
use crate::pool::lock;
use crate::request::{self, Bandwidth, Cpu};
use crate::shared::Shared;

/// What clients have limited, as they asked for it; absent where nobody did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requested {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// Of the processors.
    pub(crate) cpu: Cpu,
    /// Into it and out of it.
    pub(crate) bandwidth: Option<Bandwidth>,
}

/// The limits of one container.
#[derive(Debug, Default)]
pub(crate) struct ContainerLimits {
    /// Held, off the async threads, while the kernel is asked: whether the container's memory is watched.
    turn: Mutex<bool>,
    requested: Mutex<Requested>,
}

impl ContainerLimits {
    /// What clients have asked for so far.
    pub(crate) fn requested(&self) -> Requested {
        *lock(&self.requested)
    }

    /// The limits of a container that is taken over, as its snapshot has them.
    pub(crate) fn recovered(requested: Requested) -> Self {
        Self { turn: Mutex::new(requested.memory.is_some()), requested: Mutex::new(requested) }
    }

    fn take_turn(&self) -> MutexGuard<'_, bool> {
        lock(&self.turn)
    }
}

/// Sets the limit of memory, or only reads it; gives it as the kernel keeps it, bytes.
pub(crate) async fn memory(
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Command>,
    bytes: Option<u64>,
) -> Result<u64, Error> {
    blocking(move || {
        let mut watched = shared.limits.take_turn();
        let cgroups = &shared.machine.cgroups;
        if let Some(bytes) = bytes {
            let limit = memory::check(bytes, memory::of_machine()).map_err(|reason| Error::BadLimit {
                what: "memory limit",
                value: bytes,
                reason,
            })?;
            // Before the limit: nothing it does goes unseen.
            let watch =
                if *watched { None } else { Some(cgroups.watch_memory(shared.id).context(setting_memory)?) };
            let before = shared.limits.requested().memory;
            let apply = || {
                cgroups.limit_memory(shared.id, limit).map_err(|source| match source.kind() {
                    io::ErrorKind::ResourceBusy => Error::BadLimit {
                        what: "memory limit",
                        value: bytes,
                        reason: "more is in use, and cannot be given back".to_owned(),
                    },
                    _ => Error::Failed { action: setting_memory(), source },
                })?;
                if let Some(watch) = watch {
                    // An actor that has ended has nothing left that could run out of memory.
                    *watched = inbox.blocking_send(Command::Watch { watch }).is_ok();
                }
                if lock(&shared.limits.requested).memory.replace(bytes).is_none() {
                    // Of what happened before nobody is to be told later.
                    shared.account_memory();
                }
                Ok(())
            };
            shared.change(apply, |()| {
                lock(&shared.limits.requested).memory = before;
                cgroups.limit_memory(shared.id, held_memory(before)).context(setting_memory)
            })?;
        }
        cgroups.memory_limit(shared.id).context(|| "Failed getting memory limit".to_owned())
    })
    .await
}

/// What the kernel is given for a limit of memory that it was given before.
fn held_memory(bytes: Option<u64>) -> Option<u64> {
    bytes.and_then(|bytes| memory::check(bytes, memory::of_machine()).unwrap_or(Some(bytes)))
}

fn setting_memory() -> String {
    "Failed setting memory limit".to_owned()
}

/// Sets the share of the processors and the quota, or only reads them; gives them as the kernel keeps them.
pub(crate) async fn cpu(shared: Arc<Shared>, asked: Cpu) -> Result<Cpu, Error> {
    blocking(move || {
        let _turn = shared.limits.take_turn();
        let before = shared.limits.requested().cpu;
        let quota = asked.quota.map(check_quota).transpose()?;
        let shares = asked.shares.map(cpu::nearest_shares);
        let cgroups = &shared.machine.cgroups;
        let requested = Cpu { shares: asked.shares.or(before.shares), quota: asked.quota.or(before.quota) };
        if asked != Cpu::default() {
            let apply = || {
                cgroups
                    .limit_cpu(shared.id, shares, quota, before.shares.map(cpu::nearest_shares))
                    .context(setting_cpu)?;
                lock(&shared.limits.requested).cpu = requested;
                Ok(())
            };
            shared.change(apply, |()| {
                lock(&shared.limits.requested).cpu = before;
                restore_cpu(&shared, before)
            })?;
        }
        cgroups
            .cpu_limits(shared.id, requested.shares.map(cpu::nearest_shares))
            .context(|| "Failed getting cpu shares".to_owned())
    })
    .await
}

/// Sets the limits of what is stored, or only reads them; gives them as the kernel keeps them.
pub(crate) async fn disk(shared: Arc<Shared>, asked: request::Disk) -> Result<Option<disk::Limits>, Error> {
    blocking(move || {
        let _turn = shared.limits.take_turn();
        // The depot's file system keeps the limits as long as the container's directory is there: no record of ours could
        // be as true.
        shared.machine.depot.limit_disk(shared.id, &asked)
    })
    .await
}

/// Sets in the kernel what a container's snapshot says, whatever an earlier daemon was about to set when it ended; watches
/// the memory first where it is limited.
pub(crate) fn restore(shared: &Shared) -> Result<Option<Watch>, Error> {
    let (cgroups, id) = (&shared.machine.cgroups, shared.id);
    let Requested { memory, cpu, bandwidth } = shared.limits.requested();
    let watch = memory.map(|_| cgroups.watch_memory(id)).transpose().context(setting_memory)?;
    if let Err(error) = cgroups.limit_memory(id, held_memory(memory))
        && memory.is_some()
    {
        return Err(error).context(setting_memory);
    }
    if let Err(error) = restore_cpu(shared, cpu)
        && cpu != Cpu::default()
    {
        return Err(error);
    }
    if let Some(limit) = bandwidth {
        shared.machine.network.limit_bandwidth(id, bandwidth, limit)?;
    }
    Ok(watch)
}

/// Sets shares and quota as they were asked for before, or as they are where nobody has asked.
fn restore_cpu(shared: &Shared, cpu: Cpu) -> Result<(), Error> {
    let quota = cpu.quota.and_then(|quota| check_quota(quota).ok()).flatten();
    let shares = cpu::nearest_shares(cpu.shares.unwrap_or(cpu::DEFAULT_SHARES));
    let cgroups = &shared.machine.cgroups;
    cgroups.limit_cpu(shared.id, Some(shares), Some(quota), None).context(setting_cpu)
}

fn setting_cpu() -> String {
    "Failed setting cpu shares".to_owned()
}

fn check_quota(quota: u64) -> Result<Option<u64>, Error> {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    cpu::check_quota(quota, processors).map_err(|reason| Error::BadLimit {
        what: "cpu quota",
        value: quota,
        reason,
    })
}

/// Sets the limit of bandwidth.
pub(crate) async fn bandwidth(shared: Arc<Shared>, asked: Bandwidth) -> Result<(), Error> {
    blocking(move || {
        let _turn = shared.limits.take_turn();
        let before = shared.limits.requested().bandwidth;
        let network = &shared.machine.network;
        let apply = || {
            network.limit_bandwidth(shared.id, before, asked)?;
            lock(&shared.limits.requested).bandwidth = Some(asked);
            Ok(())
        };
        shared.change(apply, |()| {
            lock(&shared.limits.requested).bandwidth = before;
            network.limit_bandwidth(shared.id, Some(asked), before.unwrap_or(Bandwidth::UNLIMITED))
        })
    })
    .await
}

/// The failure of a request that a machine's controllers cannot serve.
pub(crate) fn no_controller(controller: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this machine has no {controller} controller"))
}
