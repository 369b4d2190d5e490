//! What the tests of the prompt share.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod server;
pub(crate) mod terminal;

use std::ffi::OsStr;
use std::path::PathBuf;

use tempfile::TempDir;
use warden_protocol::Response;
use warden_protocol::messages::*;

/// The program.
pub(crate) const WARDEN: &str = env!("CARGO_BIN_EXE_warden");

/// A directory with a home and a place for a socket.
pub(crate) struct World(TempDir);

impl World {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.path().join(name.as_ref())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("warden.sock")
    }
}

pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

pub(crate) fn piece(name: &str, data: &str) -> Response {
    StreamResponse { name: bytes(name), data: bytes(data), ..StreamResponse::default() }.into()
}

pub(crate) fn end(exit_status: u32) -> Response {
    StreamResponse { exit_status: Some(exit_status), ..StreamResponse::default() }.into()
}
