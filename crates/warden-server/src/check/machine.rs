//! The kernel, its namespaces and overlay, and the daemon's own privileges.

use std::fs;
use std::path::Path;

use super::Item;
use crate::config::Config;
use crate::descriptors::WANTED;

/// The oldest kernel on which everything was tried: Debian 12's.
const OLDEST: (u32, u32) = (6, 1);

/// Capabilities without which no container can be made, with their bits (capability.h).
const NEEDED: [(&str, u32); 11] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_CHROOT", 18),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_MKNOD", 27),
];

/// CAP_SYS_RESOURCE.
const SYS_RESOURCE: u32 = 24;

/// Looks at everything.
pub(super) fn items(config: &Config) -> Vec<Item> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut items = vec![root(), kernel(&release)];
    items.extend(namespaces(config.server.user_namespace));
    items.push(overlay(&release, config.server.user_namespace));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    items.extend(capabilities(effective(&status).unwrap_or(0)));
    let nofile = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    items.push(open_files(nofile.unwrap_or(u64::MAX)));
    items
}

fn root() -> Item {
    if rustix::process::geteuid().is_root() {
        return Item::ok("user", "root");
    }
    Item::needed("user", "not root: making containers needs its privileges")
}

fn kernel(release: &str) -> Item {
    match version(release) {
        Some(version) if version >= OLDEST => Item::ok("kernel", release),
        _ => Item::needed("kernel", format!("{release} is older than {}.{}", OLDEST.0, OLDEST.1)),
    }
}

/// Major and minor number of a release such as 6.1.0-27-amd64.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn namespaces(user: bool) -> Vec<Item> {
    let there = |name: &str| Path::new("/proc/self/ns").join(name).exists();
    let absent: Vec<_> =
        ["mnt", "pid", "net", "ipc", "uts", "cgroup"].into_iter().filter(|name| !there(name)).collect();
    let mut items = vec![if absent.is_empty() {
        Item::ok("namespaces", "mnt pid net ipc uts cgroup")
    } else {
        Item::needed("namespaces", format!("this kernel has none of: {}", absent.join(" ")))
    }];
    if user {
        items.push(user_namespaces(there("user"), &read("/proc/sys/user/max_user_namespaces")));
    } else {
        items.push(Item::ok("user namespaces", "turned off by server.user_namespace"));
    }
    items
}

fn user_namespaces(there: bool, most: &str) -> Item {
    match most.trim().parse::<u64>() {
        Ok(1..) if there => Item::ok("user namespaces", format!("at most {}", most.trim())),
        Ok(0) => Item::needed(
            "user namespaces",
            "sysctl user.max_user_namespaces is 0; or set server.user_namespace to false",
        ),
        _ => Item::needed("user namespaces", "this kernel has none; or set server.user_namespace to false"),
    }
}

/// Since Linux 5.11 an overlay mounts in a user namespace, so that with the oldest kernel only its driver matters.
fn overlay(release: &str, user: bool) -> Item {
    let what = if user { "overlay in a user namespace" } else { "overlay" };
    if lists_overlay(&read("/proc/filesystems")) {
        return Item::ok(what, "the kernel has it");
    }
    let modules = Path::new("/lib/modules").join(release);
    let listed = ["modules.dep", "modules.builtin"].iter().any(|list| {
        let text = fs::read_to_string(modules.join(list)).unwrap_or_default();
        text.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains("/overlay.ko")))
    });
    if listed {
        return Item::ok(what, "a module that is loaded on demand");
    }
    Item::needed(what, "the kernel has no overlay file system, and no module for it")
}

fn lists_overlay(filesystems: &str) -> bool {
    filesystems.lines().any(|line| line.split_whitespace().last() == Some("overlay"))
}

/// The effective capabilities, from /proc/self/status.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn capabilities(set: u64) -> Vec<Item> {
    let has = |bit: u32| set & (1 << bit) != 0;
    let absent: Vec<_> = NEEDED.into_iter().filter(|(_, bit)| !has(*bit)).map(|(name, _)| name).collect();
    let needed = if absent.is_empty() {
        Item::ok("capabilities", "all that making containers needs")
    } else {
        Item::needed("capabilities", format!("the daemon lacks {}", absent.join(" ")))
    };
    let resource = if has(SYS_RESOURCE) {
        Item::ok("CAP_SYS_RESOURCE", "jobs can be given any limit")
    } else {
        Item::missing("CAP_SYS_RESOURCE", "a job's limits end at the daemon's own hard limits")
    };
    vec![needed, resource]
}

fn open_files(hard: u64) -> Item {
    if hard >= WANTED {
        return Item::ok("open files", format!("at most {hard}"));
    }
    let without = format!(
        "at most {hard}, unless the daemon can raise it to {WANTED}: fewer containers and clients at a time"
    );
    Item::missing("open files", without)
}

/// A file of the kernel's; an absent one is empty.
pub(super) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn is_ok(item: &Item) -> bool {
        matches!(item.verdict, Verdict::Ok(_))
    }

    #[test]
    fn kernels_from_6_1_on_serve() {
        for (release, serves) in [
            ("6.1.0-27-cloud-amd64", true),
            ("6.18.0", true),
            ("7.0-rc1", true),
            ("6.0.19", false),
            ("5.15.0-1", false),
            ("custom", false),
        ] {
            assert_eq!(is_ok(&kernel(release)), serves, "{release}");
        }
    }

    #[test]
    fn user_namespaces_are_needed_only_where_they_are_used() {
        assert!(is_ok(&user_namespaces(true, "95000\n")));
        assert!(!is_ok(&user_namespaces(true, "0\n")));
        assert!(!is_ok(&user_namespaces(false, "95000\n")));
        assert!(!is_ok(&user_namespaces(true, "")));
        assert!(namespaces(false).iter().all(is_ok));
    }

    #[test]
    fn the_overlay_is_found_among_the_file_systems() {
        assert!(lists_overlay("nodev\tsysfs\nnodev\toverlay\n\text4\n"));
        assert!(!lists_overlay("nodev\toverlayish\n\text4\n"));
    }

    #[test]
    fn capabilities_are_read_and_named() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("Name:\tx\n"), None);
        assert!(capabilities(u64::MAX).iter().all(is_ok));
        let without = capabilities(!(1 << 21 | 1 << 24));
        assert_eq!(without[0], Item::needed("capabilities", "the daemon lacks CAP_SYS_ADMIN"));
        assert!(matches!(without[1].verdict, Verdict::Missing(_)));
    }

    #[test]
    fn few_open_files_are_told() {
        assert!(is_ok(&open_files(u64::MAX)));
        assert!(matches!(open_files(1024).verdict, Verdict::Missing(_)));
    }
}
