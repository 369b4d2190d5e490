//! Whose the table is: it bears the path of its daemon's depot as its comment.
//!
//! Interfaces and rules are known by the table alone. A daemon that took over another's table would remove the other's
//! containers from the network: they are not in its depot.

use std::io;
use std::path::{Path, PathBuf};

use warden_linux::netlink::{Protocol, nftables};

use super::{failed, open};
use crate::depot;
use crate::error::{Context, Error};

/// What a comment begins with.
const WORD: &str = "depot ";

/// The comment of a table of this depot's containers.
pub(super) fn comment(depot: &Path) -> String {
    format!("{WORD}{}", depot.display())
}

/// Refuses a table that belongs to another depot, as long as that has containers or a daemon; in this process's network
/// namespace.
pub(crate) fn examine(table: &str, depot: &Path) -> Result<(), Error> {
    let comment = nftables::table_comment(&mut open(Protocol::Netfilter)?, table).map_err(failed)?;
    match comment.as_deref().and_then(other(depot)) {
        Some(other) if depot::is_used(&other) => {
            let why = format!("it belongs to the containers of the depot {}", other.display());
            Err(io::Error::other(why)).context(|| format!("using the packet filter's table {table}"))
        }
        _ => Ok(()),
    }
}

/// The other depot that a comment names.
fn other(depot: &Path) -> impl Fn(&str) -> Option<PathBuf> {
    move |comment| {
        let named = PathBuf::from(comment.strip_prefix(WORD)?);
        (named != depot).then_some(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_names_another_depot_or_none() {
        let other = other("/a b".as_ref());
        assert_eq!(other(&comment("/c".as_ref())), Some(PathBuf::from("/c")));
        assert_eq!(other(&comment("/a b".as_ref())), None);
        assert_eq!(other("mine"), None);
    }
}
