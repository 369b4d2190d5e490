//! One connection to a server.

use std::io;
use std::path::Path;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use warden_protocol::frame::Decoder;
use warden_protocol::messages::{
    CreateRequest, DestroyRequest, InfoRequest, InfoResponse, LinkRequest, LinkResponse, ListRequest,
    PingRequest, RunRequest, RunResponse, SpawnRequest, StopRequest, StreamRequest,
};
use warden_protocol::{Command, Request, Response};

use crate::error::Error;
use crate::stream::Stream;

/// How much room there is for each read, bytes.
const READ_SIZE: usize = 64 << 10;

/// One connection to a server.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    decoder: Decoder,
    buffer: BytesMut,
    /// Whether a request was sent whose last response has not been read.
    waiting: bool,
    /// Whether the server had closed the connection before the last request was written to its end.
    unsent: bool,
}

impl Client {
    /// Connects to the server that listens at a path.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let socket = UnixStream::connect(path)
            .await
            .map_err(|source| Error::Connect { path: path.to_owned(), source })?;
        // An answer may be as long as memory allows; a length that is only announced takes none.
        let decoder = Decoder::new(usize::MAX);
        Ok(Self { socket, decoder, buffer: BytesMut::new(), waiting: false, unsent: false })
    }

    /// Sends a request and waits for its response; fails also when the server answers with an error.
    pub async fn call(&mut self, request: impl Into<Request>) -> Result<Response, Error> {
        let request = request.into();
        if matches!(request, Request::Stream(_)) {
            return Err(Error::ManyResponses);
        }
        self.send(&request).await?;
        let response = self.receive(&request).await;
        self.settle(&response);
        response
    }

    /// Sends a request and waits for the response that belongs to it.
    pub async fn request<C: Command>(&mut self, command: C) -> Result<C::Response, Error> {
        let request = command.into();
        let asked = request.name();
        let response = self.call(request).await?;
        C::response(response).map_err(|other| Error::Mismatch { asked, answered: other.name() })
    }

    /// Checks that the server answers.
    pub async fn ping(&mut self) -> Result<(), Error> {
        self.request(PingRequest {}).await.map(drop)
    }

    /// Lists the handles of all containers, in the order of their creation.
    pub async fn list(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.request(ListRequest {}).await?.handles)
    }

    /// Creates a container with the server's defaults and returns its handle.
    pub async fn create(&mut self) -> Result<Vec<u8>, Error> {
        Ok(self.request(CreateRequest::default()).await?.handle.unwrap_or_default())
    }

    /// Tells the state of a container.
    pub async fn info(&mut self, handle: impl AsRef<[u8]>) -> Result<InfoResponse, Error> {
        self.request(InfoRequest { handle: owned(handle) }).await
    }

    /// Runs a script as the container's user and waits for its end.
    pub async fn run(
        &mut self,
        handle: impl AsRef<[u8]>,
        script: impl AsRef<[u8]>,
    ) -> Result<RunResponse, Error> {
        self.request(RunRequest { handle: owned(handle), script: owned(script), ..RunRequest::default() })
            .await
    }

    /// Starts a script as the container's user and returns the job's number.
    pub async fn spawn(&mut self, handle: impl AsRef<[u8]>, script: impl AsRef<[u8]>) -> Result<u32, Error> {
        let request =
            SpawnRequest { handle: owned(handle), script: owned(script), ..SpawnRequest::default() };
        Ok(self.request(request).await?.job_id())
    }

    /// Waits for the end of a job and returns all that it wrote.
    pub async fn link(&mut self, handle: impl AsRef<[u8]>, job_id: u32) -> Result<LinkResponse, Error> {
        self.request(LinkRequest { handle: owned(handle), job_id: Some(job_id) }).await
    }

    /// Returns a job's output from the first byte while it is written, then how the job ended.
    pub async fn stream(&mut self, request: StreamRequest) -> Result<Stream<'_>, Error> {
        let request = Request::Stream(request);
        self.send(&request).await?;
        Ok(Stream::new(self, request))
    }

    /// Stops all processes in a container, with TERM and after ten seconds with KILL.
    pub async fn stop(&mut self, handle: impl AsRef<[u8]>) -> Result<(), Error> {
        self.request(StopRequest { handle: owned(handle), ..StopRequest::default() }).await.map(drop)
    }

    /// Stops a container and removes all that belongs to it.
    pub async fn destroy(&mut self, handle: impl AsRef<[u8]>) -> Result<(), Error> {
        self.request(DestroyRequest { handle: owned(handle) }).await.map(drop)
    }

    /// Sends a request; the connection then waits for responses.
    async fn send(&mut self, request: &Request) -> Result<(), Error> {
        if self.waiting {
            return Err(Error::Abandoned);
        }
        self.waiting = true;
        match self.socket.write_all(&request.encode()).await {
            // A server that refuses a request before its end says why and closes: what it said is still to be read.
            Err(error) if is_hang_up(&error) => {
                self.unsent = true;
                Ok(())
            }
            result => result.map_err(|source| Error::Io { action: "write to", source }),
        }
    }

    /// Waits for the next response to a request.
    pub(crate) async fn receive(&mut self, request: &Request) -> Result<Response, Error> {
        let content = loop {
            if let Some(content) = self.decoder.decode(&mut self.buffer)? {
                break content;
            }
            self.buffer.reserve(READ_SIZE);
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(self.closed()),
                Ok(_) => {}
                Err(error) if is_hang_up(&error) => return Err(self.closed()),
                Err(source) => return Err(Error::Io { action: "read from", source }),
            }
        };
        match Response::decode(&content)? {
            Response::Error(error) => Err(Error::Server { message: error.message.unwrap_or_default() }),
            response if response.name() == request.name() => Ok(response),
            other => Err(Error::Mismatch { asked: request.name(), answered: other.name() }),
        }
    }

    /// Tells whether a server that hung up can have done what it was asked.
    fn closed(&self) -> Error {
        if self.unsent && self.buffer.is_empty() { Error::Unsent } else { Error::Closed }
    }

    /// Notes that a response was the last one of its request: one that is none leaves the connection unusable.
    pub(crate) fn settle(&mut self, response: &Result<Response, Error>) {
        self.waiting = !matches!(response, Ok(_) | Err(Error::Server { .. }));
    }
}

fn owned(bytes: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    Some(bytes.as_ref().to_vec())
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
