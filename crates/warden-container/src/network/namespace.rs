//! The network namespace of a container that stands.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use crate::error::{Context, Error};

/// A network namespace, kept as long as this lives.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    /// Opens the namespace of the init `pid`, a child of `parent`, which is a child of ours and not reaped.
    ///
    /// A number may come to mean another process. One that lives after its files were opened, and has the parent that
    /// only the container's own processes have, is none.
    pub(crate) fn of(pid: i32, parent: u32) -> Result<Self, Error> {
        open(pid, parent).context(|| format!("opening the network namespace of process {pid}"))
    }
}

fn open(pid: i32, parent: u32) -> io::Result<Namespace> {
    let number = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(number, PidfdFlags::empty())?;
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    if parent_of(pid)? != parent || has_ended(&process)? {
        return Err(io::Error::other("the container's init has ended"));
    }
    Ok(Namespace(namespace.into()))
}

fn parent_of(pid: i32) -> io::Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before it may hold anything, a parenthesis too.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
    fields
        .into_iter()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn has_ended(process: &OwnedFd) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut wanted = [PollFd::new(process, PollFlags::IN)];
    Ok(rustix::event::poll(&mut wanted, Some(&now))? > 0)
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_living_child_of_the_right_parent_is_opened() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let opened = Namespace::of(pid, std::process::id());
        let strange = Namespace::of(pid, 1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(opened.is_ok());
        assert!(strange.unwrap_err().to_string().contains("the container's init has ended"));
        assert!(Namespace::of(pid, std::process::id()).is_err());
        assert!(Namespace::of(0, 1).is_err());
    }
}
