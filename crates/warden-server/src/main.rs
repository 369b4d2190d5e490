//! wardend, the daemon: started by hand or by an init system, it stays in the foreground until a signal ends it.

use std::process::ExitCode;

use clap::Parser;
use warden_server::arguments::Arguments;

fn main() -> ExitCode {
    match warden_server::run(&Arguments::parse()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("wardend: {failure}");
            failure.exit_code()
        }
    }
}
