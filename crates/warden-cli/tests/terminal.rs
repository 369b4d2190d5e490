//! The prompt on a pseudo-terminal, against a fake server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use support::server::{Answer, Server};
use support::terminal::{CTRL_C, CTRL_D, Terminal, UP};
use support::{WARDEN, World, bytes, end, piece};
use warden_protocol::messages::*;
use warden_protocol::{Request, Response};

const PS: &str = "  PID TTY      STAT   TIME COMMAND\n  128 ?        S<s    0:00 /bin/bash\n";

fn info() -> InfoResponse {
    InfoResponse {
        state: bytes("active"),
        host_ip: bytes("10.254.0.33"),
        container_ip: bytes("10.254.0.34"),
        container_path: bytes("/var/vcap/data/warden/depot/17r47v9ocsp"),
        memory_stat: Some(MemoryStat { cache: Some(223_944_704), ..MemoryStat::default() }),
        job_ids: vec![39],
        ..InfoResponse::default()
    }
}

fn answer(request: &Request) -> Answer {
    match request {
        Request::Ping(_) => PingResponse {}.into(),
        Request::List(_) => {
            let handles = ["17r47v9ocsi", "17r47v9ocsp", "two words"];
            ListResponse { handles: handles.map(|handle| handle.as_bytes().to_vec()).to_vec() }.into()
        }
        Request::Info(InfoRequest { handle: Some(handle) }) if handle == b"absent" => {
            Response::error("unknown handle").into()
        }
        Request::Info(_) => info().into(),
        // The job's number says what its output is.
        Request::Spawn(spawn) => {
            let job_id = match spawn.script() {
                b"ps xf" => 1,
                b"exit 7" => 2,
                b"printf x" => 3,
                _ => 4,
            };
            SpawnResponse { job_id: Some(job_id) }.into()
        }
        Request::Stream(stream) => match stream.job_id() {
            1 => Answer::Send(vec![piece("stdout", PS), end(0)]),
            2 => Answer::Send(vec![end(7)]),
            3 => Answer::Send(vec![piece("stdout", "x"), end(0)]),
            8 => Answer::Flood(piece("stdout", "y\n")),
            _ => Answer::Forever(piece("stdout", "here\n")),
        },
        Request::Link(_) => Answer::Never,
        Request::CopyIn(_) => Answer::Later(Duration::from_millis(1500), CopyInResponse {}.into()),
        Request::Create(_) => Answer::HangUp,
        other => Response::error(format!("{}: no", other.name())).into(),
    }
}

fn start(world: &World, options: &[&str]) -> Terminal {
    let socket = world.socket();
    let arguments: Vec<_> = ["--socket", socket.to_str().unwrap()].iter().chain(options).copied().collect();
    Terminal::start(Path::new(WARDEN), &world.path(""), &arguments)
}

#[test]
fn the_published_session_can_be_replayed() {
    let world = World::new();
    let server = Server::start(&world.socket(), answer);
    let mut terminal = start(&world, &["--trace"]);
    terminal.command("list");
    let list =
        "\r\n+ list\r\nhandles[0] : 17r47v9ocsi\r\nhandles[1] : 17r47v9ocsp\r\nhandles[2] : two words\r\n";
    terminal.expect(list);
    terminal.command(r#"run --handle 17r47v9ocsp --script "ps xf""#);
    let trace = "\r\n+ run --handle 17r47v9ocsp --script \"ps xf\"\r\n";
    terminal.expect(&format!("{trace}{}", PS.replace('\n', "\r\n")));
    terminal.command("info  --handle 17r47v9ocsp");
    terminal.expect(
        "\r\n+ info  --handle 17r47v9ocsp\r\nstate : active\r\nhost_ip : 10.254.0.33\r\n\
         container_ip : 10.254.0.34\r\ncontainer_path : /var/vcap/data/warden/depot/17r47v9ocsp\r\n\
         memory_stat.cache : 223944704\r\njob_ids[0] : 39\r\n",
    );
    terminal.command(r#"run --handle 17vedc80gj3 --script "while true; do echo 'here';sleep 3;done""#);
    terminal.expect("done\"\r\nhere\r\nhere\r\n");
    terminal.enter(CTRL_C);
    terminal.expect("^C\r\nLeft job 4, which goes on: stream 17vedc80gj3 4\r\n");
    terminal.command("list");
    assert!(!terminal.expect("+ list\r\nhandles[0]").contains("Reconnecting"));
    terminal.command("exit");
    assert_eq!(terminal.end().0, Some(0));
    let names: Vec<_> = server.requests().iter().map(Request::name).collect();
    assert_eq!(names, ["list", "spawn", "stream", "info", "spawn", "stream", "list"]);
}

#[test]
fn ctrl_c_leaves_what_waits_and_not_the_prompt() {
    let world = World::new();
    let server = Server::start(&world.socket(), answer);
    let mut terminal = start(&world, &[]);
    for line in ["link h 9", "stream h 9"] {
        terminal.command(line);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !server.requests().last().is_some_and(|request| line.starts_with(request.name())) {
            assert!(Instant::now() < deadline, "{line} is not sent");
            std::thread::sleep(Duration::from_millis(5));
        }
        terminal.enter(CTRL_C);
        terminal.expect("Left job 9, which goes on: stream h 9\r\n");
    }
    terminal.command("copy_in h --src_path /a --dst_path /b");
    terminal.expect("copy_in");
    terminal.expect("[=====");
    terminal.enter(CTRL_C);
    terminal.expect("Left; the server may still do it.\r\n");
    terminal.expect("warden> ");
    terminal.enter(CTRL_C);
    terminal.expect("warden> ");
    terminal.enter("destroy everything");
    terminal.enter(CTRL_C);
    terminal.expect("destroy everything");
    terminal.command("info absent");
    terminal.expect("\r\nunknown handle\r\n");
    terminal.expect("warden> ");
    terminal.enter(CTRL_D);
    let (status, shown) = terminal.end();
    assert_eq!((status, shown.trim()), (Some(0), ""));
    assert!(!server.requests().iter().any(|request| matches!(request, Request::Destroy(_))));
}

#[test]
fn ctrl_c_is_heard_in_a_flood() {
    let world = World::new();
    let _server = Server::start(&world.socket(), answer);
    let mut terminal = start(&world, &[]);
    terminal.command("stream h 8");
    terminal.expect("y\r\ny\r\ny\r\n");
    std::thread::sleep(Duration::from_millis(100));
    terminal.enter(CTRL_C);
    terminal.expect("Left job 8, which goes on: stream h 8\r\n");
    terminal.command("ping");
    terminal.expect("ping\r\n");
}

#[test]
fn tab_completes_commands_flags_handles_and_jobs() {
    let world = World::new();
    let server = Server::start(&world.socket(), answer);
    let mut terminal = start(&world, &[]);
    terminal.expect("warden> ");
    terminal.enter("pi\t\r");
    terminal.expect("warden> ping ");
    terminal.expect("\r\n");
    terminal.expect("warden> ");
    terminal.enter("str\t17\t");
    terminal.expect("stream 17r47v9ocs");
    terminal.enter("\t\t");
    terminal.expect("17r47v9ocsi");
    terminal.expect("17r47v9ocsp");
    terminal.enter("p\t\t");
    terminal.expect("stream 17r47v9ocsp 39 ");
    terminal.enter(CTRL_C);
    terminal.expect("warden> ");
    terminal.enter("info tw\t\r");
    terminal.expect("info 'two words' ");
    terminal.expect("job_ids[0] : 39\r\n");
    terminal.expect("warden> ");
    terminal.enter("stop x --k\t");
    terminal.expect("stop x --kill ");
    terminal.enter(CTRL_C);
    terminal.command("exit");
    assert_eq!(terminal.end().0, Some(0));
    let requests = server.requests();
    assert!(requests.contains(&PingRequest {}.into()));
    assert!(requests.contains(&InfoRequest { handle: bytes("two words") }.into()));
}

#[test]
fn a_server_that_does_not_answer_holds_completion_up_only_shortly() {
    let world = World::new();
    let _server = Server::start(&world.socket(), |request| match request {
        Request::List(_) => Answer::Never,
        other => answer(other),
    });
    let mut terminal = start(&world, &[]);
    terminal.expect("warden> ");
    terminal.enter("info 1");
    terminal.expect("info 1");
    let start = Instant::now();
    terminal.enter("\t7");
    terminal.expect("7");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    terminal.enter("\r");
    terminal.expect("job_ids[0] : 39\r\n");
}

#[test]
fn the_history_is_kept() {
    let world = World::new();
    let _server = Server::start(&world.socket(), answer);
    let original = world.path(".warden-history");
    fs::write(&original, "[\"list\"]").unwrap();
    for round in 0..2 {
        let mut terminal = start(&world, &["--trace"]);
        terminal.expect("warden> ");
        if round == 0 {
            terminal.enter("run h 'ps xf'\r");
        } else {
            terminal.enter(UP);
            terminal.expect("warden> run h 'ps xf'");
            terminal.enter("\r");
        }
        terminal.expect("+ run h 'ps xf'\r\n");
        terminal.command(" secret");
        terminal.expect("Command: 'secret' is non-existent.\r\n");
        terminal.expect("warden> ");
        terminal.enter(CTRL_D);
        assert_eq!(terminal.end().0, Some(0));
    }
    let history = world.path(".warden_history");
    let kept = fs::read_to_string(&history).unwrap();
    assert_eq!(kept.matches("run h 'ps xf'\n").count(), 1, "{kept}");
    assert!(!kept.contains("secret"), "{kept}");
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&original).unwrap(), "[\"list\"]");
}

#[test]
fn the_next_command_works_after_a_restart() {
    let world = World::new();
    let server = Server::start(&world.socket(), answer);
    let mut terminal = start(&world, &[]);
    terminal.command("list");
    terminal.expect("handles[2] : two words\r\n");
    terminal.command("run h 'ps xf'");
    terminal.expect("/bin/bash\r\n");
    drop(server);
    let server = Server::start(&world.socket(), answer);
    terminal.command("run h 'ps xf'");
    terminal.expect("run h 'ps xf'\r\nReconnecting...\r\n  PID TTY");
    terminal.expect("/bin/bash\r\n");
    let names: Vec<_> = server.requests().iter().map(Request::name).collect();
    assert_eq!(names, ["spawn", "stream"]);

    drop(server);
    terminal.command("list");
    terminal.expect("Reconnecting...\r\nwarden: cannot connect to ");
    terminal.command("list");
    terminal.expect("\r\nwarden: cannot connect to ");
    let server = Server::start(&world.socket(), answer);
    terminal.command("list");
    terminal.expect("list\r\nhandles[0]");

    // What the server may have begun is not sent again.
    terminal.command("create");
    terminal.expect("create\r\nwarden: the server closed the connection\r\n");
    terminal.command("list");
    terminal.expect("list\r\nhandles[0]");
    let names: Vec<_> = server.requests().iter().map(Request::name).collect();
    assert_eq!(names, ["list", "create", "list"]);
}

#[test]
fn exit_on_error_ends_the_prompt() {
    let world = World::new();
    let _server = Server::start(&world.socket(), answer);
    for (line, status) in [("bogus", 1), ("info absent", 1), ("run h 'exit 7'", 7)] {
        let mut terminal = start(&world, &["--exit_on_error"]);
        terminal.command("ping");
        terminal.expect("ping\r\n");
        terminal.command(line);
        assert_eq!(terminal.end().0, Some(status), "{line}");
    }
}

#[test]
fn an_unfinished_line_of_output_is_not_overwritten() {
    let world = World::new();
    let _server = Server::start(&world.socket(), answer);
    let mut terminal = start(&world, &[]);
    terminal.command("run h 'printf x'");
    terminal.expect("printf x'\r\nx\r\n");
    terminal.command("run h 'ps");
    // The command goes on on the next line, since its quotes are open.
    terminal.enter("xf'\r");
    terminal.expect("xf'\r\nhere\r\n");
    terminal.enter(CTRL_C);
    terminal.command("help");
    terminal.expect("nothing is expanded.\r\n");
    terminal.command("stop --help");
    terminal.expect("example:\r\n");
    terminal.expect("stop 17r47v9ocsp --kill\r\n");
    terminal.expect("warden> ");
}

#[test]
fn a_long_copy_shows_that_it_goes_on() {
    let world = World::new();
    let _server = Server::start(&world.socket(), answer);
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), vec![0; 1_200_000]).unwrap();
    let socket = world.socket();
    let line = [
        "--socket",
        socket.to_str().unwrap(),
        "copy_in",
        "h",
        "--src_path",
        source.to_str().unwrap(),
        "--dst_path",
        "/b",
    ];
    let mut terminal = Terminal::start(Path::new(WARDEN), &world.path(""), &line);
    terminal.expect("copy_in of 1.2 MB [");
    terminal.expect("] 1s");
    let (status, shown) = terminal.end();
    assert_eq!(status, Some(0));
    // The last thing drawn is the empty line.
    assert!(shown.ends_with('\r'), "{shown:?}");
}

#[test]
fn the_shell_is_wsh_beside_the_program() {
    let world = World::new();
    let _server = Server::start(&world.socket(), answer);
    let (warden, wsh) = (world.path("warden"), world.path("wsh"));
    fs::copy(WARDEN, &warden).unwrap();
    fs::write(
        &wsh,
        "#!/bin/bash\ntest -t 0 && echo terminal\necho \"$*\"\nread -r line\necho \"got $line\"\nexit 5\n",
    )
    .unwrap();
    fs::set_permissions(&wsh, Permissions::from_mode(0o755)).unwrap();
    let socket = world.socket();
    let expected =
        "terminal\r\n--socket /var/vcap/data/warden/depot/17r47v9ocsp/run/wshd.sock --user vcap ls -l\r\n";

    let mut line = vec!["--socket", socket.to_str().unwrap()];
    line.extend("shell 17r47v9ocsp --user vcap ls -l".split(' '));
    let mut terminal = Terminal::start(&warden, &world.path(""), &line);
    terminal.expect(expected);
    terminal.enter("word\r");
    terminal.expect("got word\r\n");
    assert_eq!(terminal.end().0, Some(5));

    let mut terminal = Terminal::start(&warden, &world.path(""), &line[..2]);
    terminal.command("shell 17r47v9ocsp --user vcap ls -l");
    terminal.expect(expected);
    terminal.enter("word\r");
    terminal.expect("got word\r\n");
    terminal.command("shell absent");
    terminal.expect("unknown handle\r\n");
    fs::remove_file(&wsh).unwrap();
    terminal.command("shell h");
    terminal.expect(&format!("warden: cannot start {}: No such file", wsh.display()));
    terminal.expect("warden> ");
}
