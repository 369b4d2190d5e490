//! The machine's cgroup hierarchies, as /proc/self/mountinfo shows them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use warden_linux::mount_table::{self, Mount};

use crate::cgroup::write_existing;
use crate::error::{Context, Error};

/// Controllers that matter, where they are mounted as version 1.
const WANTED_V1: [&str; 7] = ["memory", "cpu", "cpuacct", "devices", "freezer", "blkio", "pids"];
/// Controllers that matter, of version 2.
const WANTED_V2: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// A version of the kernel's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Directories joined through `tasks`.
    V1,
    /// The unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) version: Version,
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// Its controllers that matter.
    pub(crate) controllers: Vec<String>,
}

impl Hierarchy {
    /// Tells whether it has this controller.
    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Makes the directory below which containers are put, with as many controllers as the kernel lets it have.
    pub(crate) fn make_parent(&self, parent: &Path) -> Result<(), Error> {
        let path = self.mount.join(parent);
        fs::create_dir_all(&path).context(|| format!("making cgroup {}", path.display()))?;
        if self.version == Version::V2 {
            let mut directory = self.mount.clone();
            self.enable_controllers(&directory);
            for part in parent {
                directory.push(part);
                self.enable_controllers(&directory);
            }
        }
        Ok(())
    }

    /// Passes the controllers on to the groups below.
    fn enable_controllers(&self, directory: &Path) {
        for controller in &self.controllers {
            // Refused where processes sit in the directory itself (a daemon in a container): go on without.
            if let Err(error) =
                write_existing(&directory.join("cgroup.subtree_control"), &format!("+{controller}"))
            {
                tracing::debug!(controller, directory = %directory.display(), %error, "cgroup controller not enabled");
            }
        }
    }
}

/// Finds the hierarchies that containers join.
pub(crate) fn detect() -> Result<Vec<Hierarchy>, Error> {
    let mounts = mount_table::read().context(|| "reading the table of mounts".to_owned())?;
    let available = |mount: &Path| fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    let hierarchies = select(&mounts, available);
    if hierarchies.is_empty() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted");
        return Err(source).context(|| "finding cgroups".to_owned());
    }
    Ok(hierarchies)
}

/// Chooses from the mounts; `available` reads `cgroup.controllers` of a version 2 mount.
fn select(mounts: &[Mount], available: impl Fn(&Path) -> String) -> Vec<Hierarchy> {
    let mut chosen: Vec<Hierarchy> = Vec::new();
    let mut unified = None;
    for mount in mounts {
        match mount.kind.as_str() {
            "cgroup" => chosen.extend(version_1(mount, &chosen)),
            "cgroup2" => unified = unified.or_else(|| Some(mount.point.clone())),
            _ => {}
        }
    }
    let Some(mount) = unified else { return chosen };
    let offered = available(&mount);
    let wanted =
        |name: &&str| WANTED_V2.contains(name) && !chosen.iter().any(|other| other.has(version_1_name(name)));
    let controllers: Vec<String> = offered.split_whitespace().filter(wanted).map(str::to_owned).collect();
    // With version 1 beside it, a unified hierarchy without controllers would only cost.
    if chosen.is_empty() || !controllers.is_empty() {
        chosen.push(Hierarchy { version: Version::V2, mount, controllers });
    }
    chosen
}

fn version_1_name(controller: &str) -> &str {
    if controller == "io" { "blkio" } else { controller }
}

/// A version 1 hierarchy with controllers that no earlier mount has: one mounted twice counts once.
fn version_1(mount: &Mount, earlier: &[Hierarchy]) -> Option<Hierarchy> {
    let options = mount.options.split(',');
    let new = |name: &&str| WANTED_V1.contains(name) && !earlier.iter().any(|other| other.has(name));
    let controllers: Vec<String> = options.filter(new).map(str::to_owned).collect();
    (!controllers.is_empty()).then(|| Hierarchy {
        version: Version::V1,
        mount: mount.point.clone(),
        controllers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(mounts: &str, offered: &str) -> Vec<String> {
        let show = |hierarchy: Hierarchy| {
            let version = hierarchy.version;
            format!("{version:?} {} {}", hierarchy.mount.display(), hierarchy.controllers.join(" "))
        };
        select(&mount_table::parse(mounts.as_bytes()), |_| offered.to_owned()).into_iter().map(show).collect()
    }

    #[test]
    fn version_1_takes_what_is_there_and_co_mounted_ones_once() {
        let mounts = "\
22 27 0:21 / /proc rw,relatime - proc proc rw\n\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
33 31 0:29 / /mnt/again rw - cgroup cgroup rw,cpu,cpuacct\n\
34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let expected = ["V1 /sys/fs/cgroup/cpu,cpuacct cpu cpuacct", "V1 /sys/fs/cgroup/memory memory"];
        assert_eq!(shown(mounts, ""), expected);
    }

    #[test]
    fn version_2_alone() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let offered = "cpuset cpu io memory hugetlb pids rdma misc\n";
        assert_eq!(shown(mounts, offered), ["V2 /sys/fs/cgroup cpu io memory pids"]);
        assert_eq!(shown(mounts, ""), ["V2 /sys/fs/cgroup "], "it still holds processes together");
    }

    #[test]
    fn a_hybrid_machine_uses_version_1_for_the_controllers_there() {
        let mounts = "\
1 0 0:1 / /cg/memory rw - cgroup cgroup rw,memory\n\
2 0 0:2 / /cg/unified rw - cgroup2 cgroup2 rw\n\
3 0 0:3 / /cg/blkio rw - cgroup cgroup rw,blkio\n";
        let memory_and_blkio = ["V1 /cg/memory memory", "V1 /cg/blkio blkio"];
        assert_eq!(shown(mounts, "hugetlb memory io"), memory_and_blkio);
        let mixed = ["V1 /cg/memory memory", "V1 /cg/blkio blkio", "V2 /cg/unified cpu pids"];
        assert_eq!(shown(mounts, "cpu memory pids"), mixed);
    }

    #[test]
    fn nothing_is_chosen_where_nothing_is() {
        assert!(shown("1 2 3 4 5 6 - cgroup", "cpu").is_empty());
    }
}
