//! The peers that are installed, and a place for them that is gone afterwards.

use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;
use warden_tests::{files, image, kernel};

use crate::options::Options;
use crate::peer::{self, CGROUP, Peer};

/// Cgroups that peers make below the root and leave there.
const LEFT: [&str; 3] = [CGROUP, "libpod_parent", "lxc.pivot"];

/// The peers of one run.
pub(crate) struct Peers {
    pub(crate) present: Vec<Peer>,
    /// Those that are not installed.
    pub(crate) absent: Vec<Peer>,
    /// Which cgroups are to be removed in the end: those that were not there before.
    left: Vec<&'static str>,
    _directory: TempDir,
}

impl Peers {
    /// Looks for all of them; none is wanted where the options say so.
    pub(crate) fn find(options: &Options) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("warden-peers.").tempdir()?;
        files::set_mode(directory.path(), 0o755);
        let left = LEFT.into_iter().filter(|name| own_cgroups(name).is_empty()).collect();
        let mut peers = Self { present: Vec::new(), absent: Vec::new(), left, _directory: directory };
        if options.peers {
            let root = peers._directory.path().join("root");
            image::fill(&root);
            image::add_program(&root, "true");
            // By which systemd-nspawn knows an operating system's tree.
            files::make_directory(&root.join("usr"), 0o755);
            let all = peer::all(peers._directory.path())?;
            (peers.present, peers.absent) = all.into_iter().partition(|peer| peer::version(peer).is_some());
        }
        Ok(peers)
    }

    /// Name and version of each that is installed.
    pub(crate) fn versions(&self) -> Vec<(String, String)> {
        let version = |peer: &Peer| Some((peer.name.to_owned(), peer::version(peer)?));
        self.present.iter().filter_map(version).collect()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for directory in self.left.iter().flat_map(|name| own_cgroups(name)) {
            // One that is in use stays, as somebody else's.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// The cgroups of a name below the root of each hierarchy, deepest first.
fn own_cgroups(name: &str) -> Vec<PathBuf> {
    let mut all = kernel::cgroups_of(name);
    all.retain(|path| path.exists());
    all
}
