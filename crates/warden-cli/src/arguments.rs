//! The words of a call that come before the command.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::failure::Failure;

/// Where a server listens unless it is configured.
const DEFAULT_SOCKET: &str = "/tmp/warden.sock";

/// What a call asks of the program.
#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    /// Where the server listens.
    pub(crate) socket: PathBuf,
    /// Whether to print the command before its output.
    pub(crate) trace: bool,
    /// Whether the first error ends the prompt.
    pub(crate) exit_on_error: bool,
    /// Whether to print responses as JSON.
    pub(crate) json: bool,
    /// What to do.
    pub(crate) action: Action,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Print what the program can do.
    Help,
    /// Print the program's version.
    Version,
    /// Perform a command: its name and its flags.
    Command(Vec<Vec<u8>>),
    /// Read commands from standard input.
    Prompt,
}

impl Arguments {
    /// Reads the options up to `--` or to the first word that is none; the rest is the command.
    pub(crate) fn parse(words: Vec<Vec<u8>>) -> Result<Self, Failure> {
        let mut arguments = Self {
            socket: PathBuf::from(DEFAULT_SOCKET),
            trace: false,
            exit_on_error: false,
            json: false,
            action: Action::Prompt,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_slice() {
                b"--socket" => {
                    let path = words.next().ok_or_else(|| Failure::Usage(no_value("--socket")))?;
                    arguments.socket = OsString::from_vec(path).into();
                }
                b"--trace" => arguments.trace = true,
                b"--json" => arguments.json = true,
                b"--exit_on_error" => arguments.exit_on_error = true,
                b"--help" | b"-h" => return Ok(Self { action: Action::Help, ..arguments }),
                b"--version" => return Ok(Self { action: Action::Version, ..arguments }),
                b"--" => {
                    let command: Vec<_> = words.collect();
                    arguments.action =
                        if command.is_empty() { Action::Prompt } else { Action::Command(command) };
                    return Ok(arguments);
                }
                option if option.starts_with(b"-") => {
                    return Err(Failure::Usage(format!("Invalid option: '{}'.", option.escape_ascii())));
                }
                _ => {
                    arguments.action = Action::Command(std::iter::once(word).chain(words).collect());
                    return Ok(arguments);
                }
            }
        }
        Ok(arguments)
    }
}

/// Says that a flag stands alone which must not.
pub(crate) fn no_value(flag: &str) -> String {
    format!("In flag: '{flag}', the value is missing.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(words.iter().map(|word| word.as_bytes().to_vec()).collect()).map_err(|failure| {
            let Failure::Usage(message) = failure else { panic!("another failure") };
            message
        })
    }

    fn command(words: &[&str]) -> Action {
        Action::Command(words.iter().map(|word| word.as_bytes().to_vec()).collect())
    }

    #[test]
    fn the_command_follows_the_options() {
        let plain = parse(&["--socket", "/s", "--trace", "--json", "ping", "--trace"]).unwrap();
        assert_eq!(plain.socket, PathBuf::from("/s"));
        assert!(plain.trace && plain.json);
        assert_eq!(plain.action, command(&["ping", "--trace"]));
        let delimited = parse(&["--exit_on_error", "--", "--odd", "--"]).unwrap();
        assert!(delimited.exit_on_error && !plain.exit_on_error);
        assert_eq!(delimited.socket, PathBuf::from("/tmp/warden.sock"));
        assert_eq!(delimited.action, command(&["--odd", "--"]));
    }

    #[test]
    fn without_a_command_commands_are_read() {
        for words in [&[][..], &["--"], &["--trace"], &["--json", "--"]] {
            assert_eq!(parse(words).unwrap().action, Action::Prompt, "{words:?}");
        }
        assert_eq!(parse(&["--trace", "--help", "x"]).unwrap().action, Action::Help);
        assert_eq!(parse(&["--version"]).unwrap().action, Action::Version);
    }

    #[test]
    fn unknown_options_are_named() {
        assert_eq!(parse(&["--sock", "x"]).unwrap_err(), "Invalid option: '--sock'.");
        assert_eq!(parse(&["--socket"]).unwrap_err(), "In flag: '--socket', the value is missing.");
    }
}
