//! The process that iomux is copied from for each container: a copy costs the kernel a fraction of a program's start, and
//! nothing of what wardend has open.
//!
//! wardend is at the other end of its stdin, and asks for one copy after the other. It goes when wardend does.

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

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use serde::{Deserialize, Serialize};
use warden_init::byte_string::ByteString;
use warden_init::note::note;
use warden_linux::epoll::{Epoll, Interest};
use warden_linux::process::{self, Arguments, ForkOptions};
use warden_linux::signal;
use warden_linux::socket::{Packet, PacketSocket};

use crate::message::MAX_PACKET;
use crate::start::{Origin, supervise};

/// What wardend asks for. Descriptor: the socket whose other end is the copy's first client, which the copy waits for: where
/// that closes before it has said a word, nothing comes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The `spec.json` of the container.
    pub spec: ByteString,
    /// Whether it is built or taken over.
    pub origin: Origin,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The copy's process id. Descriptor: its pidfd.
    Started(i32),
    /// The kernel has refused, with this number.
    Refused(i32),
}

const EINVAL: i32 = 22;

/// Copies this process, whose stdin is wardend, as often as it is asked, until wardend has closed. It must have one thread,
/// and arguments that take as much room as each spec's path.
pub fn serve() -> io::Result<()> {
    let server = Server {
        socket: PacketSocket::adopt(process::inherited(0)?)?,
        program: std::env::args_os().next().unwrap_or_default().into_vec(),
        arguments: Arguments::find()?,
    };
    warden_init::confinement::prepare();
    // Their ends are told by their pidfds.
    signal::forget_children(true)?;
    let epoll = Epoll::new()?;
    epoll.add(&server.socket, 0, Interest::Read)?;
    loop {
        epoll.wait(None)?;
        match server.socket.receive(MAX_PACKET) {
            Ok(packet) if packet.bytes.is_empty() && packet.fds.is_empty() => return Ok(()),
            Ok(packet) => server.answer(packet)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

struct Server {
    socket: PacketSocket,
    /// What it is called.
    program: Vec<u8>,
    arguments: Arguments,
}

impl Server {
    fn answer(&self, packet: Packet) -> io::Result<()> {
        let started = read(packet).and_then(|(order, control)| {
            process::fork(ForkOptions::default(), || self.become_supervisor(&order, control))
        });
        let (answer, pidfd) = match started {
            Ok(child) => (Answer::Started(child.pid), Some(child.pidfd)),
            Err(error) => (Answer::Refused(error.raw_os_error().unwrap_or(EINVAL)), None),
        };
        self.socket.send(&serde_json::to_vec(&answer)?, pidfd.as_ref().map(AsFd::as_fd).as_slice())
    }

    /// The copy's whole life; gives its exit status.
    fn become_supervisor(&self, order: &Order, control: OwnedFd) -> u8 {
        let greeted = self.prepare(order, control).and_then(|control| {
            let epoll = Epoll::new()?;
            epoll.add(&control, 0, Interest::Read)?;
            while epoll.wait(None)?.is_empty() {}
            Ok(control)
        });
        match greeted {
            // wardend does not know of this copy, should the server have died before it could tell.
            Ok(control) if control.is_closed() => 0,
            Ok(control) => match supervise(order.spec.as_path(), order.origin, Some(control)) {
                Ok(()) => 0,
                Err(error) => tell(&error),
            },
            Err(error) => tell(&error),
        }
    }

    fn prepare(&self, order: &Order, control: OwnedFd) -> io::Result<PacketSocket> {
        // Whoever held wardend's socket, which is its stdin, would keep it open.
        process::keep_standard_and(&[control.as_fd()])?;
        process::place(io::stdout().as_fd(), 0)?;
        signal::forget_children(false)?;
        let option: &[&[u8]] = match order.origin {
            Origin::Built => &[],
            Origin::Adopted => &[b"--adopt"],
        };
        self.arguments.replace(&[&[&*self.program], option, &[&order.spec.0]].concat())?;
        PacketSocket::adopt(control)
    }
}

fn read(packet: Packet) -> io::Result<(Order, OwnedFd)> {
    let order = serde_json::from_slice(&packet.bytes)?;
    let control = packet.fds.into_iter().next().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((order, control))
}

fn tell(error: &dyn std::error::Error) -> u8 {
    note(format_args!("iomux: {error}"));
    1
}
