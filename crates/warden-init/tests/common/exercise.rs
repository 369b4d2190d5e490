//! What must hold for any bytes that come from wshd, or lie in the depot; the fuzz target does the same.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use warden_init::accounts;
use warden_init::message::{Reply, Request};
use warden_init::spec::Spec;

/// Takes bytes as each message of wshd, as a spec, and as a container's /etc/passwd; panics when what was understood
/// is not what is said again.
pub(crate) fn exercise(data: &[u8]) {
    repeat::<Request>(data);
    repeat::<Reply>(data);
    repeat::<Spec>(data);
    for name in [&b"vcap"[..], b"root", b""] {
        // Whoever is found, or nobody.
        let _ = accounts::find(data, name);
    }
}

fn repeat<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(data) else { return };
    let text = serde_json::to_vec(&message).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&text).expect("what was written can be read"), message);
}
