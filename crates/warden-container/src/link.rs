//! The packets between the daemon and one iomux: typed, never blocking, bounded.

// What arrives here may be anything: no length, index or sum may be taken on trust.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use warden_iomux::message::{Event, MAX_PACKET, Request, VERSION};
use warden_linux::socket::PacketSocket;

/// Packets that may wait for an iomux that does not read.
const MAX_WAITING: usize = 4_096;

/// The daemon's end.
#[derive(Debug)]
pub(crate) struct Link {
    socket: AsyncFd<PacketSocket>,
    waiting: VecDeque<Packet>,
    /// A copy of the socket that tells when there is room, while packets wait: iomux makes room with each packet that it
    /// takes, and nobody is woken by that.
    room: Option<AsyncFd<OwnedFd>>,
}

#[derive(Debug)]
struct Packet {
    bytes: Vec<u8>,
    fd: Option<OwnedFd>,
}

/// Why nothing more can be heard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// The other end is closed.
    #[error("iomux has closed its socket")]
    Closed,
    /// The kernel refused.
    #[error("the socket of iomux failed")]
    Socket(#[source] io::Error),
    /// Its greeting, in a version that is not spoken.
    #[error("iomux speaks version {0} instead of {VERSION}")]
    Version(u32),
    /// Something that is none of its messages, or not now.
    #[error("iomux said something unexpected: {0}")]
    Garbage(String),
}

impl From<Lost> for io::Error {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Socket(error) => error,
            other => io::Error::other(other),
        }
    }
}

impl Link {
    /// Takes the daemon's end of a pair.
    pub(crate) fn new(socket: PacketSocket) -> io::Result<Self> {
        Ok(Self { socket: watch(socket)?, waiting: VecDeque::new(), room: None })
    }

    /// Sends a request with its descriptor, now or as soon as there is room; refuses one that is too long.
    pub(crate) fn send(&mut self, request: &Request, fd: Option<OwnedFd>) -> io::Result<()> {
        let bytes = serde_json::to_vec(request)?;
        if bytes.len() > MAX_PACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too long for one packet"));
        }
        if self.waiting.len() >= MAX_WAITING {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "iomux does not read"));
        }
        self.waiting.push_back(Packet { bytes, fd });
        match flush(self.socket.get_ref(), &mut self.waiting) {
            // A closed socket is noticed where it is read.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Waits for the next event. Nothing is lost when it is no longer waited for.
    pub(crate) async fn next(&mut self) -> Result<Event, Lost> {
        let Self { socket, waiting, room } = self;
        loop {
            if waiting.is_empty() {
                *room = None;
            } else if room.is_none() {
                *room = Some(watch_room(socket.get_ref()).map_err(Lost::Socket)?);
            }
            tokio::select! {
                readable = socket.readable() => {
                    let mut ready = readable.map_err(Lost::Socket)?;
                    if let Ok(packet) = ready.try_io(|socket| receive(socket.get_ref())) {
                        return decode(packet);
                    }
                }
                writable = writable(room.as_ref()) => {
                    let mut ready = writable.map_err(Lost::Socket)?;
                    // Nobody will take these any more; what was said before is still to be read, and then the end.
                    if let Ok(Err(_)) = ready.try_io(|_| flush(socket.get_ref(), waiting)) {
                        waiting.clear();
                    }
                }
            }
        }
    }

    /// The next event that is there already.
    pub(crate) fn next_now(&mut self) -> Option<Result<Event, Lost>> {
        match receive(self.socket.get_ref()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            packet => Some(decode(packet)),
        }
    }
}

/// Watches a socket for what is to be read.
#[expect(
    deprecated,
    reason = "its successor is unsafe, because some types change their descriptor; this one owns one for its whole life"
)]
pub(crate) fn watch(socket: PacketSocket) -> io::Result<AsyncFd<PacketSocket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

#[expect(deprecated, reason = "as above")]
fn watch_room(socket: &PacketSocket) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket.as_fd().try_clone_to_owned()?, Interest::WRITABLE)
}

/// Waits until there is room; for ever where nothing waits for it.
async fn writable(room: Option<&AsyncFd<OwnedFd>>) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
    match room {
        Some(room) => room.writable().await,
        None => std::future::pending().await,
    }
}

/// Sends what waits, in order, until the socket is full.
fn flush(socket: &PacketSocket, waiting: &mut VecDeque<Packet>) -> io::Result<()> {
    while let Some(packet) = waiting.front() {
        let fd = packet.fd.as_ref().map(AsFd::as_fd);
        socket.send(&packet.bytes, fd.as_slice())?;
        waiting.pop_front();
    }
    Ok(())
}

/// Receives a packet's bytes; descriptors, of which there should be none, are closed.
fn receive(socket: &PacketSocket) -> io::Result<Vec<u8>> {
    socket.receive(MAX_PACKET).map(|packet| packet.bytes)
}

fn decode(packet: io::Result<Vec<u8>>) -> Result<Event, Lost> {
    let bytes = packet.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionReset => Lost::Closed,
        _ => Lost::Socket(error),
    })?;
    if bytes.is_empty() {
        return Err(Lost::Closed);
    }
    serde_json::from_slice(&bytes).map_err(|error| Lost::Garbage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, PacketSocket) {
        let (ours, theirs) = PacketSocket::pair().unwrap();
        (Link::new(ours).unwrap(), theirs)
    }

    #[tokio::test]
    async fn events_come_in_order_until_the_end() {
        let (mut link, iomux) = pair();
        assert!(link.next_now().is_none());
        for event in [Event::Hello { version: 1 }, Event::Idle] {
            iomux.send(&serde_json::to_vec(&event).unwrap(), &[]).unwrap();
        }
        assert_eq!(link.next().await.unwrap(), Event::Hello { version: 1 });
        assert_eq!(link.next_now().unwrap().unwrap(), Event::Idle);
        drop(iomux);
        assert!(matches!(link.next().await, Err(Lost::Closed)));
    }

    #[tokio::test]
    async fn garbage_is_an_error_that_says_so() {
        for bytes in [&b"{"[..], b"\xff\xff", b"\"nonsense\"", br#"{"spawned":{"job":-1}}"#, &[b'['; 60_000]]
        {
            let (mut link, iomux) = pair();
            iomux.send(bytes, &[]).unwrap();
            assert!(matches!(link.next().await, Err(Lost::Garbage(_))));
        }
        let (mut link, iomux) = pair();
        iomux.send(&vec![b' '; MAX_PACKET + 1], &[]).unwrap();
        assert!(matches!(link.next().await, Err(Lost::Socket(_))));
    }

    #[tokio::test]
    async fn requests_wait_for_a_slow_iomux_and_keep_their_descriptors_and_order() {
        let (mut link, iomux) = pair();
        for signal in 0..3_000 {
            let fd = (signal == 2_999).then(|| crate::stdin::of(b"x").unwrap());
            link.send(&Request::SignalAll { signal }, fd).unwrap();
        }
        assert!(!link.waiting.is_empty());
        let reader = tokio::task::spawn_blocking(move || {
            let mut signal = 0;
            while signal < 3_000 {
                match iomux.receive(MAX_PACKET) {
                    Ok(packet) => {
                        let expected = serde_json::to_vec(&Request::SignalAll { signal }).unwrap();
                        assert_eq!(packet.bytes, expected);
                        assert_eq!(packet.fds.len(), usize::from(signal == 2_999));
                        signal += 1;
                    }
                    Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
                }
            }
        });
        assert!(matches!(link.next().await, Err(Lost::Closed)), "it ends when all are read");
        reader.await.unwrap();
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_is_heard_though_requests_still_wait() {
        let (mut link, iomux) = pair();
        for signal in 0..3_000 {
            link.send(&Request::SignalAll { signal }, None).unwrap();
        }
        assert!(!link.waiting.is_empty());
        iomux.send(&serde_json::to_vec(&Event::Gone).unwrap(), &[]).unwrap();
        drop(iomux);
        assert_eq!(link.next().await.unwrap(), Event::Gone);
        assert!(matches!(link.next().await, Err(Lost::Closed)));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused() {
        let (mut link, _iomux) = pair();
        let long = warden_iomux::message::Output {
            limit: 0,
            discard: false,
            log: Some(warden_iomux::message::Syslog {
                tag: warden_init::byte_string::ByteString(vec![b'x'; MAX_PACKET]),
                socket: "/dev/log".into(),
            }),
        };
        let process = warden_init::message::Process {
            program: "/bin/bash".into(),
            arguments: Vec::new(),
            user: "vcap".into(),
            lang: "C".into(),
            rlimits: Vec::new(),
        };
        let refused = link.send(&Request::Spawn { job: 1, process, output: long }, None).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
