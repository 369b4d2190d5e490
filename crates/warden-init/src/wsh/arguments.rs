//! The command line of wsh.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::byte_string::ByteString;

/// What `--help` prints.
pub const HELP: &str = "\
Run a command, or a login shell, in a container, also while wardend and iomux are down.

usage: wsh [--socket PATH] [--user NAME] [--rsh] [COMMAND [ARGUMENT...]]

  --socket PATH  the container's wshd [run/wshd.sock]
  --user NAME    the user inside [root]
  --rsh          read the rest of the line as rsh does: [-46dn] [-l NAME] [-t SECONDS] HOST [COMMAND...],
                 where HOST is ignored and /bin/sh inside reads the words of COMMAND
  --help         print this and exit

The command gets a terminal when stdin, stdout and stderr all are terminals.
The exit status is the command's, or 255 when it has none: a signal killed it, or it never ran.
";

/// What the command line asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Path of the socket on which wshd listens.
    pub socket: PathBuf,
    /// The user inside.
    pub user: ByteString,
    /// The program and its arguments; empty: the user's login shell.
    pub command: Vec<ByteString>,
}

/// A command line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// An option that wsh does not have.
    #[error("no such option: {}", .0.display())]
    Unknown(OsString),
    /// An option without its value.
    #[error("{0} needs a value")]
    NoValue(&'static str),
    /// rsh's form without its host.
    #[error("--rsh needs a host")]
    NoHost,
}

impl Arguments {
    /// Reads the words after the program's name; there is nothing when they ask for help.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, UsageError> {
        let mut parser = Parser { words: words.into_iter().collect::<Vec<_>>().into_iter(), rsh: false };
        let mut arguments = Self { socket: "run/wshd.sock".into(), user: "root".into(), command: Vec::new() };
        let first = loop {
            let Some(word) = parser.words.next() else { break None };
            match parser.option(word)? {
                Word::Help => return Ok(None),
                Word::Nothing => {}
                Word::Socket(path) => arguments.socket = path.into(),
                Word::User(name) => arguments.user = ByteString(name.into_vec()),
                Word::Plain(word) => break word.or_else(|| parser.words.next()),
            }
        };
        let rest = parser.words.map(|word| ByteString(word.into_vec()));
        arguments.command = match (parser.rsh, first) {
            (true, None) => return Err(UsageError::NoHost),
            (true, Some(_host)) => shell_command(rest.collect()),
            (false, first) => first.map(|word| ByteString(word.into_vec())).into_iter().chain(rest).collect(),
        };
        Ok(Some(arguments))
    }
}

/// What who calls rsh expects: the words are one line for a shell, and quoted for it (rsync does so).
fn shell_command(words: Vec<ByteString>) -> Vec<ByteString> {
    if words.is_empty() {
        return words;
    }
    let line = words.iter().map(|word| word.0.as_slice()).collect::<Vec<_>>().join(&b' ');
    vec!["/bin/sh".into(), "-c".into(), ByteString(line)]
}

/// What a word before the command is.
enum Word {
    Help,
    Nothing,
    Socket(OsString),
    User(OsString),
    /// The first word that is no option; none: it is the next.
    Plain(Option<OsString>),
}

struct Parser {
    words: std::vec::IntoIter<OsString>,
    /// Whether rsh's options count.
    rsh: bool,
}

impl Parser {
    fn option(&mut self, word: OsString) -> Result<Word, UsageError> {
        let bytes = word.as_bytes();
        match bytes {
            b"--" => Ok(Word::Plain(None)),
            b"--help" => Ok(Word::Help),
            b"--rsh" => {
                self.rsh = true;
                Ok(Word::Nothing)
            }
            b"--socket" => self.value("--socket").map(Word::Socket),
            b"--user" => self.value("--user").map(Word::User),
            [b'-', b'l', name @ ..] if self.rsh => self.attached("-l", name).map(Word::User),
            [b'-', b't', seconds @ ..] if self.rsh => self.attached("-t", seconds).map(|_| Word::Nothing),
            [b'-', flags @ ..] if self.rsh && is_flags(flags) => Ok(Word::Nothing),
            _ if bytes.len() < 2 || bytes[0] != b'-' => Ok(Word::Plain(Some(word))),
            _ => match (bytes.strip_prefix(b"--socket="), bytes.strip_prefix(b"--user=")) {
                (Some(path), _) => Ok(Word::Socket(OsStr::from_bytes(path).into())),
                (_, Some(name)) => Ok(Word::User(OsStr::from_bytes(name).into())),
                (None, None) => Err(UsageError::Unknown(word)),
            },
        }
    }

    fn value(&mut self, option: &'static str) -> Result<OsString, UsageError> {
        self.words.next().ok_or(UsageError::NoValue(option))
    }

    /// The value of a short option: what follows its letter, or else the next word.
    fn attached(&mut self, option: &'static str, rest: &[u8]) -> Result<OsString, UsageError> {
        if rest.is_empty() { self.value(option) } else { Ok(OsStr::from_bytes(rest).into()) }
    }
}

fn is_flags(flags: &[u8]) -> bool {
    !flags.is_empty() && flags.iter().all(|flag| b"46dn".contains(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>, UsageError> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    /// Socket, user and the words of the command, "|" between these.
    fn read(line: &str) -> String {
        let arguments = parse(line).unwrap().unwrap();
        let words: Vec<_> = arguments.command.iter().map(|word| String::from_utf8_lossy(&word.0)).collect();
        let user = String::from_utf8_lossy(&arguments.user.0).into_owned();
        format!("{} {user} {}", arguments.socket.display(), words.join("|"))
    }

    #[test]
    fn options_end_at_the_command() {
        assert_eq!(read(""), "run/wshd.sock root ");
        assert_eq!(read("--socket /s --user vcap"), "/s vcap ");
        assert_eq!(read("--user=vcap --socket=/a=b ls --user x -l"), "/a=b vcap ls|--user|x|-l");
        assert_eq!(read("-- -x y"), "run/wshd.sock root -x|y");
        assert_eq!(read("ls -- a"), "run/wshd.sock root ls|--|a");
        assert_eq!(read("- a"), "run/wshd.sock root -|a");
        assert_eq!(read("--user a --user b --"), "run/wshd.sock b ");
    }

    #[test]
    fn the_form_of_rsh_is_read() {
        let command = "/s vcap /bin/sh|-c|rsync --server -e.Lsfx . a\\ b";
        assert_eq!(read("--socket /s --rsh -l vcap host rsync --server -e.Lsfx . a\\ b"), command);
        assert_eq!(read("--rsh -4 -6n -d -t 5 -lvcap --socket /s -t9 host -x"), "/s vcap /bin/sh|-c|-x");
        assert_eq!(read("--user x --rsh host"), "run/wshd.sock x ");
        assert_eq!(parse("--rsh -l vcap"), Err(UsageError::NoHost));
        assert_eq!(parse("--rsh -t"), Err(UsageError::NoValue("-t")));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert_eq!(parse("--help x"), Ok(None));
        assert_eq!(parse("ls --help").unwrap().unwrap().command.len(), 2);
        for (line, told) in [
            ("--socket", "--socket needs a value"),
            ("--user", "--user needs a value"),
            ("-4 ls", "no such option: -4"),
            ("--sockets=x", "no such option: --sockets=x"),
            ("--rsh -x host", "no such option: -x"),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), told);
        }
    }
}
