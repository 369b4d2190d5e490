//! The life of a container.
//!
//! ```text
//!            create             stop, wshd died         destroy
//!   (born) ---------> (active) -----------------> (stopped) ------> (destroyed)
//!      |                  |                                             ^
//!      +--- failure ------+------------------ destroy -----------------+
//! ```

use std::fmt;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Being created; no client knows it yet.
    Born,
    /// Jobs can be started.
    Active,
    /// Stopped, or being stopped: no job can be started any more.
    Stopped,
    /// Gone, or going.
    Destroyed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Born => "born",
            Self::Active => "active",
            Self::Stopped => "stopped",
            Self::Destroyed => "destroyed",
        })
    }
}
