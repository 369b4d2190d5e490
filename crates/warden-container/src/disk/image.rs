//! A file that holds the depot: formatted once, with quotas, and mounted at the depot's path by the daemon itself.
//!
//! ```text
//! new file:  lock, mkfs FILE.new, attach it to a loop device, mount, try the quotas, rename to FILE, show at the depot
//! FILE:      lock, attach, mount, show at the depot
//!            ... already mounted there by a daemon that was killed, or left containers: lock
//! end:       unmount when no container is left; the kernel frees the loop device then
//! ```

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use warden_linux::mount::{self, Attributes};
use warden_linux::mount_table::{self, Mount};
use warden_linux::{btrfs, file, loop_device};

use super::Backend;
use crate::error::{Context, Error};
use crate::id::Id;
use crate::settings::DepotImage as Settings;

/// Where mkfs is looked for: a daemon's PATH may lack it.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// A file system that an image can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ext4,
    Btrfs,
}

impl Kind {
    /// The better one first: it counts files, too.
    const ALL: [Self; 2] = [Self::Ext4, Self::Btrfs];

    fn name(self) -> &'static CStr {
        match self {
            Self::Ext4 => c"ext4",
            Self::Btrfs => c"btrfs",
        }
    }

    fn text(self) -> &'static str {
        self.name().to_str().unwrap_or_default()
    }

    /// The program that makes it, with its options.
    fn format(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &[
                "mkfs.ext4",
                "-qF",
                "-b4096",
                "-I256",
                "-m0",
                "-Oquota,project",
                "-Equotatype=prjquota,lazy_itable_init=1,lazy_journal_init=1",
            ],
            // The file's own file system keeps it safe: nothing is written twice.
            Self::Btrfs => &["mkfs.btrfs", "-qf", "-msingle", "-dsingle"],
        }
    }

    fn mount_options(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Ext4 => &[("prjquota", "")],
            Self::Btrfs => &[],
        }
    }

    /// Reads what a file begins with.
    fn of(file: &File) -> io::Result<Self> {
        let starts = |offset, magic: &[u8]| {
            let mut found = vec![0; magic.len()];
            file.read_exact_at(&mut found, offset).is_ok_and(|()| found == magic)
        };
        match (starts(0x438, &[0x53, 0xef]), starts(0x1_0040, b"_BHRfS_M")) {
            (true, _) => Ok(Self::Ext4),
            (_, true) => Ok(Self::Btrfs),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds neither ext4 nor btrfs")),
        }
    }
}

/// The depot's file system, mounted from an image; unmounted when this is dropped and no container is left.
#[derive(Debug)]
pub(crate) struct DepotImage {
    depot: PathBuf,
    /// Locked: no other daemon uses the image, or mounts another one at the depot.
    _locks: [Option<File>; 2],
}

impl DepotImage {
    /// Mounts the image at the depot's path; makes what is missing.
    pub(crate) fn mount(settings: &Settings, depot: &Path) -> Result<Self, Error> {
        let Settings { path: image, size } = settings;
        fs::create_dir_all(depot).context(|| format!("making depot {}", depot.display()))?;
        let action = || format!("mounting {} at {}", image.display(), depot.display());
        let depot = depot.canonicalize().context(action)?;
        let place = File::open(&depot).context(action)?;
        let held = lock(image).context(|| format!("locking {}", image.display()))?;
        let device = attached(&held).context(action)?;
        if let Some(source) = mounted_at(&depot).context(action)? {
            if device.is_none_or(|device| device != source) {
                let source = io::Error::other(format!("{} is mounted there", source.display()));
                return Err(source).context(action);
            }
            tracing::info!(image = %image.display(), "the depot's image is mounted already");
            return Ok(Self { depot, _locks: [Some(held), None] });
        }
        take(&place).context(|| format!("locking {}", depot.display()))?;
        let is_new = held.metadata().context(action)?.len() == 0;
        let (held, tree) = if is_new {
            make(image, *size)?
        } else {
            let tree = open(image, device, Kind::of(&held).context(action)?).context(action)?;
            (held, tree)
        };
        file::open_place(&depot)
            .and_then(|depot| mount::attach(tree.as_fd(), depot.as_fd()))
            .context(action)?;
        tracing::info!(image = %image.display(), depot = %depot.display(), is_new, "mounted the depot's image");
        Ok(Self { depot, _locks: [Some(held), Some(place)] })
    }

    /// Unmounts it, unless there are containers in it.
    pub(crate) fn unmount(&self) -> Result<(), Error> {
        let action = || format!("unmounting the image at {}", self.depot.display());
        let mut entries = fs::read_dir(&self.depot).context(action)?.flatten();
        if entries.any(|entry| Id::parse(entry.file_name().as_bytes()).is_some()) {
            return Ok(());
        }
        drop(entries);
        match mounted_at(&self.depot).context(action)? {
            Some(_) => mount::unmount(&self.depot).context(action),
            None => Ok(()),
        }
    }
}

impl Drop for DepotImage {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::warn!(%error, "the depot's image stays mounted");
        }
    }
}

/// Opens the image for this daemon alone; one that does not exist is empty.
fn lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    take(&file)?;
    Ok(file)
}

fn take(file: &File) -> io::Result<()> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "another wardend uses it"))
        }
        done => Ok(done?),
    }
}

/// Makes a new image with the first kind of file system whose quotas work here; what is half made has another name.
fn make(path: &Path, size: u64) -> Result<(File, OwnedFd), Error> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut refusals = Vec::new();
    for kind in Kind::ALL {
        match format(&new, size, kind) {
            Ok((file, tree)) => {
                fs::rename(&new, path).context(|| format!("renaming {}", new.display()))?;
                tracing::info!(image = %path.display(), size, kind = kind.text(), "formatted the depot's image");
                return Ok((file, tree));
            }
            Err(error) => refusals.push(format!("{}: {error}", kind.text())),
        }
    }
    let removed = fs::remove_file(&new);
    if let Err(error) = removed.and_then(|()| fs::remove_file(path)) {
        tracing::warn!(image = %path.display(), %error, "what could not be formatted was not removed");
    }
    Err(io::Error::other(refusals.join("; "))).context(|| format!("formatting {}", path.display()))
}

fn format(path: &Path, size: u64, kind: Kind) -> io::Result<(File, OwnedFd)> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    take(&file)?;
    file.set_len(size)?;
    run(kind.format(), path)?;
    let tree = open(path, None, kind)?;
    // The mount itself is a place only (O_PATH).
    let root = rustix::fs::openat(&tree, ".", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
    if kind == Kind::Btrfs {
        btrfs::enable_quota(root.as_fd())?;
    }
    match Backend::of(root.as_fd())? {
        Backend::None(_) => Err(io::Error::other("this kernel enforces no quotas on it")),
        _ => Ok((file, tree)),
    }
}

/// Runs mkfs; its last words are the reason of a failure.
fn run(words: &[&str], path: &Path) -> io::Result<()> {
    let [program, options @ ..] = words else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(options).arg(path).env("PATH", PATH).stdin(Stdio::null());
    let output =
        command.output().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    Err(io::Error::other(format!("{program}: {}: {last}", output.status)))
}

/// Mounts an image without showing it anywhere yet.
fn open(image: &Path, device: Option<PathBuf>, kind: Kind) -> io::Result<OwnedFd> {
    // A second device of one file would make two file systems of it, which destroy each other.
    let (device, _held) = match device {
        Some(device) => (device, None),
        None => {
            // Opened once more: what the device holds would keep our lock when this daemon is gone.
            let file = OpenOptions::new().read(true).write(true).open(image)?;
            loop_device::attach(file.as_fd()).map(|(path, held)| (path, Some(held)))?
        }
    };
    let attributes = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
    mount::create_from(kind.name(), &device, kind.mount_options(), attributes)
}

/// The loop device that a file is attached to already.
fn attached(file: &File) -> io::Result<Option<PathBuf>> {
    let wanted = file.metadata()?;
    let is_it = |path: &Path| {
        fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
    };
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let Ok(backing) = fs::read(entry.path().join("loop/backing_file")) else { continue };
        let backing = PathBuf::from(std::ffi::OsString::from_vec(backing.trim_ascii_end().to_vec()));
        if is_it(&backing) {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

/// Whether anything is mounted at a depot, where this process can see it.
pub(crate) fn is_mounted_at(depot: &Path) -> bool {
    mounted_at(depot).is_ok_and(|source| source.is_some())
}

/// The source of what is mounted at a directory.
fn mounted_at(directory: &Path) -> io::Result<Option<PathBuf>> {
    Ok(source_of(&mount_table::read()?, directory))
}

fn source_of(table: &[Mount], directory: &Path) -> Option<PathBuf> {
    table.iter().rfind(|mount| mount.point == directory).map(|mount| mount.source.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_at_a_place_is_the_one_that_is_seen() {
        let text = b"30 24 7:0 / /a\\040b rw shared:9 - ext4 /dev/loop0 rw\n\
            31 24 7:1 / /a\\040b rw - btrfs /dev/loop1 rw\n32 24 7:2 /x /a rw - ext4 /dev/\\134x rw\n";
        let table = mount_table::parse(text);
        assert_eq!(source_of(&table, Path::new("/a b")), Some(PathBuf::from("/dev/loop1")));
        assert_eq!(source_of(&table, Path::new("/a")), Some(PathBuf::from("/dev/\\x")));
        assert_eq!(source_of(&table, Path::new("/b")), None);
    }

    #[test]
    fn the_kind_is_read_from_the_content() {
        let file = tempfile::tempfile().unwrap();
        assert!(Kind::of(&file).is_err());
        file.set_len(1 << 20).unwrap();
        let refused = Kind::of(&file).unwrap_err().to_string();
        assert_eq!(refused, "it holds neither ext4 nor btrfs");
        file.write_all_at(b"_BHRfS_M", 0x1_0040).unwrap();
        assert_eq!(Kind::of(&file).unwrap(), Kind::Btrfs);
        file.write_all_at(&[0x53, 0xef], 0x438).unwrap();
        assert_eq!(Kind::of(&file).unwrap(), Kind::Ext4);
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_last_words() {
        let path = Path::new("/nowhere");
        let refused =
            run(&["sh", "-c", "echo first >&2; echo last >&2; exit 3"], path).unwrap_err().to_string();
        assert_eq!(refused, "sh: exit status: 3: last");
        let refused = run(&["mkfs.nothing"], path).unwrap_err().to_string();
        assert!(refused.starts_with("mkfs.nothing: "), "{refused}");
    }

    #[test]
    fn an_image_has_one_daemon() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("image");
        let held = lock(&path).unwrap();
        assert_eq!(lock(&path).unwrap_err().to_string(), "another wardend uses it");
        drop(held);
        assert_eq!(lock(&path).unwrap().metadata().unwrap().len(), 0);
        assert_eq!(lock(top.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
