//! Any bytes, as what iomux says and hears, and as the end of a job.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The same function as in the tests of warden-iomux, which replay the corpus of this target.
#[path = "../../crates/warden-iomux/tests/common/exercise.rs"]
mod exercise;

fuzz_target!(|data: &[u8]| exercise::exercise(data));
