//! A client of iomux: what it is told, and in which order.

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

use std::collections::BTreeSet;
use std::io;

use warden_init::connection::Connection;
use warden_linux::epoll::Epoll;
use warden_linux::socket::PacketSocket;

use crate::message::{Event, MAX_PACKET, VERSION};

/// Events that wait for a client that does not read, before it is dropped. They are small, and a daemon may be slow.
const MAX_QUEUE: usize = 65_536;

/// One client.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    /// Whether it said Hello.
    pub(crate) greeted: bool,
    /// Whether events go to it.
    pub(crate) listening: bool,
    /// Whether it is to be dropped at the end of the turn.
    pub(crate) lost: bool,
    /// Jobs whose output has grown since it was last told: however slow it reads, one event each waits for it.
    grown: BTreeSet<u32>,
}

impl Client {
    /// A client that has yet to say Hello.
    pub(crate) fn new(socket: PacketSocket, epoll: &Epoll, token: u64) -> io::Result<Self> {
        let connection = Connection::new(socket, epoll, token, MAX_QUEUE)?;
        Ok(Self { connection, greeted: false, listening: false, lost: false, grown: BTreeSet::new() })
    }

    /// Greets it; it hears of everything from now on.
    pub(crate) fn greet(&mut self) {
        self.send(&Event::Hello { version: VERSION });
        self.listening = true;
    }

    /// Queues an event, if it listens.
    pub(crate) fn tell(&mut self, event: &Event) {
        if self.listening {
            self.send(event);
        }
    }

    fn send(&mut self, event: &Event) {
        self.lost |= self.connection.send(event, Vec::new()).is_err();
    }

    /// Takes what it has asked and does nothing of it.
    pub(crate) fn ignore(&mut self) {
        while let Ok(Some(_)) = self.connection.receive::<serde::de::IgnoredAny>(MAX_PACKET) {}
    }

    /// Notes that a job's output has grown.
    pub(crate) fn note_growth(&mut self, job: u32) {
        if self.listening {
            self.grown.insert(job);
        }
    }

    /// Forgets a job's growth: its end tells the final lengths.
    pub(crate) fn forget_growth(&mut self, job: u32) {
        self.grown.remove(&job);
    }

    /// Sends what the client takes: queued events first, then the present lengths of what has grown.
    pub(crate) fn flush(
        &mut self,
        epoll: &Epoll,
        lengths: impl Fn(u32) -> Option<(u64, u64)>,
    ) -> io::Result<()> {
        self.connection.flush(epoll)?;
        while self.connection.is_flushed() {
            let Some(job) = self.grown.pop_first() else { break };
            if let Some((stdout, stderr)) = lengths(job) {
                self.send(&Event::Output { job, stdout, stderr });
                self.connection.flush(epoll)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_of_a_job_waits_as_one_event() {
        let epoll = Epoll::new().unwrap();
        let (near, far) = PacketSocket::pair().unwrap();
        let mut client = Client::new(near, &epoll, 0).unwrap();
        client.tell(&Event::Idle);
        client.note_growth(3);
        client.greet();
        // More than a socket's queue holds.
        for _ in 0..2000 {
            client.tell(&Event::Spawned { job: 1 });
        }
        for length in 0..1000 {
            client.note_growth(1);
            client.note_growth(2);
            client.flush(&epoll, |_| Some((length, 0))).unwrap();
        }
        client.forget_growth(2);
        let mut heard = Vec::new();
        while heard.len() < 2002 {
            heard.push(serde_json::from_slice::<Event>(&far.receive(4096).unwrap().bytes).unwrap());
            client.flush(&epoll, |_| Some((1000, 7))).unwrap();
        }
        assert_eq!(heard[0], Event::Hello { version: VERSION });
        assert!(heard[1..2001].iter().all(|event| *event == Event::Spawned { job: 1 }));
        assert_eq!(heard[2001], Event::Output { job: 1, stdout: 1000, stderr: 7 });
        assert!(far.receive(4096).is_err());
    }
}
