//! Why the content of a frame cannot be used.

/// Why the content of a frame is not a message of the protocol; the text is fit for the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not what protobuf makes of the message.
    #[error("{message}: {reason}")]
    Malformed {
        /// The message's name.
        message: &'static str,
        /// The field and what is wrong with it.
        reason: prost::DecodeError,
    },
    /// A field that the message must have is not there.
    #[error("{message}: missing required field '{field}'")]
    MissingField {
        /// The message's name.
        message: &'static str,
        /// The field, with the fields around it: `bind_mounts.dst_path`.
        field: String,
    },
    /// No message has this type number.
    #[error("unknown message type {0}")]
    UnknownType(i32),
    /// The type number of the answer that only a server sends.
    #[error("an ErrorResponse is not a request")]
    ErrorAsRequest,
}
