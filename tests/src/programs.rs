//! The programs under test.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Finds a program of `$WARDEN_DIST`; panics with what to do when it is not there.
pub fn find(name: &str) -> PathBuf {
    let directory = env::var_os("WARDEN_DIST").map(PathBuf::from).unwrap_or_else(|| {
        panic!("WARDEN_DIST is not set: run the tests by `make test`, or set it to the directory that `make build` fills")
    });
    let path = directory.join(name);
    assert!(path.is_file(), "{} is missing: run `make build`", path.display());
    fs::canonicalize(path).unwrap()
}

/// Panics unless the test runs as root.
pub fn require_root() {
    assert!(rustix::process::geteuid().is_root(), "these tests make containers: run them as root");
}

/// Runs a program of the host and gives its standard output; panics when it fails.
#[track_caller]
pub fn host(program: &str, arguments: &[&str]) -> String {
    let output = output(Command::new(program).args(arguments));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end; panics when it cannot be started.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("starting {:?}: {error}", command.get_program()))
}
