//! Order and independence of requests.

use std::io::Write;
use std::time::{Duration, Instant};

use warden_protocol::messages::*;
use warden_protocol::{Request, Response};
use warden_tests::{Connection, Daemon, kernel, within};

#[test]
fn a_ping_is_answered_with_the_original_s_bytes() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    client.send_bytes(b"4\r\n\x08\x5b\x12\x00\r\n");
    assert_eq!(client.next_body().unwrap().unwrap(), b"\x08\x5b\x12\x00");
}

#[test]
fn echo_returns_any_bytes() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let all: Vec<u8> = (0..=255).collect();
    for message in [Vec::new(), b"\xff\xfe".to_vec(), all.clone(), all.repeat(4096)] {
        assert_eq!(client.must(EchoRequest { message: Some(message.clone()) }).message, Some(message));
    }
}

#[test]
fn requests_of_one_write_are_answered_one_at_a_time_in_order() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let run = RunRequest {
        handle: Some(handle.clone()),
        script: Some(b"sleep 0.4; echo first".to_vec()),
        ..RunRequest::default()
    };
    let requests: [Request; 4] = [
        run.into(),
        EchoRequest { message: Some(b"second".to_vec()) }.into(),
        InfoRequest { handle: Some(handle) }.into(),
        PingRequest {}.into(),
    ];
    let bytes: Vec<u8> = requests.iter().flat_map(Request::encode).collect();
    let start = Instant::now();
    client.send_bytes(&bytes);
    assert_eq!(client.receive_of::<RunRequest>().unwrap().stdout.unwrap(), b"first\n");
    assert!(start.elapsed() >= Duration::from_millis(400), "it did not wait for the job");
    assert_eq!(client.receive_of::<EchoRequest>().unwrap().message.unwrap(), b"second");
    // The job had ended before this request was looked at.
    assert!(client.receive_of::<InfoRequest>().unwrap().job_ids.is_empty());
    client.receive_of::<PingRequest>().unwrap();
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let echo = |number: u32| Request::from(EchoRequest { message: Some(number.to_string().into_bytes()) });
    let bytes: Vec<u8> = (0..1000).flat_map(|number| echo(number).encode()).collect();
    client.send_bytes(&bytes);
    for number in 0..1000_u32 {
        assert_eq!(
            client.receive_of::<EchoRequest>().unwrap().message.unwrap(),
            number.to_string().into_bytes()
        );
    }
}

#[test]
fn a_client_that_has_shut_down_its_writing_side_gets_every_reply() {
    let daemon = Daemon::any();
    let handle = daemon.connect().create();
    let mut client = daemon.connect();
    let script = b"sleep 0.3; echo late".to_vec();
    client.send(RunRequest { handle: Some(handle), script: Some(script), ..RunRequest::default() });
    client.send(PingRequest {});
    client.finish_sending();
    assert_eq!(client.receive_of::<RunRequest>().unwrap().stdout.unwrap(), b"late\n");
    client.receive_of::<PingRequest>().unwrap();
    assert!(client.try_receive().is_none(), "the daemon closes after the last reply");
}

#[test]
fn connections_do_not_wait_for_each_other() {
    let daemon = Daemon::any();
    let mut first = daemon.connect();
    let handle = first.create();
    first.send(RunRequest {
        handle: Some(handle.clone()),
        script: Some(b"sleep 1.5; echo slow".to_vec()),
        ..RunRequest::default()
    });
    let mut second = daemon.connect();
    let (output, _) = within(1.2, "a run beside a longer one", || second.run(&handle, "echo fast"));
    assert_eq!(output.stdout, b"fast\n");
    assert_eq!(first.receive_of::<RunRequest>().unwrap().stdout.unwrap(), b"slow\n");
}

#[test]
fn a_client_that_never_reads_delays_nobody() {
    let daemon = Daemon::any();
    let mut first = daemon.connect();
    let handle = first.create();
    let big = b"head -c 8000000 /dev/zero".to_vec();
    let mut silent: Vec<_> = (0..4).map(|_| daemon.connect()).collect();
    for client in &mut silent {
        client.send(RunRequest {
            handle: Some(handle.clone()),
            script: Some(big.clone()),
            ..RunRequest::default()
        });
        let job = first.spawn(&handle, &big);
        client.send(StreamRequest { handle: Some(handle.clone()), job_id: Some(job) });
    }
    let mut other = daemon.connect();
    for _ in 0..5 {
        within(2.0, "a ping beside clients that never read", || other.ping());
        let (output, _) =
            within(5.0, "a run beside clients that never read", || other.run(&handle, "echo ok"));
        assert_eq!(output.stdout, b"ok\n");
    }
    // What they did not read yet is still theirs.
    assert_eq!(silent[0].receive_of::<RunRequest>().unwrap().stdout.unwrap().len(), 8_000_000);
}

#[test]
fn a_connection_goes_on_after_an_error() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    for _ in 0..3 {
        let refused = client.ask(InfoRequest { handle: Some(b"nobody".to_vec()) }).unwrap_err();
        assert_eq!(refused, "unknown handle");
        client.ping();
    }
}

#[test]
fn an_error_has_a_message_and_nothing_else() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    client.send(DestroyRequest { handle: Some(b"nobody".to_vec()) });
    let expected = ErrorResponse { message: Some(b"unknown handle".to_vec()), ..ErrorResponse::default() };
    assert_eq!(client.receive(), Response::Error(expected));
}

#[test]
fn requests_that_wait_behind_another_cost_little_memory() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    client.send(RunRequest {
        handle: Some(handle),
        script: Some(b"sleep 3; echo x".to_vec()),
        ..RunRequest::default()
    });
    let echo = Request::from(EchoRequest { message: Some(vec![b'x'; 1 << 20]) }).encode();
    let (mut writer, mut sent) = (client.writer(), 0);
    let sender = std::thread::spawn(move || {
        for _ in 0..200 {
            writer.write_all(&echo).unwrap();
            sent += 1;
        }
        sent
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(kernel::peak_memory(daemon.pid()) < 64 * 1024, "{} KiB", kernel::peak_memory(daemon.pid()));
    assert_eq!(client.receive_of::<RunRequest>().unwrap().stdout.unwrap(), b"x\n");
    for _ in 0..200 {
        assert_eq!(client.receive_of::<EchoRequest>().unwrap().message.unwrap().len(), 1 << 20);
    }
    assert_eq!(sender.join().unwrap(), 200);
}

/// A connection that the daemon takes; one that has just been closed may count a moment longer.
fn admitted(daemon: &Daemon) -> Connection {
    let mut admitted = None;
    warden_tests::eventually("there is room", 5, || {
        let mut connection = daemon.connect();
        let ping = warden_protocol::Request::from(PingRequest::default()).encode();
        // A refused one may be closed before it is written to.
        let answer = connection.try_send_bytes(&ping).and_then(|()| connection.next_body());
        let answer = answer.ok().flatten().and_then(|body| warden_protocol::Response::decode(&body).ok());
        admitted = matches!(answer, Some(warden_protocol::Response::Ping(_))).then_some(connection);
        admitted.is_some()
    });
    admitted.unwrap()
}

#[test]
fn a_connection_too_many_is_told_so_and_costs_the_others_nothing() {
    let daemon = Daemon::with(&[("server.max_clients", "5")]);
    let mut first = admitted(&daemon);
    let others: Vec<_> = (0..4).map(|_| admitted(&daemon)).collect();
    let mut surplus = daemon.connect();
    assert!(surplus.receive_error().contains("server.max_clients"));
    assert!(surplus.try_receive().is_none(), "it is closed");
    first.ping();
    drop(others);
    admitted(&daemon);
}
