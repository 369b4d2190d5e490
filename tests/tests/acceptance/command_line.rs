//! The `warden` program: flags, output and exit status.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use warden_protocol::messages::*;
use warden_tests::{Daemon, files, programs};

/// What a call printed and returned.
#[derive(Debug, PartialEq, Eq)]
struct Called {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn called(status: i32, stdout: &str, stderr: &str) -> Called {
    Called { status: Some(status), stdout: stdout.to_owned(), stderr: stderr.to_owned() }
}

fn call(daemon: &Daemon, arguments: &[&str]) -> Called {
    let output = programs::output(daemon.client().args(arguments));
    Called {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn answers_are_printed_field_by_field() {
    let daemon = Daemon::own();
    assert_eq!(call(&daemon, &["--", "ping"]), called(0, "", ""));
    assert_eq!(call(&daemon, &["--", "list"]), called(0, "", ""));
    assert_eq!(
        call(&daemon, &["--", "echo", "--message", "hello world"]),
        called(0, "message : hello world\n", "")
    );
    assert_eq!(call(&daemon, &["--", "create", "--handle", "one"]), called(0, "handle : one\n", ""));
    assert_eq!(call(&daemon, &["create", "--handle", "two"]), called(0, "handle : two\n", ""));
    assert_eq!(call(&daemon, &["list"]), called(0, "handles[0] : one\nhandles[1] : two\n", ""));
    let info = call(&daemon, &["info", "--handle", "one"]);
    let lines: Vec<&str> = info.stdout.lines().collect();
    assert_eq!(lines[0], "state : active");
    for prefix in [
        "host_ip : 10.254.0.1",
        "container_ip : 10.254.0.2",
        "container_path : /",
        "memory_stat.cache : ",
        "cpu_stat.usage : ",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(prefix)), "{prefix}: {}", info.stdout);
    }
    assert!(lines.iter().all(|line| line.contains(" : ") && !line.starts_with("events")), "{}", info.stdout);
    let spawned = call(&daemon, &["spawn", "--handle", "one", "--script", "echo out; echo err >&2; exit 7"]);
    let job = spawned.stdout.strip_prefix("job_id : ").unwrap().trim().to_owned();
    assert!(job.parse::<u32>().is_ok(), "{spawned:?}");
    let linked = call(&daemon, &["link", "--handle", "one", "--job_id", &job]);
    assert!(linked.stdout.starts_with("exit_status : 7\nstdout : out\n"), "{linked:?}");
    assert!(
        linked.stdout.contains("\nstderr : err\n") && linked.stdout.contains("\ninfo.state : active\n"),
        "{linked:?}"
    );
    assert_eq!((linked.status, linked.stderr.as_str()), (Some(0), ""));
    assert_eq!(call(&daemon, &["stop", "--handle", "one", "--kill"]), called(0, "", ""));
    assert_eq!(call(&daemon, &["destroy", "--handle", "one"]), called(0, "", ""));
    assert_eq!(call(&daemon, &["destroy", "--handle", "two"]), called(0, "", ""));
}

#[test]
fn run_prints_the_job_s_output_byte_for_byte_and_returns_its_status() {
    let daemon = Daemon::any();
    let handle = String::from_utf8(daemon.connect().create()).unwrap();
    let script = "printf 'a\\0b\\377'; printf 'err\\376' >&2; exit 42";
    let output =
        programs::output(daemon.client().args(["--", "run", "--handle", &handle, "--script", script]));
    assert_eq!(
        (output.status.code(), &output.stdout[..], &output.stderr[..]),
        (Some(42), &b"a\0b\xff"[..], &b"err\xfe"[..])
    );
    assert_eq!(call(&daemon, &["run", "--handle", &handle, "--script", "kill -9 $$"]).status, Some(255));
    let job = daemon.connect().spawn(handle.as_bytes(), "echo streamed; exit 5").to_string();
    let streamed = call(&daemon, &["stream", "--handle", &handle, "--job_id", &job]);
    assert!(streamed.stdout.starts_with("streamed\n"), "{streamed:?}");
    assert_eq!(streamed.status, Some(0), "only run passes the status on");
    let root = call(&daemon, &["run", "--handle", &handle, "--script", "id -u", "--privileged"]);
    assert_eq!(root, called(0, "0\n", ""));
}

#[test]
fn output_is_live() {
    let daemon = Daemon::any();
    let handle = String::from_utf8(daemon.connect().create()).unwrap();
    let mut command = daemon.client();
    command.args(["run", "--handle", &handle, "--script", "echo first; sleep 1.5; echo second"]);
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let first = start.elapsed();
    assert_eq!(line, "first\n");
    assert!(first < Duration::from_millis(1200), "the first line came after {first:?}");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "second\n");
    assert!(start.elapsed() > Duration::from_millis(1500));
    assert!(child.wait().unwrap().success());
}

#[test]
fn nested_and_indexed_flags_make_requests() {
    let daemon = Daemon::own();
    let base = files::directory();
    files::write(&base.path().join("file"), "bound", 0o644);
    let source = base.path().to_str().unwrap();
    let created = call(
        &daemon,
        &[
            "--",
            "create",
            "--handle",
            "h",
            "--grace_time",
            "0x100",
            "--network",
            "10.254.1.0",
            "--bind_mounts[0].src_path",
            source,
            "--bind_mounts[0].dst_path",
            "/ro",
            "--bind_mounts[0].mode",
            "RO",
            "--bind_mounts[1].src_path",
            source,
            "--bind_mounts[1].dst_path",
            "/rw",
            "--bind_mounts[1].mode",
            "RW",
        ],
    );
    assert_eq!(created, called(0, "handle : h\n", ""));
    let run = call(
        &daemon,
        &["run", "--handle", "h", "--script", "cat /ro/file /rw/file; ulimit -n", "--rlimits.nofile", "123"],
    );
    assert_eq!(run, called(0, "boundbound123\n", ""));
}

#[test]
fn arguments_may_hold_any_bytes() {
    let daemon = Daemon::any();
    let message = OsStr::from_bytes(b"\xff\xfe\n");
    let output = programs::output(daemon.client().args(["echo", "--message"]).arg(message));
    assert_eq!(output.stdout, b"message : \xff\xfe\n\n");
}

#[test]
fn an_error_of_the_server_is_its_message_alone_and_status_1() {
    let daemon = Daemon::any();
    assert_eq!(call(&daemon, &["info", "--handle", "nobody"]), called(1, "", "unknown handle\n"));
    assert_eq!(
        call(&daemon, &["run", "--handle", "nobody", "--script", "true"]),
        called(1, "", "unknown handle\n")
    );
    let mut command = Command::new(programs::find("warden"));
    let output = programs::output(command.args(["--socket", "/nonexistent/warden.sock", "--", "ping"]));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("/nonexistent/warden.sock") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn bad_usage_is_one_line_and_status_2() {
    let daemon = Daemon::any();
    for (arguments, text) in [
        (&["--", "bogus"][..], "Command: 'bogus' is non-existent."),
        (&["bogus"], "Command: 'bogus' is non-existent."),
        (&["--", "create", "--foo", "1"], "In flag: '--foo', the field: 'foo' is invalid."),
        (&["--", "create", "--bind_mounts.src_path", "x"], "the field: 'bind_mounts' is not indexed"),
        (&["--", "create", "--bind_mounts[1].src_path", "x"], "is not indexed correctly."),
        (&["--", "create", "--handle[0]", "x"], "handle"),
        (&["--", "create", "--grace_time", "soon"], "soon"),
        (&["--", "create", "--bind_mounts[0].mode", "XX"], "XX"),
        (&["--", "run", "--handle", "h"], "script"),
        (&["--", "ping", "--", "ping"], "Delimiter: '--' specified multiple times."),
    ] {
        let result = call(&daemon, arguments);
        assert_eq!(
            (result.status, result.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}: {}",
            result.stderr
        );
        assert!(
            result.stderr.contains(text) && result.stderr.trim_end().lines().count() == 1,
            "{arguments:?}: {}",
            result.stderr
        );
    }
}

#[test]
fn json_is_one_object_for_each_response() {
    let daemon = Daemon::own();
    let json = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let result = call(&daemon, arguments);
        result
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    };
    assert_eq!(json(&["--json", "create", "--handle", "h"]), [serde_json::json!({"handle": "h"})]);
    assert_eq!(json(&["--json", "list"]), [serde_json::json!({"handles": ["h"]})]);
    assert_eq!(json(&["--json", "--", "ping"]), [serde_json::json!({})]);
    let info = json(&["--json", "info", "--handle", "h"]);
    assert_eq!((info.len(), &info[0]["state"]), (1, &serde_json::json!("active")));
    let run = json(&["--json", "run", "--handle", "h", "--script", "echo x; exit 3"]);
    assert!(run.iter().all(serde_json::Value::is_object), "{run:?}");
    assert_eq!(run.last().unwrap()["exit_status"], 3);
    assert_eq!(call(&daemon, &["--json", "run", "--handle", "h", "--script", "exit 3"]).status, Some(3));
}

#[test]
fn trace_prints_the_command_before_its_output() {
    let daemon = Daemon::any();
    let handle = String::from_utf8(daemon.connect().create()).unwrap();
    let result = call(&daemon, &["--trace", "--", "run", "--handle", &handle, "--script", "echo output"]);
    let lines: Vec<&str> = result.stdout.lines().collect();
    assert!(lines[0].starts_with("+ run --handle") && lines[1] == "output", "{result:?}");
}

#[test]
fn help_lists_every_command_and_each_command_explains_itself() {
    let daemon = Daemon::any();
    let commands = [
        "copy_in",
        "copy_out",
        "create",
        "destroy",
        "echo",
        "info",
        "limit_bandwidth",
        "limit_cpu",
        "limit_disk",
        "limit_memory",
        "link",
        "list",
        "net_in",
        "net_out",
        "ping",
        "run",
        "spawn",
        "stop",
        "stream",
    ];
    for arguments in [&["help"][..], &["--help"], &["--", "help"]] {
        let result = call(&daemon, arguments);
        assert_eq!((result.status, result.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        for command in commands {
            assert!(result.stdout.contains(command), "{arguments:?} lacks {command}: {}", result.stdout);
        }
    }
    for command in commands {
        let result = call(&daemon, &["--", command, "--help"]);
        assert_eq!(result.status, Some(0), "{command}: {}", result.stderr);
        assert!(result.stdout.contains(command) && result.stdout.contains("usage"), "{}", result.stdout);
    }
    let run = call(&daemon, &["run", "--help"]).stdout;
    for line in [
        "\t--handle <handle> (string)  # required",
        "\t--script <script> (string)  # required",
        "\t[--privileged (bool)]  # optional",
        "[options] can be one of the following:",
    ] {
        assert!(run.contains(line), "{line:?}: {run}");
    }
    assert!(run.contains("rlimits.nofile"), "{run}");
    assert!(call(&daemon, &["create", "--help"]).stdout.contains("--bind_mounts[index]"));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let daemon = Daemon::any();
    let handle = String::from_utf8(daemon.connect().create()).unwrap();
    let script = "\"$0\" --socket \"$1\" run --handle \"$2\" --script 'seq 1000000' | head -n 1";
    let mut command = Command::new("timeout");
    command
        .args(["20", "bash", "-c", script])
        .arg(programs::find("warden"))
        .arg(daemon.socket())
        .arg(&handle);
    let output = programs::output(&mut command);
    assert_eq!((&output.stdout[..], &*String::from_utf8_lossy(&output.stderr)), (&b"1\n"[..], ""));
}

#[test]
fn a_command_may_come_from_a_client_of_the_protocol_in_between() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    client.create_with(CreateRequest { handle: Some(b"shared".to_vec()), ..CreateRequest::default() });
    assert_eq!(call(&daemon, &["list"]).stdout, "handles[0] : shared\n");
    call(&daemon, &["destroy", "--handle", "shared"]);
    assert!(client.list().is_empty());
}

#[test]
fn a_shell_in_a_container_is_one_command_away() {
    let daemon = Daemon::any();
    let handle = String::from_utf8(daemon.connect().create()).unwrap();
    let shell = |arguments: &[&str]| call(&daemon, &[&["shell", &handle], arguments].concat());
    assert_eq!(shell(&["sh", "-c", "id -un; echo err >&2; exit 7"]), called(7, "root\n", "err\n"));
    assert_eq!(shell(&["--user", "vcap", "pwd"]), called(0, "/home/vcap\n", ""));
    assert_eq!(call(&daemon, &["shell", "nobody"]).status, Some(1));
}

#[test]
fn copies_take_a_bare_handle_and_print_nothing() {
    let daemon = Daemon::any();
    let directory = files::directory();
    let handle = String::from_utf8(daemon.connect().create()).unwrap();
    let source = files::write(&directory.path().join("file"), "content", 0o644);
    let (source, back) = (source.to_str().unwrap(), directory.path().join("back"));
    let copied = call(&daemon, &["copy_in", &handle, "--src_path", source, "--dst_path", "/tmp"]);
    assert_eq!(copied, called(0, "", ""));
    let back = back.to_str().unwrap();
    let copied = call(&daemon, &["copy_out", &handle, "--src_path", "/tmp/file", "--dst_path", back]);
    assert_eq!(copied, called(0, "", ""));
    assert_eq!(std::fs::read(back).unwrap(), b"content");
    let failed = call(&daemon, &["copy_in", &handle, "--src_path", source, "--dst_path", "/no/where/at/all"]);
    assert_eq!((failed.status, failed.stdout.as_str(), failed.stderr.lines().count()), (Some(1), "", 1));
}
