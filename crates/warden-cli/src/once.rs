//! The one command of a call.

use crate::arguments::{Action, Arguments};
use crate::command::{self, Parsed};
use crate::failure::Failure;
use crate::help;
use crate::output::Output;
use crate::session::Session;
use crate::shell::ShellInput;

/// Performs what a call's words ask, and returns the status to end with.
pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let show = |text: &str| Output::default().write(text.as_bytes()).map(|()| 0);
    let words = match &arguments.action {
        Action::Help | Action::Prompt => return show(&help::general()),
        Action::Version => return show(concat!("warden ", env!("CARGO_PKG_VERSION"), "\n")),
        Action::Command(words) => words,
    };
    match command::parse(words)? {
        Parsed::Help(topic) => show(&topic.map_or_else(help::general, help::topic)),
        Parsed::Call(call) => {
            let mut session = Session::new(arguments, ShellInput::Ours)?;
            session.trace(&words.join(&b' '))?;
            session.perform(call)
        }
    }
}
