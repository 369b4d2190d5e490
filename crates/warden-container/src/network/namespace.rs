//! The network namespace of a container that stands.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags};
use warden_linux::file::read_text;

use crate::error::{Context, Error};
use crate::process::{Process, has_ended};

/// A network namespace, kept as long as this lives.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    /// Opens the namespace of the init `pid`, a child of `parent`.
    ///
    /// A number may come to mean another process. One that lives after its files were opened, and has the parent that
    /// only the container's own processes have, and which lives then, is none.
    pub(crate) fn of(pid: i32, parent: &Process) -> Result<Self, Error> {
        open(pid, parent).context(|| format!("opening the network namespace of process {pid}"))
    }

    /// Keeps the namespace of a process alive, if there is one: whichever, should the number mean another process by now.
    pub(crate) fn hold(pid: i32) -> Option<Self> {
        File::open(format!("/proc/{pid}/ns/net")).ok().map(|namespace| Self(namespace.into()))
    }
}

fn open(pid: i32, parent: &Process) -> io::Result<Namespace> {
    let number = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(number, PidfdFlags::empty())?;
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    if parent_of(pid)? != parent.id() || has_ended(&process)? || parent.has_ended()? {
        return Err(io::Error::other("the container's init has ended"));
    }
    Ok(Namespace(namespace.into()))
}

fn parent_of(pid: i32) -> io::Result<u32> {
    let stat = read_text(format!("/proc/{pid}/stat").as_ref())?;
    // The name before it may hold anything, a parenthesis too.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
    fields
        .into_iter()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl From<File> for Namespace {
    fn from(namespace: File) -> Self {
        Self(namespace.into())
    }
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

    #[tokio::test]
    async fn only_a_living_child_of_the_right_parent_is_opened() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let (own, another) = [std::process::id(), 1].map(|pid| Process::open(pid).unwrap()).into();
        let opened = Namespace::of(pid, &own);
        let strange = Namespace::of(pid, &another);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(opened.is_ok());
        assert!(strange.unwrap_err().to_string().contains("the container's init has ended"));
        assert!(Namespace::of(pid, &own).is_err());
        assert!(Namespace::of(0, &own).is_err());
    }
}
