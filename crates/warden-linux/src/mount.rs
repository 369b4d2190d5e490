//! Mounts: detached trees, their attributes, attaching them, and pivoting into one.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

/// Flags of a mount, as mount_setattr(2) and fsmount(2) know them.
pub type Attributes = rustix::mount::MountAttrFlags;

/// Flags of mount(2).
pub type MountFlags = rustix::mount::MountFlags;

/// Makes a detached copy of the mount at a path, or, if `recursive`, of all mounts below it too.
pub fn copy(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// Sets attributes of a detached tree's mounts, and, if a user namespace is given, shows its files' owners through that
/// namespace's map.
pub fn set_attributes(
    tree: BorrowedFd<'_>,
    set: Attributes,
    map: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let mut attributes =
        libc::mount_attr { attr_set: u64::from(set.bits()), attr_clr: 0, propagation: 0, userns_fd: 0 };
    if let Some(map) = map {
        attributes.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attributes.userns_fd = map.as_raw_fd() as u64;
    }
    // SAFETY: the path is an empty C string, and the kernel reads `attributes` of the stated size; both live through
    // the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a detached mount of a new file system; /proc/mounts will show its type as its source.
pub fn create(kind: &CStr, options: &[(&str, &str)], attributes: Attributes) -> io::Result<OwnedFd> {
    create_from(kind, Path::new(OsStr::from_bytes(kind.to_bytes())), options, attributes)
}

/// Makes a detached mount of the file system on a device.
pub fn create_from(
    kind: &CStr,
    source: &Path,
    options: &[(&str, &str)],
    attributes: Attributes,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", source)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Attaches a detached tree at an open place.
pub fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, c"", place, c"", flags)?)
}

/// Mounts a new file system, as mount(2).
pub fn mount(source: &CStr, target: &Path, kind: &CStr, flags: MountFlags, data: &CStr) -> io::Result<()> {
    Ok(rustix::mount::mount(source, target, kind, flags, data)?)
}

/// Unmounts what is mounted at a path, if nobody uses it.
pub fn unmount(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)?)
}

/// Takes away what is mounted at a path, and all below it, whoever uses it: they go on with what they have open.
pub fn detach(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// Cuts every mount of this mount namespace off from its peers in others.
pub fn make_all_private() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Makes the mount at a directory this mount namespace's root and detaches the one that was.
pub fn pivot_into(directory: &Path) -> io::Result<()> {
    rustix::process::chdir(directory)?;
    // The old root lands on top of the new one, needing no directory in it; the working directory stays below it.
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir(c"/")?)
}
