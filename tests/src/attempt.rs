//! Attempts at an escape: programs in Python, which the built-in image has, that say which step stopped them.

const HEAD: &str = include_str!("attempt.py");

/// The whole program of an attempt.
pub fn source(attempt: &str) -> String {
    format!("{HEAD}{attempt}\n")
}

/// A script for a job that makes the attempt.
pub fn inside(attempt: &str) -> String {
    format!("exec python3 - <<'END'\n{}END\n", source(attempt))
}
