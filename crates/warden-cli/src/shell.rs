//! A shell in a container: finds the container's socket and lets `wsh` do the rest.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::arguments::no_value;
use crate::failure::Failure;
use crate::human::text;

/// The command's name.
pub(crate) const NAME: &str = "shell";

/// What the command asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shell {
    /// The container.
    pub(crate) handle: Vec<u8>,
    user: Option<Vec<u8>>,
    command: Vec<Vec<u8>>,
}

/// What the shell reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShellInput {
    /// This program's standard input.
    Ours,
    /// Nothing: standard input holds further commands for this program.
    Empty,
}

impl Shell {
    /// Reads the words after the command; there is nothing when they ask for help.
    pub(crate) fn parse(words: &[Vec<u8>]) -> Result<Option<Self>, String> {
        let (mut handle, mut user) = (None, None);
        let mut words = words.iter().cloned();
        let mut first = None;
        while let Some(word) = words.next() {
            match word.as_slice() {
                b"--help" => return Ok(None),
                b"--handle" => handle = Some(words.next().ok_or_else(|| no_value("--handle"))?),
                b"--user" => user = Some(words.next().ok_or_else(|| no_value("--user"))?),
                option if option.starts_with(b"-") => {
                    return Err(format!("Invalid flag: '{}'.", text(option)));
                }
                _ if handle.is_none() => handle = Some(word),
                _ => {
                    first = Some(word);
                    break;
                }
            }
        }
        let handle = handle.ok_or("Command: 'shell', the flag: '--handle' is required.")?;
        Ok(Some(Self { handle, user, command: first.into_iter().chain(words).collect() }))
    }

    /// Opens the shell in the container that has a directory on the host, and returns its exit status.
    ///
    /// The shell does not replace this program: the server counts the container as used while its connection is open.
    pub(crate) fn open(&self, container: &[u8], input: ShellInput) -> Result<u8, Failure> {
        let program = beside(std::env::current_exe().map_err(Failure::Start)?);
        let mut command = Command::new(&program);
        command.args(self.arguments(container));
        if input == ShellInput::Empty {
            command.stdin(Stdio::null());
        }
        command.status().map(status).map_err(|source| Failure::Shell { program, source })
    }

    fn arguments(&self, container: &[u8]) -> Vec<OsString> {
        let socket = Path::new(&OsString::from_vec(container.to_vec())).join("run/wshd.sock");
        let mut arguments = vec![OsString::from("--socket"), socket.into_os_string()];
        if let Some(user) = &self.user {
            arguments.extend([OsString::from("--user"), OsString::from_vec(user.clone())]);
        }
        arguments.extend(self.command.iter().cloned().map(OsString::from_vec));
        arguments
    }
}

/// The path of wsh, which is installed beside this program.
fn beside(program: PathBuf) -> PathBuf {
    program.with_file_name(OsStr::new("wsh"))
}

/// A process's exit status as a shell tells it.
fn status(status: ExitStatus) -> u8 {
    let number = status.code().or(status.signal().map(|signal| 128 + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Shell>, String> {
        Shell::parse(&line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    fn arguments(line: &str) -> String {
        let arguments = parse(line).unwrap().unwrap().arguments(b"/depot/x");
        arguments.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn what_comes_after_the_handle_is_the_command() {
        assert_eq!(arguments("h"), "--socket /depot/x/run/wshd.sock");
        assert_eq!(arguments("--handle h"), "--socket /depot/x/run/wshd.sock");
        assert_eq!(arguments("h --user vcap"), "--socket /depot/x/run/wshd.sock --user vcap");
        assert_eq!(
            arguments("--user vcap h ls --user --help"),
            "--socket /depot/x/run/wshd.sock --user vcap ls --user --help"
        );
        assert_eq!(parse("h ls").unwrap().unwrap().handle, b"h");
        assert_eq!(parse("h --help"), Ok(None));
    }

    #[test]
    fn wrong_words_are_named() {
        assert_eq!(parse("h --bogus").unwrap_err(), "Invalid flag: '--bogus'.");
        assert_eq!(parse("h --user").unwrap_err(), "In flag: '--user', the value is missing.");
        assert_eq!(parse("--user x").unwrap_err(), "Command: 'shell', the flag: '--handle' is required.");
    }

    #[test]
    fn statuses_are_a_shells() {
        assert_eq!(status(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(status(ExitStatus::from_raw(9)), 137);
        assert_eq!(beside("/opt/warden".into()), Path::new("/opt/wsh"));
    }
}
