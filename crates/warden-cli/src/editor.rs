//! Reading a line from a terminal: completion, history, and lines that go on.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Helper};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use warden_protocol::messages::{InfoRequest, ListRequest};

use crate::completion::{self, Wanted};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::words::{self, Line};

/// What stands before each line.
const PROMPT: &str = "warden> ";

/// The file in the home directory that keeps the lines. The original's has a hyphen and holds JSON.
const HISTORY: &str = ".warden_history";

/// The number of lines that are kept.
const HISTORY_LENGTH: usize = 1000;

/// How long the server may take to tell what a word could become.
const PATIENCE: Duration = Duration::from_millis(300);

/// What came from the terminal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A whole line.
    Line(String),
    /// A line that was given up.
    Nothing,
    /// The end.
    End,
}

/// A terminal's line editor.
pub(crate) struct Editor {
    editor: rustyline::Editor<Assistant, FileHistory>,
    /// Where the lines are kept; nowhere when that failed.
    history: Option<PathBuf>,
}

impl Editor {
    /// Takes the terminal and the history over; completion may ask a server.
    pub(crate) fn open(runtime: Rc<Runtime>, socket: PathBuf) -> Result<Self, Failure> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            // A paste of several lines is several commands.
            .bracketed_paste(false)
            .max_history_size(HISTORY_LENGTH)
            .map_err(input)?
            .build();
        let mut editor = rustyline::Editor::with_config(config).map_err(input)?;
        let connection = RefCell::new(Connection::silent(socket));
        editor.set_helper(Some(Assistant { runtime, connection }));
        let mut this = Self { editor, history: history(std::env::var_os("HOME")) };
        this.remember(|editor, path| match editor.load_history(path) {
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        });
        Ok(this)
    }

    /// Reads a line, and keeps it in the history.
    pub(crate) fn read(&mut self) -> Result<Input, Failure> {
        match self.editor.readline(PROMPT) {
            Ok(line) => {
                if !line.trim().is_empty() {
                    self.editor.add_history_entry(&line).map_err(input)?;
                    self.remember(|editor, path| editor.append_history(path));
                }
                Ok(Input::Line(line))
            }
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => Ok(Input::Nothing),
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(error) => Err(input(error)),
        }
    }

    /// Does something with the history's file; when it fails, says so once and leaves the file alone from then on.
    fn remember(
        &mut self,
        work: impl FnOnce(&mut rustyline::Editor<Assistant, FileHistory>, &PathBuf) -> rustyline::Result<()>,
    ) {
        let Some(path) = &self.history else { return };
        if let Err(source) = work(&mut self.editor, path) {
            Failure::History { path: path.clone(), source }.report();
            self.history = None;
        }
    }
}

/// The history's file below a home directory.
fn history(home: Option<OsString>) -> Option<PathBuf> {
    home.filter(|home| !home.is_empty()).map(|home| PathBuf::from(home).join(HISTORY))
}

fn input(error: ReadlineError) -> Failure {
    Failure::Input(match error {
        ReadlineError::Io(error) => error,
        other => io::Error::other(other),
    })
}

/// What helps with a line while it is written.
struct Assistant {
    runtime: Rc<Runtime>,
    /// The prompt's own connections stay out of it: a question that is given up costs the connection.
    connection: RefCell<Connection>,
}

impl Assistant {
    /// Asks the server, for a short time; nobody is told when it does not answer.
    fn ask<T>(&self, question: impl AsyncFnOnce(&mut Connection) -> Result<T, Failure>) -> Option<T> {
        let mut connection = self.connection.try_borrow_mut().ok()?;
        self.runtime.block_on(async { timeout(PATIENCE, question(&mut connection)).await.ok()?.ok() })
    }

    fn handles(&self) -> Vec<String> {
        let handles = self.ask(async |connection| Ok(connection.request(ListRequest {}).await?.handles));
        // What is not UTF-8 cannot be typed.
        handles.unwrap_or_default().into_iter().filter_map(|handle| String::from_utf8(handle).ok()).collect()
    }

    fn jobs(&self, handle: Vec<u8>) -> Vec<String> {
        let info = InfoRequest { handle: Some(handle) };
        let jobs = self.ask(async |connection| Ok(connection.request(info).await?.job_ids));
        jobs.unwrap_or_default().iter().map(u64::to_string).collect()
    }
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let question = completion::question(line.get(..at).unwrap_or(line));
        let words = match question.wanted {
            Wanted::Nothing => Vec::new(),
            Wanted::OneOf(words) => words,
            Wanted::Handle => self.handles(),
            Wanted::Job(handle) => self.jobs(handle),
        };
        let words = words.into_iter().filter(|word| word.starts_with(&question.prefix));
        let pairs =
            words.map(|word| Pair { replacement: format!("{} ", words::quote(&word)), display: word });
        Ok((question.start, pairs.collect()))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let is_complete = Line::scan(context.input().as_bytes()).is_complete();
        Ok(if is_complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {}

impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_at_home() {
        assert_eq!(history(Some("/home/u".into())), Some("/home/u/.warden_history".into()));
        assert_eq!(history(Some("".into())), None);
        assert_eq!(history(None), None);
    }
}
