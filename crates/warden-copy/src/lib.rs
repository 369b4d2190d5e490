//! Moves a tree of files through a byte stream, trusting neither the tree nor the stream.
//!
//! One process sends what it finds at a path, another one receives it; each runs on its own side of a container's
//! border, and either side may be hostile. Everything is done relative to descriptors, without following a link that
//! was found in the tree; only regular files are opened; what arrives names single entries, never paths.
//!
//! The semantics are those of `rsync --recursive --perms --links`: permissions are kept, times and owners are not,
//! hard links become files, a source that ends in "/" means its content, devices and sockets are left out.

// What arrives here may be anything: no length, index or sum may be taken on trust.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod error;
pub mod receive;
pub mod record;
pub mod send;

use serde::{Deserialize, Serialize};

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Entries (files, directories, links) that were sent or received.
    pub entries: u64,
    /// Bytes of file content that were sent or received; holes do not count.
    pub bytes: u64,
    /// Entries left out, being neither a file, a directory nor a link.
    pub skipped: u64,
}

impl Totals {
    fn count_entries(&mut self) {
        self.entries = self.entries.saturating_add(1);
    }

    fn count_skipped(&mut self) {
        self.skipped = self.skipped.saturating_add(1);
    }

    fn count_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}
