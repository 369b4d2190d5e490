//! The paths that the configuration names: depot, image, helpers, socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf, absolute};

use super::Item;
use super::machine::version;
use crate::config::Config;
use crate::failure::Failure;
use crate::listener;

/// File systems whose mounts can be idmapped, by f_type (magic.h), with the kernel that taught them.
const IDMAPPED: [(&str, u64, (u32, u32)); 9] = [
    ("ext4", 0xef53, (5, 12)),
    ("xfs", 0x5846_5342, (5, 12)),
    ("vfat", 0x4d44, (5, 12)),
    ("btrfs", 0x9123_683e, (5, 15)),
    ("f2fs", 0xf2f5_2010, (5, 18)),
    ("erofs", 0xe0f5_e1e2, (5, 19)),
    ("tmpfs", 0x0102_1994, (6, 3)),
    ("squashfs", 0x7371_7368, (6, 2)),
    ("ceph", 0x00c3_6400, (6, 7)),
];

/// Names of others, for the message.
const OTHERS: [(&str, u64); 4] =
    [("overlay", 0x794c_7630), ("nfs", 0x6969), ("fuse", 0x6573_5546), ("zfs", 0x2fc1_2fc1)];

/// Looks at everything.
pub(super) fn items(config: &Config) -> Vec<Item> {
    let server = &config.server;
    let mut items = Vec::new();
    items.push(depot(&server.depot));
    items.extend(super::disk::items(server));
    if server.user_namespace {
        let image = server.rootfs.clone().unwrap_or_else(|| PathBuf::from("/usr"));
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let kernel = version(&release).unwrap_or_default();
        items.extend([image.as_path(), &server.depot].map(|path| idmapped(path, kernel)));
    }
    items.push(image(server.rootfs.as_deref()));
    match server.helpers_directory() {
        Ok(directory) => items.push(helper(&directory.join("iomux"))),
        Err(failure) => items.push(Item::needed("helpers", failure.to_string())),
    }
    items.push(socket(&server.unix_domain_path));
    items.extend(server.pidfile.as_deref().map(|path| file("pidfile", path)));
    items.extend(config.logging.file.as_deref().map(|path| file("log file", path)));
    items
}

fn depot(path: &Path) -> Item {
    let what = format!("depot {}", path.display());
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Item::ok(what, "there"),
        Ok(_) => Item::needed(what, "not a directory"),
        Err(_) => Item::ok(what, "made at start"),
    }
}

/// Whether layers below `path` can be idmapped.
fn idmapped(path: &Path, kernel: (u32, u32)) -> Item {
    let what = format!("idmapped mounts of {}", path.display());
    let Some(stat) = existing(path).and_then(|path| rustix::fs::statfs(&path).ok()) else {
        return Item::missing(
            what,
            "the file system cannot be examined; the daemon tries, and binds layers as they are",
        );
    };
    judge_idmapped(what, stat.f_type as u64, kernel)
}

fn judge_idmapped(what: String, magic: u64, kernel: (u32, u32)) -> Item {
    if let Some((name, _, since)) = IDMAPPED.iter().find(|(_, known, _)| *known == magic)
        && kernel >= *since
    {
        return Item::ok(what, *name);
    }
    let known = IDMAPPED.iter().map(|(name, magic, _)| (*name, *magic)).chain(OTHERS);
    let name =
        known.into_iter().find(|(_, known)| *known == magic).map_or("this file system", |(name, _)| name);
    let without = format!(
        "not with {name} and this kernel: layers are bound as they are, and files of the host's root belong to nobody inside"
    );
    Item::missing(what, without)
}

/// The path, or the nearest directory above it that exists.
fn existing(path: &Path) -> Option<PathBuf> {
    absolute(path).ok()?.ancestors().find(|path| path.exists()).map(Path::to_path_buf)
}

fn image(rootfs: Option<&Path>) -> Item {
    match rootfs {
        None => Item::ok("image host", "this machine's programs and libraries"),
        Some(path) if path.is_dir() => Item::ok(format!("image {}", path.display()), "there"),
        Some(path) => Item::needed(
            format!("image {}", path.display()),
            "server.container_rootfs_path names no directory",
        ),
    }
}

fn helper(path: &Path) -> Item {
    let what = format!("helper {}", path.display());
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Item::ok(what, "there"),
        Ok(_) => Item::needed(what, "not a program"),
        Err(error) => Item::needed(what, error.to_string()),
    }
}

fn socket(path: &Path) -> Item {
    let what = format!("socket {}", path.display());
    if !absolute(path).ok().and_then(|path| path.parent().map(Path::is_dir)).unwrap_or(false) {
        return Item::needed(what, "its directory does not exist");
    }
    match listener::refuse_live(path) {
        Ok(()) => Item::ok(what, "free"),
        Err(Failure::SocketInUse(_)) => Item::needed(what, "a server answers there already"),
        Err(failure) => Item::needed(what, failure.to_string()),
    }
}

/// A file that is made at start, unless it is there.
fn file(key: &str, path: &Path) -> Item {
    let what = format!("{key} {}", path.display());
    match absolute(path).ok().and_then(|path| path.parent().map(Path::is_dir)) {
        Some(true) if !path.is_dir() => Item::ok(what, if path.exists() { "there" } else { "made at start" }),
        Some(true) => Item::needed(what, "a directory"),
        _ => Item::needed(what, "its directory does not exist"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn is_ok(item: &Item) -> bool {
        matches!(item.verdict, Verdict::Ok(_))
    }

    #[test]
    fn idmapping_depends_on_file_system_and_kernel() {
        assert!(is_ok(&judge_idmapped(String::new(), 0xef53, (6, 1))));
        assert!(is_ok(&judge_idmapped(String::new(), 0x0102_1994, (6, 3))));
        for (magic, name) in [(0x0102_1994, "tmpfs"), (0x794c_7630, "overlay"), (1, "this file system")] {
            let item = judge_idmapped(String::new(), magic, (6, 1));
            assert!(matches!(&item.verdict, Verdict::Missing(text) if text.contains(name)), "{item}");
        }
    }

    #[test]
    fn a_path_that_is_not_there_yet_is_judged_by_what_is_above_it() {
        assert_eq!(existing(Path::new("/proc/nonexistent/deeper")), Some(PathBuf::from("/proc")));
    }

    #[test]
    fn paths_that_cannot_serve_are_needed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(
            !is_ok(&depot(&file))
                && is_ok(&depot(directory.path()))
                && is_ok(&depot(&file.with_extension("new")))
        );
        assert!(is_ok(&image(None)) && is_ok(&image(Some(directory.path()))) && !is_ok(&image(Some(&file))));
        assert!(!is_ok(&helper(&file)) && !is_ok(&helper(directory.path())));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o711)).unwrap();
        assert!(is_ok(&helper(&file)));
        assert!(!is_ok(&socket(&file)) && is_ok(&socket(&directory.path().join("w.sock"))));
        assert!(!is_ok(&socket(Path::new("/nonexistent/w.sock"))));
        for (path, serves) in
            [(file.as_path(), true), (&directory.path().join("new"), true), (directory.path(), false)]
        {
            assert_eq!(is_ok(&super::file("pidfile", path)), serves, "{}", path.display());
        }
        assert!(!is_ok(&super::file("log file", Path::new("/nonexistent/log"))));
    }
}
