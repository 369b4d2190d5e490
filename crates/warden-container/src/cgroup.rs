//! Control groups: one `instance-<id>` in every hierarchy that counts or limits something.
//!
//! A machine has version 1 hierarchies (one or a few controllers each), the version 2 hierarchy, or both (hybrid).
//! Here they are one list: version 1 for the controllers that are there, version 2 for those that are only there.
//! Where the groups are is in [`parent`], how they end in [`ending`].

pub(crate) mod cpu;
mod devices;
mod ending;
pub(crate) mod hierarchy;
pub(crate) mod memory;
pub(crate) mod oom;
mod parent;
mod pressure;
mod stat;
mod throttle;
pub(crate) mod victim;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use warden_init::byte_string::ByteString;
use warden_init::spec::Cgroup;

use crate::cgroup::hierarchy::{Hierarchy, Version};
use crate::cgroup::oom::Watch;
use crate::cgroup::parent::Parent;
pub(crate) use crate::cgroup::parent::name;
use crate::cgroup::victim::Victim;
use crate::device::Device;
use crate::error::{Context, Error};
use crate::id::Id;
use crate::info::{CpuStat, MemoryStat, PressureStat};
use crate::limits::no_controller;
use crate::request::Cpu;
use crate::settings::IoLimits;

/// The control groups of all containers of one daemon.
#[derive(Debug)]
pub(crate) struct Cgroups {
    pub(crate) parent: Parent,
    devices: devices::Program,
}

impl Cgroups {
    /// Looks at the machine's hierarchies and makes the parent in each.
    pub(crate) fn prepare(parent: &str) -> Result<Self, Error> {
        Ok(Self::below(Parent::prepare(parent)?))
    }

    /// Looks at the groups below a parent, and makes nothing; none where there is no parent.
    pub(crate) fn inspect(parent: &str) -> Result<Option<Self>, Error> {
        Ok(Parent::inspect(parent)?.map(Self::below))
    }

    fn below(parent: Parent) -> Self {
        Self { parent, devices: devices::Program::default() }
    }

    /// Names the groups of one container, as its first process joins them.
    pub(crate) fn of(&self, id: Id) -> Vec<Cgroup> {
        let cgroup = |hierarchy: &Hierarchy| {
            let path = ByteString::from(self.parent.directory(hierarchy, id));
            match hierarchy.version {
                Version::V1 => Cgroup::V1(path),
                Version::V2 => Cgroup::V2(path),
            }
        };
        self.parent.hierarchies.iter().map(cgroup).collect()
    }

    /// Makes the groups of one container, in which at most `tasks` processes and threads live at a time.
    pub(crate) fn create(&self, id: Id, all_devices: bool, tasks: u64) -> Result<(), Error> {
        for hierarchy in &self.parent.hierarchies {
            let directory = self.parent.directory(hierarchy, id);
            let made = match fs::create_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.parent.make(hierarchy)?;
                    fs::create_dir(&directory)
                }
                made => made,
            };
            made.context(|| format!("making cgroup {}", directory.display()))?;
            self.confine(hierarchy, &directory, all_devices)?;
            if hierarchy.has("pids") {
                limit_tasks(hierarchy.version, &directory, tasks)?;
            }
        }
        Ok(())
    }

    /// Lets a group use the listed devices only. Version 2 has no controller for them but programs; on a machine with
    /// both, the controller of version 1 is enough.
    fn confine(&self, hierarchy: &Hierarchy, directory: &Path, all_devices: bool) -> Result<(), Error> {
        match hierarchy.version {
            Version::V1 if hierarchy.has("devices") => devices::allow_v1(directory, all_devices),
            Version::V2 if !all_devices && self.with("devices").is_none() => self.devices.allow(directory),
            Version::V1 | Version::V2 => Ok(()),
        }
    }

    /// Reads the memory of one container.
    pub(crate) fn memory(&self, id: Id) -> Option<MemoryStat> {
        let hierarchy = self.with("memory")?;
        stat::memory(hierarchy.version, &self.parent.directory(hierarchy, id))
    }

    /// Reads the CPU time of one container.
    pub(crate) fn cpu(&self, id: Id) -> Option<CpuStat> {
        let hierarchy = self.with("cpuacct").or_else(|| self.with("cpu"))?;
        stat::cpu(hierarchy.version, &self.parent.directory(hierarchy, id))
    }

    /// Reads how long the tasks of one container have waited, where the kernel measures it.
    pub(crate) fn pressure(&self, id: Id) -> Option<PressureStat> {
        let unified = self.parent.hierarchies.iter().find(|hierarchy| hierarchy.version == Version::V2)?;
        pressure::read(&self.parent.directory(unified, id))
    }

    /// Whether reading and writing of devices can be limited.
    pub(crate) fn limits_io(&self) -> bool {
        self.with("blkio")
            .or_else(|| self.with("io"))
            .is_some_and(|hierarchy| throttle::is_there(hierarchy.version, &self.parent.within(hierarchy)))
    }

    /// Limits what one container reads from a device and writes to it.
    pub(crate) fn limit_io(&self, id: Id, device: Device, limits: &IoLimits) -> Result<(), Error> {
        let Some(hierarchy) = self.with("blkio").or_else(|| self.with("io")) else { return Ok(()) };
        throttle::limit(hierarchy.version, &self.parent.directory(hierarchy, id), device, limits)
            .context(|| format!("limiting reading and writing of device {device}"))
    }

    /// Reads the limit of one container's memory, bytes.
    pub(crate) fn memory_limit(&self, id: Id) -> io::Result<u64> {
        let (version, directory) = self.controlled(id, "memory")?;
        memory::limit(version, &directory)
    }

    /// Limits the memory, with swap, of one container; `None` lifts the limit.
    pub(crate) fn limit_memory(&self, id: Id, limit: Option<u64>) -> io::Result<()> {
        let (version, directory) = self.controlled(id, "memory")?;
        memory::set_limit(version, &directory, limit)
    }

    /// Watches one container's memory for its end.
    pub(crate) fn watch_memory(&self, id: Id) -> io::Result<Watch> {
        let (version, directory) = self.controlled(id, "memory")?;
        Watch::new(version, &directory)
    }

    /// How often one container's processes were killed because its memory had run out.
    pub(crate) fn out_of_memory(&self, id: Id) -> io::Result<u64> {
        let (version, directory) = self.controlled(id, "memory")?;
        oom::kills(version, &directory)
    }

    /// The most memory that one container has used at a time, bytes.
    pub(crate) fn memory_peak(&self, id: Id) -> Option<u64> {
        let (version, directory) = self.controlled(id, "memory").ok()?;
        memory::peak(version, &directory)
    }

    /// Who was killed when one container ran out of memory, where the kernel's log can be read.
    pub(crate) fn victim(&self, id: Id) -> Option<Victim> {
        victim::find(&name(id))
    }

    /// Reads the limits of one container's processor time; `asked` are the shares that were asked for.
    pub(crate) fn cpu_limits(&self, id: Id, asked: Option<u64>) -> io::Result<Cpu> {
        let (version, directory) = self.controlled(id, "cpu")?;
        let shares = cpu::shares(version, &directory, asked)?;
        Ok(Cpu { shares: Some(shares), quota: cpu::quota(version, &directory)? })
    }

    /// Limits one container's processor time: what is absent stays, a quota of `None` is lifted. Where one part is
    /// refused, the other is as before; `before` are the shares that were asked for then.
    pub(crate) fn limit_cpu(
        &self,
        id: Id,
        shares: Option<u64>,
        quota: Option<Option<u64>>,
        before: Option<u64>,
    ) -> io::Result<()> {
        let (version, directory) = self.controlled(id, "cpu")?;
        let undo = cpu::shares(version, &directory, before)?;
        if let Some(shares) = shares {
            cpu::set_shares(version, &directory, shares)?;
        }
        let Some(quota) = quota else { return Ok(()) };
        cpu::set_quota(version, &directory, quota).inspect_err(|_| {
            // They were the group's a moment ago.
            let _ = cpu::set_shares(version, &directory, undo);
        })
    }

    fn with(&self, controller: &str) -> Option<&Hierarchy> {
        self.parent.hierarchies.iter().find(|hierarchy| hierarchy.has(controller))
    }

    /// The group of one container that a controller looks at.
    fn controlled(&self, id: Id, controller: &str) -> io::Result<(Version, PathBuf)> {
        let hierarchy = self.with(controller).ok_or_else(|| no_controller(controller))?;
        Ok((hierarchy.version, self.parent.directory(hierarchy, id)))
    }
}

/// Limits the tasks of a group.
fn limit_tasks(version: Version, directory: &Path, tasks: u64) -> Result<(), Error> {
    let path = directory.join("pids.max");
    match write_existing(&path, &tasks.to_string()) {
        // A parent that was not allowed to pass the controller on (logged there).
        Err(error) if version == Version::V2 && error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written.context(|| format!("writing {tasks} to {}", path.display())),
    }
}

/// Writes to a file of the kernel; never makes one.
fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    pub(super) fn unique(name: &str) -> String {
        format!("warden-test-{}-{name}", std::process::id())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// Removes what a test made, also when it failed.
    pub(super) struct Cleanup(pub(super) Cgroups, pub(super) Id);

    impl Drop for Cleanup {
        fn drop(&mut self) {
            let _ = self.0.kill(self.1, soon());
            let _ = self.0.remove(self.1, soon());
            self.0.parent.remove();
        }
    }

    #[test]
    fn groups_are_made_read_killed_and_removed() {
        let id = Id::parse(b"0123456789a").unwrap();
        let groups = Cleanup(Cgroups::prepare(&unique("life")).unwrap(), id);
        groups.0.create(id, false, 2048).unwrap();
        assert_eq!(groups.0.parent.leftovers(), [id]);
        assert!(groups.0.cpu(id).unwrap().usage.is_some());
        if groups.0.with("memory").is_some() {
            assert!(groups.0.memory(id).unwrap().total_rss.is_some());
        }
        let mut child = Command::new("sleep").arg("100").stdout(Stdio::null()).spawn().unwrap();
        for group in groups.0.of(id) {
            let (Cgroup::V1(path) | Cgroup::V2(path)) = group;
            fs::write(path.as_path().join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        groups.0.kill(id, soon()).unwrap();
        assert!(!child.wait().unwrap().success());
        groups.0.remove(id, soon()).unwrap();
        groups.0.remove(id, soon()).unwrap();
        groups.0.kill(id, soon()).unwrap();
        assert!(groups.0.parent.leftovers().is_empty());
        assert_eq!(groups.0.memory(id), None);
        groups.0.parent.remove();
        assert!(
            groups.0.parent.hierarchies.iter().all(|hierarchy| !groups.0.parent.within(hierarchy).exists())
        );
    }

    #[test]
    fn a_dead_group_sheds_the_pages_of_files_that_are_still_there() {
        let id = Id::parse(b"0123456789d").unwrap();
        let groups = Cleanup(Cgroups::prepare(&unique("pages")).unwrap(), id);
        groups.0.create(id, false, 2048).unwrap();
        let hierarchy = groups.0.with("memory").unwrap();
        let directory = groups.0.parent.directory(hierarchy, id);
        // What is in a tmpfs is no copy of anything, and stays.
        let places = [std::env::temp_dir(), "/var/tmp".into()];
        let on_disk = |place: &&PathBuf| rustix::fs::statfs(*place).unwrap().f_type != 0x0102_1994;
        let file = tempfile::NamedTempFile::new_in(places.iter().find(on_disk).unwrap()).unwrap();
        // Charged to the group is what it brings into the cache first.
        let script = r#"echo 0 >"$1/cgroup.procs" && head -c 8000000 /dev/zero >"$2" && sync "$2""#;
        let arguments = ["-c", script, "sh"];
        let child = Command::new("sh").args(arguments).arg(&directory).arg(file.path()).status().unwrap();
        assert!(child.success());
        let name = match hierarchy.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        let charged = || {
            let text = fs::read_to_string(directory.join(name)).unwrap();
            text.trim().parse::<u64>().unwrap()
        };
        assert!(charged() > 8_000_000);
        memory::shed_pages(hierarchy.version, &directory);
        assert!(charged() < 2_000_000, "{}", charged());
    }

    #[test]
    fn devices_are_those_of_the_list() {
        let id = Id::parse(b"0123456789c").unwrap();
        let groups = Cleanup(Cgroups::prepare(&unique("devices")).unwrap(), id);
        let controller = groups.0.with("devices");
        let hierarchy = controller.unwrap_or_else(|| groups.0.parent.hierarchies.last().unwrap());
        let directory = groups.0.parent.directory(hierarchy, id);
        let opens = |device: &str| {
            let script =
                format!("echo $$ > {}/cgroup.procs && exec dd count=0 if={device}", directory.display());
            std::process::Command::new("sh").args(["-c", &script]).output().unwrap()
        };
        for (all, mut allowed) in [(false, devices::rules_v1(false)), (true, vec!["a *:* rwm".to_owned()])] {
            groups.0.create(id, all, 2048).unwrap();
            assert!(opens("/dev/zero").status.success());
            let foreign = opens("/dev/kmsg");
            assert_eq!(foreign.status.success(), all, "{foreign:?}");
            if !all {
                assert!(String::from_utf8_lossy(&foreign.stderr).contains("Operation not permitted"));
            }
            if controller.is_some() {
                let listed = fs::read_to_string(directory.join("devices.list")).unwrap();
                let mut listed: Vec<_> = listed.lines().collect();
                listed.sort_unstable();
                allowed.sort_unstable();
                assert_eq!(listed, allowed);
            }
            groups.0.remove(id, soon()).unwrap();
        }
    }

    #[test]
    fn tasks_are_limited() {
        let id = Id::parse(b"0123456789d").unwrap();
        let groups = Cleanup(Cgroups::prepare(&unique("tasks")).unwrap(), id);
        groups.0.create(id, false, 77).unwrap();
        let hierarchy = groups.0.with("pids").unwrap();
        let kept = fs::read_to_string(groups.0.parent.directory(hierarchy, id).join("pids.max")).unwrap();
        assert_eq!(kept.trim(), "77");
    }
}
