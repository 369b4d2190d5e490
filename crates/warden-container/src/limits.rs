//! The limits of one container that clients change while it runs: each request is checked whole before it changes
//! anything, and two at the same time take turns.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::actor::Command;
use crate::cgroup::{cpu, memory};
use crate::container::Shared;
use crate::disk;
use crate::error::{Context, Error, blocking};
use crate::pool::lock;
use crate::request::{self, Bandwidth, Cpu};

/// What clients have limited, as they asked for it; absent where nobody did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requested {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// Of the processors.
    pub(crate) cpu: Cpu,
    /// What is stored; the depot's file system keeps it, too.
    pub(crate) disk: Option<disk::Limits>,
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
            cgroups.limit_memory(shared.id, limit).context(setting_memory)?;
            if let Some(watch) = watch {
                // An actor that has ended has nothing left that could run out of memory.
                *watched = inbox.blocking_send(Command::Watch { watch }).is_ok();
            }
            lock(&shared.limits.requested).memory = Some(bytes);
        }
        cgroups.memory_limit(shared.id).context(|| "Failed getting memory limit".to_owned())
    })
    .await
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
        cgroups
            .limit_cpu(shared.id, shares, quota, before.shares.map(cpu::nearest_shares))
            .context(|| "Failed setting cpu shares".to_owned())?;
        let requested = Cpu { shares: asked.shares.or(before.shares), quota: asked.quota.or(before.quota) };
        lock(&shared.limits.requested).cpu = requested;
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
        let kept = shared.machine.depot.limit_disk(shared.id, &asked)?;
        if asked != request::Disk::default() {
            lock(&shared.limits.requested).disk = kept;
        }
        Ok(kept)
    })
    .await
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
        shared.machine.network.limit_bandwidth(shared.id, before, asked)?;
        lock(&shared.limits.requested).bandwidth = Some(asked);
        Ok(())
    })
    .await
}

/// The failure of a request that a machine's controllers cannot serve.
pub(crate) fn no_controller(controller: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this machine has no {controller} controller"))
}
