//! The packets of each version, as they stand on the wire: a helper of one build meets daemons of another.
#![allow(clippy::unwrap_used, reason = "this is a test")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use warden_iomux::file::{self, End, Order};
use warden_iomux::message::{Event, Request};

fn survives<T: DeserializeOwned + Serialize>(transcript: &str) {
    for line in transcript.lines() {
        let message: T = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), line);
    }
}

#[test]
fn packets_of_version_1_are_read_and_written_as_ever() {
    survives::<Request>(include_str!("transcripts/v1/requests.jsonl"));
    survives::<Event>(include_str!("transcripts/v1/events.jsonl"));
}

#[test]
fn files_of_version_1_are_read_and_written_as_ever() {
    for line in include_str!("transcripts/v1/exit.jsonl").lines() {
        let end: End = file::decode(line.as_bytes()).unwrap();
        assert_eq!(file::encode(&end).unwrap(), line.as_bytes());
    }
    for line in include_str!("transcripts/v1/job.jsonl").lines() {
        let order: Order = file::decode(line.as_bytes()).unwrap();
        assert_eq!(file::encode(&order).unwrap(), line.as_bytes());
    }
}
