//! Commands from standard input, one on a line: a prompt on a terminal, and silent otherwise.

use std::io::{self, BufRead, IsTerminal, StdinLock};

use crate::arguments::Arguments;
use crate::command::{self, Parsed};
use crate::editor::{Editor, Input};
use crate::failure::Failure;
use crate::help;
use crate::session::Session;
use crate::shell::ShellInput;
use crate::words::{self, Line};

/// The words that the prompt understands beside the commands.
pub(crate) const WORDS: [&str; 3] = ["exit", "help", "quit"];

/// Reads and performs commands to the end of the input; returns the status to end with.
pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let shell_input = if io::stdin().is_terminal() { ShellInput::Ours } else { ShellInput::Empty };
    let mut session = Session::new(arguments, shell_input)?;
    let mut source = if is_terminal {
        Source::Terminal(Box::new(Editor::open(session.runtime(), arguments.socket.clone())?))
    } else {
        Source::Lines(io::stdin().lock())
    };
    loop {
        let outcome = source.next(&mut session).and_then(|line| match line {
            Some(line) => perform(&mut session, &line, is_terminal),
            None => Ok(Outcome::End),
        });
        match outcome {
            Ok(Outcome::End) => return Ok(0),
            Ok(Outcome::Status(status)) if status != 0 && arguments.exit_on_error => return Ok(status),
            Ok(Outcome::Status(_)) => {}
            // Without input or output there is nothing left to do.
            Err(failure @ (Failure::Output(_) | Failure::Input(_))) => return Err(failure),
            Err(failure) => {
                session.output().finish_line()?;
                failure.report();
                if arguments.exit_on_error {
                    return Ok(1);
                }
            }
        }
    }
}

/// What a line led to.
enum Outcome {
    Status(u8),
    End,
}

fn perform(session: &mut Session, line: &[u8], is_terminal: bool) -> Result<Outcome, Failure> {
    let words =
        words::split(line).ok_or_else(|| Failure::Usage("Unmatched quote or backslash.".to_owned()))?;
    match words.first().map(Vec::as_slice) {
        None => return Ok(Outcome::Status(0)),
        Some(b"exit" | b"quit") if words.len() == 1 => return Ok(Outcome::End),
        Some(_) => session.trace(line.trim_ascii())?,
    }
    let call = match command::parse(&words)? {
        Parsed::Help(topic) => {
            let text = topic.map_or_else(help::prompt, help::topic);
            return session.output().write(text.as_bytes()).map(|()| Outcome::Status(0));
        }
        Parsed::Call(call) => call,
    };
    // The program that Ctrl-C ends in a pipeline is this one; on a terminal it is the command.
    if is_terminal { session.perform_until_interrupt(call) } else { session.perform(call) }
        .map(Outcome::Status)
}

/// Where commands come from.
enum Source {
    Terminal(Box<Editor>),
    Lines(StdinLock<'static>),
}

impl Source {
    /// Reads the next command, which is several lines if quotes are open at the end of one; nothing at the end.
    fn next(&mut self, session: &mut Session) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Self::Terminal(editor) => {
                session.output().finish_line()?;
                Ok(match editor.read()? {
                    Input::Line(line) => Some(line.into_bytes()),
                    Input::Nothing => Some(Vec::new()),
                    Input::End => None,
                })
            }
            Self::Lines(lines) => read_command(lines).map_err(Failure::Input),
        }
    }
}

fn read_command(lines: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut command = Vec::new();
    while lines.read_until(b'\n', &mut command)? > 0 {
        let line = command.strip_suffix(b"\n").unwrap_or(&command);
        if Line::scan(line).is_complete() {
            command.truncate(line.len());
            return Ok(Some(command));
        }
    }
    Ok(if command.is_empty() { None } else { Some(command) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_go_on_while_quotes_are_open() {
        let mut input: &[u8] = b"list\n\nrun h 'a\nb'\nrun h \\\n c\nlast 'open\n";
        let mut next = || read_command(&mut input).unwrap().map(|line| String::from_utf8(line).unwrap());
        for expected in ["list", "", "run h 'a\nb'", "run h \\\n c", "last 'open\n"] {
            assert_eq!(next().as_deref(), Some(expected));
        }
        assert_eq!(next(), None);
        let mut input: &[u8] = b"no end of line";
        assert_eq!(read_command(&mut input).unwrap().unwrap(), b"no end of line");
    }
}
