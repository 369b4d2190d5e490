//! One stream of a job: from its pipe to its file and its log.
//!
//! A byte is in the pipe or in the file and never only in this process's memory: iomux may be killed at any moment, and
//! another goes on from where the file ends (docs/adr/0004). The log is not that careful.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use warden_linux::file;

use super::Moved;
use super::scratch::Scratch;
use super::syslog::LineLog;

/// A file system that does not move bytes out of a pipe by itself.
const EINVAL: i32 = 22;

/// Bytes that a pipe holds from the start.
const NARROW: usize = 64 * 1024;
/// Bytes that a pipe holds which was once found full.
pub(super) const WIDE: usize = 256 * 1024;

/// Where a stream's bytes are kept.
pub(super) enum Store {
    File(File),
    Nowhere,
    /// There is no file, for this reason.
    Broken(i32),
}

/// A pipe and where its bytes go.
pub(super) struct Stream {
    /// The read end, while it is read.
    pub(super) pipe: Option<File>,
    store: Store,
    /// Bytes in the file.
    pub(super) stored: u64,
    /// Whether the pipe holds as much as that of a job that writes much shall.
    wide: bool,
    log: Option<LineLog>,
}

impl Stream {
    /// A stream whose file holds `stored` bytes already.
    pub(super) fn new(store: Store, stored: u64, log: Option<LineLog>) -> Self {
        Self { pipe: None, store, stored, wide: false, log }
    }

    /// Moves at most so many bytes; `Fatal` means that more came than `allowance` allows, all of which is
    /// used up then. Fails when the bytes cannot be stored.
    pub(super) fn advance(
        &mut self,
        most: usize,
        scratch: &mut Scratch,
        allowance: &mut Option<u64>,
    ) -> io::Result<Moved> {
        let Some(pipe) = &self.pipe else { return Ok(Moved::Closed) };
        if let Store::Broken(errno) = self.store {
            return match excess(pipe) {
                Moved::Fatal => Err(io::Error::from_raw_os_error(errno)),
                other => Ok(other),
            };
        }
        let Store::File(file) = &self.store else {
            let buffer = scratch.first(most);
            return Ok(match read(pipe, buffer) {
                Reading::Bytes(got) => {
                    if let Some(log) = &mut self.log {
                        log.push(&buffer[..got]);
                    }
                    Moved::Some
                }
                Reading::Other(moved) => moved,
            });
        };
        // What is logged is read back into the buffer.
        let most = if self.log.is_some() { most.min(scratch.size()) } else { most };
        let room = allowance.map_or(most, |left| usize::try_from(left).map_or(most, |left| left.min(most)));
        if room == 0 {
            return Ok(excess(pipe));
        }
        let before = self.stored;
        let moved = match file::drain(pipe.as_fd(), file.as_fd(), &mut self.stored, room) {
            Err(error) if error.raw_os_error() == Some(EINVAL) => {
                copy(pipe, file, &mut self.stored, scratch.first(room))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Moved::Nothing),
            Ok(0) => Ok(Moved::Closed),
            Ok(_) => Ok(Moved::Some),
            Err(error) => Err(error),
        };
        let mut got = (self.stored - before) as usize;
        if got >= NARROW && !std::mem::replace(&mut self.wide, true) {
            // One that stays as it is only makes the job wait more often.
            let _ = file::set_pipe_capacity(pipe, WIDE);
        }
        if let Some(left) = allowance {
            *left = left.saturating_sub(got as u64);
        }
        if let Some(log) = &mut self.log {
            let buffer = scratch.first(got);
            got = file.read_at(buffer, before).unwrap_or(0);
            log.push(&buffer[..got]);
        }
        moved
    }

    /// Completes the log.
    pub(super) fn finish(&mut self) {
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }
}

/// What reading a pipe gave.
enum Reading {
    Bytes(usize),
    Other(Moved),
}

fn read(mut pipe: &File, buffer: &mut [u8]) -> Reading {
    match pipe.read(buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Reading::Other(Moved::Nothing),
        Ok(0) | Err(_) => Reading::Other(Moved::Closed),
        Ok(got) => Reading::Bytes(got),
    }
}

/// What is to be done when nothing more may be stored. What is too much stays in the pipe, where another iomux would find
/// it and judge the same.
fn excess(pipe: &File) -> Moved {
    if file::readable_bytes(pipe).unwrap_or(0) > 0 {
        return Moved::Fatal;
    }
    match read(pipe, &mut [0]) {
        Reading::Bytes(_) => Moved::Fatal,
        Reading::Other(moved) => moved,
    }
}

/// Moves bytes through the buffer, where the file system knows no other way: what is in it is lost with this process.
fn copy(pipe: &File, file: &File, stored: &mut u64, buffer: &mut [u8]) -> io::Result<Moved> {
    let got = match read(pipe, buffer) {
        Reading::Bytes(got) => got,
        Reading::Other(moved) => return Ok(moved),
    };
    let mut bytes = &buffer[..got];
    while !bytes.is_empty() {
        match file.write_at(bytes, *stored) {
            // The length that clients are told is that of the file, also when it could not take all.
            Ok(written) => {
                *stored += written as u64;
                bytes = &bytes[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Moved::Some)
}
