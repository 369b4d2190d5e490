//! Notices that a client is gone without reading from it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

/// A second descriptor of a connection that only hears of its end.
///
/// epoll(7) reports EPOLLHUP always, but EPOLLRDHUP only when asked: asked for urgent data alone, which nobody
/// sends, it speaks up when the client has closed both directions, and keeps quiet when it has only finished sending.
#[derive(Debug)]
pub(crate) struct Hangup(AsyncFd<OwnedFd>);

impl Hangup {
    /// Starts to listen for the end of a connection.
    #[allow(
        deprecated,
        reason = "deprecated for types whose descriptor may change; that of an OwnedFd does not"
    )]
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let descriptor = stream.as_fd().try_clone_to_owned()?;
        AsyncFd::with_interest(descriptor, Interest::PRIORITY).map(Self)
    }

    /// Waits until the client is gone.
    pub(crate) async fn happened(&self) {
        loop {
            // An error means that the runtime ends, and the connection with it.
            let Ok(mut ready) = self.0.ready(Interest::PRIORITY).await else { return };
            if ready.ready().is_read_closed() {
                return;
            }
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::net::Shutdown;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const AWHILE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_closed_client_is_noticed_though_its_bytes_were_not_read() {
        let (server, client) = UnixStream::pair().unwrap();
        let hangup = Hangup::of(&server).unwrap();
        client.try_write(b"unread").unwrap();
        assert!(timeout(AWHILE, hangup.happened()).await.is_err());
        drop(client);
        timeout(SOON, hangup.happened()).await.unwrap();
        timeout(SOON, hangup.happened()).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_was_gone_before_is_noticed() {
        let (server, client) = UnixStream::pair().unwrap();
        drop(client);
        timeout(SOON, Hangup::of(&server).unwrap().happened()).await.unwrap();
    }

    #[tokio::test]
    async fn a_half_closed_client_is_still_there() {
        let (server, client) = UnixStream::pair().unwrap();
        let hangup = Hangup::of(&server).unwrap();
        rustix::net::shutdown(&client, Shutdown::Write).unwrap();
        assert!(timeout(AWHILE, hangup.happened()).await.is_err());
        drop(client);
        timeout(SOON, hangup.happened()).await.unwrap();
    }
}
