//! Subvolumes of btrfs and their quota groups: what one subvolume may refer to.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{Opcode, opcode};

const MAGIC: u8 = 0x94;
/// The inode number of every subvolume's top directory, and of nothing else.
pub const TOP_INODE: u64 = 256;
/// BTRFS_SUPER_MAGIC, the type that statfs(2) tells.
pub const FILE_SYSTEM: u64 = 0x9123_683e;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Volume {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct Lookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

/// `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
struct GroupCreate {
    create: u64,
    group: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
struct GroupLimit {
    group: u64,
    flags: u64,
    referenced: u64,
    exclusive: u64,
    reserved: [u64; 2],
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FileSystem {
    devices: [u64; 2],
    id: [u8; 16],
    rest: [u64; 124],
}

const _: () = assert!(size_of::<Volume>() == 4096 && size_of::<Lookup>() == 4096);
const _: () = assert!(size_of::<GroupLimit>() == 48 && size_of::<FileSystem>() == 1024);

const SUBVOL_CREATE: Opcode = opcode::write::<Volume>(MAGIC, 14);
const SNAP_DESTROY: Opcode = opcode::write::<Volume>(MAGIC, 15);
const INO_LOOKUP: Opcode = opcode::read_write::<Lookup>(MAGIC, 18);
const FS_INFO: Opcode = opcode::read::<FileSystem>(MAGIC, 31);
const QUOTA_CTL: Opcode = opcode::read_write::<QuotaControl>(MAGIC, 40);
const QGROUP_CREATE: Opcode = opcode::write::<GroupCreate>(MAGIC, 42);
// The direction is wrong in the kernel's own header.
const QGROUP_LIMIT: Opcode = opcode::read::<GroupLimit>(MAGIC, 43);
const QUOTA_ENABLE: u64 = 1;
const LIMIT_REFERENCED: u64 = 1;
/// Takes a limit away.
const NO_LIMIT: u64 = u64::MAX;

fn ask<T>(file: BorrowedFd<'_>, request: Opcode, argument: &mut T) -> io::Result<()> {
    // SAFETY: each caller gives the structure of its request, whose size is part of the request's number; it lives
    // through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, std::ptr::from_mut(argument)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn volume(name: &CStr) -> io::Result<Box<Volume>> {
    let mut volume = Box::new(Volume { fd: 0, name: [0; 4088] });
    let name = name.to_bytes_with_nul();
    let place = volume.name.get_mut(..name.len()).ok_or(rustix::io::Errno::NAMETOOLONG)?;
    place.copy_from_slice(name);
    Ok(volume)
}

/// Makes a subvolume in an open directory.
pub fn create_subvolume(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    ask(parent, SUBVOL_CREATE, &mut *volume(name)?)
}

/// Removes a subvolume of an open directory with all that is in it; the kernel frees the space afterwards.
pub fn remove_subvolume(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    ask(parent, SNAP_DESTROY, &mut *volume(name)?)
}

/// The id of the subvolume that an open file belongs to.
pub fn subvolume(file: BorrowedFd<'_>) -> io::Result<u64> {
    let mut lookup = Box::new(Lookup { tree: 0, object: TOP_INODE, name: [0; 4080] });
    ask(file, INO_LOOKUP, &mut *lookup)?;
    Ok(lookup.tree)
}

/// The id of an open file's file system, as /sys/fs/btrfs writes it.
pub fn file_system(file: BorrowedFd<'_>) -> io::Result<String> {
    let mut found = Box::new(FileSystem { devices: [0; 2], id: [0; 16], rest: [0; 124] });
    ask(file, FS_INFO, &mut *found)?;
    Ok(uuid(found.id))
}

fn uuid(id: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (position, byte) in id.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Has the file system of an open file count what each subvolume refers to, from now on.
pub fn enable_quota(file: BorrowedFd<'_>) -> io::Result<()> {
    ask(file, QUOTA_CTL, &mut QuotaControl { command: QUOTA_ENABLE, status: 0 })
}

/// Limits the bytes that a subvolume refers to; 0 lifts the limit.
pub fn limit(file: BorrowedFd<'_>, subvolume: u64, bytes: u64) -> io::Result<()> {
    let referenced = if bytes == 0 { NO_LIMIT } else { bytes };
    let mut limit =
        GroupLimit { group: subvolume, flags: LIMIT_REFERENCED, referenced, exclusive: 0, reserved: [0; 2] };
    ask(file, QGROUP_LIMIT, &mut limit)
}

/// Forgets the quota group of a subvolume that was removed.
pub fn remove_group(file: BorrowedFd<'_>, subvolume: u64) -> io::Result<()> {
    ask(file, QGROUP_CREATE, &mut GroupCreate { create: 0, group: subvolume })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_kernel_s() {
        let numbers = [SUBVOL_CREATE, SNAP_DESTROY, INO_LOOKUP, FS_INFO];
        assert_eq!(numbers, [0x5000_940e, 0x5000_940f, 0xd000_9412, 0x8400_941f]);
        let numbers = [QUOTA_CTL, QGROUP_CREATE, QGROUP_LIMIT];
        assert_eq!(numbers, [0xc010_9428, 0x4010_942a, 0x8030_942b]);
    }

    #[test]
    fn an_id_is_written_as_sysfs_writes_it() {
        let id = std::array::from_fn(|position| position as u8 * 17);
        assert_eq!(uuid(id), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        let name = std::ffi::CString::new(vec![b'x'; 4088]).unwrap();
        assert_eq!(volume(&name).err().and_then(|error| error.raw_os_error()), Some(libc::ENAMETOOLONG));
    }
}
