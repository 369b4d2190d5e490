//! iomux, the supervisor of one container (the field's word is shim): keeps its jobs' output and exit statuses
//! while the daemon comes and goes.

// They panic where stderr cannot be written.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod client;
mod copy;
mod failpoint;
pub mod file;
pub mod fork_server;
mod job;
pub mod layout;
pub mod link;
pub mod message;
pub mod program;
mod start;
mod supervisor;

pub use start::{Failure, Origin, run};
