//! The packets of each version, as they stand on the wire: a helper of one build meets daemons of another.
#![allow(clippy::unwrap_used, reason = "this is a test")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use warden_init::message::{MAX_PACKET, Reply, Request};
use warden_init::spec::Spec;

fn survives<T: DeserializeOwned + Serialize>(transcript: &str) {
    for line in transcript.lines() {
        let message: T = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), line);
        assert!(line.len() <= MAX_PACKET);
    }
}

#[test]
fn packets_of_version_1_are_read_and_written_as_ever() {
    survives::<Request>(include_str!("transcripts/v1/requests.jsonl"));
    survives::<Reply>(include_str!("transcripts/v1/replies.jsonl"));
}

#[test]
fn a_spec_of_each_version_is_read_as_ever() {
    let read = |text: &str| {
        let spec: Spec = serde_json::from_str(text).unwrap();
        assert!(warden_init::spec::VERSIONS.contains(&spec.version));
        spec
    };
    let second = read(include_str!("transcripts/v2/spec.json"));
    let written = serde_json::to_value(&second).unwrap();
    assert_eq!(serde_json::from_value::<Spec>(written).unwrap(), second);
    let first = read(include_str!("transcripts/v1/spec.json"));
    assert!(first.init.is_some());
    assert_eq!(Spec { version: 2, init: None, ..first }, second);
}

#[test]
fn the_example_is_a_spec() {
    let example: Spec = serde_json::from_str(include_str!("../../../examples/container.json")).unwrap();
    assert_eq!(example.version, warden_init::spec::VERSION);
}
