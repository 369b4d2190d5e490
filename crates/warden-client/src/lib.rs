//! Typed async client of a Warden server's socket.
