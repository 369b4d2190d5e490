//! Any bytes, as what wshd says and hears, as a spec, and as a file of users.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The same function as in the tests of warden-init, which replay the corpus of this target.
#[path = "../../crates/warden-init/tests/common/exercise.rs"]
mod exercise;

fuzz_target!(|data: &[u8]| exercise::exercise(data));
