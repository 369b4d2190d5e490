//! The host as containers use it: what is prepared once. What a container owns of it is in [`crate::ground`].

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::activity::Activity;
use crate::cgroup::Cgroups;
use crate::depot::Depot;
use crate::device::Device;
use crate::disk::image::DepotImage;
use crate::dns::Dns;
use crate::error::{Context, Error};
use crate::fork_server::ForkServer;
use crate::id::Ids;
use crate::image::{self, Lower};
use crate::inherited::Inherited;
use crate::leases::Pools;
use crate::network::Network;
use crate::quarantine::Quarantine;
use crate::recovery::{self, Survivor};
use crate::removal::Removals;
use crate::settings::{IoLimits, Settings};

/// How long the processes of a container may take to be gone, and its cgroups after them.
pub(crate) const KILL_TIME: Duration = Duration::from_secs(10);
/// The same for what an earlier daemon left, which is tried again later.
const START_PATIENCE: Duration = Duration::from_secs(1);

/// What all containers of one daemon share.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) settings: Settings,
    pub(crate) depot: Depot,
    /// What is mounted at the depot; dropped after it.
    image: Option<DepotImage>,
    pub(crate) cgroups: Cgroups,
    pub(crate) network: Network,
    pub(crate) dns: Dns,
    pub(crate) pools: Pools,
    pub(crate) ids: Ids,
    pub(crate) removals: Removals,
    pub(crate) inherited: Inherited,
    /// The device whose reading and writing is limited, where that is asked for and possible.
    pub(crate) io_device: Option<Device>,
    /// The configured image.
    pub(crate) lower: Lower,
    /// Where iomuxes come from.
    pub(crate) supervisors: ForkServer,
    /// What is left of containers that nobody can name.
    pub(crate) quarantine: Quarantine,
    /// Whether clients are served.
    serving: AtomicBool,
    /// What keeps the machine busy with requests.
    pub(crate) activity: Activity,
    jobs: AtomicU32,
    births: AtomicU64,
    closing: AtomicBool,
}

impl Machine {
    /// Prepares the machine, and ends what an earlier daemon left; gives the containers to take over.
    pub(crate) fn prepare(settings: Settings) -> Result<(Self, Vec<Survivor>), Error> {
        let machine = Self::open(settings)?;
        let survivors = recovery::start(&machine)?;
        let last_birth = survivors.iter().map(|survivor| survivor.snapshot.birth).max().unwrap_or_default();
        machine.births.store(last_birth.saturating_add(1), Ordering::Relaxed);
        machine.serving.store(true, Ordering::Release);
        Ok((machine, survivors))
    }

    /// Prepares depot, cgroups and image; leaves everything that bears an id as it is.
    pub(crate) fn open(settings: Settings) -> Result<Self, Error> {
        let image = settings.depot_image.as_ref();
        let image = image.map(|image| DepotImage::mount(image, &settings.depot)).transpose()?;
        let mut depot = Depot::open(&settings.depot)?;
        let network = Network::open(&settings)?;
        depot.limit_layers(settings.disk_quota)?;
        let supervisor = settings.helpers.join("iomux");
        examine_program(&supervisor)?;
        let cgroups = Cgroups::prepare(&settings.cgroup_parent)?;
        let pools = Pools::new(&settings);
        let ids = Ids::default();
        for id in depot.containers()? {
            ids.pass(id);
        }
        let lower = Lower::prepare(&settings.image, &depot, ids.next())?;
        // All ids are of the same length.
        let supervisors = ForkServer::new(supervisor, depot.spec_path(ids.next()).as_os_str().len());
        if let Err(error) = image::remove_unused(&depot, &lower) {
            tracing::warn!(%error, "old images were not removed");
        }
        Ok(Self {
            network,
            dns: Dns::new(&settings),
            pools,
            io_device: io_device(&settings, &cgroups),
            settings,
            depot,
            image,
            cgroups,
            ids,
            removals: Removals::default(),
            inherited: Inherited::default(),
            lower,
            supervisors,
            quarantine: Quarantine::default(),
            serving: AtomicBool::new(false),
            activity: Activity::default(),
            jobs: AtomicU32::new(1),
            births: AtomicU64::new(1),
            closing: AtomicBool::new(false),
        })
    }

    /// The next number of a job.
    pub(crate) fn next_job(&self) -> u32 {
        self.jobs.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives out no number of a job up to this one.
    pub(crate) fn pass_jobs(&self, used: u32) {
        self.jobs.fetch_max(used.saturating_add(1), Ordering::Relaxed);
    }

    /// How long the processes of a container may take to be gone; a start waits for none that does not die.
    pub(crate) fn patience(&self) -> Duration {
        if self.serving.load(Ordering::Acquire) { KILL_TIME } else { START_PATIENCE }
    }

    /// The next place in the order in which containers are handed out.
    pub(crate) fn next_birth(&self) -> u64 {
        self.births.fetch_add(1, Ordering::Relaxed)
    }

    /// Refuses requests from now on.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Lets go of the depot at the daemon's end; an image is unmounted when no container is left.
    pub(crate) fn leave_depot(&self) -> Result<(), Error> {
        self.depot.close();
        self.image.as_ref().map_or(Ok(()), DepotImage::unmount)
    }

    /// Refuses a request when the daemon is ending.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closing.load(Ordering::Acquire) { Err(Error::ShuttingDown) } else { Ok(()) }
    }
}

/// The device of the depot, if reading and writing it shall be limited; where that is impossible, the operator is told.
fn io_device(settings: &Settings, cgroups: &Cgroups) -> Option<Device> {
    if settings.io_limits == IoLimits::default() {
        return None;
    }
    let without = |why: &str| tracing::warn!(why, "server.io_limits has no effect");
    match Device::of(&settings.depot) {
        Ok(Some(device)) if cgroups.limits_io() => {
            tracing::info!(%device, "reading and writing of the depot's device is limited");
            return Some(device);
        }
        Ok(Some(_)) => without("no cgroup controller limits it"),
        Ok(None) => without("the depot is on no block device"),
        Err(error) => without(&format!("the depot's device is not known: {error}")),
    }
    None
}

fn examine_program(path: &Path) -> Result<(), Error> {
    let action = || format!("examining the program {}", path.display());
    let found = fs::metadata(path).context(action)?;
    if found.is_file() && found.permissions().mode() & 0o111 != 0 {
        return Ok(());
    }
    Err(io::Error::from(io::ErrorKind::PermissionDenied)).context(action)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::path::PathBuf;

    use super::*;

    fn program(directory: &Path, mode: u32) -> PathBuf {
        let path = directory.join("program");
        fs::write(&path, "text").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn what_cannot_be_executed_is_named() {
        let top = tempfile::tempdir().unwrap();
        let refused = examine_program(&program(top.path(), 0o644)).unwrap_err().to_string();
        assert!(
            refused.starts_with("examining the program ") && refused.ends_with("permission denied"),
            "{refused}"
        );
        assert!(examine_program(top.path()).is_err());
        assert!(examine_program(&top.path().join("none")).is_err());
    }
}
