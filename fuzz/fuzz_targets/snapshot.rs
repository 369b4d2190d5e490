//! Any bytes, as a container's snapshot.
#![no_main]

use libfuzzer_sys::fuzz_target;

// A test of warden-container replays the corpus of this target.
fuzz_target!(|data: &[u8]| warden_container::fuzzing::snapshot(data));
