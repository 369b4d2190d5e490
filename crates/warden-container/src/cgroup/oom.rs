//! Hearing that a group ran out of memory: the kernel wakes a descriptor, one for each group that has a limit.
//!
//! Version 1 counts into an eventfd; version 2 marks `memory.events` as changed (priority data).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::event::EventfdFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::cgroup::hierarchy::Version;
use crate::cgroup::write_existing;

/// A group that is watched, before the async threads know of it.
#[derive(Debug)]
pub(crate) struct Watch {
    fd: OwnedFd,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The directory of a version 1 group.
    V1(PathBuf),
    /// How often a version 2 group has run out of memory, as far as that was told.
    V2(u64),
}

impl Watch {
    /// Watches a group from now on.
    pub(super) fn new(version: Version, directory: &Path) -> io::Result<Self> {
        match version {
            Version::V1 => Self::version_1(directory),
            Version::V2 => Self::version_2(directory),
        }
    }

    fn version_1(directory: &Path) -> io::Result<Self> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // The kernel keeps what it needs of this file; the eventfd alone stays open.
        let control = File::open(directory.join("memory.oom_control"))?;
        let order = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        write_existing(&directory.join("cgroup.event_control"), &order)?;
        Ok(Self { fd, source: Source::V1(directory.to_owned()) })
    }

    fn version_2(directory: &Path) -> io::Result<Self> {
        let events = OwnedFd::from(File::open(directory.join("memory.events"))?);
        // Changes are told from the first reading on.
        let seen = times(&events)?;
        Ok(Self { fd: events, source: Source::V2(seen) })
    }

    /// Takes what woke us; tells whether it was this group's own limit.
    fn take(&mut self) -> io::Result<bool> {
        match &mut self.source {
            Source::V1(directory) => {
                let mut count = [0; 8];
                match rustix::io::read(&self.fd, &mut count) {
                    Ok(_) => Ok(has_hit_its_limit(directory)),
                    Err(rustix::io::Errno::AGAIN) => Ok(false),
                    Err(errno) => Err(errno.into()),
                }
            }
            Source::V2(seen) => {
                let now = times(&self.fd)?;
                Ok(std::mem::replace(seen, now) != now)
            }
        }
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Version 1 wakes a group also when it is removed, and when a group above it runs out of memory: then its own use was
/// never near its limit. (Newer kernels keep 0 in `failcnt`, which would tell it.)
fn has_hit_its_limit(directory: &Path) -> bool {
    let read = |file: &str| fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok();
    ["memory", "memory.memsw"].iter().any(|counter| {
        let peak = read(&format!("{counter}.max_usage_in_bytes"));
        let limit = read(&format!("{counter}.limit_in_bytes"));
        peak.zip(limit).is_some_and(|(peak, limit)| is_near(peak, limit))
    })
}

/// What was asked for last is not in the peak: the kernel hands memory out in pieces of up to some megabytes.
fn is_near(peak: u64, limit: u64) -> bool {
    peak >= limit - limit / 8
}

/// How often processes of a group were killed because its own memory had run out, as far as the kernel tells.
pub(super) fn kills(version: Version, directory: &Path) -> io::Result<u64> {
    match version {
        Version::V1 if has_hit_its_limit(directory) => {
            let text = fs::read_to_string(directory.join("memory.oom_control"))?;
            Ok(field(&text, "oom_kill "))
        }
        Version::V1 => Ok(0),
        Version::V2 => Ok(count(&fs::read_to_string(directory.join("memory.events"))?)),
    }
}

/// How often a version 2 group has run out of memory: `oom` counts its own limit, `oom_kill` also the machine's.
fn times(events: &OwnedFd) -> io::Result<u64> {
    let mut text = [0; 512];
    let length = rustix::io::pread(events, &mut text, 0)?;
    Ok(count(&String::from_utf8_lossy(&text[..length])))
}

fn count(events: &str) -> u64 {
    field(events, "oom ")
}

fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

/// A watched group, for the async threads.
#[derive(Debug)]
pub(crate) struct Alarm(AsyncFd<Watch>);

impl Alarm {
    /// Begins to wait; fails when the kernel cannot.
    #[expect(
        deprecated,
        reason = "its successor is unsafe, because some types change their descriptor; this one owns one for its whole life"
    )]
    pub(crate) fn new(watch: Watch) -> io::Result<Self> {
        let interest = interest(&watch);
        Ok(Self(AsyncFd::with_interest(watch, interest)?))
    }

    /// Waits until the group runs out of memory; fails when it can be watched no more. May be dropped at any time.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        let interest = interest(self.0.get_ref());
        loop {
            let mut ready = self.0.ready_mut(interest).await?;
            // Before it is taken: what comes in between wakes us again.
            ready.clear_ready();
            if ready.get_inner_mut().take()? {
                return Ok(());
            }
        }
    }
}

fn interest(watch: &Watch) -> Interest {
    match watch.source {
        Source::V1(_) => Interest::READABLE,
        Source::V2(_) => Interest::PRIORITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_far_below_the_limit_is_another_group_s_doing() {
        assert!(is_near(1000, 1000) && is_near(990, 1000) && is_near(2000, 1000));
        assert!(!is_near(800, 1000) && !is_near(1 << 40, u64::MAX >> 1));
    }

    #[test]
    fn only_the_group_s_own_limit_counts() {
        assert_eq!(count("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"), 3);
        assert_eq!(count("oom_kill 2\n"), 0);
        assert_eq!(count(""), 0);
    }
}
