//! wsh: an operator's shell or command in a container.

use std::io::{self, Write};
use std::process::ExitCode;

use warden_init::wsh::arguments::{Arguments, HELP};
use warden_init::wsh::{self, NO_STATUS};

fn main() -> ExitCode {
    let code = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => wsh::run(&arguments).unwrap_or_else(|error| fail(&error)),
        Ok(None) => io::stdout().write_all(HELP.as_bytes()).map_or(NO_STATUS, |()| 0),
        Err(error) => fail(&format_args!("{error}; wsh --help tells more")),
    };
    ExitCode::from(code)
}

fn fail(error: &dyn std::fmt::Display) -> u8 {
    // A terminal that was hung up takes no words.
    let _ = writeln!(io::stderr(), "wsh: {error}");
    NO_STATUS
}
