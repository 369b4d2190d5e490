//! Why a call of the program fails, and with which status.

use std::io::{self, Write};
use std::path::PathBuf;

use warden_client::Error;

/// Status after bad usage.
const BAD_USAGE: u8 = 2;

/// Status when the reader of the output has gone: what a shell reports of a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 128 + 13;

/// Why a call of the program fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The words of the call do not make sense.
    Usage(String),
    /// The server refused the request, or there is no answer.
    Client(Error),
    /// Standard output or standard error cannot be written.
    Output(io::Error),
    /// Standard input, or the terminal, cannot be read.
    Input(io::Error),
    /// The prompt's lines cannot be kept.
    History {
        /// The file that should keep them.
        path: PathBuf,
        /// What the line editor said.
        source: rustyline::error::ReadlineError,
    },
    /// The program itself could not start.
    Start(io::Error),
    /// The program that is the shell could not be started.
    Shell {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server did not say where the container's files are.
    NoPath,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    /// Tells whether nobody reads the output any more.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Tells whether the server refused a request because there is no such container.
    pub(crate) fn is_unknown_handle(&self) -> bool {
        matches!(self, Self::Client(Error::Server { message }) if message == b"unknown handle")
    }

    /// Says on standard error what failed, and returns the status for it.
    pub(crate) fn report(self) -> u8 {
        if self.is_broken_pipe() {
            return BROKEN_PIPE;
        }
        let status = if matches!(self, Self::Usage(_)) { BAD_USAGE } else { 1 };
        // Where standard error cannot be written, there is nobody left to tell.
        let _ = io::stderr().write_all(&self.line());
        status
    }

    /// What failed, in one line.
    fn line(self) -> Vec<u8> {
        let mut line = Vec::new();
        for byte in self.text() {
            if byte.is_ascii_control() {
                line.extend(byte.escape_ascii());
            } else {
                line.push(byte);
            }
        }
        line.push(b'\n');
        line
    }

    fn text(self) -> Vec<u8> {
        match self {
            Self::Usage(message) => message.into_bytes(),
            Self::Client(Error::Server { message }) => message,
            Self::Client(error) => format!("warden: {:#}", anyhow::Error::from(error)).into_bytes(),
            Self::Output(error) => format!("warden: cannot write the output: {error}").into_bytes(),
            Self::Input(error) => format!("warden: cannot read the input: {error}").into_bytes(),
            Self::History { path, source } => {
                format!("warden: cannot keep the history in {}: {source}", path.display()).into_bytes()
            }
            Self::Start(error) => format!("warden: cannot start: {error}").into_bytes(),
            Self::Shell { program, source } => {
                format!("warden: cannot start {}: {source}", program.display()).into_bytes()
            }
            Self::NoPath => b"warden: the server does not tell the container's directory".to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let refused = |message: &[u8]| Failure::Client(Error::Server { message: message.to_vec() });
        assert_eq!(refused(b"no\nsuch \x1b[2J\xff").line(), b"no\\nsuch \\x1b[2J\xff\n");
        assert!(refused(b"unknown handle").is_unknown_handle());
        assert!(!refused(b"unknown").is_unknown_handle());
        assert_eq!(
            Failure::Shell { program: "/x/wsh".into(), source: io::Error::from_raw_os_error(2) }.line(),
            b"warden: cannot start /x/wsh: No such file or directory (os error 2)\n"
        );
    }
}
