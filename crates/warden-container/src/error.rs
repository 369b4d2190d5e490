//! What a request can be refused with, or fail with. The texts are read by clients: where the original had one, it is the original's.

use std::io;
use std::path::PathBuf;

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

/// Joins states as the original does.
fn list(states: &[State]) -> String {
    states.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
