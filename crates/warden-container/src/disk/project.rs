//! A writable layer as a project of ext4 or XFS.

use std::io;
use std::os::fd::BorrowedFd;

use warden_linux::{file, quota};

use super::Limits;

/// Projects of containers have this bit: numbers that people give to theirs are small.
const OURS: u32 = 1 << 31;
/// How many numbers are tried before it is taken for a failure.
const ATTEMPTS: u32 = 1024;

/// Whether the file system refuses what is above a project's limit.
pub(super) fn enforced(directory: BorrowedFd<'_>) -> bool {
    quota::state(directory).is_ok_and(|state| state.counted && state.enforced)
}

/// Makes an empty directory a project of its own.
///
/// Its number comes from the directory's inode number: several daemons may have their depots on one file system, and
/// leases are unique within one of them only. A number that something is counted for is passed over.
pub(super) fn take(directory: BorrowedFd<'_>) -> io::Result<()> {
    let first = file::inode(directory)? as u32;
    for attempt in 0..ATTEMPTS {
        let project = candidate(first, attempt);
        if quota::get(directory, project)? == Default::default() {
            // From here on the directory itself is counted for it.
            return quota::set_project(directory, project);
        }
    }
    Err(io::Error::other("no project number is free"))
}

fn candidate(inode: u32, attempt: u32) -> u32 {
    match inode.wrapping_add(attempt) | OURS {
        // No project has the number that stands for none.
        u32::MAX => OURS,
        project => project,
    }
}

pub(super) fn read(directory: BorrowedFd<'_>) -> io::Result<(Limits, quota::Usage)> {
    let (limits, usage) = quota::get(directory, project(directory)?)?;
    let quota::Limits { soft_bytes, hard_bytes, soft_inodes, hard_inodes } = limits;
    Ok((Limits { soft_bytes, hard_bytes, soft_inodes, hard_inodes }, usage))
}

pub(super) fn limit(directory: BorrowedFd<'_>, limits: Limits) -> io::Result<()> {
    let Limits { soft_bytes, hard_bytes, soft_inodes, hard_inodes } = limits;
    let limits = quota::Limits { soft_bytes, hard_bytes, soft_inodes, hard_inodes };
    quota::set(directory, project(directory)?, limits)
}

/// The project of a layer; one that was made without quotas has none, and 0 belongs to everybody.
fn project(directory: BorrowedFd<'_>) -> io::Result<u32> {
    match quota::project(directory)? {
        0 => Err(io::Error::other("the container was made when there were no disk limits")),
        project => Ok(project),
    }
}

/// Lifts the limits of a layer's project, if it has one; the kernel forgets the project with its last file.
pub(super) fn release(directory: BorrowedFd<'_>) -> io::Result<()> {
    match quota::project(directory) {
        Ok(project) if project & OURS != 0 && enforced(directory) => {
            quota::set(directory, project, quota::Limits::default())
        }
        // Another project, none, or a file system without: nothing is limited.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_the_inode_s_number_and_is_never_that_of_people_or_none() {
        assert_eq!(candidate(12, 0), 0x8000_000c);
        assert_eq!(candidate(12, 3), 0x8000_000f);
        assert_eq!(candidate(0x7fff_fffe, 0), 0xffff_fffe);
        assert_eq!(candidate(0x7fff_fffe, 1), OURS);
        assert_eq!(candidate(u32::MAX, 0), OURS);
        assert_eq!(candidate(u32::MAX, 1), OURS);
    }
}
