//! One client: its requests are done one at a time, in order, until it goes or the server drains.

use std::time::Instant;

use tokio::net::UnixStream;
use warden_container::host::Connection;
use warden_protocol::Request;

use crate::capacity::Capacity;
use crate::dispatch::{Refusal, Session, ends_with_client, only_looks, waits};
use crate::drain::Drain;
use crate::gate::Peer;
use crate::hangup::Hangup;
use crate::inbox::{Inbox, Next};
use crate::writer::Writer;

/// The most bytes of a handle in a log line.
const HANDLE_SHOWN: usize = 64;

/// How a request ended.
#[derive(Debug)]
enum Outcome {
    /// Its answer was sent, or its refusal.
    Answered(Result<(), Refusal>),
    /// The client is gone; a job that was waited for goes on, a copy does not.
    Vanished,
    /// The server drains; a job that was waited for goes on.
    Drained,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Client {
    number: u64,
    stream: UnixStream,
    peer: Peer,
    hangup: Hangup,
    domain: Connection,
    drain: Drain,
    capacity: Capacity,
}

impl Client {
    /// Takes over a connection that was accepted; `number` names it in the log.
    pub(crate) fn new(
        number: u64,
        stream: UnixStream,
        peer: Peer,
        domain: Connection,
        drain: Drain,
        capacity: Capacity,
    ) -> std::io::Result<Self> {
        let hangup = Hangup::of(&stream)?;
        Ok(Self { number, stream, peer, hangup, domain, drain, capacity })
    }

    /// Serves it until it ends; requests are at most `limit` bytes long.
    pub(crate) async fn serve(self, limit: usize) {
        let (stream, mut drain) = (&self.stream, self.drain.clone());
        let writer = Writer(stream);
        let mut inbox = Inbox::new(stream, limit, self.capacity.clone());
        loop {
            let next = tokio::select! {
                biased;
                () = drain.started() => return,
                next = inbox.next() => next,
            };
            let goes_on = match next {
                Next::Closed => return,
                Next::Broken(error) => {
                    tracing::debug!(client = self.number, %error, "closing a connection: not a frame");
                    return refuse(writer, inbox, &error.to_string()).await;
                }
                Next::Refused(exhausted) => {
                    tracing::warn!(client = self.number, error = %exhausted, "closing a connection");
                    return refuse(writer, inbox, &exhausted.to_string()).await;
                }
                Next::Request(body, _share) => match Request::decode(&body) {
                    Err(error) => {
                        tracing::debug!(client = self.number, %error, "refusing a request");
                        writer.error(&error.to_string()).await.is_ok()
                    }
                    Ok(request) => {
                        drop(body);
                        self.handle(request).await
                    }
                },
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Does one request and logs it; false when the connection is at its end.
    async fn handle(&self, request: Request) -> bool {
        let line = Line::of(self.number, &self.peer, &request);
        let outcome = self.outcome(request).await;
        line.log(&outcome);
        match outcome {
            Outcome::Vanished | Outcome::Drained | Outcome::Answered(Err(Refusal::Socket(_))) => false,
            Outcome::Answered(Ok(())) => true,
            Outcome::Answered(Err(refusal)) => Writer(&self.stream).error(&refusal.to_string()).await.is_ok(),
        }
    }

    /// Does one request; one that waits for a job ends with the client, and with the server; a copy with the client.
    async fn outcome(&self, request: Request) -> Outcome {
        let session = Session { domain: &self.domain, writer: Writer(&self.stream) };
        let (waits, ends_with_client) = (waits(&request), ends_with_client(&request));
        // What waits for a job is bounded by the connections, what only looks is done at once.
        let share = if waits || only_looks(&request) { None } else { Some(self.capacity.request()) };
        let share = match share.transpose() {
            Ok(share) => share,
            Err(exhausted) => return Outcome::Answered(Err(exhausted.into())),
        };
        let mut drain = self.drain.clone();
        tokio::select! {
            biased;
            answered = session.answer(request, share) => Outcome::Answered(answered),
            () = self.hangup.happened(), if ends_with_client => Outcome::Vanished,
            () = drain.started(), if waits => Outcome::Drained,
        }
    }
}

/// Says why nothing more is read from a client.
async fn refuse(writer: Writer<'_>, mut inbox: Inbox<'_>, reason: &str) {
    if writer.error(reason).await.is_ok() {
        writer.finish();
        inbox.drop_rest().await;
    }
}

/// The log line of one request.
#[derive(Debug)]
struct Line {
    client: u64,
    /// The user and the process that asked.
    user: u32,
    pid: i32,
    command: &'static str,
    handle: String,
    quiet: bool,
    start: Instant,
}

impl Line {
    fn of(client: u64, peer: &Peer, request: &Request) -> Self {
        let handle = match request {
            // Not that of a container yet, but what its client calls it.
            Request::Create(create) => create.handle(),
            other => other.handle().unwrap_or_default(),
        };
        let handle = String::from_utf8_lossy(handle.get(..HANDLE_SHOWN).unwrap_or(handle)).into_owned();
        Self {
            client,
            user: peer.user,
            pid: peer.pid,
            command: request.name(),
            handle,
            quiet: only_looks(request),
            start: Instant::now(),
        }
    }

    fn log(&self, outcome: &Outcome) {
        let quiet = self.quiet && matches!(outcome, Outcome::Answered(Ok(())));
        let (failed, outcome) = match outcome {
            Outcome::Answered(Ok(())) => (false, "ok".to_owned()),
            Outcome::Answered(Err(refusal)) => (refusal.is_failure(), refusal.to_string()),
            Outcome::Vanished => (false, "the client is gone".to_owned()),
            Outcome::Drained => (false, "closed: the server drains".to_owned()),
        };
        let Self { client, user, pid, command, .. } = *self;
        let handle = self.handle.as_str();
        let took_ms = self.start.elapsed().as_micros() as f64 / 1000.0;
        if failed {
            tracing::warn!(client, user, pid, handle, took_ms, outcome, "{command}");
        } else if quiet {
            tracing::debug!(client, user, pid, handle, took_ms, outcome, "{command}");
        } else {
            tracing::info!(client, user, pid, handle, took_ms, outcome, "{command}");
        }
    }
}
