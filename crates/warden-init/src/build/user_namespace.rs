//! A user namespace as a descriptor.
//!
//! Whatever the kernel counts for a user of such a namespace (inotify instances, pending signals, bytes in message queues,
//! namespaces) it counts for the user who made the namespace, too. Were that root, one container that takes all would
//! leave nothing to the others and to the host's root: so each is made by a user of its own.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use warden_linux::bystander::Bystander;
use warden_linux::process::{self, Namespaces};

use super::SetupError;
use crate::spec::IdRange;

/// Makes a user namespace that maps a range of the host's ids to 0 and on, by a process that lives only meanwhile.
pub(super) fn create(ids: IdRange) -> Result<OwnedFd, SetupError> {
    let range = format!("{}+{}", ids.host_start, ids.count);
    map(ids).map_err(|error| SetupError::new("map the ids", range.as_str(), &error))
}

fn map(ids: IdRange) -> io::Result<OwnedFd> {
    // The container's own root, by its host id; nobody on the host has that.
    let helper = process::with_effective_user(ids.host_start, || Bystander::new(Namespaces::NEWUSER))?;
    let (pid, line) = (helper.id(), format!("0 {} {}\n", ids.host_start, ids.count));
    std::fs::write(format!("/proc/{pid}/uid_map"), &line)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &line)?;
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
}
