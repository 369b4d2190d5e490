//! iomux-link: an operator's view of a job.

use std::io::{self, Write};
use std::process::ExitCode;

use warden_iomux::link::arguments::{Arguments, HELP};
use warden_iomux::link::{self, Failure, NO_STATUS};

fn main() -> ExitCode {
    let code = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => match link::run(&arguments) {
            Ok(code) => code,
            // Whoever closed the output knows.
            Err(Failure::Closed) => NO_STATUS,
            Err(error) => fail(&error),
        },
        Ok(None) => io::stdout().write_all(HELP.as_bytes()).map_or(NO_STATUS, |()| 0),
        Err(error) => fail(&format_args!("{error}; iomux-link --help tells more")),
    };
    ExitCode::from(code)
}

fn fail(error: &dyn std::fmt::Display) -> u8 {
    let _ = writeln!(io::stderr(), "iomux-link: {error}");
    NO_STATUS
}
