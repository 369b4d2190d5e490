//! Which state admits which request: a pure function, with the original's answers.

use crate::error::Error;
use crate::state::State;

/// A request on a container, as far as admission is concerned. `destroy` is admitted in every state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `info`.
    Info,
    /// `spawn`, `run`.
    Spawn,
    /// `link`, `stream`.
    Link,
    /// `stop`.
    Stop,
    /// `copy_in`.
    CopyIn,
    /// `copy_out`.
    CopyOut,
    /// `limit_memory`, `limit_cpu`, `limit_disk`.
    Limit,
    /// `net_in`.
    NetIn,
    /// `net_out`.
    NetOut,
}

impl Operation {
    fn allowed(self) -> &'static [State] {
        match self {
            Self::Spawn | Self::CopyIn | Self::NetIn | Self::NetOut => &[State::Active],
            Self::Info | Self::Link | Self::Stop | Self::CopyOut | Self::Limit => {
                &[State::Active, State::Stopped]
            }
        }
    }
}

/// Admits the operation, or refuses it with the states in which it would be admitted.
pub(crate) fn admit(current: State, operation: Operation) -> Result<(), Error> {
    let allowed = operation.allowed();
    if allowed.contains(&current) { Ok(()) } else { Err(Error::State { allowed, current }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_operation() {
        use Operation::{Info, Link, Spawn, Stop};
        let cases = [
            (State::Born, Spawn, "Container state must be one of 'active', current state is 'born'"),
            (State::Stopped, Spawn, "Container state must be one of 'active', current state is 'stopped'"),
            (
                State::Destroyed,
                Spawn,
                "Container state must be one of 'active', current state is 'destroyed'",
            ),
            (State::Born, Info, "Container state must be one of 'active, stopped', current state is 'born'"),
            (
                State::Destroyed,
                Link,
                "Container state must be one of 'active, stopped', current state is 'destroyed'",
            ),
            (
                State::Destroyed,
                Stop,
                "Container state must be one of 'active, stopped', current state is 'destroyed'",
            ),
        ];
        for (state, operation, text) in cases {
            assert_eq!(admit(state, operation).unwrap_err().to_string(), text);
        }
        for operation in [Info, Link, Stop] {
            assert!(admit(State::Active, operation).is_ok() && admit(State::Stopped, operation).is_ok());
        }
        assert!(admit(State::Active, Spawn).is_ok());
    }
}
