//! Netlink: requests as bytes, and the socket that carries them to the kernel.
//!
//! A request is a header, a fixed part that depends on its kind, and attributes: length, kind, value, padded to four
//! bytes. Several requests travel in one packet; the kernel answers those that it refuses, and the one that asks for it.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::LinkNameSpaceType;

pub mod conntrack;
pub mod nftables;
pub mod qdisc;
pub mod route;

/// Length of a message's header.
const HEADER: usize = 16;
/// Length of an attribute's header.
const ATTRIBUTE_HEADER: usize = 4;
/// Marks an attribute whose value is attributes.
const NESTED: u16 = 1 << 15;
/// The bits of an attribute's kind that are its number.
const KIND_MASK: u16 = 0x3fff;
/// The largest packet that the kernel sends.
const LARGEST_ANSWER: usize = 64 << 10;

/// What the kernel counts for one refusal that waits to be read, roughly.
const ROOM_PER_REFUSAL: usize = 768;

/// Flags of requests; a combination of them means something to some kinds only.
pub mod flag {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const MULTI: u16 = 0x2;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const ECHO: u16 = 0x8;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
    pub(crate) const DUMP: u16 = 0x300;
    /// In an answer that refuses: only the header of the request is repeated.
    pub(crate) const CAPPED: u16 = 0x100;
    /// In an answer that refuses: attributes follow.
    pub(crate) const ACK_ATTRIBUTES: u16 = 0x200;
}

const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;

/// The attribute with the kernel's words in an answer that refuses.
const ACK_MESSAGE: u16 = 1;

/// Why the kernel did not do a request.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {}{source}", .words.as_ref().map(|words| format!("{words}: ")).unwrap_or_default())]
pub struct Refusal {
    /// What was asked, with its object.
    pub action: String,
    /// The kernel's own words, where it has some.
    pub words: Option<String>,
    /// Its error.
    pub source: io::Error,
}

impl Refusal {
    fn new(action: &str, source: impl Into<io::Error>) -> Self {
        Self { action: action.to_owned(), words: None, source: source.into() }
    }

    /// Whether the object of the request does not exist.
    pub fn is_absence(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::EADDRNOTAVAIL))
    }

    /// Whether the object of the request exists already.
    pub fn is_duplicate(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EEXIST)
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.source.kind(), refusal)
    }
}

/// The part of the kernel that a socket speaks with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Interfaces, addresses, routes, neighbours.
    Route,
    /// Packet filter and connection tracking.
    Netfilter,
}

/// A netlink socket of one network namespace.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// Number of the next request.
    next: u32,
    /// Bytes that the kernel takes in one packet.
    largest: usize,
}

impl Socket {
    /// Opens a socket of this thread's network namespace.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let protocol = match protocol {
            // The first of all, which is also none.
            Protocol::Route => None,
            Protocol::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let flags = SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        // The kernel's words come with its errors, and its errors without a copy of the request.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            set_option(&fd, libc::SOL_NETLINK, option, 1)?;
        }
        // A large packet of requests may be answered by as many refusals.
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 1 << 20)?;
        let largest = rustix::net::sockopt::socket_send_buffer_size(&fd)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd, next: 1, largest })
    }

    /// The number that the kernel knows the socket by, in this network namespace.
    pub fn port(&self) -> io::Result<u32> {
        let address = rustix::net::getsockname(&self.fd)?;
        Ok(SocketAddrNetlink::try_from(address)?.pid())
    }

    /// Opens a socket of another network namespace: this thread enters it, and comes back.
    ///
    /// Should the kernel refuse the way back, the process is aborted: what this thread did next it would do to a tenant's
    /// network, and take it for the host's.
    pub fn open_in(protocol: Protocol, namespace: BorrowedFd<'_>) -> io::Result<Self> {
        let enter = |namespace| {
            rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
        };
        let own = std::fs::File::open("/proc/thread-self/ns/net")?;
        enter(namespace)?;
        let opened = Self::open(protocol);
        if enter(own.as_fd()).is_err() {
            std::process::abort();
        }
        opened
    }

    /// Sends all requests at once and returns when they are done, or with the first refusal.
    ///
    /// Whether the others are done all the same depends on the protocol.
    pub fn execute(&mut self, mut requests: Requests) -> Result<(), Refusal> {
        if requests.actions.is_empty() {
            return Ok(());
        }
        requests.acknowledge_last();
        let Some(acknowledged) = requests.acknowledged else { return Ok(()) };
        let first = self.send(&mut requests)?;
        let mut refusal = None;
        loop {
            let packet = self.receive(&requests.actions[acknowledged])?;
            for message in messages(&packet).filter(|message| message.kind == KIND_ERROR) {
                let number = message.number.wrapping_sub(first) as usize;
                let Some(action) = requests.actions.get(number) else { continue };
                if let Some(refused) = read_refusal(&message, action) {
                    // The kernel answers a packet that it could not commit at its first request, and no other.
                    if number == 0 && acknowledged > 0 && refusal.is_none() && requests.is_transaction {
                        return Err(refused);
                    }
                    refusal.get_or_insert(refused);
                }
                if number == acknowledged {
                    return refusal.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one request and hands each answer's bytes, without its header, to `see`.
    pub fn ask(&mut self, mut request: Requests, mut see: impl FnMut(&[u8])) -> Result<(), Refusal> {
        let first = self.send(&mut request)?;
        let action = request.actions.first().map_or("", String::as_str);
        loop {
            let packet = self.receive(action)?;
            for message in messages(&packet).filter(|message| message.number == first) {
                match message.kind {
                    KIND_ERROR => return read_refusal(&message, action).map_or(Ok(()), Err),
                    KIND_DONE => return Ok(()),
                    _ => see(message.body),
                }
                if message.flags & flag::MULTI == 0 && request.acknowledged.is_none() {
                    return Ok(());
                }
            }
        }
    }

    /// Numbers the requests and sends them; returns the number of the first.
    fn send(&mut self, requests: &mut Requests) -> Result<u32, Refusal> {
        let first = self.next;
        let mut offset = 0;
        while offset < requests.bytes.len() {
            let length = read_u32(&requests.bytes[offset..]).unwrap_or_default() as usize;
            requests.bytes[offset + 8..offset + 12].copy_from_slice(&self.next.to_ne_bytes());
            self.next = self.next.wrapping_add(1);
            offset += aligned(length).max(HEADER);
        }
        let action = requests.actions.first().map_or("", String::as_str);
        self.make_room(requests).map_err(|error| Refusal::new(action, error))?;
        let address = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.fd, &requests.bytes, SendFlags::empty(), &address)
            .map_err(|errno| Refusal::new(action, errno))?;
        Ok(first)
    }

    /// Lets the kernel take packets as large as this one: what it does whole it must be sent whole.
    fn make_room(&mut self, requests: &Requests) -> io::Result<()> {
        // The kernel counts what it needs for the packet itself too.
        let needed = requests.bytes.len() + (64 << 10);
        if needed <= self.largest {
            return Ok(());
        }
        let room = c_int::try_from(needed).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // The ordinary option stops at the system's limit.
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, room)?;
        // Each request may be refused.
        let refusals = requests.actions.len().saturating_mul(ROOM_PER_REFUSAL);
        let refusals = c_int::try_from(refusals).unwrap_or(c_int::MAX / 2);
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, refusals.max(1 << 20))?;
        self.largest = needed;
        Ok(())
    }

    fn receive(&self, action: &str) -> Result<Vec<u8>, Refusal> {
        let mut packet = Vec::with_capacity(LARGEST_ANSWER);
        rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, rustix::buffer::spare_capacity(&mut packet), RecvFlags::empty())
        })
        .map_err(|errno| Refusal::new(action, errno))?;
        Ok(packet)
    }
}

fn set_option(fd: &OwnedFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the option's value is one c_int, which lives through the call and is not written.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Requests that are sent together.
#[derive(Debug, Default)]
pub struct Requests {
    bytes: Vec<u8>,
    /// What each request asks for, with its object.
    actions: Vec<String>,
    /// Offset of the last request.
    last: usize,
    /// The request that the kernel answers in any case.
    acknowledged: Option<usize>,
    /// All of them are done, or none.
    is_transaction: bool,
}

impl Requests {
    /// Adds a request: `fixed` is the part between header and attributes.
    pub(crate) fn push(
        &mut self,
        action: String,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.last = self.bytes.len();
        self.actions.push(action);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | flag::REQUEST).to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend(fixed);
        pad(&mut self.bytes);
        fill(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - self.last) as u32;
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Lets the kernel answer the last request; those after it are answered only when they are refused.
    pub(crate) fn acknowledge_last(&mut self) {
        if self.acknowledged.is_none() && !self.actions.is_empty() {
            self.bytes[self.last + 6] |= flag::ACK as u8;
            self.acknowledged = Some(self.actions.len() - 1);
        }
    }

    /// Says that all of them are done, or none.
    pub(crate) fn make_transaction(&mut self) {
        self.is_transaction = true;
    }

    /// The bytes as they are sent, but for the numbers.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The attributes of a request that is being written.
#[derive(Debug)]
pub(crate) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Adds a value as it is.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        pad(self.0);
        self
    }

    /// Adds a text with the zero that ends it.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds a number in the machine's order.
    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a number in the network's order.
    pub(crate) fn big(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds attributes as a value.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.nested_after(kind, &[], fill)
    }

    /// Adds a fixed part followed by attributes as a value.
    pub(crate) fn nested_after(
        &mut self,
        kind: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) -> &mut Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        // Where a fixed part precedes them, they are no attributes to a kernel that looks at the mark.
        let mark = if fixed.is_empty() { NESTED } else { 0 };
        self.0.extend((kind | mark).to_ne_bytes());
        self.0.extend(fixed);
        pad(self.0);
        fill(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

/// One message of an answer.
#[derive(Debug)]
struct Message<'a> {
    kind: u16,
    flags: u16,
    number: u32,
    body: &'a [u8],
}

/// Cuts an answer into messages; what is cut off at its end is none.
fn messages(packet: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let length = read_u32(rest)? as usize;
        let body = rest.get(HEADER..length)?;
        let message = Message {
            kind: read_u16(&rest[4..])?,
            flags: read_u16(&rest[6..])?,
            number: read_u32(&rest[8..])?,
            body,
        };
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of an answer, each with its number.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(rest)?);
        let kind = read_u16(rest.get(2..)?)?;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind & KIND_MASK, value))
    })
}

/// The value of an answer's first attribute of this number.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text without the zero that ends it.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

/// Reads the answer to one request; `None` when it is done.
fn read_refusal(message: &Message<'_>, action: &str) -> Option<Refusal> {
    let errno = read_u32(message.body)? as i32;
    if errno == 0 {
        return None;
    }
    let words = || {
        let request = read_u32(message.body.get(4..)?)? as usize;
        let kept = if message.flags & flag::CAPPED == 0 { aligned(request) } else { HEADER };
        let more = message.body.get(4 + kept..).filter(|_| message.flags & flag::ACK_ATTRIBUTES != 0)?;
        attribute(more, ACK_MESSAGE).map(text)
    };
    Some(Refusal {
        action: action.to_owned(),
        words: words(),
        source: io::Error::from_raw_os_error(errno.wrapping_neg()),
    })
}

/// The kernel's number of an address's family.
pub(crate) fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    family as u8
}

/// An address as bytes.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Reads a number at the start, in the machine's order.
pub(crate) fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

pub(crate) fn read_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().copied().map(u64::from_ne_bytes)
}

fn read_u16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().copied().map(u16::from_ne_bytes)
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(aligned(bytes.len()), 0);
}

#[cfg(test)]
mod tests;
