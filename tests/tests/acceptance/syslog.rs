//! Jobs with a log tag.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon, files, within};

fn run(
    client: &mut Connection,
    handle: &[u8],
    script: &str,
    tag: &[u8],
    discard: bool,
) -> warden_tests::Output {
    client.run_with(RunRequest {
        handle: Some(handle.to_vec()),
        script: Some(script.as_bytes().to_vec()),
        log_tag: Some(tag.to_vec()),
        discard_output: Some(discard),
        ..RunRequest::default()
    })
}

/// The priority and what follows the time of a line: `<14>Nov 24 03:04:05 warden.tag: text`.
fn parse(datagram: &[u8]) -> (String, Vec<u8>) {
    let close = datagram.iter().position(|&byte| byte == b'>').expect("a priority in <>");
    let priority = String::from_utf8_lossy(&datagram[1..close]).into_owned();
    let at = datagram.windows(7).position(|window| window == b"warden.").expect("a tag");
    (priority, datagram[at..].to_vec())
}

fn receive_all(socket: &UnixDatagram) -> Vec<(String, Vec<u8>)> {
    let mut lines = Vec::new();
    let mut buffer = [0; 65_536];
    while let Ok(length) = socket.recv(&mut buffer) {
        lines.push(parse(&buffer[..length]));
    }
    lines
}

fn scene() -> (tempfile::TempDir, UnixDatagram, Daemon) {
    let directory = files::directory();
    let path = directory.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let daemon = Daemon::with(&[("server.syslog_socket", path.to_str().unwrap())]);
    (directory, socket, daemon)
}

#[test]
fn each_line_is_logged_with_the_priority_of_its_stream_and_returned_too() {
    let (_directory, socket, daemon) = scene();
    let mut client = daemon.connect();
    let handle = client.create();
    let output =
        run(&mut client, &handle, "echo one; echo two; echo problem >&2; printf unterminated", b"app", false);
    assert_eq!((output.text().as_str(), output.errors().as_str()), ("one\ntwo\nunterminated", "problem\n"));
    let lines = receive_all(&socket);
    let of = |priority: &str| -> Vec<String> {
        let lines = lines.iter().filter(|line| line.0 == priority);
        lines.map(|line| String::from_utf8_lossy(&line.1).into_owned()).collect()
    };
    assert_eq!(of("14"), ["warden.app: one", "warden.app: two", "warden.app: unterminated"]);
    assert_eq!(of("11"), ["warden.app: problem"]);
}

#[test]
fn a_tag_may_hold_any_bytes_and_is_never_run() {
    let (directory, socket, daemon) = scene();
    let mut client = daemon.connect();
    let handle = client.create();
    let mark = directory.path().join("pwned");
    for tag in [format!("a b;$(touch {})`id`'\"", mark.display()).into_bytes(), b"\xff\xfe".to_vec()] {
        run(&mut client, &handle, "echo line", &tag, false);
        let lines = receive_all(&socket);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0].1, [b"warden.", &tag[..], b": line"].concat());
    }
    assert!(!mark.exists());
}

#[test]
fn discarded_output_is_logged_nevertheless() {
    let (_directory, socket, daemon) = scene();
    let mut client = daemon.connect();
    let handle = client.create();
    let output = run(&mut client, &handle, "echo hidden; exit 3", b"t", true);
    assert_eq!((output.status, output.stdout), (3, vec![]));
    assert_eq!(receive_all(&socket), [("14".to_owned(), b"warden.t: hidden".to_vec())]);
}

#[test]
fn a_long_line_is_logged_in_parts() {
    let (_directory, socket, daemon) = scene();
    let mut client = daemon.connect();
    let handle = client.create();
    run(&mut client, &handle, "head -c 5000 /dev/zero | tr '\\0' x; echo", b"t", false);
    let prefix = b"warden.t: ".len();
    let parts: Vec<usize> = receive_all(&socket).iter().map(|line| line.1.len() - prefix).collect();
    assert!(parts.len() > 1 && parts.iter().sum::<usize>() == 5000, "{parts:?}");
}

#[test]
fn a_log_that_nobody_takes_delays_no_job() {
    let (directory, socket, daemon) = scene();
    let mut client = daemon.connect();
    let handle = client.create();
    // A datagram socket that is full: nobody reads it.
    let (output, _) =
        within(10.0, "a job with a full log", || run(&mut client, &handle, "seq 20000; exit 2", b"t", false));
    assert_eq!((output.status, output.stdout.len()), (2, 108_894));
    drop(socket);
    std::fs::remove_file(directory.path().join("log")).unwrap();
    let (output, _) =
        within(5.0, "a job with no log", || run(&mut client, &handle, "echo x; exit 4", b"t", false));
    assert_eq!((output.status, output.text().as_str()), (4, "x\n"));
}
