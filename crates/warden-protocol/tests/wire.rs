//! The bytes on the wire, against samples of the original.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use common::{frame, notation, samples};
use warden_protocol::descriptor::{FieldDescriptor, Kind, Label, MessageDescriptor};
use warden_protocol::envelope::COMMANDS;
use warden_protocol::messages::{CreateRequest, ErrorResponse, NetOutRequest};
use warden_protocol::reflect::{Reflect, Scalar, missing};
use warden_protocol::{DecodeError, Request, Response};

#[test]
fn samples_decode_to_their_values_and_encode_to_their_bytes() {
    let samples = samples();
    assert_eq!(samples.len(), 69);
    for sample in samples {
        let (fields, name, bytes) = if sample.is_request() {
            let request = Request::decode(&sample.content).unwrap();
            (notation(request.message()), request.message().descriptor().name, request.encode())
        } else {
            let response = Response::decode(&sample.content).unwrap();
            (notation(response.message()), response.message().descriptor().name, response.encode())
        };
        assert_eq!((name, fields), (sample.name.as_str(), sample.fields.clone()));
        assert_eq!(bytes, sample.frame(), "{name} {}", sample.fields);
    }
}

#[test]
fn every_message_has_a_sample() {
    let names: Vec<String> = samples().into_iter().map(|sample| sample.name).collect();
    for command in COMMANDS {
        assert!(names.iter().any(|name| name == command.request.name), "{}", command.request.name);
        assert!(names.iter().any(|name| name == command.response.name), "{}", command.response.name);
    }
    assert_eq!(COMMANDS.len(), 19);
}

#[test]
fn an_empty_payload_is_written() {
    assert_eq!(Request::new("ping").unwrap().encode(), &b"4\r\n\x08\x5b\x12\x00\r\n"[..]);
}

/// Fills every field of a message but those at a path.
fn fill(message: &mut dyn Reflect, without: &str) {
    for field in message.descriptor().fields {
        if field.name != without {
            fill_field(message, field, without.strip_prefix(&format!("{}.", field.name)).unwrap_or(""));
        }
    }
}

fn fill_field(message: &mut dyn Reflect, field: &FieldDescriptor, without: &str) {
    let scalar = match field.kind {
        Kind::Message(_) => return fill(message.nested(field.number, 0).unwrap(), without),
        Kind::String => Scalar::Bytes(b"x".to_vec()),
        Kind::Uint32 | Kind::Uint64 => Scalar::Unsigned(1),
        Kind::Int32 | Kind::Enum(_) => Scalar::Signed(1),
        Kind::Bool | Kind::Flag => Scalar::Bool(true),
    };
    message.put(field.number, scalar).unwrap();
}

/// Lists the paths of all required fields.
fn required(message: &MessageDescriptor) -> Vec<String> {
    let mut paths = Vec::new();
    for field in message.fields {
        if field.label == Label::Required {
            paths.push(field.name.to_owned());
        }
        if let Kind::Message(nested) = field.kind {
            paths.extend(required(nested).iter().map(|path| format!("{}.{path}", field.name)));
        }
    }
    paths
}

#[test]
fn every_required_field_that_is_missing_is_named() {
    let mut seen = 0;
    for command in COMMANDS {
        for path in required(command.request) {
            let mut request = Request::new(command.name).unwrap();
            fill(request.message_mut(), &path);
            let encoded = request.encode();
            let content = content(&encoded).unwrap();
            let error = Request::decode(&content).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{}: missing required field '{path}'", command.request.name)
            );
            seen += 1;
        }
        let mut request = Request::new(command.name).unwrap();
        fill(request.message_mut(), "");
        assert_eq!(missing(request.message()), None);
        assert_eq!(Request::decode(&content(&request.encode()).unwrap()), Ok(request));
    }
    assert_eq!(seen, 29);
}

fn content(frame: &[u8]) -> Option<Vec<u8>> {
    let start = frame.windows(2).position(|pair| pair == b"\r\n")? + 2;
    Some(frame[start..frame.len() - 2].to_vec())
}

#[test]
fn a_response_without_a_required_field_is_refused() {
    let error = Response::decode(b"\x08\x15\x12\x00").unwrap_err();
    assert_eq!(error.to_string(), "SpawnResponse: missing required field 'job_id'");
}

#[test]
fn what_is_no_request_says_why() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "Message: missing required field 'type'"),
        (b"\x08\x5b", "Message: missing required field 'payload'"),
        (b"\x12\x00", "Message: missing required field 'type'"),
        (b"\x08\x4d\x12\x00", "unknown message type 77"),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x12\x00", "unknown message type -1"),
        (b"\x08\x01\x12\x00", "an ErrorResponse is not a request"),
        (
            b"\x08\x5b\x12\x05ab",
            "Message: failed to decode Protobuf message: Message.payload: buffer underflow",
        ),
        (b"\x0a\x00\x12\x00", "Message: failed to decode Protobuf message: Message.type: invalid wire type"),
        (
            b"\x08\x5b\x10\x00",
            "Message: failed to decode Protobuf message: Message.payload: invalid wire type",
        ),
        (
            b"\x08\x5d\x12\x02\x08\x01",
            "EchoRequest: failed to decode Protobuf message: EchoRequest.message: invalid",
        ),
        (b"\xff", "Message: failed to decode Protobuf message: invalid varint"),
    ];
    for (body, expected) in cases {
        let error = Request::decode(body).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error:?} is not {expected:?}");
    }
    assert_eq!(Response::decode(b"\x08\x4d\x12\x00"), Err(DecodeError::UnknownType(77)));
}

#[test]
fn unknown_fields_are_skipped() {
    // Of the message: a varint, eight bytes, four bytes, a string and a group; then the same of the envelope.
    let unknown = b"\xa0\x06\x01\xa1\x0612345678\xa5\x061234\xa2\x06\x02ab\xa3\x06\x08\x01\xa4\x06";
    let payload = [&unknown[..], b"\x0a\x02hi", unknown].concat();
    let body =
        [&unknown[..], &[0x08, 0x5d, 0x12, u8::try_from(payload.len()).unwrap()], &payload, unknown].concat();
    let Request::Echo(echo) = Request::decode(&body).unwrap() else { panic!("another request") };
    assert_eq!(echo.message.as_deref(), Some(&b"hi"[..]));
}

#[test]
fn the_last_of_a_field_counts() {
    let Request::Echo(echo) = Request::decode(b"\x08\x5b\x08\x5d\x12\x03\x0a\x01a\x12\x03\x0a\x01b").unwrap()
    else {
        panic!("another request")
    };
    assert_eq!(echo.message.as_deref(), Some(&b"b"[..]));
}

#[test]
fn packed_numbers_are_read_too() {
    let Response::Info(info) = Response::decode(b"\x08\x0e\x12\x06\xe2\x02\x03\x01\xac\x02").unwrap() else {
        panic!("another response")
    };
    assert_eq!(info.job_ids, [1, 300]);
}

#[test]
fn values_that_equal_the_default_are_written() {
    let request = Request::from(CreateRequest {
        grace_time: Some(0),
        handle: Some(Vec::new()),
        ..CreateRequest::default()
    });
    assert_eq!(request.encode(), frame(b"\x08\x0b\x12\x04\x10\x00\x1a\x00"));
}

#[test]
fn a_negative_number_is_ten_bytes_long() {
    let request = Request::from(NetOutRequest { icmp_type: Some(-1), ..NetOutRequest::default() });
    assert_eq!(request.encode(), frame(b"\x08\x20\x12\x0b\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
}

#[test]
fn declared_defaults_are_what_the_getters_return() {
    let Some(Request::Run(run)) = Request::new("run") else { panic!("another request") };
    assert!(!run.privileged() && !run.discard_output());
    let Some(Request::Stop(stop)) = Request::new("stop") else { panic!("another request") };
    assert!(!stop.background() && !stop.kill());
}

#[test]
fn a_request_names_the_container_that_must_exist() {
    for command in COMMANDS {
        let mut request = Request::new(command.name).unwrap();
        assert_eq!(request.handle(), None);
        fill(request.message_mut(), "");
        let without = ["create", "ping", "list", "echo"].contains(&command.name);
        assert_eq!(request.handle(), (!without).then_some(&b"x"[..]), "{}", command.name);
        assert_eq!(request.name(), command.name);
    }
}

#[test]
fn an_error_is_a_response() {
    let response = Response::error("unknown handle");
    let expected = ErrorResponse { message: Some(b"unknown handle".to_vec()), ..ErrorResponse::default() };
    assert_eq!(response, Response::Error(expected));
    assert_eq!(response.name(), "error");
}
