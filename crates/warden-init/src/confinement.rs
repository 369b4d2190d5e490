//! What the programs of a container may not do: which restrictions there are, as data, and how they are laid on.
//!
//! Most of it is laid on once, on the container's init, and inherited by every job: a job's start pays for one system call
//! (no_new_privs) and nothing else. [`capabilities`], [`paths`] and [`rules`] are the data; the init's last steps before it
//! serves apply them. docs/threat-model.md says what each is for.

use std::io;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use warden_linux::seccomp::{self, Instruction};
use warden_linux::{keyring, process};

pub mod capabilities;
pub mod filter;
mod numbers;
pub mod paths;
pub mod rules;

use capabilities::Capabilities;

/// Which restrictions a container has; all of them unless its spec says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Confinement {
    /// Privileged jobs have the capabilities of [`capabilities::DEFAULT`] and no others.
    pub capabilities: bool,
    /// Nothing that an unprivileged job starts gets a right that the job has not.
    pub no_new_privileges: bool,
    /// System calls are filtered.
    pub system_calls: bool,
    /// Paths of /proc and /sys that tell of the host are covered.
    pub masked_paths: bool,
    /// Paths of /proc that change the host are read-only.
    pub read_only_paths: bool,
    /// The container has a session keyring of its own.
    pub keyring: bool,
}

impl Confinement {
    /// Every restriction.
    pub const FULL: Self = Self::with_all(true);

    /// No restriction: for a container in which a wardend builds containers of its own.
    pub const NONE: Self = Self::with_all(false);

    const fn with_all(on: bool) -> Self {
        Self {
            capabilities: on,
            no_new_privileges: on,
            system_calls: on,
            masked_paths: on,
            read_only_paths: on,
            keyring: on,
        }
    }

    /// The capabilities that a program inside can have at most.
    pub fn bounding_set(&self) -> Capabilities {
        if self.capabilities { capabilities::DEFAULT } else { Capabilities::ALL }
    }

    /// Takes a new session keyring, and has the calls of this process and of all its children filtered.
    ///
    /// Needs CAP_SYS_ADMIN or no_new_privs.
    pub fn enter(&self) -> io::Result<()> {
        if self.keyring {
            // The host's would be there for every job to read: it came from whoever started the daemon.
            keyring::join_new_session()?;
        }
        if self.system_calls {
            match self.bounding_set() {
                capabilities::DEFAULT => seccomp::install(&FILTER)?,
                other => seccomp::install(&filter::compile(filter::NATIVE, other))?,
            }
        }
        Ok(())
    }

    /// What init itself lays on its jobs.
    pub fn privileges(&self) -> Privileges {
        Privileges { bounding_set: self.bounding_set(), new_privileges: !self.no_new_privileges }
    }
}

/// The filter of all containers but those in which a wardend builds its own.
static FILTER: LazyLock<Vec<Instruction>> =
    LazyLock::new(|| filter::compile(filter::NATIVE, capabilities::DEFAULT));

/// Makes what the containers of this process and of its copies have in common, so that it need not be made for each.
pub fn prepare() {
    LazyLock::force(&FILTER);
}

impl Default for Confinement {
    fn default() -> Self {
        Self::FULL
    }
}

/// What init itself lays on its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// The most that a program can have.
    bounding_set: Capabilities,
    /// Whether a program that an unprivileged job starts may have more than the job: `su`, `ping`.
    pub new_privileges: bool,
}

impl Privileges {
    /// Bounds what the programs that this process starts can have. The process itself keeps what it has: init reads the
    /// descriptors of its jobs to find who holds a job's pipes.
    pub fn bound(&self) -> io::Result<()> {
        process::bound_capabilities(self.bounding_set.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_on_unless_it_is_turned_off() {
        assert_eq!(serde_json::from_str::<Confinement>("{}").unwrap(), Confinement::FULL);
        let loose: Confinement = serde_json::from_str(r#"{"capabilities": false}"#).unwrap();
        assert_eq!(loose, Confinement { capabilities: false, ..Confinement::FULL });
        assert!(serde_json::from_str::<Confinement>(r#"{"capability": false}"#).is_err());
    }

    #[test]
    fn what_init_lays_on_its_jobs_is_what_the_spec_says() {
        let full = Privileges { bounding_set: capabilities::DEFAULT, new_privileges: false };
        assert_eq!(Confinement::FULL.privileges(), full);
        let loose = Confinement { no_new_privileges: false, ..Confinement::FULL };
        assert_eq!(loose.privileges(), Privileges { new_privileges: true, ..full });
        assert_eq!(Confinement::NONE.privileges().bounding_set, Capabilities::ALL);
    }
}
