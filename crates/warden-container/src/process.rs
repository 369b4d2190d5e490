//! A process that is watched: a child of ours, or one that an earlier daemon has started.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// A running process, or one that was not noticed to have ended.
#[derive(Debug)]
pub(crate) enum Process {
    /// Reaped when its end is noticed.
    Child(Child),
    /// Reaped by whoever has adopted it; its pidfd tells its end.
    Other { pid: u32, pidfd: AsyncFd<OwnedFd> },
}

impl Process {
    /// Watches a process that is no child of ours.
    #[expect(
        deprecated,
        reason = "its successor is unsafe, because some types change their descriptor; this one owns one for its whole life"
    )]
    pub(crate) fn other(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = rustix::process::pidfd_open(number, PidfdFlags::empty())?;
        Ok(Self::Other { pid, pidfd: AsyncFd::new(pidfd)? })
    }

    /// Its process id; 0 once it is reaped.
    pub(crate) fn id(&self) -> u32 {
        match self {
            Self::Child(child) => child.id().unwrap_or_default(),
            Self::Other { pid, .. } => *pid,
        }
    }

    /// Kills it; one that has ended is well.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Child(child) => {
                let _ = child.start_kill();
            }
            Self::Other { pidfd, .. } => {
                let _ = rustix::process::pidfd_send_signal(pidfd.get_ref(), Signal::KILL);
            }
        }
    }

    /// Waits for its end, and kills it when that is late.
    pub(crate) async fn end_within(mut self, time: Duration) {
        if tokio::time::timeout(time, self.end()).await.is_err() {
            self.kill();
            self.end().await;
        }
    }

    /// Waits for its end. May be dropped at any time.
    pub(crate) async fn end(&mut self) {
        match self {
            // A status that cannot be had is an end, too.
            Self::Child(child) => drop(child.wait().await),
            Self::Other { pidfd, .. } => drop(pidfd.readable().await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_another_s_child_is_noticed() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let mut process = Process::other(child.id()).unwrap();
        assert_eq!(process.id(), child.id());
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), process.end()).await;
        assert!(early.is_err());
        process.kill();
        process.end().await;
        process.end().await;
        assert!(!child.wait().unwrap().success());
        assert!(Process::other(0).is_err());
    }
}
