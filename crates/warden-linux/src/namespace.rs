//! Namespaces of this process.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

/// Joins a user namespace; this process must have one thread.
pub fn join_user(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))?)
}

/// Gives this thread a new network namespace; what it starts lives there too.
pub fn leave_network() -> io::Result<()> {
    // SAFETY: the flag concerns this thread alone, and neither its memory nor its descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Joins another process's namespaces, all but that of process ids, and its root directory with them; this process must
/// have one thread. Its user namespace is left out for a process that has none of its own.
pub fn join_process(pidfd: BorrowedFd<'_>, with_user: bool) -> io::Result<()> {
    let mut namespaces = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::NETWORK;
    namespaces.set(ThreadNameSpaceType::USER, with_user);
    Ok(rustix::thread::move_into_thread_name_spaces(pidfd, namespaces)?)
}

/// Gives this process, which must have one thread, a copy of its mount namespace; the copy belongs to its user namespace.
pub fn leave_mounts() -> io::Result<()> {
    // SAFETY: the flag concerns neither memory nor descriptors; the file system attributes, which are no longer shared
    // after it, are shared by nobody in a process of one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(())
}

/// Joins a mount namespace, with its root directory; this process must have one thread.
pub fn join_mounts(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?)
}

/// Names the host of this UTS namespace.
pub fn set_hostname(name: &[u8]) -> io::Result<()> {
    Ok(rustix::system::sethostname(name)?)
}
