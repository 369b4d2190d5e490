//! Project quotas: how much the files of one project of a file system may take, on every file system that has them.
//!
//! The calls are those that quotactl(2) has for XFS; the kernel serves ext4 through them just as well.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{Opcode, opcode};

/// What a file system does about project quotas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// It counts.
    pub counted: bool,
    /// It refuses what is above a limit.
    pub enforced: bool,
}

/// Limits of one project; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that may be passed for a grace time; kept in units of 512.
    pub soft_bytes: u64,
    /// Bytes that are never passed; kept in units of 512.
    pub hard_bytes: u64,
    /// Files that may be passed for a grace time.
    pub soft_inodes: u64,
    /// Files that are never passed.
    pub hard_inodes: u64,
}

/// What the files of one project take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes.
    pub bytes: u64,
    /// Files, directories among them.
    pub inodes: u64,
}

const PRJQUOTA: u32 = 2;
const Q_XGETQUOTA: u32 = command(3);
const Q_XSETQLIM: u32 = command(4);
const Q_XGETQSTATV: u32 = command(8);

/// QCMD(XQM_CMD(number), PRJQUOTA).
const fn command(number: u32) -> u32 {
    ((b'X' as u32) << 8 | number) << 8 | PRJQUOTA
}

/// The unit of space in `DiskQuota`: the kernel's "basic block".
const BLOCK: u64 = 512;

/// `struct fs_disk_quota`.
#[repr(C)]
#[derive(Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    field_mask: u16,
    id: u32,
    hard_blocks: u64,
    soft_blocks: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    blocks: u64,
    inodes: u64,
    timers: [i32; 2],
    warnings: [u16; 2],
    timers_high: [i8; 4],
    real_time: [u64; 3],
    real_time_timer: i32,
    real_time_warnings: u16,
    padding: [u16; 5],
}

const FS_DQUOT_VERSION: i8 = 1;
const FS_PROJ_QUOTA: i8 = 2;
/// FS_DQ_ISOFT, IHARD, BSOFT and BHARD.
const ALL_LIMITS: u16 = 0b1111;

/// `struct fs_quota_statv`; what follows the flags is of no interest here.
#[repr(C)]
struct StateV {
    version: i8,
    padding: u8,
    flags: u16,
    rest: [u32; 39],
}

const FS_QSTATV_VERSION1: i8 = 1;
const FS_QUOTA_PDQ_ACCT: u16 = 1 << 4;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;

const _: () = assert!(size_of::<DiskQuota>() == 112 && size_of::<StateV>() == 160);

fn quotactl<T>(file: BorrowedFd<'_>, command: u32, id: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: `argument` is the structure of this command, as large as the kernel's, and lives through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd() as libc::c_long,
            command as libc::c_long,
            id as libc::c_long,
            std::ptr::from_mut(argument),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the file system of a file does about project quotas; an error where it does not know them.
pub fn state(file: BorrowedFd<'_>) -> io::Result<State> {
    let mut state = StateV { version: FS_QSTATV_VERSION1, padding: 0, flags: 0, rest: [0; 39] };
    quotactl(file, Q_XGETQSTATV, 0, &mut state)?;
    Ok(State {
        counted: state.flags & FS_QUOTA_PDQ_ACCT != 0,
        enforced: state.flags & FS_QUOTA_PDQ_ENFD != 0,
    })
}

/// The limits of a project, and what it takes.
pub fn get(file: BorrowedFd<'_>, project: u32) -> io::Result<(Limits, Usage)> {
    let mut quota = DiskQuota::default();
    match quotactl(file, Q_XGETQUOTA, project, &mut quota) {
        // XFS has no record of a project that has no files and no limits.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Default::default()),
        other => other?,
    }
    let limits = Limits {
        soft_bytes: quota.soft_blocks.saturating_mul(BLOCK),
        hard_bytes: quota.hard_blocks.saturating_mul(BLOCK),
        soft_inodes: quota.soft_inodes,
        hard_inodes: quota.hard_inodes,
    };
    Ok((limits, Usage { bytes: quota.blocks.saturating_mul(BLOCK), inodes: quota.inodes }))
}

/// Sets all limits of a project at once; without any, and without files, the kernel forgets it.
pub fn set(file: BorrowedFd<'_>, project: u32, limits: Limits) -> io::Result<()> {
    let mut quota = DiskQuota {
        version: FS_DQUOT_VERSION,
        flags: FS_PROJ_QUOTA,
        field_mask: ALL_LIMITS,
        id: project,
        hard_blocks: limits.hard_bytes.div_ceil(BLOCK),
        soft_blocks: limits.soft_bytes.div_ceil(BLOCK),
        hard_inodes: limits.hard_inodes,
        soft_inodes: limits.soft_inodes,
        ..DiskQuota::default()
    };
    quotactl(file, Q_XSETQLIM, project, &mut quota)
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct FileAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    rest: [u32; 3],
}

const FS_IOC_FSGETXATTR: Opcode = opcode::read::<FileAttributes>(b'X', 31);
const FS_IOC_FSSETXATTR: Opcode = opcode::write::<FileAttributes>(b'X', 32);
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

fn attributes(file: BorrowedFd<'_>) -> io::Result<FileAttributes> {
    let mut attributes = FileAttributes::default();
    // SAFETY: the kernel fills the structure of this request, which lives through the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR as _, &raw mut attributes) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(attributes)
}

/// The project of an open file; 0 is none.
pub fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(attributes(file)?.project)
}

/// Makes an open directory, and what is made in it from now on, a project's.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: the kernel reads the structure of this request, which lives through the call.
    if unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR as _, &raw const attributes) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_kernel_s() {
        assert_eq!((Q_XGETQUOTA, Q_XSETQLIM, Q_XGETQSTATV), (0x58_0302, 0x58_0402, 0x58_0802));
        assert_eq!(FS_IOC_FSGETXATTR, 0x801c_581f);
        assert_eq!(FS_IOC_FSSETXATTR, 0x401c_5820);
    }
}
