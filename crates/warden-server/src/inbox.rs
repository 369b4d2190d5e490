//! What comes in from a client, cut into frames.

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
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio::time::timeout;
use warden_protocol::frame::{Decoder, FrameError};

use crate::capacity::{Capacity, Exhausted, Share};

/// Room that is made for each read.
const READ: usize = 16 * 1024;

/// How long the rest of what a refused client sends is read and dropped.
const LINGER: Duration = Duration::from_secs(1);

/// The receiving side of a connection. It reads only when a request is wanted: a client that sends more is slowed
/// down by the socket, and at most one request and one read are held in memory.
#[derive(Debug)]
pub(crate) struct Inbox<'a> {
    stream: &'a UnixStream,
    decoder: Decoder,
    buffer: BytesMut,
    capacity: Capacity,
    /// The share of the request that is being received.
    share: Option<Share>,
}

/// What a client did next.
#[derive(Debug)]
pub(crate) enum Next {
    /// It sent a request: the frame's content, and its share of the daemon's memory.
    Request(Bytes, Option<Share>),
    /// It sends a request that the daemon has no memory for now.
    Refused(Exhausted),
    /// It sent what is no frame; nothing behind it can be understood.
    Broken(FrameError),
    /// It has finished sending, or is gone.
    Closed,
}

impl<'a> Inbox<'a> {
    /// Reads requests of at most `limit` bytes, as the daemon has memory for them.
    pub(crate) fn new(stream: &'a UnixStream, limit: usize, capacity: Capacity) -> Self {
        Self { stream, decoder: Decoder::new(limit), buffer: BytesMut::new(), capacity, share: None }
    }

    /// Waits for the next request. Nothing is lost when this is dropped.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(frame)) => return Next::Request(frame, self.share.take()),
                Ok(None) => {}
                Err(error) => return Next::Broken(error),
            }
            if let (Some(length), None) = (self.decoder.announced(), &self.share) {
                match self.capacity.memory(length) {
                    Ok(share) => self.share = Some(share),
                    Err(exhausted) => return Next::Refused(exhausted),
                }
            }
            match self.read().await {
                Ok(0) => return Next::Closed,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "reading from a client");
                    return Next::Closed;
                }
            }
        }
    }

    /// Reads and drops what the client still sends, for a while: closing a socket with unread bytes would make the
    /// kernel say "connection reset" to the client behind its last answer.
    pub(crate) async fn drop_rest(&mut self) {
        let discard = async {
            while matches!(self.read().await, Ok(1..)) {
                self.buffer.clear();
            }
        };
        let _ = timeout(LINGER, discard).await;
    }

    async fn read(&mut self) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            self.buffer.reserve(READ);
            match self.stream.try_read_buf(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn request(inbox: &mut Inbox<'_>) -> Vec<u8> {
        match inbox.next().await {
            Next::Request(body, _) => body.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn requests_come_whole_and_in_order_however_they_are_cut() {
        let frames = b"4\r\n\x08\x5b\x12\x00\r\n4\r\n\x08\x5c\x12\x00\r\n";
        for cut in 0..=frames.len() {
            let (server, mut client) = UnixStream::pair().unwrap();
            let mut inbox = Inbox::new(&server, 1024, Capacity::new(1, 1 << 20));
            let (first, second) = frames.split_at(cut);
            client.write_all(first).await.unwrap();
            let sending = tokio::spawn(async move {
                tokio::task::yield_now().await;
                client.write_all(second).await.unwrap();
            });
            assert_eq!(request(&mut inbox).await, b"\x08\x5b\x12\x00");
            assert_eq!(request(&mut inbox).await, b"\x08\x5c\x12\x00");
            sending.await.unwrap();
            assert!(matches!(inbox.next().await, Next::Closed));
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_is_told_and_an_unfinished_one_is_an_end() {
        for (bytes, broken) in
            [(&b"abc\r\n"[..], true), (b"9999\r\n", true), (b"4\r\n\x08\x5b", false), (b"", false)]
        {
            let (server, mut client) = UnixStream::pair().unwrap();
            let mut inbox = Inbox::new(&server, 1024, Capacity::new(1, 1 << 20));
            client.write_all(bytes).await.unwrap();
            drop(client);
            let next = inbox.next().await;
            assert_eq!(matches!(next, Next::Broken(_)), broken, "{bytes:?}: {next:?}");
            assert_eq!(matches!(next, Next::Closed), !broken, "{bytes:?}: {next:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_client_that_goes_on_sending_is_left_in_the_end() {
        let (server, client) = UnixStream::pair().unwrap();
        let sending = tokio::spawn(async move {
            loop {
                client.writable().await.unwrap();
                if client.try_write(&[0; 1024]).is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock)
                {
                    return;
                }
            }
        });
        timeout(LINGER * 5, Inbox::new(&server, 1024, Capacity::new(1, 1 << 20)).drop_rest()).await.unwrap();
        drop(server);
        sending.await.unwrap();
    }
}
