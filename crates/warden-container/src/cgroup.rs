//! Control groups: one `instance-<id>` in every hierarchy that counts or limits something.
//!
//! A machine has version 1 hierarchies (one or a few controllers each), the version 2 hierarchy, or both (hybrid).
//! Here they are one list: version 1 for the controllers that are there, version 2 for those that are only there.

pub(crate) mod hierarchy;
mod kill;
mod stat;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use warden_init::byte_string::ByteString;
use warden_init::spec::Cgroup;

use crate::cgroup::hierarchy::{Hierarchy, Version};
use crate::error::{Context, Error};
use crate::id::Id;
use crate::info::{CpuStat, MemoryStat};

/// How a container's directory is named below the parent.
const PREFIX: &str = "instance-";
/// Pause between attempts of something that the kernel finishes by itself.
const PAUSE: Duration = Duration::from_millis(5);

/// Devices that every container may read and write (tty, random, zero and friends, pts, fuse): the original's list and
/// 1:7, /dev/full. Nobody may make nodes.
const DEVICES: [&str; 9] = [
    "c 1:3 rw",
    "c 1:5 rw",
    "c 1:7 rw",
    "c 1:8 rw",
    "c 1:9 rw",
    "c 5:0 rw",
    "c 5:2 rw",
    "c 136:* rw",
    "c 10:229 rw",
];
/// Devices of a container that runs a Warden of its own.
const NESTED_DEVICES: [&str; 1] = ["a *:* rw"];

/// The control groups of all containers of one daemon.
#[derive(Debug)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    parent: PathBuf,
    /// Says to other daemons that somebody uses the parent; released when the daemon ends, however it ends.
    lock: File,
    alone: bool,
}

impl Cgroups {
    /// Looks at the machine's hierarchies and makes the parent in each.
    pub(crate) fn prepare(parent: &str) -> Result<Self, Error> {
        let parent = PathBuf::from(parent);
        if parent.as_os_str().is_empty()
            || !parent.components().all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(io::Error::from(io::ErrorKind::InvalidInput))
                .context(|| format!("making the cgroup parent {}", parent.display()));
        }
        let hierarchies = hierarchy::detect()?;
        for hierarchy in &hierarchies {
            hierarchy.make_parent(&parent)?;
        }
        let first = hierarchies.first().map(|hierarchy| hierarchy.mount.join(&parent)).unwrap_or_default();
        let (lock, alone) = lock_directory(&first).context(|| format!("locking {}", first.display()))?;
        Ok(Self { hierarchies, parent, lock, alone })
    }

    /// Names the groups of one container, as its first process joins them.
    pub(crate) fn of(&self, id: Id) -> Vec<Cgroup> {
        let cgroup = |hierarchy: &Hierarchy| {
            let path = ByteString::from(self.directory(hierarchy, id));
            match hierarchy.version {
                Version::V1 => Cgroup::V1(path),
                Version::V2 => Cgroup::V2(path),
            }
        };
        self.hierarchies.iter().map(cgroup).collect()
    }

    /// Makes the groups of one container.
    pub(crate) fn create(&self, id: Id, all_devices: bool) -> Result<(), Error> {
        for hierarchy in &self.hierarchies {
            let directory = self.directory(hierarchy, id);
            let made = match fs::create_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    hierarchy.make_parent(&self.parent)?;
                    fs::create_dir(&directory)
                }
                made => made,
            };
            made.context(|| format!("making cgroup {}", directory.display()))?;
            if hierarchy.version == Version::V1 && hierarchy.has("devices") {
                allow_devices(&directory, if all_devices { &NESTED_DEVICES } else { &DEVICES })?;
            }
            // Version 2 has no devices controller: its BPF program is attached here once the confinement exists.
        }
        Ok(())
    }

    /// Reads the memory of one container.
    pub(crate) fn memory(&self, id: Id) -> Option<MemoryStat> {
        let hierarchy = self.with("memory")?;
        stat::memory(hierarchy.version, &self.directory(hierarchy, id))
    }

    /// Reads the CPU time of one container.
    pub(crate) fn cpu(&self, id: Id) -> Option<CpuStat> {
        let hierarchy = self.with("cpuacct").or_else(|| self.with("cpu"))?;
        stat::cpu(hierarchy.version, &self.directory(hierarchy, id))
    }

    /// Kills every process of one container; returns when none is left, or fails at the deadline.
    pub(crate) fn kill(&self, id: Id, deadline: Instant) -> Result<(), Error> {
        for hierarchy in &self.hierarchies {
            // What is frozen does not die.
            if hierarchy.version == Version::V1 && hierarchy.has("freezer") {
                let _ = fs::write(self.directory(hierarchy, id).join("freezer.state"), "THAWED");
            }
        }
        for hierarchy in &self.hierarchies {
            let directory = self.directory(hierarchy, id);
            kill::all(hierarchy.version, &directory, deadline)
                .context(|| format!("killing the processes of cgroup {}", directory.display()))?;
        }
        Ok(())
    }

    /// Removes the groups of one container, if there are any; goes on past errors.
    pub(crate) fn remove(&self, id: Id, deadline: Instant) -> Result<(), Error> {
        let mut errors = Vec::new();
        for hierarchy in &self.hierarchies {
            let directory = self.directory(hierarchy, id);
            if hierarchy.version == Version::V1 && hierarchy.has("memory") {
                // Pages that nobody uses would keep the dead group in the kernel's memory.
                let _ = fs::write(directory.join("memory.force_empty"), "0");
            }
            let removed =
                remove(&directory, deadline).context(|| format!("removing cgroup {}", directory.display()));
            errors.extend(removed.err());
        }
        Error::join(errors).map_or(Ok(()), Err)
    }

    /// Finds containers of an earlier daemon; none while another daemon that lives shares the parent.
    pub(crate) fn leftovers(&self) -> Vec<Id> {
        if !self.alone {
            return Vec::new();
        }
        let mut ids: Vec<Id> =
            self.hierarchies.iter().flat_map(|hierarchy| self.instances(hierarchy)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Lets other daemons come and go beside this one from now on.
    pub(crate) fn share(&self) -> Result<(), Error> {
        rustix::fs::flock(&self.lock, FlockOperation::LockShared)
            .context(|| "sharing the cgroup parent".to_owned())
    }

    /// Removes the parent directories that are empty.
    pub(crate) fn remove_parents(&self) {
        for hierarchy in &self.hierarchies {
            for parent in self.parent.ancestors().filter(|parent| !parent.as_os_str().is_empty()) {
                if fs::remove_dir(hierarchy.mount.join(parent)).is_err() {
                    break;
                }
            }
        }
    }

    fn directory(&self, hierarchy: &Hierarchy, id: Id) -> PathBuf {
        hierarchy.mount.join(&self.parent).join(format!("{PREFIX}{id}"))
    }

    fn with(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.has(controller))
    }

    fn instances(&self, hierarchy: &Hierarchy) -> Vec<Id> {
        let entries = fs::read_dir(hierarchy.mount.join(&self.parent)).into_iter().flatten().flatten();
        let id = |entry: fs::DirEntry| {
            Id::parse(entry.file_name().as_encoded_bytes().strip_prefix(PREFIX.as_bytes())?)
        };
        entries.filter_map(id).collect()
    }
}

/// Locks a directory for oneself, or, when a daemon that lives has it, shares it.
fn lock_directory(path: &Path) -> io::Result<(File, bool)> {
    let directory = File::open(path)?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((directory, true)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            rustix::fs::flock(&directory, FlockOperation::LockShared)?;
            Ok((directory, false))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Denies every device, then allows these.
fn allow_devices(directory: &Path, allowed: &[&str]) -> Result<(), Error> {
    let write = |file: &str, rule: &str| {
        let path = directory.join(file);
        write_existing(&path, rule).context(|| format!("writing '{rule}' to {}", path.display()))
    };
    write("devices.deny", "a")?;
    allowed.iter().try_for_each(|rule| write("devices.allow", rule))
}

/// Writes to a file of the kernel; never makes one.
fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// Removes a group and the groups below it, waiting while dead processes still count.
fn remove(directory: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        let removed = remove_below(directory).and_then(|()| fs::remove_dir(directory));
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            removed => return removed,
        }
    }
}

fn remove_below(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
            fs::remove_dir(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn unique(name: &str) -> String {
        format!("warden-test-{}-{name}", std::process::id())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// Removes what a test made, also when it failed.
    struct Cleanup(Cgroups, Id);

    impl Drop for Cleanup {
        fn drop(&mut self) {
            let _ = self.0.kill(self.1, soon());
            let _ = self.0.remove(self.1, soon());
            self.0.remove_parents();
        }
    }

    #[test]
    fn groups_are_made_read_killed_and_removed() {
        let id = Id::parse(b"0123456789a").unwrap();
        let groups = Cleanup(Cgroups::prepare(&unique("life")).unwrap(), id);
        groups.0.create(id, false).unwrap();
        assert_eq!(groups.0.leftovers(), [id]);
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
        assert!(groups.0.leftovers().is_empty());
        assert_eq!(groups.0.memory(id), None);
        groups.0.remove_parents();
        assert!(
            groups.0.hierarchies.iter().all(|hierarchy| !hierarchy.mount.join(&groups.0.parent).exists())
        );
    }

    #[test]
    fn devices_are_those_of_the_list() {
        let id = Id::parse(b"0123456789c").unwrap();
        let groups = Cleanup(Cgroups::prepare(&unique("devices")).unwrap(), id);
        let Some(hierarchy) = groups.0.with("devices") else { return };
        for (all, allowed) in [(false, &DEVICES[..]), (true, &NESTED_DEVICES[..])] {
            groups.0.create(id, all).unwrap();
            let listed = fs::read_to_string(groups.0.directory(hierarchy, id).join("devices.list")).unwrap();
            let mut listed: Vec<_> = listed.lines().collect();
            listed.sort_unstable();
            let mut allowed: Vec<_> =
                allowed.iter().copied().map(|rule| if all { "a *:* rwm" } else { rule }).collect();
            allowed.sort_unstable();
            assert_eq!(listed, allowed);
            groups.0.remove(id, soon()).unwrap();
        }
    }

    #[test]
    fn another_daemon_that_lives_keeps_its_containers() {
        let id = Id::parse(b"0123456789b").unwrap();
        let first = Cleanup(Cgroups::prepare(&unique("shared")).unwrap(), id);
        first.0.share().unwrap();
        first.0.create(id, false).unwrap();
        let second = Cgroups::prepare(&unique("shared")).unwrap();
        assert!(second.leftovers().is_empty());
    }

    #[test]
    fn a_parent_outside_is_refused() {
        for parent in ["", "/", "/etc", "..", "a/../b"] {
            assert!(Cgroups::prepare(parent).is_err(), "{parent}");
        }
    }
}
