//! Frames that arrive in pieces, damaged, or not at all.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use bytes::BytesMut;
use common::exercise::exercise;
use common::{frame, samples};
use proptest::prelude::*;
use proptest::sample::Index;
use warden_protocol::frame::{DEFAULT_LIMIT, Decoder, FrameError};

fn decode(bytes: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
    let mut buffer = BytesMut::from(bytes);
    Decoder::new(DEFAULT_LIMIT).decode(&mut buffer).map(|content| content.map(|content| content.to_vec()))
}

#[test]
fn frames_can_be_cut_anywhere() {
    for sample in samples() {
        let frame = sample.frame();
        for at in 0..frame.len() {
            let mut decoder = Decoder::new(DEFAULT_LIMIT);
            let mut buffer = BytesMut::from(&frame[..at]);
            assert_eq!(decoder.decode(&mut buffer), Ok(None), "{} bytes of {}", at, sample.name);
            assert_eq!(buffer.len(), at, "an incomplete frame stays in the buffer");
            buffer.extend_from_slice(&frame[at..]);
            buffer.extend_from_slice(b"4");
            assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap(), sample.content);
            assert_eq!(decoder.decode(&mut buffer), Ok(None));
            assert_eq!(buffer, &b"4"[..]);
        }
    }
}

#[test]
fn frames_can_follow_each_other_in_one_piece() {
    let samples = samples();
    let mut buffer =
        BytesMut::from(&samples.iter().flat_map(|sample| sample.frame()).collect::<Vec<u8>>()[..]);
    let mut decoder = Decoder::new(DEFAULT_LIMIT);
    for sample in samples {
        assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap(), sample.content);
    }
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert!(buffer.is_empty());
}

#[test]
fn an_empty_content_is_a_frame() {
    assert_eq!(decode(b"0\r\n\r\n"), Ok(Some(Vec::new())));
}

#[test]
fn wrong_lengths_are_shown() {
    let cases: &[(&[u8], &str)] = &[
        (b"abc\r\n", r#""abc""#),
        (b"x", r#""x""#),
        (b"-4\r\n", r#""-4""#),
        (b"+4\r\n", r#""+4""#),
        (b" 4\r\n", r#"" 4""#),
        (b"4 \r\n", r#""4 ""#),
        (b"0x4\r\n", r#""0x4""#),
        (b"1_0\r\n", r#""1_0""#),
        (b"012\r\n", r#""012\r\n""#),
        (b"00", r#""00""#),
        (b"00000000000000000000000000", r#""000000000000000000000000""#),
        (b"4.0\r\n", r#""4.0""#),
        (b"\r\n", r#""\r\n""#),
        (b"\n", r#""\n""#),
        (b"4\n\x08", r#""4\n\x08""#),
        (b"4\r\x08", r#""4\r\x08""#),
        (b"\xff\xfe", r#""\xff\xfe""#),
        ("٤\r\n".as_bytes(), r#""\xd9\xa4""#),
        (b"GET / HTTP/1.1 and so on and so on", r#""GET / HTTP/1.1 and so on""#),
    ];
    for (bytes, shown) in cases {
        let error = decode(bytes).unwrap_err().to_string();
        assert_eq!(error, format!("frame length is not a plain decimal number: {shown}"));
    }
}

#[test]
fn long_frames_are_refused_at_their_length() {
    let cases = [
        ("67108865\r\n", "67108865"),
        ("99999999\r\n", "99999999"),
        ("671088640", "671088640"),
        ("99999999999999999999999999999999999", "999999999999999999999999..."),
    ];
    for (bytes, shown) in cases {
        let error = decode(bytes.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, format!("frame of {shown} bytes is longer than the limit of 67108864 bytes"));
    }
    assert_eq!(decode(b"67108864\r\n"), Ok(None));
    assert_eq!(Decoder::new(3).decode(&mut BytesMut::from(&b"3\r\nabc\r\n"[..])).unwrap().unwrap(), "abc");
    assert!(Decoder::new(3).decode(&mut BytesMut::from(&b"4\r\n"[..])).is_err());
    assert_eq!(Decoder::new(usize::MAX).decode(&mut BytesMut::from(&b"9000000000\r\n"[..])), Ok(None));
    assert!(Decoder::new(usize::MAX).decode(&mut BytesMut::from(&b"18446744073709551615\r\n"[..])).is_err());
}

#[test]
fn what_follows_a_frame_must_be_its_end() {
    let error = decode(b"4\r\n\x08\x5b\x12\x00xx").unwrap_err().to_string();
    assert_eq!(error, "frame of 4 bytes is followed by \"xx\" instead of CRLF");
    assert!(decode(b"4\r\n\x08\x5b\x12\x00\n").is_err());
    assert!(decode(b"4\r\n\x08\x5b\x12\x00\r\r").is_err());
}

#[test]
fn announcing_a_length_takes_no_memory() {
    let mut buffer = BytesMut::from(&b"67108864\r\n"[..]);
    assert_eq!(Decoder::new(DEFAULT_LIMIT).decode(&mut buffer), Ok(None));
    assert!(buffer.capacity() < 1024);
}

#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/frames");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        exercise(&std::fs::read(entry.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen > 0, "{corpus} is empty");
}

/// A change of some bytes, at places relative to their number.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    Repeat(Index),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index| index.index(bytes.len() + 1).min(bytes.len().saturating_sub(1));
        match self {
            _ if bytes.is_empty() => {}
            Self::Set(index, byte) => {
                let at = place(index);
                bytes[at] = *byte;
            }
            Self::Insert(index, byte) => bytes.insert(place(index), *byte),
            Self::Remove(index) => {
                bytes.remove(place(index));
            }
            Self::Cut(index) => bytes.truncate(place(index)),
            Self::Repeat(index) => bytes.extend_from_within(place(index)..),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<Index>().prop_map(Damage::Remove),
        any::<Index>().prop_map(Damage::Cut),
        any::<Index>().prop_map(Damage::Repeat),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_frames_do_no_harm(which in any::<Index>(), damages in prop::collection::vec(damage(), 1..6)) {
        let samples = samples();
        let mut bytes = which.get(&samples).frame();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        exercise(&bytes);
    }

    #[test]
    fn damaged_messages_do_no_harm(which in any::<Index>(), damages in prop::collection::vec(damage(), 1..6)) {
        let samples = samples();
        let mut bytes = which.get(&samples).content.clone();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        exercise(&frame(&bytes));
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        exercise(&bytes);
        exercise(&frame(&bytes));
    }
}
