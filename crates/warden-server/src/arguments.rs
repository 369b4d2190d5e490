//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// The daemon of Warden: makes containers and runs scripts in them, on behalf of the clients of its socket.
#[derive(Debug, Parser)]
#[command(name = "wardend", version)]
pub struct Arguments {
    /// Configuration file (YAML); without one, built-in values serve that hold 2,000 containers.
    #[arg(short, long, value_name = "FILE.yml")]
    pub config: Option<PathBuf>,
    /// Examines the configuration and the machine, says what is missing and what is done without it, and ends.
    #[arg(long)]
    pub check: bool,
}
