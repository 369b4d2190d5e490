//! Answers in parts are the same bytes as answers in one piece.

#![allow(clippy::unwrap_used, reason = "a test")]

use warden_protocol::Response;
use warden_protocol::messages::{InfoResponse, LinkResponse, RunResponse, StreamResponse};
use warden_protocol::output::{Kind, RunLike, stream_chunk};

/// Lengths at which the number of digits or of varint bytes of something changes, and their neighbours.
fn lengths() -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..20).collect();
    for edge in [1 << 7, 100, 1000, 1 << 14, 10_000, 1 << 21] {
        lengths.extend(edge - 24..edge + 3);
    }
    lengths
}

fn info() -> InfoResponse {
    InfoResponse { state: Some(b"active".to_vec()), job_ids: vec![1, 300], ..InfoResponse::default() }
}

fn whole(kind: Kind, exit_status: u32, stdout: &[u8], stderr: &[u8], info: Option<InfoResponse>) -> Response {
    let (exit_status, stdout, stderr) = (Some(exit_status), Some(stdout.to_vec()), Some(stderr.to_vec()));
    match kind {
        Kind::Link => LinkResponse { exit_status, stdout, stderr, info }.into(),
        Kind::Run => RunResponse { exit_status, stdout, stderr, info }.into(),
    }
}

fn compare(kind: Kind, exit_status: u32, stdout: &[u8], stderr: &[u8], info: Option<InfoResponse>) {
    let (stdout_len, stderr_len) = (stdout.len() as u64, stderr.len() as u64);
    let parts = RunLike { kind, exit_status, stdout_len, stderr_len, info: info.clone() }.encode().unwrap();
    let joined = [&parts.head, stdout, &parts.between, stderr, &parts.tail].concat();
    assert!(
        joined == whole(kind, exit_status, stdout, stderr, info).encode(),
        "{kind:?} {exit_status} {stdout_len} {stderr_len}"
    );
}

#[test]
fn outputs_of_every_length_are_encoded_alike() {
    let bytes: Vec<u8> =
        (0..(1 << 21) + 3).map(|at: u32| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    for length in lengths() {
        compare(Kind::Run, 0, &bytes[..length], b"", Some(info()));
        compare(Kind::Link, 255, b"x\r\n\0", &bytes[..length], None);
    }
    for (stdout, stderr) in [(127, 128), (16_383, 16_384), (100_000, 100_001)] {
        compare(Kind::Link, 1, &bytes[..stdout], &bytes[..stderr], Some(info()));
        compare(Kind::Run, 128, &bytes[..stderr], &bytes[..stdout], Some(InfoResponse::default()));
    }
}

#[test]
fn the_longest_answer_is_two_gibibytes_less_one() {
    let answer = |stdout_len, stderr_len| {
        RunLike { kind: Kind::Run, exit_status: 0, stdout_len, stderr_len, info: Some(info()) }.encode()
    };
    let frame = answer(1 << 30, 0).unwrap();
    let overhead = message_overhead(&frame.head, 1 << 30);
    let longest = i32::MAX as u64 - overhead;
    let head = answer(longest, 0).unwrap().head;
    assert!(head.starts_with(b"2147483647\r\n"), "{head:?}");
    assert!(answer(longest + 1, 0).is_err());
    assert!(answer(longest - 1, 2).is_err());
    let error = answer(u64::MAX, u64::MAX).unwrap_err().to_string();
    assert!(error.contains("use stream"), "{error}");
    assert_eq!(
        answer(1 << 31, 5).unwrap_err().to_string(),
        "the job's output of 2147483653 bytes is too long for one answer, use stream to read it"
    );
}

/// What a Message holds beside the output, bytes.
fn message_overhead(head: &[u8], output: u64) -> u64 {
    let line = head.split(|&byte| byte == b'\r').next().unwrap();
    std::str::from_utf8(line).unwrap().parse::<u64>().unwrap() - output
}

#[test]
fn chunks_of_every_length_are_encoded_alike() {
    let bytes: Vec<u8> = (0..(1 << 21) + 3).map(|at: u32| at.to_le_bytes()[0]).collect();
    for length in lengths() {
        for name in ["stdout", "stderr"] {
            let (head, tail) = stream_chunk(name, length as u64);
            let chunk = StreamResponse {
                name: Some(name.into()),
                data: Some(bytes[..length].to_vec()),
                ..StreamResponse::default()
            };
            assert!(
                [&head, &bytes[..length], &tail].concat() == Response::from(chunk).encode(),
                "{name} {length}"
            );
        }
    }
}
