//! What goes out to a client: bytes from memory, and ranges of files that do not pass through memory.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::net::UnixStream;
use warden_protocol::Response;
use warden_protocol::messages::ErrorResponse;

/// Bytes that one sendfile(2) may move, so that no thread is held by one client for long.
const PIECE: u64 = 256 * 1024;

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

    /// Sends a response.
    pub(crate) async fn response(&self, response: &Response) -> io::Result<()> {
        self.bytes(&response.encode()).await
    }

    /// Sends an error.
    pub(crate) async fn error(&self, message: &str) -> io::Result<()> {
        let message = Some(message.as_bytes().to_vec());
        self.response(&Response::Error(ErrorResponse { message, ..ErrorResponse::default() })).await
    }

    /// Sends `count` bytes of a file from `offset` on; a file that is shorter is an error.
    pub(crate) async fn file(&self, file: &File, mut offset: u64, count: u64) -> io::Result<()> {
        let end = offset + count;
        while offset < end {
            self.0.writable().await?;
            let piece = usize::try_from((end - offset).min(PIECE)).unwrap_or(usize::MAX);
            let send = || warden_linux::file::send(self.0.as_fd(), file.as_fd(), &mut offset, piece);
            match self.0.try_io(Interest::WRITABLE, send) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "a job's output is shorter than reported",
                    ));
                }
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
        writer.bytes(b"head").await.unwrap();
        writer.file(&file, 1, 2_999_998).await.unwrap();
        writer.bytes(b"tail").await.unwrap();
        writer.finish();
        let seen = reader.join().unwrap();
        assert_eq!(seen, [b"head", &content[1..2_999_999], b"tail"].concat());
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_and_a_client_that_is_gone_are_errors() {
        let file = tempfile::tempfile().unwrap();
        let (server, client) = UnixStream::pair().unwrap();
        let error = Writer(&server).file(&file, 0, 1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        drop(client);
        let error = Writer(&server).bytes(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
