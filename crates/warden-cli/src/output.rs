//! Standard output and standard error, and whether the last line there is finished.

use std::io::{self, Write};

use warden_protocol::messages::StreamResponse;
use warden_protocol::reflect::Reflect;

use crate::failure::Failure;
use crate::{json, print};

/// What the program prints to.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Whether something was written after the last end of a line.
    unfinished: bool,
}

impl Output {
    /// Writes bytes to standard output.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.note(bytes);
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::Output)
    }

    /// Writes a response as lines or as an object.
    pub(crate) fn show(&mut self, message: &dyn Reflect, json: bool) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        if json {
            writeln!(bytes, "{}", json::object(message)).map_err(Failure::Output)?;
        } else {
            print::print(message, &mut bytes).map_err(Failure::Output)?;
        }
        self.write(&bytes)
    }

    /// Writes a piece of a job's output to where the job wrote it.
    pub(crate) fn copy(&mut self, piece: &StreamResponse) -> Result<(), Failure> {
        if piece.name() == b"stderr" {
            self.note(piece.data());
            io::stderr().write_all(piece.data()).map_err(Failure::Output)
        } else {
            self.write(piece.data())
        }
    }

    /// Ends the last line if it was left open, so that a prompt does not overwrite it.
    pub(crate) fn finish_line(&mut self) -> Result<(), Failure> {
        if self.unfinished { self.write(b"\n") } else { Ok(()) }
    }

    /// Tells the person something on standard error, in a line.
    pub(crate) fn notice(&mut self, message: &str) {
        // Where standard error cannot be written, there is nobody to tell.
        let _ = writeln!(io::stderr(), "{message}");
        self.unfinished = false;
    }

    fn note(&mut self, bytes: &[u8]) {
        if let Some(&last) = bytes.last() {
            self.unfinished = last != b'\n';
        }
    }
}
