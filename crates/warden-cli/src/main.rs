//! `warden`, the client for people: one command for each call.

mod arguments;
mod command;
mod failure;
mod help;
mod integer;
mod json;
mod print;
mod session;

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use arguments::{Action, Arguments};
use command::Parsed;
use failure::Failure;

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    run(words).unwrap_or_else(|failure| failure.report())
}

fn run(words: Vec<Vec<u8>>) -> Result<ExitCode, Failure> {
    let arguments = Arguments::parse(words)?;
    let words = match &arguments.action {
        Action::Help => return help::show(&help::general()),
        Action::Version => return help::show(concat!("warden ", env!("CARGO_PKG_VERSION"), "\n")),
        Action::Nothing => return Err(Failure::Usage(help::USAGE.to_owned())),
        Action::Command(words) => words,
    };
    match command::parse(words)? {
        Parsed::Help(None) => help::show(&help::general()),
        Parsed::Help(Some(command)) => help::show(&help::command(command)),
        Parsed::Request(request) => session::perform(&arguments, words, *request),
    }
}
