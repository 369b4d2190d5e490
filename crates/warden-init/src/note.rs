//! What the helpers have to say to people: lines of the container's log.

use std::fmt;
use std::io::{self, Write};

/// Writes a line; where that cannot be done, because the disk is full, say, it is lost, and nothing else is.
pub fn note(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
