//! What goes out to a client: bytes from memory, and ranges of files, of which long ones do not pass through memory.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::net::UnixStream;
use warden_protocol::Response;
use warden_protocol::messages::ErrorResponse;

/// Bytes that one sendfile(2) may move, so that no thread is held by one client for long.
const PIECE: u64 = 256 * 1024;

/// The longest answer, in bytes, that is put together in memory: the client is woken once.
const SMALL: u64 = 16 * 1024;

/// A piece of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    Bytes(&'a [u8]),
    /// So many bytes of a file from an offset on; a file that is shorter is an error.
    Range(&'a File, u64, u64),
}

impl Part<'_> {
    fn length(&self) -> u64 {
        match *self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::Range(_, _, count) => count,
        }
    }
}

/// The sending side of a connection. A client that does not read blocks its own task only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer<'a>(pub(crate) &'a UnixStream);

impl Writer<'_> {
    /// Sends bytes.
    pub(crate) async fn bytes(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends one piece after the other.
    pub(crate) async fn parts(&self, parts: &[Part<'_>]) -> io::Result<()> {
        if parts.iter().map(Part::length).sum::<u64>() <= SMALL {
            return self.bytes(&gather(parts)?).await;
        }
        for part in parts {
            match *part {
                Part::Bytes(bytes) => self.bytes(bytes).await?,
                Part::Range(file, offset, count) => self.file(file, offset, count).await?,
            }
        }
        Ok(())
    }

    /// Sends a response.
    pub(crate) async fn response(&self, response: &Response) -> io::Result<()> {
        self.bytes(&response.encode()).await
    }

    /// Sends an error.
    pub(crate) async fn error(&self, message: &str) -> io::Result<()> {
        let message = Some(message.as_bytes().to_vec());
        self.response(&Response::Error(ErrorResponse { message, ..ErrorResponse::default() })).await
    }

    async fn file(&self, file: &File, mut offset: u64, count: u64) -> io::Result<()> {
        let end = offset + count;
        while offset < end {
            self.0.writable().await?;
            let piece = usize::try_from((end - offset).min(PIECE)).unwrap_or(usize::MAX);
            let send = || warden_linux::file::send(self.0.as_fd(), file.as_fd(), &mut offset, piece);
            match self.0.try_io(Interest::WRITABLE, send) {
                Ok(0) => return Err(too_short()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says that nothing more follows; what the client still sends is read by the caller.
    pub(crate) fn finish(&self) {
        // An error means that the client is gone already.
        let _ = rustix::net::shutdown(self.0, Shutdown::Write);
    }
}

/// Puts pieces together.
fn gather(parts: &[Part<'_>]) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    for part in parts {
        match *part {
            Part::Bytes(bytes) => whole.extend_from_slice(bytes),
            Part::Range(file, offset, count) => {
                let start = whole.len();
                whole.resize(start.saturating_add(usize::try_from(count).unwrap_or(usize::MAX)), 0);
                let room = whole.get_mut(start..).unwrap_or_default();
                file.read_exact_at(room, offset).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => too_short(),
                    _ => error,
                })?;
            }
        }
    }
    Ok(whole)
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a job's output is shorter than reported")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test]
    async fn a_range_of_a_file_arrives_whole_however_slowly_it_is_read() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        file.write_all(&content).unwrap();
        let (server, client) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let mut client = client.into_std().unwrap();
            client.set_nonblocking(false).unwrap();
            let mut seen = Vec::new();
            client.read_to_end(&mut seen).unwrap();
            seen
        });
        let writer = Writer(&server);
        let parts = [Part::Bytes(b"head"), Part::Range(&file, 1, 2_999_998), Part::Bytes(b"tail")];
        writer.parts(&parts).await.unwrap();
        writer.finish();
        let seen = reader.join().unwrap();
        assert_eq!(seen, [b"head", &content[1..2_999_999], b"tail"].concat());
    }

    #[tokio::test]
    async fn a_short_answer_is_sent_at_once() {
        // A socket of packets tells one from another.
        let (server, client) = warden_linux::socket::PacketSocket::pair().unwrap();
        let server = std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(server));
        let server = UnixStream::from_std(server).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let parts =
            [Part::Bytes(b"head"), Part::Range(&file, 3, 4), Part::Range(&file, 0, 1), Part::Bytes(b"tail")];
        Writer(&server).parts(&parts).await.unwrap();
        assert_eq!(client.receive(100).unwrap().bytes, b"head34560tail");
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_and_a_client_that_is_gone_are_errors() {
        let file = tempfile::tempfile().unwrap();
        let (server, client) = UnixStream::pair().unwrap();
        for count in [1, SMALL + 1] {
            let error = Writer(&server).parts(&[Part::Range(&file, 0, count)]).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string()),
                (io::ErrorKind::UnexpectedEof, too_short().to_string())
            );
        }
        drop(client);
        let error = Writer(&server).bytes(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
