//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The daemon of Warden: makes containers and runs scripts in them, on behalf of the clients of its socket.
#[derive(Debug, Parser)]
#[command(name = "wardend", version)]
pub struct Arguments {
    /// Configuration file (YAML); without one, built-in values serve that hold 2,000 containers.
    #[arg(short, long, global = true, value_name = "FILE.yml")]
    pub config: Option<PathBuf>,
    /// Examines the configuration and the machine, says what is missing and what is done without it, and ends.
    #[arg(long)]
    pub check: bool,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What can be done instead of serving.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Prints what is left over of containers that are no more, beside a running daemon or without one.
    Doctor {
        /// Removes what is found, and says what became of each.
        #[arg(long)]
        repair: bool,
        /// Prints one JSON object per line.
        #[arg(long)]
        json: bool,
    },
}
