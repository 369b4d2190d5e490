//! The program as it is called, against a fake server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../../warden-client/tests/fake/mod.rs"]
mod fake;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Output, Stdio};

use bytes::{Bytes, BytesMut};
use fake::{Fake, Reply};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use warden_protocol::messages::*;
use warden_protocol::{Request, Response};

fn bytes(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

fn piece(name: &str, data: &[u8]) -> Response {
    StreamResponse { name: bytes(name), data: Some(data.to_vec()), ..StreamResponse::default() }.into()
}

fn end(exit_status: u32) -> Response {
    let info = InfoResponse { state: bytes("active"), ..InfoResponse::default() };
    StreamResponse { exit_status: Some(exit_status), info: Some(info), ..StreamResponse::default() }.into()
}

fn frames(responses: &[Response]) -> Bytes {
    let mut all = BytesMut::new();
    responses.iter().for_each(|response| all.extend_from_slice(&response.encode()));
    all.freeze()
}

fn answer(request: &Request) -> Reply {
    let response: Response = match request {
        Request::Ping(_) => PingResponse {}.into(),
        Request::List(_) => ListResponse { handles: vec![b"a".to_vec(), b"\xff".to_vec()] }.into(),
        Request::Echo(echo) => EchoResponse { message: echo.message.clone() }.into(),
        Request::Spawn(_) => SpawnResponse { job_id: Some(7) }.into(),
        Request::Stream(_) => {
            let pieces =
                [piece("stdout", b"a\xff\0"), piece("stderr", b"b\n"), piece("stdout", b"c"), end(4)];
            return Reply::Send(frames(&pieces));
        }
        _ => Response::error(&b"unknown \xff handle"[..]),
    };
    Reply::Send(response.encode())
}

fn warden(words: &[&[u8]]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warden"));
    command.args(words.iter().map(|word| OsStr::from_bytes(word))).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Calls the program with the fake's socket and the words of a line.
async fn call(fake: &Fake, line: &str) -> Output {
    let path = fake.path();
    let mut words: Vec<&[u8]> = vec![b"--socket", path.as_os_str().as_bytes()];
    words.extend(line.split(' ').map(str::as_bytes));
    warden(&words).output().await.unwrap()
}

fn assert_output(output: &Output, status: i32, stdout: &[u8], stderr: &[u8]) {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert_eq!(
        (output.status.code(), text(&output.stdout), text(&output.stderr)),
        (Some(status), text(stdout), text(stderr))
    );
}

#[tokio::test]
async fn responses_are_printed() {
    let fake = Fake::start(answer);
    assert_output(&call(&fake, "ping").await, 0, b"", b"");
    assert_output(&call(&fake, "list").await, 0, b"handles[0] : a\nhandles[1] : \xff\n", b"");
    assert_output(&call(&fake, "-- list").await, 0, b"handles[0] : a\nhandles[1] : \xff\n", b"");
    assert_output(
        &call(&fake, "--json list").await,
        0,
        b"{\"handles\":[\"a\",{\"base64\":\"/w==\"}]}\n",
        b"",
    );
    assert_output(&call(&fake, "--json ping").await, 0, b"{}\n", b"");
    assert_output(
        &call(&fake, "--trace --exit_on_error -- echo --message x").await,
        0,
        b"+ echo --message x\nmessage : x\n",
        b"",
    );
}

#[tokio::test]
async fn any_bytes_can_be_sent_and_printed() {
    let fake = Fake::start(answer);
    let path = fake.path();
    let words: [&[u8]; 5] =
        [b"--socket", path.as_os_str().as_bytes(), b"echo", b"--message", b"\xff\n--\xfe"];
    let output = warden(&words).output().await.unwrap();
    assert_output(&output, 0, b"message : \xff\n--\xfe\n", b"");
}

#[tokio::test]
async fn run_copies_output_and_status() {
    let fake = Fake::start(answer);
    let output = call(&fake, "run --handle h --script s --privileged --rlimits.nofile 0x10").await;
    assert_output(&output, 4, b"a\xff\0c", b"b\n");
    let spawn = SpawnRequest {
        handle: bytes("h"),
        script: bytes("s"),
        privileged: Some(true),
        rlimits: Some(ResourceLimits { nofile: Some(16), ..ResourceLimits::default() }),
        ..SpawnRequest::default()
    };
    let stream = StreamRequest { handle: bytes("h"), job_id: Some(7) };
    assert_eq!(fake.requests(), [spawn.into(), stream.into()]);
}

#[tokio::test]
async fn stream_copies_output_alone() {
    let fake = Fake::start(answer);
    assert_output(&call(&fake, "stream --handle h --job_id 7").await, 0, b"a\xff\0c", b"b\n");
    let lines = concat!(
        r#"{"data":{"base64":"Yf8A"},"name":"stdout"}"#,
        "\n",
        r#"{"data":"b\n","name":"stderr"}"#,
        "\n",
        r#"{"data":"c","name":"stdout"}"#,
        "\n",
        r#"{"exit_status":4,"info":{"state":"active"}}"#,
        "\n",
    );
    assert_output(&call(&fake, "--json stream --handle h --job_id 7").await, 0, lines.as_bytes(), b"");
    assert_output(&call(&fake, "--json run --handle h --script s").await, 4, lines.as_bytes(), b"");
}

#[tokio::test]
async fn output_is_shown_while_the_script_runs() {
    // The end of the stream is never sent, so what is read was written before it.
    let fake = Fake::start(|request| match request {
        Request::Stream(_) => {
            Reply::Send(frames(&[piece("stdout", b"no end of line"), piece("stderr", b"x\n")]))
        }
        other => answer(other),
    });
    let path = fake.path();
    let words: [&[u8]; 7] =
        [b"--socket", path.as_os_str().as_bytes(), b"run", b"--handle", b"h", b"--script", b"s"];
    let mut child = warden(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut seen = [0; 14];
    child.stdout.take().unwrap().read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"no end of line");
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).await.unwrap();
    assert_eq!(line, "x\n");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn errors_of_the_server_are_shown_alone() {
    let fake = Fake::start(answer);
    assert_output(&call(&fake, "info --handle h").await, 1, b"", b"unknown \xff handle\n");
    assert_output(&call(&fake, "--json info --handle h").await, 1, b"", b"unknown \xff handle\n");
    let fake = Fake::start(|_| Reply::Last(Bytes::new()));
    assert_output(&call(&fake, "ping").await, 1, b"", b"warden: the server closed the connection\n");
    let output = warden(&[b"--socket", b"/nonexistent", b"ping"]).output().await.unwrap();
    let expected = b"warden: cannot connect to /nonexistent: No such file or directory (os error 2)\n";
    assert_output(&output, 1, b"", expected);
}

#[tokio::test]
async fn bad_usage_is_one_line_and_reaches_no_server() {
    let cases = [
        ("bogus", "Command: 'bogus' is non-existent.\n"),
        ("-- ping --foo", "In flag: '--foo', the field: 'foo' is invalid.\n"),
        ("-- ping -- list", "Delimiter: '--' specified multiple times.\n"),
        ("info", "Command: 'info', the flag: '--handle' is required.\n"),
        ("--bogus", "Invalid option: '--bogus'.\n"),
    ];
    for (line, expected) in cases {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        assert_output(&warden(&words).output().await.unwrap(), 2, b"", expected.as_bytes());
    }
}

#[tokio::test]
async fn help_and_version_need_no_server() {
    for line in ["--help", "help", "-- help"] {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let output = warden(&words).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains("\n    limit_bandwidth  Sets "));
    }
    let output = warden(&[b"--version"]).output().await.unwrap();
    assert_output(&output, 0, concat!("warden ", env!("CARGO_PKG_VERSION"), "\n").as_bytes(), b"");
}

#[tokio::test]
async fn a_reader_that_has_gone_is_no_failure_to_talk_about() {
    let fake = Fake::start(|request| match request {
        Request::Stream(_) => Reply::Send(frames(&vec![piece("stdout", &[b'x'; 4096]); 64])),
        other => answer(other),
    });
    let path = fake.path();
    let words: [&[u8]; 7] =
        [b"--socket", path.as_os_str().as_bytes(), b"run", b"--handle", b"h", b"--script", b"s"];
    let mut child = warden(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_output(&child.wait_with_output().await.unwrap(), 141, b"", b"");
}
