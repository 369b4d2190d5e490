//! Why a copy ended early.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant's text says what it means")]
pub enum Step {
    #[error("entering the container for")]
    Enter,
    #[error("opening")]
    Open,
    #[error("examining")]
    Stat,
    #[error("listing")]
    List,
    #[error("reading")]
    Read,
    #[error("creating the directory")]
    CreateDirectory,
    #[error("creating")]
    CreateFile,
    #[error("creating the link")]
    CreateLink,
    #[error("writing")]
    Write,
    #[error("setting the permissions of")]
    Permissions,
    #[error("setting the owner of")]
    Owner,
    #[error("putting into place")]
    Rename,
    /// The other side, or the way to it.
    #[error("talking to the other side about")]
    Stream,
    /// What arrived is not what a sender sends.
    #[error("understanding what was sent for")]
    Protocol,
}

/// A copy that ended early: what was being done, to which path, and the kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step} {}: {}", String::from_utf8_lossy(.path), std::io::Error::from(*.errno))]
pub struct CopyError {
    /// What was being done.
    pub step: Step,
    /// The path, as this side knows it.
    pub path: Vec<u8>,
    /// The kernel's answer.
    pub errno: Errno,
}

impl CopyError {
    /// Makes one of an error of the standard library's.
    pub fn new(step: Step, path: Vec<u8>, error: &std::io::Error) -> Self {
        Self { step, path, errno: errno_of(error) }
    }

    /// Whether it only says that the other side has gone: the other side knows why.
    pub fn is_interruption(&self) -> bool {
        self.step == Step::Stream
    }
}

/// Makes an error of a failed call: `.map_err(at(Step::Open, &path))`.
pub(crate) fn at(step: Step, path: &[u8]) -> impl Fn(Errno) -> CopyError + '_ {
    move |errno| CopyError { step, path: path.to_vec(), errno }
}

/// The errno of an error of std's traits; EPIPE where it carries none (the stream ended).
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::PIPE, Errno::from_raw_os_error)
}
