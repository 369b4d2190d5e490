//! SOCK_SEQPACKET sockets that carry packets and descriptors.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// The most descriptors that one packet carries.
pub const MAX_FDS: usize = 4;

/// One end of a connected SOCK_SEQPACKET socket; never blocks.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// A socket's address, and the directory that it is relative to.
struct Place {
    address: SocketAddrUnix,
    /// Keeps /proc/self/fd/N alive as long as the address is used.
    _directory: Option<OwnedFd>,
}

impl Place {
    /// The address of a path of any length: one that does not fit into sun_path goes by its directory's descriptor.
    fn of(path: &Path) -> io::Result<Self> {
        if let Ok(address) = SocketAddrUnix::new(path) {
            return Ok(Self { address, _directory: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        let short = Path::new("/proc/self/fd")
            .join(directory.as_raw_fd().to_string())
            .join(path.file_name().unwrap_or(OsStr::new("")));
        Ok(Self { address: SocketAddrUnix::new(&short)?, _directory: Some(directory) })
    }
}

/// A received packet; empty bytes without descriptors mean that the peer has closed.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

impl PacketSocket {
    /// Makes two connected ends, both close-on-exec and non-blocking.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(a), Self(b)))
    }

    /// Connects to a listening socket's path.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let place = Place::of(path)?;
        rustix::net::connect(&socket, &place.address)?;
        Ok(Self(socket))
    }

    /// Takes a descriptor that is such a socket already and makes it non-blocking and close-on-exec.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self(fd))
    }

    /// The process at the other end: the one that connected, or that began to listen.
    pub fn peer(&self) -> io::Result<i32> {
        Ok(rustix::net::sockopt::socket_peercred(&self.0)?.pid.as_raw_nonzero().get())
    }

    /// Whether the peer has closed and nothing of it is left to read.
    pub fn is_closed(&self) -> bool {
        let peeked = rustix::net::recv(&self.0, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::TRUNC);
        matches!(peeked, Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET))
    }

    /// Sends one packet whole, or fails (`WouldBlock` when the peer's queue is full, `EPIPE` when it is gone).
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::from(rustix::io::Errno::TOOBIG));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives one packet of at most `limit` bytes; a longer one, or one with too many descriptors, is `EMSGSIZE`.
    pub fn receive(&self, limit: usize) -> io::Result<Packet> {
        match self.receive_once(limit) {
            // The peer closed before it had read everything. The kernel says so once, ahead of the peer's last packets.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.receive_once(limit),
            other => other,
        }
    }

    fn receive_once(&self, limit: usize) -> io::Result<Packet> {
        // Asked first: a buffer of the limit would make every small process a large one.
        let peek = RecvFlags::PEEK | RecvFlags::TRUNC;
        let (_, length) = rustix::net::recv(&self.0, &mut [0_u8; 1], peek)?;
        let mut bytes = vec![0; length.min(limit)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::net::recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got.flags.intersects(rustix::net::ReturnFlags::TRUNC | rustix::net::ReturnFlags::CTRUNC) {
            return Err(io::Error::from(rustix::io::Errno::MSGSIZE));
        }
        bytes.truncate(got.bytes);
        Ok(Packet { bytes, fds })
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl From<PacketSocket> for OwnedFd {
    fn from(socket: PacketSocket) -> Self {
        socket.0
    }
}

/// A SOCK_SEQPACKET socket that waits for connections at a path.
#[derive(Debug)]
pub struct PacketListener(OwnedFd);

impl PacketListener {
    /// Binds and listens; the path must be free. Non-blocking and close-on-exec.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let place = Place::of(path)?;
        rustix::net::bind(&socket, &place.address)?;
        rustix::net::listen(&socket, 64)?;
        Ok(Self(socket))
    }

    /// Takes a descriptor that listens already.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self(fd))
    }

    /// Takes the next connection, or fails with `WouldBlock`.
    pub fn accept(&self) -> io::Result<PacketSocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(PacketSocket(rustix::net::accept_with(&self.0, flags)?))
    }
}

impl AsFd for PacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_keeps_its_bounds_and_its_descriptors() {
        let (a, b) = PacketSocket::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        a.send(b"one", &[file.as_fd()]).unwrap();
        a.send(b"two", &[]).unwrap();
        let one = b.receive(16).unwrap();
        assert_eq!((one.bytes.as_slice(), one.fds.len()), (&b"one"[..], 1));
        assert_eq!(b.receive(16).unwrap().bytes, b"two");
        assert_eq!(b.receive(16).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_packet_beyond_the_limit_is_refused() {
        let (a, b) = PacketSocket::pair().unwrap();
        a.send(&[0; 17], &[]).unwrap();
        assert_eq!(
            b.receive(16).unwrap_err().raw_os_error(),
            Some(rustix::io::Errno::MSGSIZE.raw_os_error())
        );
    }

    #[test]
    fn a_path_of_any_length_is_an_address() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(200));
        std::fs::create_dir(&long).unwrap();
        let listener = PacketListener::bind(&long.join("a.sock")).unwrap();
        let client = PacketSocket::connect(&long.join("a.sock")).unwrap();
        client.send(b"x", &[]).unwrap();
        assert_eq!(listener.accept().unwrap().receive(16).unwrap().bytes, b"x");
    }

    #[test]
    fn last_packets_arrive_although_the_peer_left_some_unread() {
        let (a, b) = PacketSocket::pair().unwrap();
        b.send(b"unread", &[]).unwrap();
        a.send(b"last", &[]).unwrap();
        drop(a);
        assert_eq!(b.receive(16).unwrap().bytes, b"last");
        assert!(b.receive(16).unwrap().bytes.is_empty());
    }

    #[test]
    fn the_end_is_an_empty_packet() {
        let (a, b) = PacketSocket::pair().unwrap();
        drop(a);
        assert!(b.receive(16).unwrap().bytes.is_empty());
    }
}
