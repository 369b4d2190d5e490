//! Warden's messages and framing: bytes in, typed requests out, no I/O.
//!
//! A frame is `<decimal length>\r\n<Message>\r\n`, where the Message names the type of its payload. [`frame`] cuts a
//! byte stream into frames; [`Request`] and [`Response`] are what the frames hold; [`output`] encodes answers whose
//! bytes lie in files. [`descriptor`] and [`reflect`] describe the messages to programs, such as a command line.

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

pub mod descriptor;
pub mod envelope;
pub mod error;
pub mod frame;
pub mod messages;
pub mod output;
pub mod reflect;
mod schema;

pub use envelope::{Command, Request, Response};
pub use error::DecodeError;
