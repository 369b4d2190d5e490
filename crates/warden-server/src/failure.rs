//! Why the daemon could not start, or could not go on: one line for people, and an exit status for programs.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::ConfigError;

/// Exit status of a configuration that cannot be used: EX_CONFIG of sysexits.h.
const EX_CONFIG: u8 = 78;

/// What ended the daemon.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says what it means")]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("must be run as root: making containers needs its privileges")]
    NotRoot,
    #[error("a server answers at {} already", .0.display())]
    SocketInUse(PathBuf),
    #[error("{} exists and is not a socket", .0.display())]
    NotSocket(PathBuf),
    #[error("Process (wardend - {pid}) is already running: it holds {}", .path.display())]
    AlreadyRunning { pid: String, path: PathBuf },
    #[error("starting the containers' host: {0}")]
    Host(#[from] warden_container::error::Error),
    #[error("{action}: {source}")]
    Io { action: String, source: io::Error },
}

impl Failure {
    /// The process's exit status.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(EX_CONFIG),
            _ => ExitCode::FAILURE,
        }
    }

    /// Names what was done when the kernel refused.
    pub(crate) fn io(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { action: action.into(), source: source.into() }
    }

    /// Names what was done to which file when the kernel refused.
    pub(crate) fn file(action: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::io(format!("{action} {}", path.display()), source)
    }
}
