//! Root file systems: which shared lower layer a container gets, and whether it can be used.

mod base;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use warden_init::byte_string::ByteString;
use warden_init::spec::Bind;

use crate::depot::{Depot, remove_entry};
use crate::error::{Context, Error};
use crate::id::Id;
use crate::settings::Image;

/// The shell that reads every job's script.
pub(crate) const SHELL: &str = "/bin/bash";

/// What of the host a container's root file system is made from.
#[derive(Clone, Debug)]
pub(crate) struct Lower {
    /// The directory that is the shared layer.
    pub(crate) path: PathBuf,
    /// What appears read-only over it.
    pub(crate) system: Vec<Bind>,
}

impl Lower {
    /// Makes the configured image ready: builds the generated one under the name `name`, examines a directory.
    pub(crate) fn prepare(image: &Image, depot: &Depot, name: Id) -> Result<Self, Error> {
        match image {
            Image::Directory(path) => Self::directory(path),
            Image::Host => {
                // A name of its own each time: the layer below a running container never changes.
                let path = depot.images().join(format!("host-{name}"));
                let system = base::build(Path::new("/"), &path)?;
                let lower = Self { path, system };
                lower.check_system()?;
                Ok(lower)
            }
        }
    }

    /// Examines the directory that a request names.
    pub(crate) fn requested(path: &[u8]) -> Result<Self, Error> {
        let named = ByteString(path.to_vec());
        let exists = named.as_path().is_absolute() && named.as_path().exists();
        if exists { Self::directory(named.as_path()) } else { Err(Error::NoRootfs(path.to_vec())) }
    }

    /// Examines a directory.
    fn directory(path: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadRootfs { path: path.to_owned(), reason };
        let real = path.canonicalize().map_err(|error| bad(error.to_string()))?;
        check_shell(&real).map_err(|reason| bad(format!("its {SHELL}: {reason}")))?;
        Ok(Self { path: real, system: Vec::new() })
    }

    /// Makes sure that the host itself has what its image shows.
    fn check_system(&self) -> Result<(), Error> {
        check_shell(Path::new("/")).map_err(|reason| Error::BadRootfs {
            path: PathBuf::from("/"),
            reason: format!("its {SHELL}: {reason}"),
        })
    }
}

/// Makes sure that everybody may execute the shell of a root file system, whatever its links point to.
fn check_shell(root: &Path) -> Result<(), String> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty());
    let directory = directory.map_err(|errno| errno.to_string())?;
    let shell = SHELL.trim_start_matches('/');
    let shell = rustix::fs::openat2(&directory, shell, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    let stat = shell
        .and_then(|shell| rustix::fs::fstat(&shell))
        .map_err(|errno| io::Error::from(errno).to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_mode & 0o001 == 0 {
        return Err("not a file that everybody may execute".to_owned());
    }
    Ok(())
}

/// Removes generated images that no container of the depot uses, and that are not `current`; goes on past errors.
pub(crate) fn remove_unused(depot: &Depot, current: &Lower) -> Result<(), Error> {
    let used: BTreeSet<OsString> =
        depot.containers()?.into_iter().filter_map(|id| lower_of(depot, id)).collect();
    let images = depot.images();
    let entries = fs::read_dir(&images).context(|| format!("reading {}", images.display()))?;
    let unused =
        entries.flatten().filter(|entry| entry.path() != current.path && !used.contains(&entry.file_name()));
    let removed =
        unused.filter_map(|entry| remove_entry(&images, &entry.file_name().to_string_lossy()).err());
    Error::join(removed.collect()).map_or(Ok(()), Err)
}

/// The name of the image that a container uses: the depot may have been moved since.
fn lower_of(depot: &Depot, id: Id) -> Option<OsString> {
    depot.read_spec(id)?.root.lower.as_path().file_name().map(OsString::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn rootfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        root
    }

    fn add_shell(root: &Path, mode: u32) {
        let shell = root.join("usr/bin/bash");
        fs::write(&shell, "").unwrap();
        fs::set_permissions(shell, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_with_a_shell_is_an_image() {
        let root = rootfs();
        symlink("/usr/bin", root.path().join("bin")).unwrap();
        add_shell(root.path(), 0o755);
        let lower = Lower::requested(root.path().as_os_str().as_bytes()).unwrap();
        assert_eq!((lower.path.as_path(), lower.system.len()), (root.path(), 0));
    }

    #[test]
    fn an_absolute_link_is_looked_up_inside() {
        let root = rootfs();
        symlink("/usr/bin", root.path().join("bin")).unwrap();
        let refused = Lower::directory(root.path()).unwrap_err().to_string();
        assert!(refused.contains(root.path().to_str().unwrap()), "{refused}");
        assert!(
            refused.ends_with("its /bin/bash: No such file or directory (os error 2)"),
            "the host's does not count: {refused}"
        );
    }

    #[test]
    fn what_is_missing_or_unusable_is_named() {
        let refused = |path: &[u8]| Lower::requested(path).unwrap_err().to_string();
        assert_eq!(refused(b"/no/such"), "rootfs /no/such not found");
        assert_eq!(refused(b"relative"), "rootfs relative not found");
        assert_eq!(refused(b""), "rootfs  not found");
        assert!(refused(b"/etc/passwd").starts_with("rootfs /etc/passwd is not usable: its /bin/bash: "));
        let root = rootfs();
        symlink("usr/bin", root.path().join("bin")).unwrap();
        add_shell(root.path(), 0o750);
        let text = Lower::directory(root.path()).unwrap_err().to_string();
        assert!(text.ends_with("its /bin/bash: not a file that everybody may execute"), "{text}");
        let missing = Lower::directory("/no/such".as_ref()).unwrap_err().to_string();
        assert_eq!(missing, "rootfs /no/such is not usable: No such file or directory (os error 2)");
    }

    #[test]
    fn unused_images_are_removed() {
        let top = tempfile::tempdir().unwrap();
        let depot = Depot::open(top.path()).unwrap();
        let name = |text: &[u8]| Id::parse(text).unwrap();
        let old = Lower::prepare(&Image::Host, &depot, name(b"00000000001")).unwrap();
        let new = Lower::prepare(&Image::Host, &depot, name(b"00000000002")).unwrap();
        remove_unused(&depot, &new).unwrap();
        assert!(!old.path.exists() && new.path.exists());
    }
}
