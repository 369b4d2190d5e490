//! A user namespace as a descriptor.
//!
//! Whatever the kernel counts for a user of such a namespace (inotify instances, pending signals, bytes in message queues,
//! namespaces) it counts for the user who made the namespace, too. Were that root, one container that takes all would
//! leave nothing to the others and to the host's root: so each is made by a user of its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use warden_linux::process::{self, ForkOptions, Namespaces};

use super::SetupError;
use crate::spec::IdRange;

/// Makes a user namespace that maps a range of the host's ids to 0 and on, by a helper that lives only meanwhile.
pub(super) fn create(ids: IdRange) -> Result<OwnedFd, SetupError> {
    let range = format!("{}+{}", ids.host_start, ids.count);
    map(ids).map_err(|error| SetupError::new("map the ids", range.as_str(), &error))
}

fn map(ids: IdRange) -> io::Result<OwnedFd> {
    let maker = process::id();
    let options = ForkOptions { namespaces: Namespaces::NEWUSER, ..ForkOptions::default() };
    // The container's own root, by its host id; nobody on the host has that.
    let helper =
        process::with_effective_user(ids.host_start, || process::fork(options, || wait_to_be_killed(maker)))?;
    let namespace = write_maps(helper.pid, ids);
    process::kill_by_pidfd(helper.pidfd.as_fd())?;
    process::wait(helper.pidfd.as_fd())?;
    namespace
}

fn write_maps(pid: i32, ids: IdRange) -> io::Result<OwnedFd> {
    let line = format!("0 {} {}\n", ids.host_start, ids.count);
    std::fs::write(format!("/proc/{pid}/uid_map"), &line)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &line)?;
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
}

fn wait_to_be_killed(maker: i32) -> u8 {
    // The maker may have died before the kernel was asked to tell.
    if process::die_with_parent().is_err() || process::parent_id() != maker {
        return 1;
    }
    loop {
        std::thread::park();
    }
}
