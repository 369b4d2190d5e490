//! wshd, the init of a container: builds the container from a spec, then runs and reaps processes in it.

// They panic where stderr cannot be written.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod accounts;
pub mod build;
pub mod byte_string;
pub mod confinement;
pub mod connection;
pub mod message;
pub mod note;
pub mod score;
pub mod server;
pub mod spec;
pub mod version;
pub mod wsh;
pub mod wshd;
