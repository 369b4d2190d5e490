//! A server that speaks frames, knows no containers, and can be restarted.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::BytesMut;
use warden_protocol::frame::Decoder;
use warden_protocol::{Request, Response};

/// What the server does about a request.
pub(crate) enum Answer {
    /// Send these responses.
    Send(Vec<Response>),
    /// Send this response after a time.
    Later(Duration, Response),
    /// Send this response again and again, until nobody reads it.
    Forever(Response),
    /// Send this response as fast as it is read, until nobody reads it.
    Flood(Response),
    /// Send nothing.
    Never,
    /// Close the connection.
    HangUp,
}

impl<R: Into<Response>> From<R> for Answer {
    fn from(response: R) -> Self {
        Self::Send(vec![response.into()])
    }
}

type Answers = dyn Fn(&Request) -> Answer + Send + Sync;

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<UnixStream>>,
    is_stopped: AtomicBool,
}

/// A running server; dropping it closes its connections and removes its socket.
pub(crate) struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at a path, and answers every request as told.
    pub(crate) fn start(path: &Path, answers: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (shared, answers): (_, Arc<Answers>) = (Arc::new(Shared::default()), Arc::new(answers));
        let of_thread = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = socket.unwrap();
                if of_thread.is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                of_thread.connections.lock().unwrap().push(socket.try_clone().unwrap());
                let (shared, answers) = (Arc::clone(&of_thread), Arc::clone(&answers));
                thread::spawn(move || serve(socket, &shared, &*answers));
            }
        });
        Self { path: path.to_owned(), shared, acceptor: Some(acceptor) }
    }

    /// What it was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        // The acceptor looks at the flag when somebody connects.
        let _ = UnixStream::connect(&self.path);
        let _ = self.acceptor.take().map(JoinHandle::join);
        for connection in self.shared.connections.lock().unwrap().iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(mut socket: UnixStream, shared: &Shared, answers: &Answers) {
    let mut decoder = Decoder::new(usize::MAX);
    let (mut buffer, mut part) = (BytesMut::new(), [0; 4096]);
    loop {
        while let Some(content) = decoder.decode(&mut buffer).unwrap() {
            let request = Request::decode(&content).unwrap();
            shared.requests.lock().unwrap().push(request.clone());
            let result = match answers(&request) {
                Answer::Send(responses) => {
                    responses.iter().try_for_each(|response| socket.write_all(&response.encode()))
                }
                Answer::Later(time, response) => {
                    thread::sleep(time);
                    socket.write_all(&response.encode())
                }
                Answer::Forever(response) => loop {
                    if let Err(error) = socket.write_all(&response.encode()) {
                        break Err(error);
                    }
                    thread::sleep(Duration::from_millis(20));
                },
                Answer::Flood(response) => loop {
                    if let Err(error) = socket.write_all(&response.encode()) {
                        break Err(error);
                    }
                },
                Answer::Never => Ok(()),
                Answer::HangUp => socket.shutdown(Shutdown::Both),
            };
            if result.is_err() {
                return;
            }
        }
        match socket.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(length) => buffer.extend_from_slice(&part[..length]),
        }
    }
}
