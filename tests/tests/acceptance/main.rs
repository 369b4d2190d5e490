//! What a client and an operator may rely on, tested from outside: a real daemon, its real socket, the kernel's view.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod bandwidth;
mod binds;
mod client_library;
mod command_line;
mod commands;
mod configuration;
mod containers;
mod copies;
mod disconnects;
mod disk;
mod frames;
mod grace;
mod home;
mod hostile_images;
mod image;
mod isolation;
mod job_environment;
mod job_limits;
mod job_output;
mod jobs;
mod limits;
mod load;
mod network_rules;
mod networks;
mod no_processes;
mod operators;
mod process;
mod prompt;
mod protocol;
mod recovery;
mod stop_and_destroy;
mod syslog;
