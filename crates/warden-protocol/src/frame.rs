//! Cutting a stream of bytes into frames: `<decimal length>\r\n<that many bytes>\r\n`.

use bytes::{Buf, Bytes, BytesMut};

/// How long the content of a request may be unless it is configured: 64 MiB.
pub const DEFAULT_LIMIT: usize = 64 << 20;

/// How much of a wrong length an error shows.
const SHOWN: usize = 24;

/// Why a stream of bytes cannot be cut into frames; nothing behind the error can be trusted to be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is not written as a plain decimal number followed by CRLF.
    #[error("frame length is not a plain decimal number: \"{0}\"")]
    NotDecimal(String),
    /// The frame is longer than allowed.
    #[error("frame of {length} bytes is longer than the limit of {limit} bytes")]
    TooLong {
        /// The length as it was announced, or the first digits of it.
        length: String,
        /// The longest content allowed, in bytes.
        limit: usize,
    },
    /// The content is not followed by CRLF.
    #[error("frame of {length} bytes is followed by \"{found}\" instead of CRLF")]
    Unterminated {
        /// The length as it was announced.
        length: usize,
        /// What is there instead.
        found: String,
    },
}

/// Cuts frames off a buffer that grows as bytes arrive.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    header: Option<Header>,
}

/// A length line that was read but is still in the buffer.
#[derive(Clone, Copy, Debug)]
struct Header {
    /// Bytes of the line, with its CRLF.
    line: usize,
    /// Bytes of the content.
    content: usize,
}

impl Decoder {
    /// Makes a decoder that refuses frames with more than `limit` bytes of content.
    pub fn new(limit: usize) -> Self {
        // With the CRLF behind it, the longest content must have a length that can be counted.
        Self { limit: limit.min(usize::MAX / 2), header: None }
    }

    /// Takes the next frame's content off the buffer, or nothing while it is incomplete; fails when the bytes are no
    /// frame or a too long one.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => match self.read_header(buffer)? {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        self.header = Some(header);
        // The limit of `new` keeps the sum in range.
        let end = header.line.saturating_add(header.content);
        let behind = buffer.get(end..).unwrap_or_default();
        let terminator = behind.get(..2).unwrap_or(behind);
        if !b"\r\n".starts_with(terminator) {
            return Err(FrameError::Unterminated { length: header.content, found: escape(terminator) });
        }
        if terminator.len() < 2 {
            return Ok(None);
        }
        self.header = None;
        buffer.advance(header.line);
        let content = buffer.split_to(header.content).freeze();
        buffer.advance(2);
        Ok(Some(content))
    }

    /// The length of the content, in bytes, of the frame that has begun to arrive and is not whole yet.
    pub fn announced(&self) -> Option<usize> {
        self.header.map(|header| header.content)
    }

    /// Reads the length line at the start of the buffer; wrong bytes are refused as soon as they arrive.
    fn read_header(&self, buffer: &[u8]) -> Result<Option<Header>, FrameError> {
        let digits = buffer.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = buffer.split_at(digits);
        // A zero in front is wrong at the second digit, so it comes before the number of digits: what is wrong must not
        // depend on how the bytes arrive.
        if digits > 1 && number.starts_with(b"0") {
            return Err(FrameError::NotDecimal(escape(first_line(buffer))));
        }
        if digits > self.limit.to_string().len() {
            return Err(self.too_long(number));
        }
        let terminated = rest.starts_with(b"\r\n");
        if !(terminated || b"\r\n".starts_with(rest)) || (digits == 0 && !rest.is_empty()) {
            return Err(FrameError::NotDecimal(escape(first_line(buffer))));
        }
        if !terminated {
            return Ok(None);
        }
        let content = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        match content {
            Some(content) if content <= self.limit => {
                Ok(Some(Header { line: digits.saturating_add(2), content }))
            }
            _ => Err(self.too_long(number)),
        }
    }

    fn too_long(&self, number: &[u8]) -> FrameError {
        let shown = number.get(..SHOWN).unwrap_or(number);
        let more = if number.len() > SHOWN { "..." } else { "" };
        FrameError::TooLong { length: escape(shown) + more, limit: self.limit }
    }
}

/// The bytes before the first CR or LF, but not many.
fn first_line(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    // Of a length of digits alone it is the line's end that is wrong, so show that too.
    let digits = bytes.iter().take(end).all(u8::is_ascii_digit);
    let end = if digits { end.saturating_add(2) } else { end };
    bytes.get(..end.min(SHOWN)).or_else(|| bytes.get(..SHOWN)).unwrap_or(bytes)
}

fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
