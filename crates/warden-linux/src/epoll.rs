//! Readiness of many descriptors.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// What to wait for on a descriptor; its peer's end is always told, as readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Readable.
    Read,
    /// Readable or writable.
    ReadWrite,
}

impl From<Interest> for EventFlags {
    fn from(interest: Interest) -> Self {
        match interest {
            Interest::Read => EventFlags::IN,
            Interest::ReadWrite => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The token that it was added with.
    pub token: u64,
    /// Whether it can be read, or has ended or failed, which a read tells.
    pub readable: bool,
    /// Whether it can be written.
    pub writable: bool,
}

/// A level-triggered epoll instance.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// Makes one.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Waits for a descriptor from now on, until it is removed or closed for good.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, EventData::new_u64(token), interest.into())?)
    }

    /// Changes what is waited for.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, EventData::new_u64(token), interest.into())?)
    }

    /// Waits for a descriptor no more.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Waits until something is ready, at most 64 of them at a time; none when the time limit has passed.
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<Vec<Ready>> {
        let limit = limit
            .map(Timespec::try_from)
            .transpose()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut space = [MaybeUninit::uninit(); 64];
        let (events, _) = match epoll::wait(&self.0, &mut space, limit.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => other?,
        };
        Ok(events
            .iter()
            .map(|event| {
                let (flags, data) = (event.flags, event.data);
                Ready {
                    token: data.u64(),
                    readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
                    writable: flags.contains(EventFlags::OUT),
                }
            })
            .collect())
    }
}
