//! wshd's start.

use std::io;
use std::os::fd::AsFd;

use warden_linux::{limit, process, signal};

use crate::confinement::Privileges;
use crate::score::Score;
use crate::server::Server;

/// Serves the listening socket that is this process's stdin, for ever; its stdout is its own score.
pub fn run() -> io::Result<std::convert::Infallible> {
    // Nothing that a tenant sends may act on this process: signals are only read, and of these only SIGCHLD.
    signal::block_for_good()?;
    process::set_umask(0o022);
    process::set_name(c"wshd")?;
    let privileges = Privileges::parse(std::env::args().skip(1))
        .map_err(|argument| io::Error::other(format!("{argument} is no argument of wshd")))?;
    privileges.bound()?;
    limit::raise_open_files()?;
    let listener = process::inherited(0)?;
    let null = std::fs::File::open("/dev/null")?;
    let score = Score::adopt(process::inherited(1)?)?;
    for number in [0, 1] {
        process::place(null.as_fd(), number)?;
    }
    Server::new(listener, privileges, score)?.run()
}
