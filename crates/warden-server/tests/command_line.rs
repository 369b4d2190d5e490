//! The program wardend as who starts it sees it: its output and its exit status.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

/// A directory with a configuration whose every path is inside, and a free port.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let text = format!(
            "server:\n  unix_domain_path: {path}/w.sock\n  container_depot_path: {path}/depot\n  pidfile: {path}/w.pid\n\
             {extra}\nlogging:\n  level: off\n"
        );
        fs::write(directory.path().join("wardend.yml"), text).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn wardend(&self, arguments: &[&str]) -> Output {
        let config = self.path("wardend.yml");
        wardend(&[&["--config", config.to_str().unwrap()], arguments].concat())
    }
}

fn wardend(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wardend")).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn version_is_told() {
    let output = wardend(&["--version"]);
    assert!(output.status.success());
    assert_eq!(stdout(&output), format!("wardend {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_configuration_is_one_line_and_status_78() {
    let place = Place::new("network:\n  mtu: wide");
    for arguments in [&[][..], &["--check"]] {
        let output = place.wardend(arguments);
        assert_eq!(output.status.code(), Some(78));
        let expected = format!(
            "wardend: {}: network.mtu is \"wide\": expected a whole number from 68 to 65535\n",
            place.path("wardend.yml").display()
        );
        assert_eq!(stderr(&output), expected);
        assert_eq!(stdout(&output), "");
    }
    let output = wardend(&["--config", "/nonexistent.yml"]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(stderr(&output).lines().count(), 1);
}

#[test]
fn an_unknown_option_is_bad_usage() {
    assert_eq!(wardend(&["--daemonize"]).status.code(), Some(2));
}

#[test]
fn check_prints_one_line_per_item_and_leaves_nothing_behind() {
    let place = Place::new("colour: red");
    let output = place.wardend(&["--check"]);
    let text = stdout(&output);
    assert!(
        text.lines().all(|line| ["ok ", "missing ", "failed "].iter().any(|word| line.starts_with(word))),
        "{text}"
    );
    assert!(text.contains("missing  configuration: colour is unknown and has no effect\n"), "{text}");
    for item in
        ["kernel", "namespaces", "user namespaces", "overlay in a user namespace", "capabilities", "cgroups"]
    {
        assert!(text.contains(&format!(" {item}: ")), "{item} in {text}");
    }
    assert_eq!(stderr(&output), "");
    assert_eq!(names(place.directory.path()), ["wardend.yml"]);
}

#[test]
fn check_fails_where_nothing_could_be_served() {
    let place = Place::new("  helpers_path: /nonexistent");
    let output = place.wardend(&["--check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("failed   helper /nonexistent/iomux: "), "{}", stdout(&output));
}

#[test]
fn where_nobody_can_be_told_anything_the_exit_status_is_the_same() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    // A line of the log, and then the reason of the end.
    let served = Place::new(&format!("colour: red\nhealth_check_server:\n  port: {port}"));
    let config = fs::read_to_string(served.path("wardend.yml")).unwrap();
    fs::write(served.path("wardend.yml"), config.replace("level: off", "level: warn")).unwrap();
    for (place, status) in [(served, 1), (Place::new("network:\n  mtu: wide"), 78)] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wardend"));
        let ended = command.arg("--config").arg(place.path("wardend.yml")).stderr(full).status().unwrap();
        assert_eq!(ended.code(), Some(status));
    }
}

#[test]
fn a_port_in_use_ends_the_start_before_anything_is_touched() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let place = Place::new(&format!("health_check_server:\n  port: {port}"));
    let output = place.wardend(&[]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("wardend: listening on health_check_server.port 127.0.0.1:{port}: ");
    assert!(stderr(&output).starts_with(&expected), "{}", stderr(&output));
    assert_eq!(names(place.directory.path()), ["wardend.yml"]);
}

#[test]
fn a_live_server_is_not_replaced() {
    let place = Place::new("health_check_server:\n  port: 0");
    let _live = UnixListener::bind(place.path("w.sock")).unwrap();
    let output = place.wardend(&[]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("wardend: a server answers at {} already\n", place.path("w.sock").display());
    assert_eq!(stderr(&output), expected);
    assert_eq!(names(place.directory.path()), ["w.sock", "wardend.yml"]);
}
