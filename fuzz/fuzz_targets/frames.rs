//! Any bytes, as a stream of frames and as the content of one.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The same function as in the tests of warden-protocol, which replay the corpus of this target.
#[path = "../../crates/warden-protocol/tests/common/exercise.rs"]
mod exercise;

fuzz_target!(|data: &[u8]| exercise::exercise(data));
