//! A writable layer as a subvolume of btrfs, whose quota group the kernel makes with it.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use warden_linux::{btrfs, file};

use super::Limits;

/// Bits of `limit_flags`: the limit of what is referred to holds.
const LIMIT_REFERENCED: u64 = 1;

/// Where the kernel tells of the quota groups of a file system.
fn groups(file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    Ok(Path::new("/sys/fs/btrfs").join(btrfs::file_system(file)?).join("qgroups"))
}

/// Whether the file system counts what its subvolumes refer to.
pub(super) fn counted(directory: BorrowedFd<'_>) -> bool {
    groups(directory).is_ok_and(|path| path.exists())
}

/// The limits, and the bytes that are used.
pub(super) fn read(directory: BorrowedFd<'_>) -> io::Result<(Limits, u64)> {
    if file::inode(directory)? != btrfs::TOP_INODE {
        return Err(io::Error::other("the container was made when there were no disk limits"));
    }
    let group = groups(directory)?.join(format!("0_{}", btrfs::subvolume(directory)?));
    let read = |name: &str| number(&group.join(name));
    let limited = read("limit_flags")? & LIMIT_REFERENCED != 0;
    let hard_bytes = if limited { no_sentinel(read("max_referenced")?) } else { 0 };
    // What was written since the last commit is only reserved yet.
    let bytes = read("referenced")?.saturating_add(read("rsv_data")?);
    Ok((Limits { hard_bytes, ..Limits::default() }, bytes))
}

fn no_sentinel(limit: u64) -> u64 {
    if limit == u64::MAX { 0 } else { limit }
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{path:?}: {text:?}")))
}

/// Limits a subvolume, through another one of its file system.
pub(super) fn limit(other: BorrowedFd<'_>, directory: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    btrfs::limit(other, btrfs::subvolume(directory)?, bytes)
}

/// Removes a subvolume with all that is in it, and its quota group.
pub(super) fn remove(directory: OwnedFd, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let id = btrfs::subvolume(directory.as_fd())?;
    drop(directory);
    btrfs::remove_subvolume(parent, name)?;
    // Newer kernels remove the group themselves once they have freed the space, and refuse it until then (EBUSY);
    // without quotas there is none.
    let _ = btrfs::remove_group(parent, id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifted_limit_is_none() {
        assert_eq!((no_sentinel(u64::MAX), no_sentinel(5), no_sentinel(0)), (0, 5, 0));
    }

    #[test]
    fn a_file_that_holds_no_number_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "12\n").unwrap();
        assert_eq!(number(file.path()).unwrap(), 12);
        fs::write(file.path(), "member\n").unwrap();
        let refused = number(file.path()).unwrap_err().to_string();
        assert!(refused.contains(file.path().to_str().unwrap()), "{refused}");
    }
}
