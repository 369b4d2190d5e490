//! Any text, as a configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The same function as in the tests of warden-server, which replay the corpus of this target.
#[path = "../../crates/warden-server/tests/common/exercise.rs"]
mod exercise;

fuzz_target!(|data: &[u8]| exercise::exercise(data));
