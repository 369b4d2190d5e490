//! The cgroup hierarchies that are mounted, and their controllers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use warden_linux::mount_table::{self, Mount};

use super::Item;

/// The controllers that containers want, with what is done without each.
const WANTED: [(&str, &str); 6] = [
    ("memory", "no memory limits, and info without memory_stat"),
    ("cpu", "no CPU shares"),
    ("cpuacct", "info without cpu_stat"),
    ("devices", "devices are kept from containers by their absence from /dev alone"),
    ("pids", "the number of processes in a container is limited by nproc alone"),
    ("blkio", "no limits of disk bandwidth"),
];

/// What is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Layout {
    /// Version 1: each controller with its directory.
    v1: BTreeMap<String, PathBuf>,
    /// Version 2: the directory of the unified hierarchy.
    v2: Option<PathBuf>,
}

/// Looks at everything.
pub(super) fn items() -> Vec<Item> {
    let layout = Layout::of(&mount_table::read().unwrap_or_default());
    let unified = layout.v2.as_ref().map(|root| controllers(root)).unwrap_or_default();
    judge(&layout, &unified)
}

/// The controllers of a version 2 hierarchy.
fn controllers(root: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

impl Layout {
    /// Looks through the table of mounts.
    fn of(table: &[Mount]) -> Self {
        let mut layout = Self::default();
        for Mount { point, kind, options, .. } in table {
            match kind.as_str() {
                "cgroup" => {
                    let names = options.split(',').filter(|name| !matches!(*name, "rw" | "ro" | "xattr"));
                    layout.v1.extend(names.map(|name| (name.to_owned(), point.clone())));
                }
                "cgroup2" => layout.v2 = Some(point.clone()),
                _ => {}
            }
        }
        layout
    }

    fn name(&self) -> &'static str {
        match (self.v1.is_empty(), self.v2.is_some()) {
            (true, true) => "version 2",
            (false, true) => "version 1, with a hierarchy of version 2 beside it",
            (false, false) => "version 1",
            (true, false) => "none",
        }
    }

    /// Whether a controller is there, under its name in either version.
    fn has(&self, controller: &str, unified: &BTreeSet<String>) -> bool {
        let name = match controller {
            "blkio" => "io",
            // Version 2 counts CPU time in every cgroup, and has a BPF program instead of a controller for devices.
            "cpuacct" | "devices" if self.v1.is_empty() => return self.v2.is_some(),
            other => other,
        };
        self.v1.contains_key(controller) || unified.contains(name)
    }
}

fn judge(layout: &Layout, unified: &BTreeSet<String>) -> Vec<Item> {
    if layout.v1.is_empty() && layout.v2.is_none() {
        return vec![Item::needed("cgroups", "no hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup")];
    }
    let mut items = vec![Item::ok("cgroups", layout.name())];
    for (controller, without) in WANTED {
        let what = format!("cgroup controller {controller}");
        items.push(if layout.has(controller, unified) {
            Item::ok(what, "there")
        } else {
            Item::missing(what, without)
        });
    }
    items
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn line(path: &str, kind: &str, options: &str) -> String {
        format!("30 24 0:26 / {path} rw,nosuid shared:9 - {kind} {kind} {options}\n")
    }

    fn layout(table: &str) -> Layout {
        Layout::of(&mount_table::parse(table.as_bytes()))
    }

    fn missing(layout: &Layout, unified: &[&str]) -> Vec<String> {
        let unified = unified.iter().map(|name| (*name).to_owned()).collect();
        let items = judge(layout, &unified).into_iter();
        items.filter(|item| matches!(item.verdict, Verdict::Missing(_))).map(|item| item.what).collect()
    }

    #[test]
    fn a_machine_of_version_2_misses_nothing() {
        let layout = layout(&line("/sys/fs/cgroup", "cgroup2", "rw,nsdelegate"));
        assert_eq!((layout.name(), &layout.v2), ("version 2", &Some(PathBuf::from("/sys/fs/cgroup"))));
        assert!(missing(&layout, &["cpuset", "cpu", "io", "memory", "pids"]).is_empty());
        assert_eq!(missing(&layout, &["cpu", "io", "pids"]), ["cgroup controller memory"]);
    }

    #[test]
    fn controllers_of_version_1_may_share_a_directory() {
        let text = line("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct")
            + &line("/sys/fs/cgroup/memory", "cgroup", "rw,memory")
            + &line("/sys/fs/cgroup/unified", "cgroup2", "rw");
        let layout = layout(&text);
        assert_eq!(layout.v1["cpuacct"], layout.v1["cpu"]);
        assert!(layout.name().starts_with("version 1, with"));
        assert_eq!(missing(&layout, &["pids"]), ["cgroup controller devices", "cgroup controller blkio"]);
    }

    #[test]
    fn no_cgroups_at_all_cannot_serve() {
        let layout = layout("22 1 0:20 / /proc rw - proc proc rw\nbroken line\n");
        assert!(matches!(judge(&layout, &BTreeSet::new())[0].verdict, Verdict::Needed(_)));
    }
}
