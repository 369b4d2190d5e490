//! Whose the table is: it bears the path of its daemon's depot as its comment.
//!
//! Interfaces and rules are known by the table alone. A daemon that took over another's table would remove the other's
//! containers from the network: they are not in its depot.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use warden_linux::netlink::{Protocol, nftables};

use super::{failed, open};
use crate::depot;
use crate::error::{Context, Error};
use crate::settings::Settings;

/// What a comment begins with.
const WORD: &str = "depot ";

/// The comment of a table of this depot's containers.
pub(super) fn comment(depot: &Path) -> String {
    format!("{WORD}{}", depot.display())
}

/// Refuses a table that belongs to another depot, as long as that has containers or a daemon; in this process's network
/// namespace.
pub(crate) fn examine(settings: &Settings) -> Result<(), Error> {
    let table = &settings.firewall.table;
    let comment = nftables::table_comment(&mut open(Protocol::Netfilter)?, table).map_err(failed)?;
    match comment.as_deref().and_then(named) {
        // Ours may have been moved, and still have its old name.
        Some(other) if !is_same(&other, &settings.depot) && depot::is_used(&other) => {
            let why = format!("it belongs to the containers of the depot {}", other.display());
            Err(io::Error::other(why)).context(|| format!("using the packet filter's table {table}"))
        }
        _ => Ok(()),
    }
}

/// Whether two paths lead to one directory.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// The depot that a comment names.
fn named(comment: &str) -> Option<PathBuf> {
    comment.strip_prefix(WORD).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_names_a_depot_or_none() {
        assert_eq!(named(&comment("/a b".as_ref())), Some(PathBuf::from("/a b")));
        assert_eq!(named("mine"), None);
    }

    #[test]
    fn a_depot_that_has_two_names_is_the_same() {
        let top = tempfile::tempdir().unwrap();
        let [moved, old] = ["moved", "old"].map(|name| top.path().join(name));
        fs::create_dir(&moved).unwrap();
        assert!(!is_same(&old, &moved) && !is_same(&old, &old));
        std::os::unix::fs::symlink(&moved, &old).unwrap();
        assert!(is_same(&old, &moved) && !is_same(top.path(), &moved));
    }
}
