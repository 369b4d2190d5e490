//! Replays what the fuzz target `iomux` has been fed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "common/exercise.rs"]
mod exercise;

#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/iomux");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        exercise::exercise(&std::fs::read(entry.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen > 0, "{corpus} is empty");
}
