//! Performing commands: requests to the server, answers to the person.
//!
//! There are two connections. What waits for a job goes over one of its own, so that somebody who leaves a stream does
//! not also give up the other connection, by which the server knows which containers are still in use.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use warden_protocol::Request;
use warden_protocol::messages::{
    CopyInRequest, InfoRequest, LinkRequest, RunRequest, SpawnRequest, SpawnResponse, StreamRequest,
};

use crate::arguments::Arguments;
use crate::command::Call;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::human::text;
use crate::output::Output;
use crate::shell::{Shell, ShellInput};
use crate::{progress, table};

/// Performs commands, one after the other.
#[derive(Debug)]
pub(crate) struct Session {
    runtime: Rc<Runtime>,
    json: bool,
    trace: bool,
    shell_input: ShellInput,
    /// For requests that are answered at once.
    requests: Connection,
    /// For requests that wait for a job.
    jobs: Connection,
    /// The job that is waited for.
    job: Option<StreamRequest>,
    output: Output,
}

impl Session {
    /// Makes a session that connects when it must, and gives shells their input.
    pub(crate) fn new(arguments: &Arguments, shell_input: ShellInput) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
        Ok(Self {
            runtime: Rc::new(runtime),
            json: arguments.json,
            trace: arguments.trace,
            shell_input,
            requests: Connection::announced(arguments.socket.clone()),
            jobs: Connection::announced(arguments.socket.clone()),
            job: None,
            output: Output::default(),
        })
    }

    /// What the session's requests run on.
    pub(crate) fn runtime(&self) -> Rc<Runtime> {
        Rc::clone(&self.runtime)
    }

    /// Where the session prints.
    pub(crate) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Writes a command as it was given, if that is wanted.
    pub(crate) fn trace(&mut self, line: &[u8]) -> Result<(), Failure> {
        if self.trace { self.output.write(&[b"+ ", line, b"\n"].concat()) } else { Ok(()) }
    }

    /// Performs a command and returns its status, which is 0 but for run and shell.
    pub(crate) fn perform(&mut self, call: Call) -> Result<u8, Failure> {
        let runtime = self.runtime();
        runtime.block_on(self.execute(call))
    }

    /// Performs a command until Ctrl-C, and says what goes on without it.
    pub(crate) fn perform_until_interrupt(&mut self, call: Call) -> Result<u8, Failure> {
        let runtime = self.runtime();
        runtime.block_on(async {
            // The listener hears only what comes from now on, and as long as it is there no signal ends the program.
            let mut interrupts = signal(SignalKind::interrupt()).map_err(Failure::Start)?;
            tokio::select! {
                // First the signal: output that never stops must not keep it from being heard.
                biased;
                _ = interrupts.recv() => {
                    self.leave();
                    Ok(0)
                }
                result = self.execute(call) => result,
            }
        })
    }

    /// Says what was left. The connection that was waited on is gone with the future that used it.
    fn leave(&mut self) {
        let message = match self.job.take() {
            Some(job) => {
                let (handle, id) = (text(job.handle()), job.job_id());
                format!("\nLeft job {id}, which goes on: stream {handle} {id}")
            }
            None => "\nLeft; the server may still do it.".to_owned(),
        };
        self.output.notice(&message);
    }

    async fn execute(&mut self, call: Call) -> Result<u8, Failure> {
        self.job = None;
        let status = match call {
            Call::Request(request) => self.request(*request).await?,
            Call::Table => {
                let rows = table::rows(&mut self.requests).await?;
                self.output.write(table::print(&rows, self.json).as_bytes())?;
                0
            }
            Call::Shell(shell) => self.shell(shell).await?,
        };
        self.job = None;
        Ok(status)
    }

    async fn request(&mut self, request: Request) -> Result<u8, Failure> {
        match request {
            Request::Run(run) => {
                let stream = self.spawn(run).await?;
                let status = self.follow(stream).await?;
                Ok(u8::try_from(status).unwrap_or(u8::MAX))
            }
            Request::Stream(stream) => self.follow(stream).await.map(|_| 0),
            Request::Link(LinkRequest { ref handle, job_id }) => {
                self.job = Some(StreamRequest { handle: handle.clone(), job_id });
                let response = self.jobs.call(request).await?;
                self.output.show(response.message(), self.json).map(|()| 0)
            }
            Request::CopyIn(_) | Request::CopyOut(_) => {
                let size_of = if let Request::CopyIn(copy) = &request { source(copy) } else { None };
                let name = request.name();
                let response = progress::during(name, size_of, self.requests.call(request)).await?;
                self.output.show(response.message(), self.json).map(|()| 0)
            }
            request => {
                let response = self.requests.call(request).await?;
                self.output.show(response.message(), self.json).map(|()| 0)
            }
        }
    }

    /// Starts a script whose output shall be seen while it runs, and tells how to read it.
    async fn spawn(&mut self, run: RunRequest) -> Result<StreamRequest, Failure> {
        let RunRequest { handle, script, privileged, rlimits, discard_output, log_tag } = run;
        let spawn =
            SpawnRequest { handle: handle.clone(), script, privileged, rlimits, discard_output, log_tag };
        let renewals = self.requests.renewals();
        let SpawnResponse { job_id } = self.requests.request(spawn).await?;
        if self.requests.renewals() != renewals {
            // The server was restarted: the other connection is closed too, and one line about it is enough.
            self.jobs.forget();
        }
        Ok(StreamRequest { handle, job_id })
    }

    /// Writes a job's output as it arrives, and returns the job's exit status.
    async fn follow(&mut self, request: StreamRequest) -> Result<u32, Failure> {
        self.job = Some(request.clone());
        let Self { jobs, output, json, .. } = self;
        jobs.with(async |client| {
            let mut stream = client.stream(request.clone()).await?;
            let mut status = 0;
            while let Some(piece) = stream.next().await? {
                status = piece.exit_status();
                if *json { output.show(&piece, true) } else { output.copy(&piece) }?;
            }
            Ok(status)
        })
        .await
    }

    async fn shell(&mut self, shell: Shell) -> Result<u8, Failure> {
        let info = self.requests.request(InfoRequest { handle: Some(shell.handle.clone()) }).await?;
        let container = info.container_path.ok_or(Failure::NoPath)?;
        shell.open(&container, self.shell_input)
    }
}

/// The path that a copy reads; a relative one is relative to the server's directory, which is not known here.
fn source(copy: &CopyInRequest) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(copy.src_path().to_vec()));
    path.is_absolute().then_some(path)
}
