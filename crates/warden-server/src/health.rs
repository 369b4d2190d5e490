//! Health check: answers whoever sends anything to a TCP port of the loopback interface.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::failure::Failure;

/// The whole answer: monitors of the original compare it byte for byte.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n";

/// How long a client may take, so that idle ones do not hold descriptors for ever.
const PATIENCE: Duration = Duration::from_secs(2);

/// Clients at a time; further ones wait in the kernel. Every user of the machine may connect.
const MAX_CLIENTS: usize = 32;

/// How long to wait when a connection cannot be accepted, mostly for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on 127.0.0.1; port 0 lets the kernel choose.
pub(crate) async fn listen(port: u16) -> Result<TcpListener, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|source| {
        Failure::io(format!("listening on health_check_server.port 127.0.0.1:{port}"), source)
    })
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        // It fails only for a semaphore that was closed, which nobody does.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(async move {
                let _place = place;
                timeout(PATIENCE, answer(stream)).await
            })),
            Err(error) => {
                tracing::debug!(%error, "accepting a health check");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    if stream.read(&mut [0; 1024]).await? > 0 {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn any_bytes_are_answered_exactly() {
        let listener = listen(0).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener));
        for request in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x00"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"HTTP/1.1 200 OK\r\n");
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = listen(0).await.unwrap();
        let port = first.local_addr().unwrap().port();
        let refused = listen(port).await.unwrap_err().to_string();
        assert!(
            refused.starts_with(&format!("listening on health_check_server.port 127.0.0.1:{port}: ")),
            "{refused}"
        );
    }
}
