//! Namespaces of this process.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::thread::LinkNameSpaceType;

/// Joins a user namespace; this process must have one thread.
pub fn join_user(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))?)
}

/// Names the host of this UTS namespace.
pub fn set_hostname(name: &[u8]) -> io::Result<()> {
    Ok(rustix::system::sethostname(name)?)
}
