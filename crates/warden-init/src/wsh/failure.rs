//! Why wsh has no exit status of a command.

use std::io;
use std::path::{Path, PathBuf};

use crate::byte_string::ByteString;
use crate::message::SpawnStep;

/// Why wsh has no exit status of a command.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody serves the socket.
    #[error("connect to {}: {source}", .path.display())]
    Connect {
        /// Where it is.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// wshd speaks another version of the protocol.
    #[error("the container's wshd speaks version {0} of its protocol")]
    Version(u32),
    /// The command could not be started.
    #[error("{}: {}", words(*.step, .user, .program), io::Error::from_raw_os_error(*.errno))]
    Start {
        /// What wshd was doing.
        step: SpawnStep,
        /// The user that was asked for.
        user: ByteString,
        /// The program that was asked for.
        program: ByteString,
        /// The kernel's answer.
        errno: i32,
    },
    /// A directory would let the container's processes out of it.
    #[error("standard {0} is a directory, which is not handed to a container")]
    Directory(&'static str),
    /// The connection ended before the command: the container has, or wshd refused it.
    #[error("the container has ended, or takes no more connections")]
    Lost,
    /// A signal ended wsh.
    #[error("ended by signal {0}")]
    Interrupted(i32),
    /// The operator's terminal is gone.
    #[error("the terminal was hung up")]
    HungUp,
    /// Something of this process's own failed.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Failure {
    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    pub(super) fn connect(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Connect { path: path.to_path_buf(), source }
    }
}

/// What failed, for people.
fn words(step: SpawnStep, user: &ByteString, program: &ByteString) -> String {
    let program = if program.0.is_empty() { Path::new("the login shell") } else { program.as_path() };
    let (user, program) = (user.as_path().display(), program.display());
    match step {
        SpawnStep::User => format!("find the user {user} in the container's /etc/passwd"),
        SpawnStep::Directory => format!("enter the home directory of {user}"),
        SpawnStep::Pipe => "make a terminal in the container".to_owned(),
        SpawnStep::Credentials => format!("become {user}"),
        SpawnStep::Request | SpawnStep::Fork | SpawnStep::Rlimit | SpawnStep::Exec => {
            format!("start {program}")
        }
    }
}
