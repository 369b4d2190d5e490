//! One stream of a job: from its pipe to its file and its log.

use std::fs::File;
use std::io::{self, Read, Write};

use super::Moved;
use super::syslog::LineLog;

/// Where a stream's bytes are kept.
pub(super) enum Store {
    File(File),
    Nowhere,
}

/// A pipe and where its bytes go.
pub(super) struct Stream {
    /// The read end, while it is read.
    pub(super) pipe: Option<File>,
    store: Store,
    /// Bytes in the file.
    pub(super) stored: u64,
    log: Option<LineLog>,
}

impl Stream {
    pub(super) fn new(store: Store, log: Option<LineLog>) -> Self {
        Self { pipe: None, store, stored: 0, log }
    }

    /// Moves at most one buffer; `Fatal` means that more came than `allowance` allows, all of which is used up then.
    /// Fails when the bytes cannot be stored.
    pub(super) fn advance(&mut self, buffer: &mut [u8], allowance: &mut Option<u64>) -> io::Result<Moved> {
        let Some(mut pipe) = self.pipe.as_ref() else { return Ok(Moved::Closed) };
        let got = match pipe.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Moved::Nothing),
            Ok(0) | Err(_) => return Ok(Moved::Closed),
            Ok(got) => got,
        };
        let kept = allowance.map_or(got, |left| usize::try_from(left).map_or(got, |left| left.min(got)));
        if let Some(left) = allowance {
            *left -= kept as u64;
        }
        self.keep(&buffer[..kept])?;
        Ok(if kept < got { Moved::Fatal } else { Moved::Some })
    }

    fn keep(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Some(log) = &mut self.log {
            log.push(bytes);
        }
        let Store::File(file) = &mut self.store else { return Ok(()) };
        while !bytes.is_empty() {
            match file.write(bytes) {
                // The length that clients are told is that of the file, also when it could not take all.
                Ok(written) => {
                    self.stored += written as u64;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Completes the log.
    pub(super) fn finish(&mut self) {
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }
}
