//! What wshd and its clients (iomux, wsh) say to each other over `run/wshd.sock`.
//!
//! One JSON value per packet of a SOCK_SEQPACKET socket; descriptors travel beside it. The first packet of each
//! side is `Hello`. A failure crosses as a step and an errno, never as a sentence.

// What arrives here may be anything: no length, index or sum may be taken on trust.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::byte_string::ByteString;

/// Version that this code speaks.
pub const VERSION: u32 = 1;

/// Versions of a peer that this code talks to: its own and the one before, for helpers outlive an update.
pub const VERSIONS: RangeInclusive<u32> = crate::version::spoken(VERSION);

/// The longest packet of either side, in bytes.
pub const MAX_PACKET: usize = 64 * 1024;

/// What a client asks of wshd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first packet of a client.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// Starts a process. Descriptors: its stdin; with `outputs_given` its stdout and stderr too.
    Spawn {
        /// The job's number, chosen by the client, unique in this container.
        job: u32,
        /// What to start.
        process: Process,
        /// Whether the client sends stdout and stderr; else wshd makes two pipes and answers with their read ends.
        outputs_given: bool,
    },
    /// Starts a process that is this client's alone: no other hears of it, and when the client is gone it is hung up
    /// (SIGHUP) and forgotten. Descriptors: its stdin, stdout and stderr; none with a terminal.
    SpawnAttached {
        /// The job's number, chosen by the client, unique in this container; from 2^31 on, which the daemon never reaches.
        job: u32,
        /// What to start.
        process: Process,
        /// The terminal that it gets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        terminal: Option<Terminal>,
    },
    /// Sends a signal to every process of the container but wshd; [`Reply::Idle`] follows once none is left.
    SignalAll {
        /// The signal's number.
        signal: i32,
    },
    /// Kills the processes of one job: its session, its descendants, and who holds its pipes.
    KillJob {
        /// The job.
        job: u32,
    },
    /// Says that a job's exit status is safe with the client: wshd forgets it and closes its pipes.
    Release {
        /// The job.
        job: u32,
    },
}

/// What wshd answers, and what it says unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The first packet of wshd.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// Everything that happened before the client's Hello was told to it. What it has asked is answered behind this.
    Told,
    /// The process runs. Descriptors: the read ends of its stdout and stderr, unless they were given; with a terminal, its
    /// master side alone.
    Spawned {
        /// The job.
        job: u32,
        /// Its process id, inside.
        pid: i32,
    },
    /// The process could not be started.
    SpawnFailed {
        /// The job.
        job: u32,
        /// What was being done.
        step: SpawnStep,
        /// The kernel's answer.
        errno: i32,
    },
    /// The job's process ended; its pipes may still hold output.
    Exited {
        /// The job.
        job: u32,
        /// How.
        status: WaitStatus,
    },
    /// No process is left but wshd; sent once for each [`Request::SignalAll`].
    Idle,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal killed it.
    Signal(i32),
}

/// A program to run inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Path of the program, which it also gets as its name. A name without "/" is looked for in the directories of PATH;
    /// an empty one stands for the user's login shell, as a login shell.
    pub program: ByteString,
    /// Its further arguments.
    #[serde(default)]
    pub arguments: Vec<ByteString>,
    /// The user's name, looked up in the container's own /etc/passwd.
    pub user: ByteString,
    /// The value of LANG.
    pub lang: ByteString,
    /// Limits that replace those of the default table; each sets the soft and the hard limit.
    #[serde(default)]
    pub rlimits: Vec<(Resource, u64)>,
}

/// A terminal of the container's own, to be made for a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The value of TERM.
    pub kind: ByteString,
    /// Its lines.
    pub rows: u16,
    /// The characters of a line.
    pub columns: u16,
}

/// A resource of setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of setrlimit(2)")]
pub enum Resource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Sigpending,
    Stack,
}

/// What wshd was doing when a process could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpawnStep {
    /// The request came without its descriptors, or its job is known already.
    Request,
    /// Looking the user up in /etc/passwd (ENOENT: no such user).
    User,
    /// Making the output pipes, or the terminal.
    Pipe,
    /// Making its process.
    Fork,
    /// Setting a resource limit.
    Rlimit,
    /// Setting the groups and ids.
    Credentials,
    /// Entering the home directory.
    Directory,
    /// execve of the program.
    Exec,
}
