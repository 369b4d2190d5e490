//! What is found in a depot, and mounted in it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use warden_linux::mount_table::{self, Mount};

use crate::depot::{IMAGES, TRASH, ids};
use crate::error::Error;
use crate::id::Id;

/// What file systems put there by themselves.
const FOREIGN: [&str; 1] = ["lost+found"];

/// The containers that have a directory, and those whose directory is in the trash, as long as a daemon sees to that.
pub(super) fn known(depot: &Path, in_use: bool) -> Result<HashSet<Id>, Error> {
    let mut known: HashSet<Id> = ids(depot)?.into_iter().collect();
    if in_use {
        // After the depot: it is where they were moved to meanwhile.
        known.extend(trash(depot).iter().filter_map(|name| Id::parse(name.as_bytes())));
    }
    Ok(known)
}

/// Entries that are neither containers nor the depot's own.
pub(super) fn unknown(depot: &Path) -> Vec<String> {
    let is_known = |name: &OsStr| {
        Id::parse(name.as_bytes()).is_some()
            || [TRASH, IMAGES].into_iter().chain(FOREIGN).any(|known| name == known)
    };
    names(depot).into_iter().filter(|name| !is_known(OsStr::new(name))).collect()
}

/// What was being removed.
pub(super) fn trash(depot: &Path) -> Vec<String> {
    names(&depot.join(TRASH))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Mounts below a depot in this mount namespace, where neither the daemon nor its helpers make any; each with the container
/// in whose directory it is.
pub(super) fn mounts(depot: &Path) -> Vec<(PathBuf, Option<Id>)> {
    below(&mount_table::read().unwrap_or_default(), depot)
}

fn below(table: &[Mount], depot: &Path) -> Vec<(PathBuf, Option<Id>)> {
    let place = |mount: &Mount| {
        let inside = mount.point.strip_prefix(depot).ok()?.components().next()?.as_os_str().to_owned();
        let id = Id::parse(inside.as_bytes());
        (inside == TRASH || id.is_some()).then(|| (mount.point.clone(), id))
    };
    table.iter().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_a_container_or_the_trash_is_a_mount_of_ours() {
        let table = b"1 0 0:1 / /depot rw - ext4 a rw\n\
2 1 0:2 / /depot/00000000001/tmp/x\\040y rw - tmpfs b rw\n\
3 1 0:2 / /depot/.trash/00000000002 rw - tmpfs b rw\n\
4 1 0:2 / /depot/somebodys rw - tmpfs b rw\n\
5 1 0:2 / /depot2/00000000001 rw - tmpfs b rw\n\n1 2";
        let id = Id::parse(b"00000000001");
        let expected = [
            (PathBuf::from("/depot/00000000001/tmp/x y"), id),
            (PathBuf::from("/depot/.trash/00000000002"), None),
        ];
        assert_eq!(below(&mount_table::parse(table), Path::new("/depot")), expected);
    }

    #[test]
    fn what_is_no_container_is_unknown() {
        let depot = tempfile::tempdir().unwrap();
        for name in ["00000000001", ".trash", ".images", "lost+found", "backup", "0000000000z"] {
            fs::create_dir(depot.path().join(name)).unwrap();
        }
        fs::write(depot.path().join(".trash/x"), "").unwrap();
        assert_eq!(unknown(depot.path()), ["0000000000z", "backup"]);
        assert_eq!(trash(depot.path()), ["x"]);
        assert_eq!(ids(depot.path()).unwrap().len(), 1);
        assert!(ids(&depot.path().join("none")).unwrap().is_empty());
    }
}
