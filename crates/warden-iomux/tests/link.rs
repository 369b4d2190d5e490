//! iomux-link: jobs as an operator sees them. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Container, stored, wait_until};
use warden_linux::process;
use warden_linux::socket::PacketSocket;

const SIGKILL: i32 = 9;

/// Follows a job once it is there.
fn link(container: &Container, job: u32) -> Child {
    wait_until(|| container.layout.stderr(job).exists());
    start(container, job)
}

fn start(container: &Container, job: u32) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iomux-link"));
    command.arg(container.layout.directory()).arg(job.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn told(code: i32, stdout: &str, stderr: &str) -> (Option<i32>, String, String) {
    (Some(code), stdout.into(), stderr.into())
}

fn kill_iomux(container: &Container) {
    process::kill(container.iomux_pid(), SIGKILL).unwrap();
    wait_until(|| PacketSocket::connect(&container.layout.iomux_socket()).is_err());
}

#[test]
fn output_is_printed_from_its_first_byte_as_it_comes() {
    let mut container = Container::new();
    let job = container
        .spawn("echo first; echo wrong >&2; until [ -e ~/go ]; do sleep 0.02; done; echo last; exit 3");
    let mut child = link(&container, job);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    let go = container.run("touch ~/go");
    assert_eq!(go.stderr, "");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), end(child)), ("last\n", told(3, "", "wrong\n")));
    assert_eq!(end(link(&container, job)), told(3, "first\nlast\n", "wrong\n"));
    assert_eq!(std::fs::read(container.layout.stdout(job)).unwrap(), b"first\nlast\n");
}

#[test]
fn much_output_is_printed_whole() {
    let mut container = Container::new();
    let job = container.spawn("head -c 5000000 /dev/urandom | tee copy; sha256sum < copy >&2");
    let output = link(&container, job).wait_with_output().unwrap();
    container.finish(job);
    assert!(output.stdout == std::fs::read(container.layout.stdout(job)).unwrap());
    assert_eq!((output.stdout.len(), output.stderr.len()), (5_000_000, 68));
}

#[test]
fn an_end_without_a_status_is_255() {
    let mut container = Container::new();
    let job = container.spawn("echo x; kill -9 $$");
    assert_eq!(end(link(&container, job)), told(255, "x\n", ""));
    let job = container.spawn_as("vcap", "yes; sleep 1000", stored(10));
    let (code, stdout, _) = end(link(&container, job));
    assert_eq!((code, stdout.as_str()), (Some(255), "y\ny\ny\ny\ny\n"));
    let directory = container.layout.directory().display().to_string();
    assert_eq!(end(start(&container, 99)), told(255, "", &format!("iomux-link: no job 99 in {directory}\n")));
}

#[test]
fn the_files_are_enough_when_iomux_is_gone() {
    let mut container = Container::new();
    let ended = container.spawn("echo done; exit 4");
    container.finish(ended);
    let running = container.spawn("echo begun; sleep 1000");
    let mut listening = link(&container, running);
    let mut begun = [0; 6];
    listening.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    kill_iomux(&container);
    let lost = "iomux-link: the end of job 2 is not known: nobody serves the container's run/iomux.sock\n";
    assert_eq!(end(listening), told(255, "", lost));
    assert_eq!(end(link(&container, running)), told(255, "begun\n", lost));
    assert_eq!(end(link(&container, ended)), told(4, "done\n", ""));
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let mut container = Container::new();
    let job = container.spawn("yes");
    let mut child = link(&container, job);
    let mut some = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert_eq!((&some, end(child)), (b"y\n", told(255, "", "")));
}

#[test]
fn a_reader_that_stops_does_not_keep_the_container() {
    let mut container = Container::new();
    let job = container.spawn_as("vcap", "while :; do echo x; sleep 0.001; done", stored(1 << 30));
    let noisy = container.spawn("head -c 1000000 /dev/zero; sleep 1000");
    let mut child = link(&container, noisy);
    let mut some = [0; 2];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    // More events than a socket holds.
    wait_until(|| std::fs::metadata(container.layout.stdout(job)).unwrap().len() > 4000);
    let begun = Instant::now();
    container.kill();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_wrong_command_line_is_one_line() {
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_iomux-link")).args(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let text = "iomux-link: a directory and a job are needed; iomux-link --help tells more\n";
    assert_eq!(run(&["/d"]), (Some(255), text.to_owned()));
    assert_eq!(run(&["--help"]), (Some(0), String::new()));
}
