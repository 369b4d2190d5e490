//! Why a call of the program fails, and with which status.

use std::io::{self, Write};
use std::process::ExitCode;

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
    /// The program itself could not start.
    Start(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    /// Says on standard error what failed, and returns the status for it.
    pub(crate) fn report(self) -> ExitCode {
        let status = match &self {
            Self::Usage(_) => BAD_USAGE,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::from(BROKEN_PIPE);
            }
            _ => 1,
        };
        let mut line = self.text();
        line.push(b'\n');
        // Where standard error cannot be written, there is nobody left to tell.
        let _ = io::stderr().write_all(&line);
        ExitCode::from(status)
    }

    fn text(self) -> Vec<u8> {
        match self {
            Self::Usage(message) => message.into_bytes(),
            Self::Client(Error::Server { message }) => message,
            Self::Client(error) => format!("warden: {:#}", anyhow::Error::from(error)).into_bytes(),
            Self::Output(error) => format!("warden: cannot write the output: {error}").into_bytes(),
            Self::Start(error) => format!("warden: cannot start: {error}").into_bytes(),
        }
    }
}
