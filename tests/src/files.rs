//! Directories of a test, and what is in them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Makes a temporary directory that every user may pass through and read.
pub fn directory() -> TempDir {
    let directory =
        tempfile::Builder::new().prefix("warden-test.").tempdir().expect("a temporary directory can be made");
    set_mode(directory.path(), 0o755);
    directory
}

/// Makes a file with its content and mode, and the directories above it.
#[track_caller]
pub fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    set_mode(path, mode);
    path.to_owned()
}

/// Makes a directory, and those above it, with its mode.
#[track_caller]
pub fn make_directory(path: &Path, mode: u32) -> PathBuf {
    fs::create_dir_all(path).unwrap();
    set_mode(path, mode);
    path.to_owned()
}

/// Sets the permission bits.
#[track_caller]
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A path of any bytes.
pub fn path(bytes: impl AsRef<[u8]>) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes.as_ref()))
}

/// The bytes of a path.
pub fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Everything below a directory: kind and mode, owner, group, and content or target. For telling whether it was touched.
pub fn snapshot(directory: &Path) -> BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    observe(directory, &mut seen);
    seen
}

fn observe(path: &Path, seen: &mut BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let content = if metadata.is_file() {
        fs::read(path).unwrap()
    } else if metadata.is_symlink() {
        bytes(&fs::read_link(path).unwrap())
    } else {
        Vec::new()
    };
    seen.insert(path.to_owned(), (metadata.mode(), metadata.uid(), metadata.gid(), content));
    if metadata.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| observe(&entry.unwrap().path(), seen));
    }
}

/// Quotes any bytes as one word of a shell.
pub fn quote(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in bytes.as_ref() {
        if byte == b'\'' { quoted.extend_from_slice(b"'\\''") } else { quoted.push(byte) }
    }
    quoted.push(b'\'');
    quoted
}

/// Whether files of this directory can be shown with mapped owners; an overlay, NFS or virtiofs cannot.
pub fn can_be_idmapped(directory: &Path) -> bool {
    let kind = crate::programs::host("stat", &["-f", "-c", "%T", directory.to_str().unwrap()]);
    ["ext2/ext3", "tmpfs", "xfs", "btrfs"].contains(&kind.trim())
}
