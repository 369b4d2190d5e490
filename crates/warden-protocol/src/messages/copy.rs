//! Messages about copies between the host and a container.

use crate::schema::schema;

schema! {
    /// Copies files from the host into a container.
    message CopyInRequest {
        /// The container.
        1 handle: required string,
        /// Path on the host; with a `/` at its end, the content of that directory.
        2 src_path: required string,
        /// Path in the container.
        3 dst_path: required string,
    }

    /// Says that they are copied.
    message CopyInResponse {}

    /// Copies files from a container to the host.
    message CopyOutRequest {
        /// The container.
        1 handle: required string,
        /// Path in the container; with a `/` at its end, the content of that directory.
        2 src_path: required string,
        /// Path on the host.
        3 dst_path: required string,
        /// Owner of the copies (`user` or `user:group`, names or numbers of the host); root when absent.
        4 owner: optional string,
    }

    /// Says that they are copied.
    message CopyOutResponse {}
}
