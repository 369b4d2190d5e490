//! A packet socket that speaks JSON: typed messages out of a queue, typed messages in, never waiting.

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
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use warden_linux::epoll::{Epoll, Interest};
use warden_linux::socket::PacketSocket;

/// One end of a conversation, waited for in an [`Epoll`] under its token.
#[derive(Debug)]
pub struct Connection {
    socket: PacketSocket,
    token: u64,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    capacity: usize,
    interest: Interest,
}

impl Connection {
    /// Waits for a socket under a token; more than `capacity` messages that the peer does not take end it.
    pub fn new(socket: PacketSocket, epoll: &Epoll, token: u64, capacity: usize) -> io::Result<Self> {
        epoll.add(&socket, token, Interest::Read)?;
        Ok(Self { socket, token, queue: VecDeque::new(), capacity, interest: Interest::Read })
    }

    /// Queues a message; fails with `WouldBlock` when the queue is full.
    pub fn send(&mut self, message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<()> {
        if self.queue.len() >= self.capacity {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.queue.push_back((serde_json::to_vec(message)?, fds));
        Ok(())
    }

    /// Whether every message has been taken by the kernel.
    pub fn is_flushed(&self) -> bool {
        self.queue.is_empty()
    }

    /// Hands over what the kernel takes, and has the epoll tell when it takes more.
    pub fn flush(&mut self, epoll: &Epoll) -> io::Result<()> {
        while let Some((bytes, fds)) = self.queue.front() {
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match self.socket.send(bytes, &borrowed) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let interest = if self.queue.is_empty() { Interest::Read } else { Interest::ReadWrite };
        if interest != self.interest {
            epoll.modify(&self.socket, self.token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }

    /// Takes the next message and its descriptors, if one has come. The peer's end is `UnexpectedEof`; what is not a
    /// message of this type is `InvalidData`.
    pub fn receive<T: DeserializeOwned>(&self, limit: usize) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let packet = match self.socket.receive(limit) {
            Ok(packet) => packet,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        if packet.bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = serde_json::from_slice(&packet.bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((message, packet.fds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_wait_in_order_for_a_slow_peer() {
        let epoll = Epoll::new().unwrap();
        let (near, far) = PacketSocket::pair().unwrap();
        let mut near = Connection::new(near, &epoll, 0, 5000).unwrap();
        let far = Connection::new(far, &epoll, 1, 1).unwrap();
        for number in 0..5000_u32 {
            near.send(&number, Vec::new()).unwrap();
        }
        assert_eq!(near.send(&0, Vec::new()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for number in 0..5000_u32 {
            near.flush(&epoll).unwrap();
            assert_eq!(far.receive::<u32>(64).unwrap().unwrap().0, number);
        }
        assert!(near.is_flushed() && far.receive::<u32>(64).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_told_from_the_end() {
        let epoll = Epoll::new().unwrap();
        let (near, far) = PacketSocket::pair().unwrap();
        let near = Connection::new(near, &epoll, 0, 1).unwrap();
        far.send(b"{", &[]).unwrap();
        assert_eq!(near.receive::<u32>(64).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(far);
        assert_eq!(near.receive::<u32>(64).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
