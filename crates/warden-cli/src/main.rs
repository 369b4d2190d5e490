//! `warden`, the client for people: one command for each call, or a prompt.

mod arguments;
mod command;
mod completion;
mod connection;
mod editor;
mod examples;
mod failure;
mod help;
mod human;
mod integer;
mod json;
mod once;
mod output;
mod print;
mod progress;
mod prompt;
mod session;
mod shell;
mod source_size;
mod table;
mod words;

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use arguments::{Action, Arguments};
use failure::Failure;

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    run(words).unwrap_or_else(Failure::report).into()
}

fn run(words: Vec<Vec<u8>>) -> Result<u8, Failure> {
    let arguments = Arguments::parse(words)?;
    if arguments.action == Action::Prompt { prompt::run(&arguments) } else { once::run(&arguments) }
}
