//! The directory in every hierarchy below which the containers' groups are: who uses it, and which groups are in it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FlockOperation;

use crate::cgroup::ending;
use crate::cgroup::hierarchy::{self, Hierarchy};
use crate::error::{Context, Error};
use crate::id::Id;

/// How a container's directory is named below the parent.
const PREFIX: &str = "instance-";

/// The parent of one daemon's groups, which other daemons may use too.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(super) hierarchies: Vec<Hierarchy>,
    path: PathBuf,
    /// Says to other daemons that somebody uses the parent; released when the daemon ends, however it ends.
    lock: File,
    /// Whether no other daemon can use it.
    alone: AtomicBool,
}

impl Parent {
    /// Looks at the machine's hierarchies and makes the parent in each.
    pub(super) fn prepare(path: &str) -> Result<Self, Error> {
        let path = PathBuf::from(path);
        if path.as_os_str().is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(io::Error::from(io::ErrorKind::InvalidInput))
                .context(|| format!("making the cgroup parent {}", path.display()));
        }
        let hierarchies = hierarchy::detect()?;
        for hierarchy in &hierarchies {
            hierarchy.make_parent(&path)?;
        }
        let first = hierarchies.first().map(|hierarchy| hierarchy.mount.join(&path)).unwrap_or_default();
        let (lock, alone) = lock_directory(&first).context(|| format!("locking {}", first.display()))?;
        Ok(Self { hierarchies, path, lock, alone: AtomicBool::new(alone) })
    }

    /// Looks at the machine's hierarchies, and makes nothing; none where there is no parent.
    pub(super) fn inspect(path: &str) -> Result<Option<Self>, Error> {
        let hierarchies = hierarchy::detect()?;
        let Some(first) = hierarchies.first().map(|hierarchy| hierarchy.mount.join(path)) else {
            return Ok(None);
        };
        match lock_directory(&first) {
            Ok((lock, alone)) => {
                Ok(Some(Self { hierarchies, path: path.into(), lock, alone: AtomicBool::new(alone) }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("locking {}", first.display())),
        }
    }

    /// Makes it again in a hierarchy where somebody has removed it.
    pub(super) fn make(&self, hierarchy: &Hierarchy) -> Result<(), Error> {
        hierarchy.make_parent(&self.path)
    }

    /// Where it is in a hierarchy.
    pub(super) fn within(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount.join(&self.path)
    }

    /// Where one container's group is in a hierarchy.
    pub(super) fn directory(&self, hierarchy: &Hierarchy, id: Id) -> PathBuf {
        self.within(hierarchy).join(name(id))
    }

    /// Whether no other daemon can use it.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    /// Lets other daemons come and go beside this one from now on.
    pub(crate) fn share(&self) -> Result<(), Error> {
        self.alone.store(false, Ordering::Release);
        rustix::fs::flock(&self.lock, FlockOperation::LockShared)
            .context(|| "sharing the cgroup parent".to_owned())
    }

    /// Finds containers of an earlier daemon; none while another daemon that lives shares the parent.
    pub(crate) fn leftovers(&self) -> Vec<Id> {
        if self.is_alone() { self.instances().into_iter().collect() } else { Vec::new() }
    }

    /// The containers whose groups may be nobody's: where another daemon may share the parent, only those with empty ones,
    /// for whatever is in the others is alive, and may be its.
    pub(crate) fn strays(&self) -> BTreeSet<Id> {
        let mut strays = self.instances();
        strays.retain(|id| self.is_alone() || !self.is_populated(*id));
        strays
    }

    /// The containers that have a group in some hierarchy.
    fn instances(&self) -> BTreeSet<Id> {
        let entries = |hierarchy| fs::read_dir(self.within(hierarchy)).into_iter().flatten().flatten();
        let id = |entry: fs::DirEntry| {
            Id::parse(entry.file_name().as_encoded_bytes().strip_prefix(PREFIX.as_bytes())?)
        };
        self.hierarchies.iter().flat_map(entries).filter_map(id).collect()
    }

    /// Whether a process is in a group of this container.
    fn is_populated(&self, id: Id) -> bool {
        self.hierarchies.iter().any(|hierarchy| ending::is_populated(&self.directory(hierarchy, id)))
    }

    /// Removes its directories that are empty.
    pub(crate) fn remove(&self) {
        for hierarchy in &self.hierarchies {
            for path in self.path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
                if fs::remove_dir(hierarchy.mount.join(path)).is_err() {
                    break;
                }
            }
        }
    }
}

/// The name of one container's groups.
pub(crate) fn name(id: Id) -> String {
    format!("{PREFIX}{id}")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Cgroups;
    use crate::cgroup::tests::{Cleanup, unique};

    #[test]
    fn another_daemon_that_lives_keeps_its_containers() {
        let id = Id::parse(b"0123456789b").unwrap();
        let first = Cleanup(Cgroups::prepare(&unique("shared")).unwrap(), id);
        first.0.parent.share().unwrap();
        first.0.create(id, false, 2048).unwrap();
        let second = Parent::prepare(&unique("shared")).unwrap();
        assert!(second.leftovers().is_empty());
    }

    #[test]
    fn a_parent_outside_is_refused() {
        for parent in ["", "/", "/etc", "..", "a/../b"] {
            assert!(Parent::prepare(parent).is_err(), "{parent}");
        }
    }
}
