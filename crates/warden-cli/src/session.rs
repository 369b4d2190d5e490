//! Performing a command: the request to the server, the answer to the person.

use std::io::{self, Write};
use std::process::ExitCode;

use warden_client::Client;
use warden_protocol::Request;
use warden_protocol::messages::{RunRequest, SpawnRequest, StreamRequest, StreamResponse};
use warden_protocol::reflect::Reflect;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::{json, print};

/// Sends a request to the server and prints its answer as it arrives; the status is a run script's own.
pub(crate) fn perform(
    arguments: &Arguments,
    words: &[Vec<u8>],
    request: Request,
) -> Result<ExitCode, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(Failure::Start)?;
    runtime.block_on(async {
        if arguments.trace {
            trace(words).map_err(Failure::Output)?;
        }
        let mut client = Client::connect(&arguments.socket).await?;
        match request {
            Request::Run(run) => {
                let stream = spawn(&mut client, run).await?;
                let status = follow(&mut client, stream, arguments.json).await?;
                Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
            }
            Request::Stream(stream) => {
                follow(&mut client, stream, arguments.json).await.map(|_| ExitCode::SUCCESS)
            }
            request => {
                let response = client.call(request).await?;
                show(response.message(), arguments.json).map_err(Failure::Output)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

/// Starts a script whose output shall be seen while it runs, and tells how to read it.
async fn spawn(client: &mut Client, run: RunRequest) -> Result<StreamRequest, Failure> {
    let RunRequest { handle, script, privileged, rlimits, discard_output, log_tag } = run;
    let spawn = SpawnRequest { handle: handle.clone(), script, privileged, rlimits, discard_output, log_tag };
    let job_id = client.request(spawn).await?.job_id;
    Ok(StreamRequest { handle, job_id })
}

/// Writes a job's output as it arrives, and returns the job's exit status.
async fn follow(client: &mut Client, request: StreamRequest, json: bool) -> Result<u32, Failure> {
    let mut stream = client.stream(request).await?;
    let mut status = 0;
    while let Some(piece) = stream.next().await? {
        status = piece.exit_status();
        if json { show(&piece, true) } else { copy(&piece) }.map_err(Failure::Output)?;
    }
    Ok(status)
}

/// Writes a piece of output to where the job wrote it.
fn copy(piece: &StreamResponse) -> io::Result<()> {
    if piece.name() == b"stderr" {
        io::stderr().write_all(piece.data())
    } else {
        let mut out = io::stdout().lock();
        out.write_all(piece.data())?;
        out.flush()
    }
}

/// Writes a response as lines or as an object.
fn show(message: &dyn Reflect, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json { writeln!(out, "{}", json::object(message)) } else { print::print(message, &mut out) }?;
    out.flush()
}

/// Writes the command as it was given.
fn trace(words: &[Vec<u8>]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "+ {}", String::from_utf8_lossy(&words.join(&b' ')))?;
    out.flush()
}
