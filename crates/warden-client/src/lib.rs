//! Typed async client of a Warden server's socket.
//!
//! A [`Client`] is one connection. Its requests are answered one at a time and in order; for several at once, open
//! several connections. A server destroys a container some time (its grace time) after the last connection that
//! referenced it was closed, so keep one open for as long as the containers shall live.
//!
//! ```no_run
//! # async fn example() -> Result<(), warden_client::Error> {
//! use warden_client::Client;
//!
//! let mut client = Client::connect("/tmp/warden.sock").await?;
//! let handle = client.create().await?;
//! let answer = client.run(&handle, "echo hello").await?;
//! assert_eq!(answer.exit_status, Some(0));
//! assert_eq!(answer.stdout.as_deref(), Some(&b"hello\n"[..]));
//! client.destroy(&handle).await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod stream;

pub use client::Client;
pub use error::Error;
pub use stream::Stream;
pub use warden_protocol as protocol;
