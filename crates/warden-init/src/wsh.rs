//! wsh, an operator's shell or command in a container: asks the container's wshd for a process, and is its terminal.
//!
//! Where this process's stdin, stdout and stderr all are terminals, the job gets a terminal of the container's own, and
//! bytes are relayed between the two. Else the job gets the three as they are, but for a terminal among them, which is
//! relayed through a pipe: whoever is inside could type into an operator's terminal that it holds (TIOCSTI).

pub mod arguments;
mod failure;
mod pump;
mod session;
mod stdio;

pub use failure::Failure;

use arguments::Arguments;
use session::Session;
use stdio::Stdio;
use warden_linux::signal::Signals;

use crate::message::{Process, Terminal};

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;
const SIGWINCH: i32 = 28;

/// What is told by a descriptor. The signals that stop a process in the background keep their action.
const SIGNALS: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGCONT, SIGWINCH];

/// The exit status where the command has none: a signal killed it, or it never ran, or its end was not seen.
pub const NO_STATUS: u8 = 255;

/// Runs the command to its end and gives its exit status.
pub fn run(arguments: &Arguments) -> Result<u8, Failure> {
    // First of all: a terminal that is left raw by a signal is of no use to its operator.
    let signals = Signals::take(&SIGNALS).map_err(Failure::io("wait for signals"))?;
    let stdio = Stdio::of_this_process()?;
    let session = Session::open(&arguments.socket, signals)?;
    session.run(&process(arguments), stdio)
}

fn process(arguments: &Arguments) -> Process {
    let mut command = arguments.command.iter().cloned();
    Process {
        program: command.next().unwrap_or_default(),
        arguments: command.collect(),
        user: arguments.user.clone(),
        lang: variable("LANG", "C.UTF-8"),
        rlimits: Vec::new(),
    }
}

/// A terminal like this process's own, of this size.
fn terminal(size: warden_linux::terminal::Size) -> Terminal {
    Terminal { kind: variable("TERM", "dumb"), rows: size.rows, columns: size.columns }
}

fn variable(name: &str, default: &str) -> crate::byte_string::ByteString {
    use std::os::unix::ffi::OsStringExt;
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    value.map_or_else(|| default.into(), |value| crate::byte_string::ByteString(value.into_vec()))
}
