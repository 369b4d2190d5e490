//! Notices that somebody else has changed a table.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::super::{LARGEST_ANSWER, Message, attribute, messages, text};
use super::{INET, SUBSYSTEM};

/// The group that hears of each change of the packet filter, as a bit.
const CHANGES: u32 = 1 << (libc::NFNLGRP_NFTABLES - 1);
/// The kind of the message that ends a transaction; it names no table.
const NEW_GENERATION: u16 = SUBSYSTEM | 15;
/// The attribute of the table's name, the first of every other message.
const TABLE: u16 = 1;
/// Where a message names the socket that caused it.
const CAUSE: u32 = 12;

/// Hears of all changes of this network namespace's packet filter, but for those that one socket makes.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Begins to listen; changes that the socket with this port makes wake nobody.
    pub fn start(but_for: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(rustix::net::netlink::NETFILTER);
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        ignore(&fd, but_for)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, CHANGES))?;
        Ok(Self(fd))
    }

    /// Takes all that has been heard so far, and tells whether it was about a table of the family `inet`.
    pub fn has_changed(&self, table: &str) -> io::Result<bool> {
        let mut packet = vec![0; LARGEST_ANSWER];
        let mut changed = false;
        loop {
            match rustix::net::recv(&self.0, packet.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => {
                    let heard = packet.get(..length).unwrap_or_default();
                    changed |= messages(heard).any(|message| concerns(&message, table));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(changed),
                // More than the kernel keeps: it may have been.
                Err(Errno::NOBUFS) => changed = true,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn concerns(message: &Message<'_>, table: &str) -> bool {
    let (family, attributes) = (message.body.first(), message.body.get(4..).unwrap_or_default());
    message.kind != NEW_GENERATION
        && family == Some(&INET)
        && attribute(attributes, TABLE).map(text).as_deref() == Some(table)
}

/// Lets the kernel drop what a socket has caused before anybody wakes.
fn ignore(fd: &OwnedFd, port: u32) -> io::Result<()> {
    let instruction = |code: u32, k, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    // Read as a number in the network's order, which the message's is not.
    let port = u32::from_be_bytes(port.to_ne_bytes());
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, CAUSE, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, port, 0, 1),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the option's value is a sock_fprog whose pointer and length describe `program`; both live through the
    // call, in which the kernel copies them and writes to neither.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
