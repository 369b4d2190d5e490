//! One connection of a client, blocking, with its own reading of frames.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use warden_protocol::messages::*;
use warden_protocol::{Command, Request, Response};

use crate::wait::patience;

/// How long an answer may take: the longest wait of any test is below it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished job left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: u32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// The container, in the answer.
    pub info: Option<InfoResponse>,
}

impl Output {
    /// The standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The standard error as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// What a stream brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streamed {
    /// The job's exit status.
    pub status: u32,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
    /// How many answers carried output.
    pub chunks: usize,
    /// The container, in the last answer.
    pub info: Option<InfoResponse>,
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<UnixStream>,
    created: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Connection {
    /// Connects; `created` is told the handles that are created.
    pub fn open(socket: &Path, created: Arc<Mutex<Vec<Vec<u8>>>>) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE * patience()))?;
        stream.set_write_timeout(Some(PATIENCE * patience()))?;
        Ok(Self { reader: BufReader::with_capacity(1 << 18, stream), created })
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).expect("the daemon takes bytes");
    }

    /// Sends bytes as they are, to a daemon that may have closed.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Sends a request without reading the answer.
    #[track_caller]
    pub fn send(&mut self, request: impl Into<Request>) {
        let frame = request.into().encode();
        self.send_bytes(&frame);
    }

    /// A second handle to the same connection, for sending while answers are read.
    pub fn writer(&self) -> UnixStream {
        self.reader.get_ref().try_clone().expect("the descriptor can be doubled")
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        self.reader.get_ref().shutdown(Shutdown::Write).expect("the connection stands");
    }

    /// Reads the next frame's content; `None` when the daemon has closed.
    ///
    /// Fails when it is no frame, or is cut short.
    pub fn next_body(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.reader.by_ref().take(24).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let length = line.strip_suffix(b"\r\n").filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let length = length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let length =
            length.ok_or_else(|| io::Error::other(format!("a length line of {:?}", line.escape_ascii())))?;
        let mut body = vec![0; length + 2];
        self.reader.read_exact(&mut body)?;
        if body.split_off(length) != b"\r\n" {
            return Err(io::Error::other("no CRLF after the message"));
        }
        Ok(Some(body))
    }

    /// Reads the next answer; `None` when the daemon has closed.
    #[track_caller]
    pub fn try_receive(&mut self) -> Option<Response> {
        let body = self.next_body().unwrap_or_else(|error| panic!("reading an answer: {error}"))?;
        let response =
            Response::decode(&body).unwrap_or_else(|error| panic!("an answer cannot be decoded: {error}"));
        if let Response::Create(create) = &response {
            self.created.lock().unwrap().extend(create.handle.clone());
        }
        Some(response)
    }

    /// Reads the next answer.
    #[track_caller]
    pub fn receive(&mut self) -> Response {
        self.try_receive().expect("the daemon answers before it closes")
    }

    /// Reads an answer that must be an error, and gives its text.
    #[track_caller]
    pub fn receive_error(&mut self) -> String {
        match self.receive() {
            Response::Error(error) => text(error.message.as_deref().unwrap_or_default()),
            other => panic!("an error was expected, not {other:?}"),
        }
    }

    /// Reads an answer of a command.
    #[track_caller]
    pub fn receive_of<C: Command>(&mut self) -> Result<C::Response, String> {
        C::response(self.receive()).map_err(|other| match *other {
            Response::Error(error) => text(error.message.as_deref().unwrap_or_default()),
            other => panic!("the answer belongs to another command: {other:?}"),
        })
    }

    /// Asks and reads the answer; an error is the server's message.
    #[track_caller]
    pub fn ask<C: Command>(&mut self, command: C) -> Result<C::Response, String> {
        self.send(command);
        self.receive_of::<C>()
    }

    /// Asks for what must succeed.
    #[track_caller]
    pub fn must<C: Command>(&mut self, command: C) -> C::Response {
        self.ask(command).unwrap_or_else(|message| panic!("the server refused: {message}"))
    }

    /// Creates a container with nothing asked for, and gives its handle.
    #[track_caller]
    pub fn create(&mut self) -> Vec<u8> {
        self.create_with(CreateRequest::default())
    }

    /// Creates a container, and gives its handle.
    #[track_caller]
    pub fn create_with(&mut self, request: CreateRequest) -> Vec<u8> {
        self.must(request).handle.unwrap()
    }

    /// Runs a script as vcap.
    #[track_caller]
    pub fn run(&mut self, handle: &[u8], script: impl AsRef<[u8]>) -> Output {
        self.run_with(run_request(handle, script))
    }

    /// Runs a script as root.
    #[track_caller]
    pub fn run_privileged(&mut self, handle: &[u8], script: impl AsRef<[u8]>) -> Output {
        self.run_with(RunRequest { privileged: Some(true), ..run_request(handle, script) })
    }

    /// Runs a job.
    #[track_caller]
    pub fn run_with(&mut self, request: RunRequest) -> Output {
        let answer = self.must(request);
        output(answer.exit_status, answer.stdout, answer.stderr, answer.info)
    }

    /// Runs a script that must succeed in silence on stderr, and gives its standard output as text.
    #[track_caller]
    pub fn text(&mut self, handle: &[u8], script: impl AsRef<[u8]>) -> String {
        let output = self.run(handle, script);
        assert_eq!((output.status, output.errors().as_str()), (0, ""), "stdout: {}", output.text());
        output.text()
    }

    /// Starts a script as vcap, and gives the job's id.
    #[track_caller]
    pub fn spawn(&mut self, handle: &[u8], script: impl AsRef<[u8]>) -> u32 {
        let request = SpawnRequest {
            handle: Some(handle.to_vec()),
            script: Some(script.as_ref().to_vec()),
            ..SpawnRequest::default()
        };
        self.must(request).job_id.unwrap()
    }

    /// Waits for a job, or is refused.
    #[track_caller]
    pub fn try_link(&mut self, handle: &[u8], job: u32) -> Result<Output, String> {
        let answer = self.ask(link_request(handle, job))?;
        Ok(output(answer.exit_status, answer.stdout, answer.stderr, answer.info))
    }

    /// Waits for a job.
    #[track_caller]
    pub fn link(&mut self, handle: &[u8], job: u32) -> Output {
        self.try_link(handle, job).unwrap_or_else(|message| panic!("link of job {job}: {message}"))
    }

    /// Follows a job to its end, checking the shape of every answer, or is refused.
    #[track_caller]
    pub fn try_stream(&mut self, handle: &[u8], job: u32) -> Result<Streamed, String> {
        self.send(StreamRequest { handle: Some(handle.to_vec()), job_id: Some(job) });
        let mut streamed = Streamed::default();
        while let Some((name, data)) = self.next_chunk(&mut streamed)? {
            if name == b"stdout" { streamed.stdout.extend(data) } else { streamed.stderr.extend(data) }
        }
        Ok(streamed)
    }

    /// Follows a job to its end.
    #[track_caller]
    pub fn stream(&mut self, handle: &[u8], job: u32) -> Streamed {
        self.try_stream(handle, job).unwrap_or_else(|message| panic!("stream of job {job}: {message}"))
    }

    /// Reads one answer of a stream: a chunk with its name, or the end, which is noted in `streamed`.
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "a chunk is its name and its data")]
    pub fn next_chunk(&mut self, streamed: &mut Streamed) -> Result<Option<(Vec<u8>, Vec<u8>)>, String> {
        let answer = self.receive_of::<StreamRequest>()?;
        if let Some(status) = answer.exit_status {
            assert!(
                answer.name.is_none() && answer.data.is_none(),
                "the last answer carries output: {answer:?}"
            );
            assert!(answer.info.is_some(), "the last answer lacks info");
            (streamed.status, streamed.info) = (status, answer.info);
            return Ok(None);
        }
        let (name, data) = (answer.name.unwrap(), answer.data.unwrap());
        assert!(name == b"stdout" || name == b"stderr", "a chunk of {:?}", text(&name));
        assert!(!data.is_empty(), "an empty chunk");
        streamed.chunks += 1;
        Ok(Some((name, data)))
    }

    /// A container's state.
    #[track_caller]
    pub fn info(&mut self, handle: &[u8]) -> InfoResponse {
        self.must(InfoRequest { handle: Some(handle.to_vec()) })
    }

    /// A container's state as one word.
    #[track_caller]
    pub fn state(&mut self, handle: &[u8]) -> String {
        text(&self.info(handle).state.unwrap())
    }

    /// A container's id, which is also the name of its directory and its hostname.
    #[track_caller]
    pub fn id(&mut self, handle: &[u8]) -> String {
        let path = text(&self.info(handle).container_path.unwrap());
        path.rsplit('/').next().unwrap().to_owned()
    }

    /// Ends a container's jobs with KILL.
    #[track_caller]
    pub fn kill(&mut self, handle: &[u8]) {
        self.must(StopRequest { handle: Some(handle.to_vec()), kill: Some(true), ..StopRequest::default() });
    }

    /// Destroys a container.
    #[track_caller]
    pub fn destroy(&mut self, handle: &[u8]) {
        self.must(DestroyRequest { handle: Some(handle.to_vec()) });
    }

    /// All handles.
    #[track_caller]
    pub fn list(&mut self) -> Vec<Vec<u8>> {
        self.must(ListRequest {}).handles
    }

    /// Asks for a sign of life.
    #[track_caller]
    pub fn ping(&mut self) {
        self.must(PingRequest {});
    }
}

/// A request to run a script as vcap.
pub(crate) fn run_request(handle: &[u8], script: impl AsRef<[u8]>) -> RunRequest {
    RunRequest {
        handle: Some(handle.to_vec()),
        script: Some(script.as_ref().to_vec()),
        ..RunRequest::default()
    }
}

fn link_request(handle: &[u8], job: u32) -> LinkRequest {
    LinkRequest { handle: Some(handle.to_vec()), job_id: Some(job) }
}

/// The server sets both outputs always, also when they are empty.
#[track_caller]
fn output(
    status: Option<u32>,
    stdout: Option<Vec<u8>>,
    stderr: Option<Vec<u8>>,
    info: Option<InfoResponse>,
) -> Output {
    Output {
        status: status.expect("the answer has an exit status"),
        stdout: stdout.expect("the answer has stdout"),
        stderr: stderr.expect("the answer has stderr"),
        info,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
