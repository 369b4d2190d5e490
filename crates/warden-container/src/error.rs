//! What a request can be refused with, or fail with. The texts are read by clients: where the original had one, it is the original's.

use std::io;
use std::path::PathBuf;

use crate::request::{Protocol, Transport};
use crate::state::State;

/// Bytes that are mostly text, shown to a client.
fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says what it means")]
pub enum Error {
    #[error("unknown handle")]
    UnknownHandle,
    #[error("Container state must be one of '{}', current state is '{current}'", list(.allowed))]
    State { allowed: &'static [State], current: State },
    #[error("container with handle: {} already exists.", show(.0))]
    HandleExists(Vec<u8>),
    #[error("Could not acquire network")]
    NoNetwork,
    #[error("Could not acquire network: {0}")]
    NetworkTaken(String),
    #[error("no uid available")]
    NoUser,
    #[error("no host ids available: all {0} ranges are in use")]
    NoIds(u32),
    #[error(
        "the machine is short of memory: all tasks waited for it in {percent} % of the last 10 s, the limit is {limit} % \
         (server.memory_pressure.max_percent)"
    )]
    MemoryPressure { percent: f64, limit: u32 },
    #[error(
        "the machine is short of memory: {bytes} bytes are available, a new container needs {limit} \
         (server.memory_pressure.min_available)"
    )]
    LittleMemory { bytes: u64, limit: u64 },
    #[error("rootfs {} not found", show(.0))]
    NoRootfs(Vec<u8>),
    #[error("rootfs {} is not usable: {reason}", .path.display())]
    BadRootfs { path: PathBuf, reason: String },
    #[error("Source path for bind mount does not exist: {}", show(.0))]
    NoBindSource(Vec<u8>),
    #[error("bind mount destination {} must be an absolute path without '..'", show(.0))]
    BadBindDestination(Vec<u8>),
    #[error("Unknown mode")]
    UnknownBindMode,
    #[error("no such job")]
    NoSuchJob,
    #[error("too many running jobs: the container has {0}, the configured limit")]
    TooManyJobs(usize),
    #[error("Failed setting {what}: {value}: {reason}")]
    BadLimit { what: &'static str, value: u64, reason: String },
    #[error("owner {} does not exist on the host", show(.0))]
    NoOwner(Vec<u8>),
    #[error("Please specify network, port, and/or port_range.")]
    NothingToOpen,
    #[error("Port range maximum must be greater than minimum")]
    BadPortRange,
    #[error("invalid {field} \"{value}\": expected {expected}")]
    Invalid { field: &'static str, value: String, expected: &'static str },
    #[error("port {port} means nothing to the protocol {}: expected TCP or UDP", format!("{protocol:?}").to_uppercase())]
    NoPorts { protocol: Protocol, port: u16 },
    #[error("port {port} of the host is already mapped ({})", format!("{protocol:?}").to_uppercase())]
    PortTaken { port: u16, protocol: Transport },
    #[error("no port available")]
    NoPort,
    #[error("too many copies: the container has {0}, the limit")]
    TooManyCopies(usize),
    /// Something that the kernel or a helper refused: the action with its object, and the reason.
    #[error("{action}: {source}")]
    Failed { action: String, source: io::Error },
    /// A step that did not end in time.
    #[error("{action}: not done after {seconds} s")]
    TimedOut { action: String, seconds: u64 },
    /// The daemon is ending.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl Error {
    /// A field of a request with a value that it cannot have.
    pub fn invalid(field: &'static str, value: &[u8], expected: &'static str) -> Self {
        Self::Invalid { field, value: show(value), expected }
    }

    /// The same failure once more, for another who waits for the same outcome.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Failed { action, source } => {
                let source = match source.raw_os_error() {
                    Some(errno) => io::Error::from_raw_os_error(errno),
                    None => io::Error::new(source.kind(), source.to_string()),
                };
                Self::Failed { action: action.clone(), source }
            }
            Self::TimedOut { action, seconds } => {
                Self::TimedOut { action: action.clone(), seconds: *seconds }
            }
            Self::State { allowed, current } => Self::State { allowed, current: *current },
            Self::ShuttingDown => Self::ShuttingDown,
            other => {
                Self::Failed { action: "refused".to_owned(), source: io::Error::other(other.to_string()) }
            }
        }
    }

    /// Several failures of one piece of work that went on past them; `None` when there is none.
    pub(crate) fn join(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            count => {
                let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
                let source = io::Error::other(texts.join("; "));
                Some(Self::Failed { action: format!("{count} failures"), source })
            }
        }
    }
}

/// Says what was being done when something failed.
pub(crate) trait Context<T> {
    /// Turns the failure into [`Error::Failed`] with this action and object.
    fn context(self, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Failed { action: action(), source: source.into() })
    }
}

/// Runs work that blocks off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).context(|| "running a blocking step".to_owned())?
}

/// Joins states as the original does.
fn list(states: &[State]) -> String {
    states.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_again_with_the_same_text() {
        let errors = [
            Error::Failed { action: "removing /x".into(), source: io::Error::from_raw_os_error(16) },
            Error::Failed { action: "removing /x".into(), source: io::Error::other("why") },
            Error::TimedOut { action: "ending x".into(), seconds: 3 },
            Error::ShuttingDown,
        ];
        for error in errors {
            assert_eq!(error.again().to_string(), error.to_string());
        }
    }

    #[test]
    fn joined_errors_are_all_told() {
        assert!(Error::join(Vec::new()).is_none());
        assert_eq!(Error::join(vec![Error::NoUser]).unwrap().to_string(), "no uid available");
        let both = Error::join(vec![Error::NoUser, Error::NoNetwork]).unwrap().to_string();
        assert_eq!(both, "2 failures: no uid available; Could not acquire network");
    }
}
