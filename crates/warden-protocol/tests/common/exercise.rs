//! What must hold for any bytes at all; the fuzz target does the same.

use bytes::BytesMut;
use warden_protocol::frame::{Decoder, FrameError};
use warden_protocol::{Request, Response};

/// How long a frame's content may be here, bytes.
const LIMIT: usize = 1 << 20;

/// Takes bytes as a stream of frames and as the content of one; panics when they are treated inconsistently.
pub fn exercise(data: &[u8]) {
    let whole = cut(data, data.len().max(1));
    assert_eq!(whole, cut(data, 1), "how the bytes arrive must not matter");
    for content in whole.0.iter().map(Vec::as_slice).chain([data]) {
        exercise_content(content);
    }
}

/// Cuts a stream that arrives in pieces into frames, up to the first error.
fn cut(data: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<FrameErrorKind>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in data.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(content)) => frames.push(content.to_vec()),
                Ok(None) => break,
                Err(error) => return (frames, Some(FrameErrorKind::of(&error))),
            }
        }
    }
    (frames, None)
}

/// An error without what it shows, which depends on how much has arrived.
#[derive(Debug, PartialEq)]
enum FrameErrorKind {
    NotDecimal,
    TooLong,
    Unterminated,
}

impl FrameErrorKind {
    fn of(error: &FrameError) -> Self {
        assert!(error.to_string().len() < 200, "{error}");
        match error {
            FrameError::NotDecimal(_) => Self::NotDecimal,
            FrameError::TooLong { .. } => Self::TooLong,
            FrameError::Unterminated { .. } => Self::Unterminated,
        }
    }
}

/// What can be decoded must survive encoding and decoding; what cannot must say why.
fn exercise_content(content: &[u8]) {
    match Request::decode(content) {
        Ok(request) => {
            assert_eq!(Request::decode(&content_of(&request.encode())).as_ref(), Ok(&request));
            let _ = (request.handle(), request.name());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match Response::decode(content) {
        Ok(response) => assert_eq!(Response::decode(&content_of(&response.encode())).as_ref(), Ok(&response)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn content_of(frame: &[u8]) -> Vec<u8> {
    let mut buffer = BytesMut::from(frame);
    let content = Decoder::new(usize::MAX).decode(&mut buffer).unwrap().unwrap();
    assert!(buffer.is_empty());
    content.to_vec()
}
