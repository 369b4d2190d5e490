//! Answers whose bytes lie in files: what is to be sent before, between and after them.
//!
//! The parts and the files' bytes together are what [`Response::encode`](crate::Response::encode) would have made, but
//! the output need not be in memory.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{self, WireType};

use crate::envelope::{message_len, put_head};
use crate::messages::InfoResponse;

/// The longest Message that protobuf allows, in bytes.
const MESSAGE_MAX: u64 = i32::MAX as u64;

/// Which of the two answers with a job's whole output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The answer to link.
    Link,
    /// The answer to run.
    Run,
}

/// An answer to link or run without its output.
#[derive(Clone, Debug)]
pub struct RunLike {
    /// Which of the two it is.
    pub kind: Kind,
    /// The job's exit status, 0 to 255.
    pub exit_status: u32,
    /// Length of the job's standard output, bytes.
    pub stdout_len: u64,
    /// Length of the job's standard error, bytes.
    pub stderr_len: u64,
    /// The container's state.
    pub info: Option<InfoResponse>,
}

/// What surrounds the bytes of standard output and standard error in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFrame {
    /// What comes first, up to the bytes of standard output.
    pub head: Bytes,
    /// What comes between standard output and standard error.
    pub between: Bytes,
    /// What comes after the bytes of standard error.
    pub tail: Bytes,
}

/// The output does not fit into a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job's output of {0} bytes is too long for one answer, use stream to read it")]
pub struct TooLong(
    /// Length of the output, bytes.
    pub u64,
);

impl RunLike {
    /// Encodes all but the output; fails when the answer would be longer than 2 GiB - 1.
    pub fn encode(&self) -> Result<OutputFrame, TooLong> {
        let mut before = BytesMut::new();
        encoding::uint32::encode(1, &self.exit_status, &mut before);
        put_length(&mut before, 2, self.stdout_len);
        let mut between = BytesMut::new();
        put_length(&mut between, 3, self.stderr_len);
        let mut tail = BytesMut::new();
        if let Some(info) = &self.info {
            encoding::message::encode(4, info, &mut tail);
        }

        let output = self.stdout_len.saturating_add(self.stderr_len);
        let fixed: u64 = [&before, &between, &tail].map(|part| part.len() as u64).iter().sum();
        let payload = output.saturating_add(fixed);
        if payload > MESSAGE_MAX || message_len(payload) > MESSAGE_MAX {
            return Err(TooLong(output));
        }
        tail.put_slice(b"\r\n");
        let mut head = BytesMut::new();
        put_head(&mut head, self.kind.number(), payload);
        head.put_slice(&before);
        Ok(OutputFrame { head: head.freeze(), between: between.freeze(), tail: tail.freeze() })
    }
}

impl Kind {
    fn number(self) -> i32 {
        match self {
            Self::Link => 22,
            Self::Run => 23,
        }
    }
}

/// Encodes what surrounds a chunk of `data_len` bytes of the stream called `name` (`stdout` or `stderr`).
pub fn stream_chunk(name: &str, data_len: u64) -> (Bytes, Bytes) {
    let mut fields = BytesMut::new();
    put_length(&mut fields, 1, name.len() as u64);
    fields.put_slice(name.as_bytes());
    put_length(&mut fields, 2, data_len);
    let mut head = BytesMut::new();
    put_head(&mut head, 24, data_len.saturating_add(fields.len() as u64));
    head.put_slice(&fields);
    (head.freeze(), Bytes::from_static(b"\r\n"))
}

/// Writes the key and the length of a string whose bytes follow.
fn put_length(buffer: &mut BytesMut, number: u32, length: u64) {
    encoding::encode_key(number, WireType::LengthDelimited, buffer);
    encoding::encode_varint(length, buffer);
}
