//! Harness of the acceptance tests: a real `wardend` of the test's own, its clients, and the kernel's view of what it does.
//!
//! The programs are those of `$WARDEN_DIST` (`make build` makes them, `make test` sets it). With `WARDEN_TEST_SOCKET`
//! the tests that need no daemon of their own run against the daemon that listens there.
//! Everything here fails by panicking: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness fails by panicking")]

pub mod attempt;
mod births;
mod config;
mod connection;
mod daemon;
pub mod disk;
pub mod files;
pub mod fuse;
pub mod image;
pub mod kernel;
pub mod programs;
mod random;
mod small_depot;
pub mod transfer;
mod undying;
mod wait;
pub mod world;
pub mod xfs;

pub use births::{Births, Midwife};
pub use config::{ALL_PRIVILEGES, Config, NOTHING_AHEAD};
pub use connection::{Connection, Output, Streamed};
pub use daemon::Daemon;
pub use random::Random;
pub use small_depot::SmallDepot;
pub use undying::Undying;
pub use wait::{crowd, eventually, within};
