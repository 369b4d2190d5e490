//! Input that is no request: an error that says so, and never harm to another client.

use std::thread;
use std::time::Duration;

use warden_protocol::Request;
use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon, Random, kernel, within};

/// Puts the content of a frame into one.
fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = format!("{}\r\n", body.len()).into_bytes();
    frame.extend_from_slice(body);
    frame.extend_from_slice(b"\r\n");
    frame
}

/// A message of a type with a payload shorter than 128 bytes.
fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0x08, kind, 0x12, u8::try_from(payload.len()).unwrap()];
    body.extend_from_slice(payload);
    body
}

fn samples() -> Vec<Vec<u8>> {
    let mut requests = super::commands::on_handle(b"nobody");
    requests.push(PingRequest {}.into());
    requests.push(ListRequest {}.into());
    requests.push(EchoRequest { message: Some(b"hello".to_vec()) }.into());
    requests.iter().map(|request| request.encode().to_vec()).collect()
}

#[test]
fn a_frame_cut_at_any_byte_is_understood() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let message = b"cut me anywhere".to_vec();
    let bytes = Request::from(EchoRequest { message: Some(message.clone()) }).encode();
    for cut in 1..bytes.len() {
        client.send_bytes(&bytes[..cut]);
        thread::sleep(Duration::from_millis(2));
        client.send_bytes(&bytes[cut..]);
        assert_eq!(client.receive_of::<EchoRequest>().unwrap().message.unwrap(), message, "cut at {cut}");
    }
    for byte in &bytes {
        client.send_bytes(&[*byte]);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.receive_of::<EchoRequest>().unwrap().message.unwrap(), message);
}

#[test]
fn a_broken_frame_is_answered_with_an_error_and_the_connection_closed() {
    let daemon = Daemon::any();
    let broken: [&[u8]; 14] = [
        b"abc\r\n",
        b"\r\n",
        b"-\r\n",
        b"-4\r\n\x08\x5b\x12\x00\r\n",
        b"+4\r\n\x08\x5b\x12\x00\r\n",
        b" 4 \r\n\x08\x5b\x12\x00\r\n",
        b"0x4\r\n\x08\x5b\x12\x00\r\n",
        b"0b100\r\n\x08\x5b\x12\x00\r\n",
        b"1_0\r\n0123456789\r\n",
        b"4\n\x08\x5b\x12\x00\r\n",
        b"67108865\r\n",
        b"99999999999999999999999\r\n",
        b"4\r\n\x08\x5b\x12\x00XY",
        b"11111111111111111111111111111111111111111111",
    ];
    for bytes in broken {
        let mut client = daemon.connect();
        client.send_bytes(bytes);
        let message = client.receive_error();
        assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
        let after = client.next_body();
        assert!(matches!(after, Ok(None) | Err(_)), "{:?} left the connection open", bytes.escape_ascii());
    }
    daemon.connect().ping();
}

#[test]
fn an_error_about_a_length_names_it() {
    let daemon = Daemon::any();
    for (bytes, named) in [(&b"67108865\r\n"[..], "67108865"), (b"0x4\r\n", "0x4"), (b"abc\r\n", "abc")] {
        let mut client = daemon.connect();
        client.send_bytes(bytes);
        let message = client.receive_error();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn requests_before_a_broken_frame_are_answered_and_those_behind_it_are_not() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    client.send_bytes(b"4\r\n\x08\x5b\x12\x00\r\nnonsense\r\n4\r\n\x08\x5b\x12\x00\r\n");
    client.receive_of::<PingRequest>().unwrap();
    client.receive_error();
    assert!(matches!(client.next_body(), Ok(None) | Err(_)));
}

#[test]
fn a_frame_without_a_request_is_refused_and_the_next_one_served() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let bodies: [(&str, Vec<u8>, &str); 11] = [
        ("nothing", vec![], "type"),
        ("no type", vec![0x12, 0x00], "type"),
        ("no payload", vec![0x08, 0x5b], "payload"),
        ("garbage", vec![0xff; 40], ""),
        ("an unknown type", message(77, b""), "77"),
        ("an error", message(1, b""), ""),
        ("create, bind mount without destination", message(11, b"\x0a\x04\x0a\x02/s"), "dst_path"),
        ("run without script", message(23, b"\x0a\x01h"), "script"),
        ("link without job", message(22, b"\x0a\x01h"), "job_id"),
        ("echo without message", message(93, b""), "message"),
        ("a handle that is a number", message(14, b"\x08\x01"), "handle"),
    ];
    for (what, body, named) in bodies {
        let mut bytes = frame(&body);
        bytes.extend(b"4\r\n\x08\x5b\x12\x00\r\n");
        client.send_bytes(&bytes);
        let refused = client.receive_error();
        assert!(refused.contains(named) && !refused.is_empty(), "{what}: {refused:?}");
        client.receive_of::<PingRequest>().unwrap();
    }
}

#[test]
fn every_missing_required_field_is_named() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let cases: [(u8, &[u8], &str); 12] = [
        (12, b"", "handle"),
        (13, b"", "handle"),
        (14, b"", "handle"),
        (21, b"", "handle"),
        (21, b"\x0a\x01h", "script"),
        (24, b"\x0a\x01h", "job_id"),
        (31, b"", "handle"),
        (32, b"", "handle"),
        (41, b"\x0a\x01h\x12\x01s", "dst_path"),
        (42, b"\x0a\x01h", "src_path"),
        (53, b"\x0a\x01h\x10\x01", "burst"),
        (54, b"", "handle"),
    ];
    for (kind, payload, field) in cases {
        client.send_bytes(&frame(&message(kind, payload)));
        let refused = client.receive_error();
        assert!(refused.contains(field), "type {kind}: {refused:?} does not name {field}");
    }
}

#[test]
fn unknown_fields_are_skipped() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    // Field 100 in the message, and fields 99 (bytes) and 50 (number) in the request.
    let mut body = message(93, b"\x0a\x02hi\x9a\x06\x01x\x90\x03\x07");
    body.extend(b"\xa0\x06\x01");
    client.send_bytes(&frame(&body));
    assert_eq!(client.receive_of::<EchoRequest>().unwrap().message.unwrap(), b"hi");
}

#[test]
fn the_longest_request_is_configurable() {
    let daemon = Daemon::with(&[("server.max_request_bytes", "2000")]);
    let mut client = daemon.connect();
    let echo = |length: usize| Request::from(EchoRequest { message: Some(vec![b'x'; length]) }).encode();
    client.send_bytes(&echo(1900));
    assert_eq!(client.receive_of::<EchoRequest>().unwrap().message.unwrap().len(), 1900);
    client.send_bytes(&echo(2000));
    let message = client.receive_error();
    assert!(message.contains("2000"), "{message}");
    assert!(matches!(client.next_body(), Ok(None) | Err(_)));
}

#[test]
fn announced_lengths_cost_no_memory() {
    let daemon = Daemon::own();
    let mut clients: Vec<Connection> = (0..50).map(|_| daemon.connect()).collect();
    for client in &mut clients {
        client.send_bytes(b"67108864\r\n0123456789");
    }
    daemon.connect().ping();
    let peak = kernel::peak_memory(daemon.pid());
    assert!(peak < 64 * 1024, "wardend used {peak} KiB");
}

/// Changes one to four bytes, cuts, or doubles a part.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    match random.below(8) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => {
            let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.extend(part);
        }
        _ => {
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = random.byte();
            }
        }
    }
}

#[test]
fn thousands_of_mutated_frames_leave_the_daemon_serving() {
    let daemon = Daemon::own();
    let samples = samples();
    let mut random = Random::new(1);
    let frames = 4000;
    within(60.0, "answering the mutated frames", || {
        for number in 0..frames {
            let mut bytes = samples[number % samples.len()].clone();
            mutate(&mut bytes, &mut random);
            let mut client = daemon.connect();
            if client.try_send_bytes(&bytes).is_ok() {
                client.finish_sending();
            }
            // Whatever it answers, it answers in frames, and closes at the end.
            while let Ok(Some(_)) = client.next_body() {}
        }
    });
    within(2.0, "the next client's ping", || daemon.connect().ping());
    assert!(kernel::peak_memory(daemon.pid()) < 64 * 1024);
}
