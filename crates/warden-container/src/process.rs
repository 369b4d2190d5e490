//! A process that is watched: it is no child of ours, and whoever has made or adopted it reaps it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A running process, or one that was not noticed to have ended.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Watches the process of this number, whichever it is.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Self::new(pid, rustix::process::pidfd_open(number, PidfdFlags::empty())?)
    }

    /// Watches the process of this number and pidfd.
    #[expect(
        deprecated,
        reason = "its successor is unsafe, because some types change their descriptor; this one owns one for its whole life"
    )]
    pub(crate) fn new(pid: u32, pidfd: OwnedFd) -> io::Result<Self> {
        Ok(Self { pid, pidfd: AsyncFd::with_interest(pidfd, Interest::READABLE)? })
    }

    /// Its process id: somebody else's, maybe, once it has ended.
    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    /// Kills it; one that has ended is well.
    pub(crate) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        has_ended(self.pidfd.get_ref())
    }

    /// Waits for its end, and kills it when that is late.
    pub(crate) async fn end_within(self, time: Duration) {
        if tokio::time::timeout(time, self.end()).await.is_err() {
            self.kill();
            self.end().await;
        }
    }

    /// Waits for its end. May be dropped at any time.
    pub(crate) async fn end(&self) {
        drop(self.pidfd.readable().await);
    }
}

/// Whether the process behind a pidfd has ended.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut wanted = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(rustix::event::poll(&mut wanted, Some(&now))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_another_s_child_is_noticed() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert_eq!(process.id(), child.id());
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), process.end()).await;
        assert!(early.is_err() && !process.has_ended().unwrap());
        process.kill();
        process.end().await;
        process.end().await;
        assert!(process.has_ended().unwrap());
        assert!(!child.wait().unwrap().success());
        assert!(Process::open(0).is_err());
    }
}
