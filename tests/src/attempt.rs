//! Attempts at an escape: programs in Python, which the built-in image has, that say which step stopped them.

use crate::daemon::Daemon;

const HEAD: &str = include_str!("attempt.py");

/// Root inside is the host's.
pub const HOST_IDS: [(&str, &str); 2] =
    [("server.user_namespace", "false"), ("user.pool_start_uid", "34567")];
/// Root keeps its capabilities: the filter of system calls lets through what they are for.
pub const NO_CAPABILITIES: (&str, &str) = ("server.confinement", "{capabilities: false}");
/// Every system call is let through.
pub const NO_FILTER: (&str, &str) = ("server.confinement", "{system_calls: false}");

/// The settings of a round, what the attempt says in it, and what stops it there.
pub type Round<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

/// The whole program of an attempt.
pub fn source(attempt: &str) -> String {
    format!("{HEAD}{attempt}\n")
}

/// A script for a job that makes the attempt.
pub fn inside(attempt: &str) -> String {
    format!("exec python3 - <<'END'\n{}END\n", source(attempt))
}

/// The attempt to write to a setting of the kernel what is there already: a success changes nothing on this machine.
pub fn rewrites(path: &str) -> String {
    format!(
        "
path = '{path}'
was = open(path).read()
file = step('open', lambda: os.open(path, os.O_WRONLY))
step('write', lambda: os.write(file, was.encode()))
escaped()"
    )
}

/// Makes the attempt as root in a container of each round.
#[track_caller]
pub fn rounds(script: &str, rounds: &[Round<'_>]) {
    for (settings, expected, barrier) in rounds {
        let daemon = Daemon::with(settings);
        let mut client = daemon.connect();
        let handle = client.create();
        let output = client.run_privileged(&handle, inside(script));
        let said = output.text();
        assert!(
            expected.split(" or ").any(|expected| said.trim_end() == expected),
            "with {settings:?}, where it meets {barrier}, it says {said:?} rather than {expected}: {}",
            output.errors()
        );
    }
}
