//! What containers store, limited and counted by the depot's own file system: each writable layer is a project of ext4 or
//! XFS, or a subvolume of btrfs. Which of them is probed once.
//!
//! The record of a container's project or subvolume is its directory `tmp` itself, so that everything is undone from the
//! directory alone, also by a daemon that would choose another back-end.

pub(crate) mod image;
mod limits;
mod project;
mod subvolume;

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, absolute};
use std::sync::Mutex;

use rustix::fs::statfs;
use warden_linux::{btrfs, file};

use crate::error::{Context, Error};
use crate::info::DiskStat;
use crate::pool::lock;
use crate::request;

pub use limits::Limits;
pub(crate) use limits::Size;

/// EXT4_SUPER_MAGIC.
const EXT4: u64 = 0xef53;
/// XFS_SUPER_MAGIC.
const XFS: u64 = 0x5846_5342;

/// What limits the writable layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Project quotas of ext4.
    Ext4,
    /// Project quotas of XFS.
    Xfs,
    /// A subvolume with a quota group for each container.
    Btrfs,
    /// Nothing, and why.
    None(Reason),
}

/// Why nothing limits the writable layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The configuration says so.
    Off,
    /// The depot's file system could, but is not told to.
    NotEnabled(&'static str),
    /// The depot's file system cannot.
    Impossible,
}

impl Backend {
    /// Looks at the file system that a directory is on, or will be on; changes nothing.
    pub fn probe(depot: &Path, enabled: bool) -> io::Result<Self> {
        if !enabled {
            return Ok(Self::None(Reason::Off));
        }
        let depot = absolute(depot)?;
        let existing = depot.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        Self::of(File::open(existing)?.as_fd())
    }

    fn of(directory: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(match rustix::fs::fstatfs(directory)?.f_type as u64 {
            EXT4 if project::enforced(directory) => Self::Ext4,
            XFS if project::enforced(directory) => Self::Xfs,
            btrfs::FILE_SYSTEM if subvolume::counted(directory) => Self::Btrfs,
            EXT4 => Self::None(Reason::NotEnabled("ext4 is not mounted with prjquota")),
            XFS => Self::None(Reason::NotEnabled("XFS is not mounted with prjquota")),
            btrfs::FILE_SYSTEM => Self::None(Reason::NotEnabled("btrfs has its quotas turned off")),
            _ => Self::None(Reason::Impossible),
        })
    }

    /// The name that `info` tells.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::None(_) => "none",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ext4 => f.write_str("project quotas of ext4"),
            Self::Xfs => f.write_str("project quotas of XFS"),
            Self::Btrfs => f.write_str("quota groups of btrfs: space, no numbers of files, no soft limits"),
            Self::None(Reason::Off) => f.write_str("turned off by server.quota"),
            Self::None(Reason::NotEnabled(why)) => write!(f, "none: {why}"),
            Self::None(Reason::Impossible) => {
                f.write_str("none: the file system has neither project quotas nor quota groups")
            }
        }
    }
}

/// The writable layers of one depot.
#[derive(Debug)]
pub(crate) struct Disk {
    backend: Backend,
    /// Held while a project is looked for and taken.
    choosing: Mutex<()>,
}

impl Disk {
    /// Probes, and tells the log.
    pub(crate) fn prepare(depot: &Path, enabled: bool) -> Result<Self, Error> {
        let backend = Backend::probe(depot, enabled)
            .context(|| format!("probing the file system of depot {}", depot.display()))?;
        if let Backend::None(Reason::NotEnabled(_) | Reason::Impossible) = backend {
            tracing::warn!(depot = %depot.display(), "limit_disk limits nothing and answers nothing; disk limits: {backend}");
        } else {
            tracing::info!(depot = %depot.display(), "disk limits: {backend}");
        }
        Ok(Self { backend, choosing: Mutex::default() })
    }

    /// Makes the directory of a new writable layer, which is limited from its birth.
    pub(crate) fn make(&self, path: &Path) -> Result<(), Error> {
        let action = || format!("making {} with {}", path.display(), self.backend);
        match self.backend {
            Backend::None(_) => {}
            Backend::Btrfs => {
                let (parent, name) = open_parent(path).context(action)?;
                btrfs::create_subvolume(parent.as_fd(), &name).context(action)?;
            }
            Backend::Ext4 | Backend::Xfs => {
                std::fs::create_dir(path).context(action)?;
                let directory = file::open_directory(path).context(action)?;
                let _alone = lock(&self.choosing);
                project::take(directory.as_fd()).context(action)?;
            }
        }
        Ok(())
    }

    /// Changes the limits of a layer, and gives them as the kernel keeps them; nothing where there is no back-end.
    pub(crate) fn limit(&self, path: &Path, asked: &request::Disk) -> Result<Option<Limits>, Error> {
        if let Backend::None(_) = self.backend {
            return Ok(None);
        }
        let setting = || "Failed setting disk limit".to_owned();
        let getting = || "Failed getting disk limit".to_owned();
        let directory = file::open_directory(path).context(getting)?;
        let directory = directory.as_fd();
        let before = self.read(directory).context(getting)?.0;
        if *asked == request::Disk::default() {
            return Ok(Some(before));
        }
        // Below a project the kernel tells the project's limits for the size of the file system.
        let size = size_of_file_system(path.parent().unwrap_or(path)).context(getting)?;
        let wanted = limits::merge(before, asked, size)?;
        if self.backend == Backend::Btrfs && (Limits { hard_bytes: 0, ..wanted }) != Limits::default() {
            tracing::info!(layer = %path.display(), "btrfs has no limits of files and no soft limits: those of a request have no effect");
        }
        match self.backend {
            Backend::None(_) => {}
            Backend::Ext4 | Backend::Xfs => project::limit(directory, wanted).context(setting)?,
            Backend::Btrfs => {
                // Asked through the layer itself, one that is full would refuse to be given more.
                let (parent, _) = open_parent(path).context(setting)?;
                subvolume::limit(parent.as_fd(), directory, wanted.hard_bytes).context(setting)?;
            }
        }
        self.read(directory).context(getting).map(|(limits, _)| Some(limits))
    }

    /// Counts what is in a layer, where the kernel tells.
    pub(crate) fn stat(&self, path: &Path) -> Option<DiskStat> {
        if let Backend::None(_) = self.backend {
            return None;
        }
        let directory = file::open_directory(path).ok()?;
        let (_, (bytes_used, inodes_used)) = self.read(directory.as_fd()).ok()?;
        Some(DiskStat { bytes_used, inodes_used, backend: self.backend.name() })
    }

    fn read(&self, directory: BorrowedFd<'_>) -> io::Result<(Limits, (u64, Option<u64>))> {
        match self.backend {
            Backend::None(_) => Err(io::ErrorKind::Unsupported.into()),
            Backend::Ext4 | Backend::Xfs => {
                let (limits, usage) = project::read(directory)?;
                Ok((limits, (usage.bytes, Some(usage.inodes))))
            }
            Backend::Btrfs => subvolume::read(directory).map(|(limits, bytes)| (limits, (bytes, None))),
        }
    }
}

/// Lifts the limits of a layer, if it has any: its project is free again; its subvolume and all that is in it is gone.
/// Looks at the directory alone, whatever the back-end is now.
pub(crate) fn release(path: &Path) -> Result<(), Error> {
    let action = || format!("lifting the disk limits of {}", path.display());
    let directory = match file::open_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.context(action)?,
    };
    if rustix::fs::fstatfs(&directory).context(action)?.f_type as u64 != btrfs::FILE_SYSTEM {
        return project::release(directory.as_fd()).context(action);
    }
    if file::inode(&directory).context(action)? != btrfs::TOP_INODE {
        return Ok(());
    }
    let (parent, name) = open_parent(path).context(action)?;
    subvolume::remove(directory, parent.as_fd(), &name).context(action)
}

fn open_parent(path: &Path) -> io::Result<(File, CString)> {
    let missing = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = CString::new(path.file_name().ok_or_else(missing)?.as_bytes())?;
    Ok((File::open(path.parent().ok_or_else(missing)?)?, name))
}

fn size_of_file_system(path: &Path) -> io::Result<Size> {
    let found = statfs(path)?;
    Ok(Size { bytes: found.f_blocks.saturating_mul(found.f_bsize as u64), inodes: found.f_files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_end_says_what_it_is_and_why_there_is_none() {
        assert_eq!(Backend::probe(Path::new("/proc/nothing"), false).unwrap(), Backend::None(Reason::Off));
        let none = Backend::probe(Path::new("/proc/self/nothing/deeper"), true).unwrap();
        assert_eq!(none, Backend::None(Reason::Impossible));
        assert!(none.to_string().starts_with("none: "), "{none}");
        assert!(Backend::None(Reason::NotEnabled("why")).to_string().ends_with(": why"));
    }

    #[test]
    fn without_a_back_end_a_layer_is_left_alone() {
        let top = tempfile::tempdir().unwrap();
        let disk = Disk { backend: Backend::None(Reason::Off), choosing: Mutex::default() };
        let path = top.path().join("tmp");
        disk.make(&path).unwrap();
        assert!(!path.exists(), "made by whoever makes directories");
        let asked = request::Disk { hard: Some(request::Space::Bytes(u64::MAX)), ..Default::default() };
        assert_eq!(disk.limit(&path, &asked).unwrap(), None);
        assert_eq!(disk.stat(&path), None);
        release(&path).unwrap();
        release(top.path()).unwrap();
    }
}
