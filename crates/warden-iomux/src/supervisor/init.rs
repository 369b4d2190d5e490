//! The container's init, as its supervisor knows it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use warden_init::build::Init;
use warden_init::connection::Connection;
use warden_init::message::{MAX_PACKET, Reply, Request, VERSION};
use warden_linux::epoll::{Epoll, Interest};
use warden_linux::socket::PacketSocket;

use super::token::Token;

/// Requests that wait for wshd, before it is taken for dead.
const MAX_QUEUE: usize = 65_536;

/// A connection to wshd, and its process.
pub(super) struct InitLink {
    pid: i32,
    pidfd: OwnedFd,
    /// None once it was lost.
    connection: Option<Connection>,
    ready: bool,
}

impl InitLink {
    /// Greets wshd and waits for its end.
    pub(super) fn new(init: &Init, socket: PacketSocket, epoll: &Epoll) -> io::Result<Self> {
        let pidfd = init.pidfd.try_clone()?;
        epoll.add(&pidfd, Token::InitEnded.into(), Interest::Read)?;
        let mut connection = Connection::new(socket, epoll, Token::Init.into(), MAX_QUEUE)?;
        connection.send(&Request::Hello { version: VERSION }, Vec::new())?;
        Ok(Self { pid: init.pid, pidfd, connection: Some(connection), ready: false })
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its process.
    pub(super) fn process(&self) -> io::Result<Init> {
        Ok(Init { pid: self.pid, pidfd: self.pidfd.try_clone()? })
    }

    /// Its process id, once it has answered.
    pub(super) fn ready_pid(&self) -> Option<i32> {
        self.ready.then_some(self.pid)
    }

    /// Notes its answer; gives its process id.
    pub(super) fn become_ready(&mut self) -> i32 {
        self.ready = true;
        self.pid
    }

    pub(super) fn send(&mut self, request: &Request, fds: Vec<OwnedFd>) -> io::Result<()> {
        self.connection.as_mut().map_or(Ok(()), |connection| connection.send(request, fds))
    }

    pub(super) fn flush(&mut self, epoll: &Epoll) -> io::Result<()> {
        self.connection.as_mut().map_or(Ok(()), |connection| connection.flush(epoll))
    }

    pub(super) fn receive(&self) -> io::Result<Option<(Reply, Vec<OwnedFd>)>> {
        self.connection.as_ref().map_or(Ok(None), |connection| connection.receive(MAX_PACKET))
    }

    /// Gives a lost connection up.
    pub(super) fn hang_up(&mut self) {
        self.connection = None;
    }
}
