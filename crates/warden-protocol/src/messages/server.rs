//! Messages about the server as a whole.

use crate::schema::schema;

schema! {
    /// Says why a request failed; it can be the answer to every request.
    message ErrorResponse {
        /// The reason.
        2 message: optional string,
        /// Where in the server it happened; never set.
        3 backtrace: repeated string,
        /// More about it; never set.
        4 data: optional string,
    }

    /// Asks whether the server answers.
    message PingRequest {}

    /// Says that it does.
    message PingResponse {}

    /// Lists the containers in the order of their creation.
    message ListRequest {}

    /// The containers there are.
    message ListResponse {
        /// Their handles.
        1 handles: repeated string,
    }

    /// Sends a text back.
    message EchoRequest {
        /// The text, any bytes.
        1 message: required string,
    }

    /// The text that was sent.
    message EchoResponse {
        /// The same bytes.
        1 message: required string,
    }
}
