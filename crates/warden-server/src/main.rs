//! wardend, the daemon: started by hand or by an init system, it stays in the foreground until a signal ends it.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use warden_server::arguments::Arguments;

fn main() -> ExitCode {
    match warden_server::run(&Arguments::parse()) {
        Ok(code) => code,
        Err(failure) => {
            // Where nobody can be told, the exit status tells.
            let _ = writeln!(std::io::stderr(), "wardend: {failure}");
            failure.exit_code()
        }
    }
}
