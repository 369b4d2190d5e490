//! A server that speaks frames and knows no containers.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use warden_protocol::Request;
use warden_protocol::frame::Decoder;

/// What the fake does about a request.
pub(crate) enum Reply {
    /// Send these bytes, which may be any number of frames.
    Send(Bytes),
    /// Send these bytes and close the connection.
    Last(Bytes),
}

type Answer = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A running fake; dropping it removes its socket.
pub(crate) struct Fake {
    directory: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Listens, and answers every request as told.
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("warden.sock")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen): (Arc<Answer>, _) = (Arc::new(Box::new(answer)), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&answer), Arc::clone(&seen)));
            }
        });
        Self { directory, requests }
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> PathBuf {
        let directory: &Path = self.directory.path();
        directory.join("warden.sock")
    }

    /// What it was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut socket: UnixStream, answer: Arc<Answer>, requests: Arc<Mutex<Vec<Request>>>) {
    let mut decoder = Decoder::new(usize::MAX);
    let mut buffer = BytesMut::new();
    loop {
        while let Some(content) = decoder.decode(&mut buffer).unwrap() {
            let request = Request::decode(&content).unwrap();
            requests.lock().unwrap().push(request.clone());
            match answer(&request) {
                Reply::Send(bytes) => socket.write_all(&bytes).await.unwrap(),
                Reply::Last(bytes) => return socket.write_all(&bytes).await.unwrap(),
            }
        }
        if socket.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return;
        }
    }
}
