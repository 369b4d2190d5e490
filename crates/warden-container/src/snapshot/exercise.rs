//! What must hold for any bytes as a snapshot: the fuzz target and the test of its corpus do the same.
#![allow(clippy::expect_used, unreachable_pub, reason = "it fails by panicking, and the fuzzer reaches it")]

use super::Snapshot;

/// Takes bytes as a snapshot; panics when what was understood is not what is said again.
pub fn exercise(data: &[u8]) {
    let Ok(snapshot) = Snapshot::decode(data) else { return };
    let text = snapshot.encode().expect("what was read can be written");
    assert_eq!(Snapshot::decode(&text).expect("what was written can be read"), snapshot);
}

#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/snapshot");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).expect(corpus) {
        exercise(&std::fs::read(entry.expect(corpus).path()).expect(corpus));
        seen += 1;
    }
    assert!(seen > 0, "{corpus} is empty");
}
