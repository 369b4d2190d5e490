//! What must hold for any bytes that come from iomux, or that it is sent; the fuzz target does the same.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use warden_iomux::message::{Event, Exit, Request};

/// Takes bytes as each message of iomux and as a job's end; panics when what was understood is not what is said again.
pub(crate) fn exercise(data: &[u8]) {
    repeat::<Request>(data);
    repeat::<Event>(data);
    repeat::<Exit>(data);
    if let Ok(exit) = serde_json::from_slice::<Exit>(data) {
        assert!(exit.cause.status() <= 255);
    }
}

fn repeat<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(data) else { return };
    let text = serde_json::to_vec(&message).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&text).expect("what was written can be read"), message);
}
