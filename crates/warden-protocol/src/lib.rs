//! Warden's messages and framing: bytes in, typed requests out, no I/O.
