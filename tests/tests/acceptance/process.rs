//! The daemon as a process: socket, pidfile, health check, signals, log.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use warden_protocol::messages::*;
use warden_tests::{Daemon, eventually, kernel, programs, within};

/// Starts a second wardend with a configuration file, and gives its status and stderr.
fn start_another(config: &std::path::Path) -> (Option<i32>, String) {
    let mut command = Command::new(programs::find("wardend"));
    let mut child =
        command.arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut status = None;
    for _ in 0..500 {
        status = child.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
        panic!("the second daemon serves");
    }
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status.unwrap().code(), text)
}

#[test]
fn the_socket_has_the_configured_permissions_and_goes_with_sigterm() {
    for (text, mode) in [("0777", 0o777), ("0700", 0o700), ("0o640", 0o640)] {
        let mut daemon = Daemon::with(&[("server.unix_domain_permissions", text)]);
        let metadata = fs::symlink_metadata(daemon.socket()).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{text}");
        daemon.signal(Signal::TERM);
        assert!(daemon.wait().success());
        assert!(!daemon.socket().exists());
    }
}

#[test]
fn the_pidfile_holds_the_pid_and_goes_with_the_daemon() {
    let directory = warden_tests::files::directory();
    let path = directory.path().join("warden.pid");
    let mut daemon = Daemon::with(&[("server.pidfile", path.to_str().unwrap())]);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", daemon.pid()));
    daemon.signal(Signal::INT);
    assert!(daemon.wait().success());
    assert!(!path.exists());
}

#[test]
fn a_pidfile_in_use_is_refused_with_the_pid() {
    let directory = warden_tests::files::directory();
    let path = directory.path().join("warden.pid");
    let daemon = Daemon::with(&[("server.pidfile", path.to_str().unwrap())]);
    let config = directory.path().join("second.yml");
    let text = fs::read_to_string(daemon.directory().join("wardend.yml")).unwrap();
    let second = daemon.directory().join("second.sock");
    fs::write(
        &config,
        text.replace(daemon.socket().to_str().unwrap(), second.to_str().unwrap())
            + "health_check_server:\n  port: 0\n",
    )
    .unwrap();
    let mut client = daemon.connect();
    let handle = client.create();
    let (status, stderr) = start_another(&config);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr.contains(&format!("{})", daemon.pid())) && stderr.contains("is already running"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", daemon.pid()));
    assert_eq!(client.text(&handle, "echo unharmed"), "unharmed\n");
}

#[test]
fn a_second_daemon_on_the_same_depot_is_refused_and_harms_nothing() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let config = daemon.directory().join("second.yml");
    let text = fs::read_to_string(daemon.directory().join("wardend.yml")).unwrap();
    let second = daemon.directory().join("second.sock");
    fs::write(
        &config,
        text.replace(daemon.socket().to_str().unwrap(), second.to_str().unwrap())
            + "health_check_server:\n  port: 0\n",
    )
    .unwrap();
    let (status, stderr) = start_another(&config);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains(daemon.depot("").to_str().unwrap().trim_end_matches('/')), "{stderr}");
    assert_eq!(client.text(&handle, "echo unharmed"), "unharmed\n");
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_harms_nothing() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let (status, stderr) = start_another(&daemon.directory().join("wardend.yml"));
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains(daemon.socket().to_str().unwrap()) && stderr.lines().count() == 1, "{stderr}");
    assert_eq!(client.text(&handle, "echo unharmed"), "unharmed\n");
    daemon.connect().ping();
}

#[test]
fn the_health_check_answers_any_bytes_exactly_and_closes() {
    let daemon = Daemon::own();
    for request in ["GET / HTTP/1.0\\r\\n\\r\\n", "x"] {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/2345; printf '{request}' >&3; cat <&3");
        let output = programs::output(daemon.in_its_network("bash").args(["-c", &script]));
        assert_eq!(output.stdout, b"HTTP/1.1 200 OK\r\n", "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn only_root_can_start_it() {
    let directory = warden_tests::files::directory();
    let config = warden_tests::files::write(
        &directory.path().join("w.yml"),
        "health_check_server:\n  port: 0\n",
        0o644,
    );
    let copy = directory.path().join("wardend");
    fs::copy(programs::find("wardend"), &copy).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(copy)
        .arg("--config")
        .arg(config);
    let output = programs::output(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && stderr.contains("root") && stderr.trim_end().lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn usr2_lets_requests_end_and_keeps_the_containers() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let mut idle = daemon.connect();
    idle.ping();
    let mut stopping = daemon.connect();
    let other = stopping.create();
    stopping.spawn(&other, "trap 'trap \"\" TERM; sleep 1.5; exit 0' TERM; while :; do sleep 0.1; done");
    let mut running = daemon.connect();
    running.send(RunRequest {
        handle: Some(handle.clone()),
        script: Some(b"sleep 1000".to_vec()),
        ..Default::default()
    });
    thread::sleep(Duration::from_millis(400));
    stopping.send(StopRequest { handle: Some(other), ..StopRequest::default() });
    thread::sleep(Duration::from_millis(200));
    daemon.signal(Signal::USR2);
    within(1.0, "the end of an idle connection", || assert!(matches!(idle.next_body(), Ok(None) | Err(_))));
    within(1.0, "the end of a waiting run", || assert!(matches!(running.next_body(), Ok(None) | Err(_))));
    daemon.signal(Signal::USR2);
    stopping.receive_of::<StopRequest>().expect("a request under way is finished");
    assert!(matches!(stopping.next_body(), Ok(None) | Err(_)));
    assert!(daemon.wait().success());
    assert!(daemon.socket().exists(), "USR2 leaves the socket's file");
    assert!(daemon.try_connect().is_err());
    assert!(
        kernel::processes_in_cgroup(&id).iter().any(|process| process.command.contains("sleep 1000")),
        "jobs go on"
    );
    daemon.restart();
}

#[test]
fn term_ends_it_within_the_drain_time_and_keeps_the_containers() {
    let mut daemon = Daemon::with(&[("server.drain_timeout", "1")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    client.spawn(&handle, "trap '' TERM; while :; do sleep 1; done");
    thread::sleep(Duration::from_millis(200));
    client.send(StopRequest { handle: Some(handle), ..StopRequest::default() });
    thread::sleep(Duration::from_millis(200));
    daemon.signal(Signal::TERM);
    let (status, _) = within(4.0, "the drain", || daemon.wait());
    assert!(status.success());
    let inside: Vec<_> = kernel::processes_in_cgroup(&id).iter().map(|process| process.pid).collect();
    assert!(!inside.is_empty(), "the container goes on");
    daemon.restart();
    let mut client = daemon.connect();
    assert_eq!(client.list().len(), 1, "the next one has taken it over");
    // The stop that was under way ends the job; init stays.
    let init = fs::read_to_string(daemon.depot(&id).join("run/wshd.pid")).unwrap().trim().parse().unwrap();
    assert!(inside.contains(&init) && kernel::is_alive(init));
}

#[test]
fn it_starts_again_after_it_was_killed() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    client.spawn(&handle, "sleep 1000");
    daemon.signal(Signal::KILL);
    daemon.wait();
    assert!(daemon.socket().exists(), "nobody removed the socket's file");
    daemon.restart();
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(client.text(&handle, "echo new"), "new\n");
}

#[test]
fn the_log_has_one_json_object_for_each_command() {
    let daemon = Daemon::with(&[("logging.level", "debug")]);
    let mut client = daemon.connect();
    let handle =
        client.create_with(CreateRequest { handle: Some(b"log\nme".to_vec()), ..Default::default() });
    client.run(&handle, "true");
    client.ask(InfoRequest { handle: Some(b"nobody".to_vec()) }).unwrap_err();
    client.destroy(&handle);
    let lines = |log: &str| -> Vec<serde_json::Value> {
        log.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    };
    for command in ["create", "run", "info", "destroy"] {
        let is_about =
            |line: &serde_json::Value| line["message"] == command && line["data"]["outcome"].is_string();
        // A line may be written just after the answer.
        eventually("each command has one line", 2, || {
            lines(&daemon.log()).iter().filter(|line| is_about(line)).count() == 1
        });
        let line = lines(&daemon.log()).into_iter().find(is_about).unwrap();
        let handle = if command == "info" { "nobody" } else { "log\nme" };
        assert_eq!(line["data"]["handle"], handle, "{line}");
    }
    for line in lines(&daemon.log()) {
        for key in ["timestamp", "message", "log_level", "source", "data"] {
            assert!(line.get(key).is_some(), "{key} is missing: {line}");
        }
    }
}

#[test]
fn the_log_file_is_opened_anew_at_sighup_and_nothing_else_happens() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let (log, moved) = (daemon.directory().join("wardend.log"), daemon.directory().join("wardend.log.1"));
    fs::rename(&log, &moved).unwrap();
    daemon.signal(Signal::HUP);
    eventually("the log is there again", 10, || log.exists());
    client.destroy(&handle);
    assert!(fs::read_to_string(&log).unwrap().contains("\"destroyed\""));
    assert!(!fs::read_to_string(&moved).unwrap().contains("\"destroyed\""));
}

#[test]
fn the_log_can_be_for_people() {
    let daemon = Daemon::with(&[("logging.level", "info"), ("logging.format", "text")]);
    daemon.connect().create();
    let log = daemon.log();
    assert!(!log.is_empty() && log.lines().all(|line| !line.starts_with('{')), "{log}");
    assert!(log.contains(daemon.socket().to_str().unwrap()), "it says where it listens: {log}");
}
