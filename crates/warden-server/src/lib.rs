//! wardend, the daemon: configuration, sockets, dispatch of requests to containers, drain, health.
//!
//! A request's way: [`listener`] accepts, `connection` cuts the client's bytes into frames, `dispatch` hands each
//! request to the domain (`warden-container`) and `convert` translates between the two vocabularies.

pub mod arguments;
mod capacity;
pub mod check;
pub mod config;
mod connection;
mod convert;
mod descriptors;
mod dispatch;
mod doctor;
mod drain;
pub mod failure;
mod gate;
mod hangup;
mod health;
mod inbox;
pub mod listener;
mod logging;
pub mod pidfile;
mod ready;
mod server;
mod writer;

use std::process::ExitCode;

use crate::arguments::{Action, Arguments};
use crate::config::Config;
use crate::failure::Failure;

/// Does what the command line says: examines, or serves until a signal ends it.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (config, warnings) = Config::load(arguments.config.as_deref())?;
    if arguments.check {
        return Ok(check::run(&config, &warnings));
    }
    if let Some(Action::Doctor { repair, json }) = arguments.action {
        return doctor::run(&config, repair, json);
    }
    let log = logging::start(&config.logging)?;
    for warning in &warnings {
        tracing::warn!("configuration: {warning}");
    }
    server::run(&config, log)
}
