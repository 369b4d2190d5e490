//! The directory that holds one directory per container, and how those are laid out:
//!
//! ```text
//! <depot>/<id>/spec.json
//!             /snapshot.json           what a client was promised: without it, it was never handed out, or is being destroyed
//!             /run/{wshd.sock,wshd.pid,iomux.sock,iomux.pid,iomux.log}
//!             /jobs/<n>/{job.json,stdout,stderr,exit.json}
//!             /tmp/{rootfs,work}       the writable layer, limited as a whole
//! <depot>/.images                      what containers share
//! <depot>/.trash                       what is being removed
//! ```

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::FlockOperation;
use warden_init::spec::Spec;

use crate::disk::{self, Disk};
use crate::error::{Context, Error};
use crate::id::Id;
use crate::info::DiskStat;
use crate::pool::lock;
use crate::request;
use crate::tree;

pub(crate) const TRASH: &str = ".trash";
pub(crate) const IMAGES: &str = ".images";
/// The directory, in that of a container, of what it has written.
const LAYER: &str = "tmp";

/// Locks a depot; `None` when a daemon has it, or when there is none.
pub(crate) fn lock_unused(path: &Path) -> Result<Option<File>, Error> {
    let directory = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.context(|| format!("opening depot {}", path.display()))?,
    };
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        locked => locked.map(|()| Some(directory)).context(|| format!("locking depot {}", path.display())),
    }
}

/// The containers that have a directory in a depot, in the order of their ids; none where there is no depot.
pub(crate) fn ids(path: &Path) -> Result<Vec<Id>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(|| format!("reading depot {}", path.display()))?,
    };
    let mut ids: Vec<Id> =
        entries.flatten().filter_map(|entry| Id::parse(entry.file_name().as_bytes())).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Whether a depot has containers, or a daemon.
pub(crate) fn is_used(path: &Path) -> bool {
    let has_containers = || ids(path).map_or(true, |ids| !ids.is_empty());
    // A daemon's lock is exclusive; the question's own keeps no other question out.
    let has_daemon = || {
        let locked = |directory| rustix::fs::flock(&directory, FlockOperation::NonBlockingLockShared);
        File::open(path).is_ok_and(|directory| locked(directory).is_err())
    };
    path.exists() && (has_containers() || has_daemon())
}

/// The depot of one daemon.
#[derive(Debug)]
pub(crate) struct Depot {
    path: PathBuf,
    /// Held as long as the daemon lives: a second one would remove the first one's containers.
    lock: Mutex<Option<File>>,
    /// What limits the writable layers.
    disk: Option<Disk>,
}

impl Depot {
    /// Opens the depot for this daemon alone; makes what is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).context(|| format!("making depot {}", path.display()))?;
        let path = path.canonicalize().context(|| format!("opening depot {}", path.display()))?;
        let in_use = || io::Error::new(io::ErrorKind::WouldBlock, "another wardend uses it");
        let lock = lock_unused(&path)?.ok_or_else(in_use);
        let lock = lock.context(|| format!("locking depot {}", path.display()))?;
        // Inside there are files of tenants, of any mode: set-user-id programs of their root, too.
        fs::set_permissions(&path, Permissions::from_mode(0o700))
            .context(|| format!("closing depot {} to other users", path.display()))?;
        for name in [TRASH, IMAGES] {
            make_directory(&path.join(name), 0o700, true)?;
        }
        Ok(Self { path, lock: Mutex::new(Some(lock)), disk: None })
    }

    /// Has the writable layers of containers limited, if they are to be and can be.
    pub(crate) fn limit_layers(&mut self, enabled: bool) -> Result<(), Error> {
        self.disk = Some(Disk::prepare(&self.path, enabled)?);
        Ok(())
    }

    /// Lets go of the depot, so that it can be unmounted.
    pub(crate) fn close(&self) {
        drop(lock(&self.lock).take());
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of one container.
    pub(crate) fn directory(&self, id: Id) -> PathBuf {
        self.path.join(id)
    }

    /// The directory of what containers share.
    pub(crate) fn images(&self) -> PathBuf {
        self.path.join(IMAGES)
    }

    /// Makes the directory of one container; the inside's root is `owner` on the host.
    pub(crate) fn create(&self, id: Id, owner: u32) -> Result<(), Error> {
        let directory = self.directory(id);
        make_directory(&directory, 0o711, false)?;
        for (name, mode) in [("run", 0o700), ("jobs", 0o700)] {
            make_directory(&directory.join(name), mode, false)?;
        }
        let layer = self.layer(id);
        if let Some(disk) = &self.disk {
            disk.make(&layer)?;
        }
        make_directory(&layer, 0o711, true)?;
        for (name, mode) in [("tmp/rootfs", 0o755), ("tmp/work", 0o711)] {
            let path = directory.join(name);
            make_directory(&path, mode, false)?;
            std::os::unix::fs::chown(&path, Some(owner), Some(owner))
                .context(|| format!("giving {} to {owner}", path.display()))?;
        }
        Ok(())
    }

    /// Writes the description of one container and returns its path.
    pub(crate) fn write_spec(&self, id: Id, spec: &Spec) -> Result<PathBuf, Error> {
        let path = self.spec_path(id);
        let text = serde_json::to_vec_pretty(spec).context(|| format!("encoding {}", path.display()))?;
        let mut options = File::options();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = opened.and_then(|mut file| file.write_all(&text));
        written.context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Reads the description of one container, if there is one.
    pub(crate) fn read_spec(&self, id: Id) -> Option<Spec> {
        serde_json::from_slice(&fs::read(self.spec_path(id)).ok()?).ok()
    }

    /// The path of the description of one container.
    pub(crate) fn spec_path(&self, id: Id) -> PathBuf {
        self.directory(id).join("spec.json")
    }

    /// The directory that holds what one container has written.
    fn layer(&self, id: Id) -> PathBuf {
        self.directory(id).join(LAYER)
    }

    /// Changes the limits of what one container stores; gives them as the kernel keeps them.
    pub(crate) fn limit_disk(&self, id: Id, asked: &request::Disk) -> Result<Option<disk::Limits>, Error> {
        self.disk.as_ref().map_or(Ok(None), |disk| disk.limit(&self.layer(id), asked))
    }

    /// What one container stores.
    pub(crate) fn disk_stat(&self, id: Id) -> Option<DiskStat> {
        self.disk.as_ref()?.stat(&self.layer(id))
    }

    /// Moves the directory of one container to the trash; says whether there was one.
    pub(crate) fn discard(&self, id: Id) -> Result<bool, Error> {
        let directory = self.directory(id);
        match fs::rename(&directory, self.path.join(TRASH).join(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            renamed => {
                renamed.map(|()| true).context(|| format!("moving {} to the trash", directory.display()))
            }
        }
    }

    /// Removes the files that a container in the trash has written, and with them the pages that its cgroup pays for.
    pub(crate) fn shed(&self, id: Id) -> Result<(), Error> {
        let directory = self.path.join(TRASH).join(id);
        if !directory.exists() {
            return Ok(());
        }
        disk::release(&directory.join(LAYER))?;
        ["jobs", LAYER].into_iter().try_for_each(|name| remove_entry(&directory, name))
    }

    /// Removes the directory of one container, if there is one.
    pub(crate) fn remove(&self, id: Id) -> Result<(), Error> {
        // A name that is out of the way first: what is half removed is never taken for a container.
        empty(&self.path, id.as_str())?;
        if self.discard(id)? {
            empty(&self.path, id.as_str())?;
        }
        Ok(())
    }

    /// Removes what is in the trash besides containers, directories that a removal had moved up, say; goes on past errors.
    pub(crate) fn empty_trash(&self) -> Result<(), Error> {
        let path = self.path.join(TRASH);
        let entries = fs::read_dir(&path).context(|| format!("reading {}", path.display()))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.filter(|name| Id::parse(name.as_bytes()).is_none());
        let errors = names.filter_map(|name| empty(&self.path, &name).err()).collect();
        Error::join(errors).map_or(Ok(()), Err)
    }

    /// The containers that have a directory, in the order of their ids.
    pub(crate) fn containers(&self) -> Result<Vec<Id>, Error> {
        ids(&self.path)
    }

    /// Finds what is left of containers that were set aside.
    pub(crate) fn set_aside(&self) -> Vec<Id> {
        let entries = fs::read_dir(self.path.join(TRASH)).into_iter().flatten().flatten();
        entries.filter_map(|entry| Id::parse(entry.file_name().as_bytes())).collect()
    }
}

/// Removes one entry of a depot's trash.
pub(crate) fn empty(depot: &Path, name: &str) -> Result<(), Error> {
    let trash = depot.join(TRASH);
    // What else is there may be a tenant's directory, in which nothing is what it is called.
    if Id::parse(name.as_bytes()).is_some() {
        disk::release(&trash.join(name).join(LAYER))?;
    }
    remove_entry(&trash, name)
}

/// Removes an entry of a directory, with everything below it.
pub(crate) fn remove_entry(parent: &Path, name: &str) -> Result<(), Error> {
    let directory = File::open(parent).context(|| format!("opening {}", parent.display()))?;
    let name = CString::new(name)
        .map_err(io::Error::from)
        .context(|| format!("naming an entry of {}", parent.display()))?;
    tree::remove(directory.as_fd(), &name)
        .context(|| format!("removing {}/{}", parent.display(), name.to_string_lossy()))
}

/// Makes a directory with exactly this mode, whatever the umask.
pub(crate) fn make_directory(path: &Path, mode: u32, may_exist: bool) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if may_exist && error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.context(|| format!("making {}", path.display()))?,
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
        .context(|| format!("setting the mode of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const ID: &[u8] = b"0123456789a";

    #[test]
    fn a_container_has_its_directories_and_loses_them() {
        let top = tempfile::tempdir().unwrap();
        let depot = Depot::open(&top.path().join("new/depot")).unwrap();
        let id = Id::parse(ID).unwrap();
        depot.create(id, 524_288).unwrap();
        let stat = |name: &str| {
            let found = fs::metadata(depot.directory(id).join(name)).unwrap();
            (found.mode() & 0o7777, found.uid(), found.gid())
        };
        assert_eq!(stat(""), (0o711, 0, 0));
        assert_eq!([stat("run"), stat("jobs")], [(0o700, 0, 0); 2]);
        assert_eq!(stat("tmp"), (0o711, 0, 0));
        assert_eq!(stat("tmp/rootfs"), (0o755, 524_288, 524_288));
        assert_eq!(stat("tmp/work"), (0o711, 524_288, 524_288));
        assert_eq!(depot.containers().unwrap(), [id]);
        assert!(depot.create(id, 0).is_err(), "ids are used once");
        depot.remove(id).unwrap();
        depot.remove(id).unwrap();
        assert!(depot.containers().unwrap().is_empty());
        assert_eq!(fs::read_dir(top.path().join("new/depot/.trash")).unwrap().count(), 0);
    }

    #[test]
    fn a_depot_has_one_daemon() {
        let top = tempfile::tempdir().unwrap();
        let first = Depot::open(top.path()).unwrap();
        let refused = Depot::open(top.path()).unwrap_err().to_string();
        assert!(
            refused.contains("another wardend uses it") && refused.contains(top.path().to_str().unwrap())
        );
        drop(first);
        Depot::open(top.path()).unwrap();
    }

    #[test]
    fn the_trash_is_emptied() {
        let top = tempfile::tempdir().unwrap();
        let depot = Depot::open(top.path()).unwrap();
        fs::create_dir_all(top.path().join(".trash/x/y")).unwrap();
        depot.empty_trash().unwrap();
        assert_eq!(fs::read_dir(top.path().join(".trash")).unwrap().count(), 0);
    }
}
