//! One job: its output so far, and its end.

use std::fs::File;
use std::io;

use tokio::sync::watch;
use warden_iomux::message::ExitCause;

/// A job that a client can link to. Its files stay until the last holder is gone.
#[derive(Debug)]
pub struct Job {}

/// One of a job's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes in its stdout file.
    pub stdout: u64,
    /// Bytes in its stderr file.
    pub stderr: u64,
    /// Its end; the two lengths are final then.
    pub end: Option<ExitCause>,
}

impl Job {
    /// Its number.
    pub fn id(&self) -> u32 {
        unimplemented!()
    }

    /// Its progress, now and as it changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        unimplemented!()
    }

    /// Opens one of its output files for reading.
    pub fn open(&self, _stream: Stream) -> io::Result<File> {
        unimplemented!()
    }

    /// Says that a client has its complete final answer: the job is forgotten.
    pub fn answered(&self) {
        unimplemented!()
    }
}
