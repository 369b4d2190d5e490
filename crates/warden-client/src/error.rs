//! Why a request has no answer.

use std::io;
use std::path::PathBuf;

use warden_protocol::DecodeError;
use warden_protocol::frame::FrameError;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens at the path, or it cannot be reached.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server refused the request; the connection goes on.
    #[error("{}", message.escape_ascii())]
    Server {
        /// What it said, any bytes.
        message: Vec<u8>,
    },
    /// The connection broke.
    #[error("cannot {action} the server")]
    Io {
        /// What was being done: `write to` or `read from`.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server closed the connection before the answer was complete.
    #[error("the server closed the connection")]
    Closed,
    /// The server had closed the connection before it could get the whole request, so nothing was done; on a new
    /// connection the request can be sent again.
    #[error("the server closed the connection before it got the request")]
    Unsent,
    /// What the server sent cannot be cut into frames.
    #[error("the server's answer is no frame")]
    Frame(#[from] FrameError),
    /// What the server sent in a frame is no response.
    #[error("the server's answer cannot be decoded")]
    Decode(#[from] DecodeError),
    /// The server answered another request than the one that was sent.
    #[error("the server answered {asked} with a response to {answered}")]
    Mismatch {
        /// The command that was sent.
        asked: &'static str,
        /// The command that was answered.
        answered: &'static str,
    },
    /// An earlier call was dropped before its answer was complete, so the next answer is not this request's.
    #[error("an earlier request on the connection was abandoned")]
    Abandoned,
    /// A stream has many responses: it is [`Client::stream`](crate::Client::stream) that reads them.
    #[error("a stream has more than one response")]
    ManyResponses,
}
