//! Hands each request to the domain and answers it.
//!
//! A handle is looked up before anything else is examined, as in the original.

mod containers;
mod copies;
mod jobs;
mod limits;
mod network;

use std::io;
use std::sync::Arc;

use warden_container::container::Container;
use warden_container::error::Error;
use warden_container::host::Connection;
use warden_protocol::messages::{EchoResponse, ListResponse, PingResponse};
use warden_protocol::output::TooLong;
use warden_protocol::{Request, Response};

use crate::capacity::{Exhausted, Share};
use crate::writer::Writer;

/// One client, as the commands see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session<'a> {
    pub(crate) domain: &'a Connection,
    pub(crate) writer: Writer<'a>,
}

/// Why a request has no answer, or none but an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The domain refused, or failed.
    #[error(transparent)]
    Domain(#[from] Error),
    /// The answer would be longer than protobuf allows.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// All clients together ask for too much.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// A job's output could not be opened.
    #[error("opening {stream} of job {job}: {source}")]
    Output { job: u32, stream: &'static str, source: io::Error },
    /// The client cannot be told anything any more.
    #[error("sending the answer: {0}")]
    Socket(io::Error),
}

impl Refusal {
    /// Whether the fault is the server's, and its operator should know.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Output { .. } | Self::Domain(Error::Failed { .. } | Error::TimedOut { .. }))
    }
}

/// Whether a request is of no use to anybody once its client is gone.
pub(crate) fn ends_with_client(request: &Request) -> bool {
    waits(request) || matches!(request, Request::CopyIn(_) | Request::CopyOut(_))
}

/// Whether a request waits for a job, which goes on without it.
pub(crate) fn waits(request: &Request) -> bool {
    matches!(request, Request::Run(_) | Request::Link(_) | Request::Stream(_))
}

/// Whether a request changes nothing, and its log line is only of interest when something is examined.
pub(crate) fn only_looks(request: &Request) -> bool {
    matches!(request, Request::Ping(_) | Request::Echo(_) | Request::List(_) | Request::Info(_))
}

impl Session<'_> {
    /// Does a request and sends its answer; a refusal is sent by the caller. Its share of the capacity is given back before
    /// either: who has an answer may ask for more.
    pub(crate) async fn answer(&self, request: Request, share: Option<Share>) -> Result<(), Refusal> {
        let response = match request {
            Request::Run(run) => return self.run(run).await,
            Request::Link(link) => return self.link(link).await,
            Request::Stream(stream) => return self.stream(stream).await,
            Request::Ping(_) => Response::Ping(PingResponse::default()),
            Request::Echo(echo) => Response::Echo(EchoResponse { message: echo.message }),
            Request::List(_) => Response::List(ListResponse { handles: self.domain.list() }),
            Request::Create(create) => self.create(create).await?,
            Request::Info(info) => self.info(info).await?,
            Request::Stop(stop) => self.stop(stop).await?,
            Request::Destroy(destroy) => self.destroy(destroy).await?,
            Request::Spawn(spawn) => self.spawn(spawn).await?,
            Request::CopyIn(copy) => self.copy_in(copy).await?,
            Request::CopyOut(copy) => self.copy_out(copy).await?,
            Request::LimitMemory(limit) => self.limit_memory(limit).await?,
            Request::LimitCpu(limit) => self.limit_cpu(limit).await?,
            Request::LimitDisk(limit) => self.limit_disk(limit).await?,
            Request::LimitBandwidth(limit) => self.limit_bandwidth(limit).await?,
            Request::NetIn(request) => self.net_in(request).await?,
            Request::NetOut(request) => self.net_out(request).await?,
        };
        drop(share);
        self.writer.response(&response).await.map_err(Refusal::Socket)
    }

    /// Finds a container; from now on this connection references it.
    fn container(&self, handle: Option<&[u8]>) -> Result<Arc<Container>, Error> {
        self.domain.container(handle.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_wait_for_a_job_or_copy_end_with_their_client() {
        let waiting = ["run", "link", "stream"].map(|name| Request::new(name).unwrap());
        assert!(waiting.iter().all(waits) && waiting.iter().all(ends_with_client));
        for name in
            ["create", "stop", "destroy", "spawn", "copy_in", "copy_out", "limit_memory", "ping", "info"]
        {
            let request = Request::new(name).unwrap();
            assert!(!waits(&request), "{name}");
            assert_eq!(ends_with_client(&request), name.starts_with("copy"), "{name}");
        }
    }

    #[test]
    fn what_the_client_did_wrong_is_no_failure_of_the_server() {
        let io = || io::Error::from_raw_os_error(5);
        assert!(Refusal::Domain(Error::Failed { action: "mounting /x".into(), source: io() }).is_failure());
        assert!(Refusal::Domain(Error::TimedOut { action: "stopping".into(), seconds: 3 }).is_failure());
        assert!(Refusal::Output { job: 1, stream: "stdout", source: io() }.is_failure());
        for refusal in [
            Refusal::Domain(Error::UnknownHandle),
            Refusal::Domain(Error::NoSuchJob),
            Refusal::TooLong(TooLong(1 << 32)),
            Refusal::Socket(io()),
        ] {
            assert!(!refusal.is_failure(), "{refusal}");
        }
        assert_eq!(Refusal::Domain(Error::UnknownHandle).to_string(), "unknown handle");
    }
}
