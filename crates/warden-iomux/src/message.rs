//! What iomux and its clients (wardend, iomux-link) say to each other over `run/iomux.sock`.
//!
//! One JSON value per packet of a SOCK_SEQPACKET socket; descriptors travel beside it. The first packet of each
//! side is `Hello`. The socket that iomux finds as its standard input at start speaks the same.

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
use warden_copy::Totals;
use warden_copy::error::Step as CopyStep;
use warden_copy::receive::Owner;
use warden_init::byte_string::ByteString;
use warden_init::message::{Process, SpawnStep};

/// Version that this code speaks, and writes to its files.
pub const VERSION: u32 = 1;

/// Versions of a peer or a file that this code understands: its own and the one before, for iomux outlives an update.
pub const VERSIONS: RangeInclusive<u32> = warden_init::version::spoken(VERSION);

/// The longest packet of either side, in bytes.
pub const MAX_PACKET: usize = 64 * 1024;

/// What a client asks of iomux.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first packet of a client.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// Starts a job. Descriptor: its stdin. The directory `jobs/<job>` is made by iomux.
    Spawn {
        /// The job's number.
        job: u32,
        /// What to start inside.
        process: Process,
        /// What happens to its output.
        output: Output,
    },
    /// Sends a signal to every process inside but wshd; [`Event::Idle`] follows once none is left and all jobs have ended.
    SignalAll {
        /// The signal's number.
        signal: i32,
    },
    /// Copies files between the host and the container. [`Event::CopyProgress`] and [`Event::CopyEnded`] follow.
    Copy(CopyOrder),
    /// Reads the spec again, gives the container its bind mounts, of which it must have none yet, and writes its files anew.
    /// For a container in which no job has run. [`Event::Furnished`] or [`Event::NotFurnished`] follows.
    Furnish,
    /// Kills a copy; it ends as one that failed.
    CancelCopy {
        /// The copy.
        copy: u32,
    },
    /// Ends the container: kills wshd and with it everything inside. [`Event::Gone`] follows.
    Kill,
}

/// Files to copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOrder {
    /// The copy's number, chosen by the client.
    pub copy: u32,
    /// From where to where.
    pub direction: Direction,
    /// What is copied: a path on the sending side; with "/" at its end, the content of that directory.
    pub source: ByteString,
    /// Where it goes: a path on the receiving side.
    pub target: ByteString,
    /// Who owns the files on the host, instead of the host's root; for copies out of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// From where to where a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the host into the container.
    In,
    /// From the container to the host.
    Out,
}

/// Which end of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// In the container.
    Inside,
    /// On the host.
    Outside,
}

/// Why a copy ended early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFailure {
    /// Where it happened.
    pub side: Side,
    /// What was being done; none: the process that did it was killed, or could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<CopyStep>,
    /// To which path.
    pub path: ByteString,
    /// The kernel's answer.
    pub errno: i32,
}

/// What happens to a job's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Bytes of stdout and stderr together that are kept; a job that writes more is killed.
    pub limit: u64,
    /// Whether the output is dropped instead of stored; the limit does not count then.
    pub discard: bool,
    /// Where each line is sent, beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Syslog>,
}

/// A receiver of log lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syslog {
    /// Lines are tagged `warden.<tag>`.
    pub tag: ByteString,
    /// A datagram socket; /dev/log where the configuration names none.
    pub socket: ByteString,
}

/// What iomux says to every client, unasked, in the order in which it happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first packet of iomux. The jobs' state follows as Ended and Output events, and then Ready.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// The container's init is in its namespaces, and builds the rest. Told once, to who is there at the time.
    Born {
        /// Its process id on the host.
        init_pid: i32,
    },
    /// The container stands, and what happened before was told.
    Ready {
        /// The process id of wshd on the host.
        init_pid: i32,
    },
    /// The container could not be built; iomux ends.
    SetupFailed {
        /// What was being done, in a few words.
        step: ByteString,
        /// What it was done to: a path, a device, a range of ids.
        object: ByteString,
        /// The kernel's answer.
        errno: i32,
    },
    /// The container has what [`Request::Furnish`] asked for.
    Furnished,
    /// It has not; what it has of it is not told.
    NotFurnished {
        /// What was being done, in a few words.
        step: ByteString,
        /// What it was done to.
        object: ByteString,
        /// The kernel's answer.
        errno: i32,
    },
    /// The job runs.
    Spawned {
        /// The job.
        job: u32,
    },
    /// The job could not be started; nothing of it is left.
    SpawnFailed {
        /// The job.
        job: u32,
        /// What was being done.
        step: Step,
        /// The kernel's answer.
        errno: i32,
    },
    /// How many bytes the job's files hold by now. Several steps may be told as one.
    Output {
        /// The job.
        job: u32,
        /// Length of `jobs/<job>/stdout`, in bytes.
        stdout: u64,
        /// Length of `jobs/<job>/stderr`, in bytes.
        stderr: u64,
    },
    /// The job ended, its files are complete, exit.json is written.
    Ended {
        /// The job.
        job: u32,
        /// How, and with how much output.
        exit: Exit,
    },
    /// How far a copy is: what has arrived.
    CopyProgress {
        /// The copy.
        copy: u32,
        /// What has arrived.
        totals: Totals,
    },
    /// A copy has ended, and nothing of it runs any more.
    CopyEnded {
        /// The copy.
        copy: u32,
        /// What has arrived.
        totals: Totals,
        /// Why it is not whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<CopyFailure>,
    },
    /// No process is left inside but wshd, and every job was told to have ended; once for each [`Request::SignalAll`],
    /// told to the client that asked.
    Idle,
    /// wshd is dead and reaped, every job was told to have ended; iomux ends.
    Gone,
}

/// What failed when a job was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Making the job's directory or files.
    Files,
    /// Something in wshd.
    Inside(SpawnStep),
    /// Asking wshd.
    Init,
}

/// The end of a job: the content of `exit.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How it ended.
    pub cause: ExitCause,
    /// Final length of the stdout file, in bytes.
    pub stdout: u64,
    /// Final length of the stderr file, in bytes.
    pub stderr: u64,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// Its process exited with this code.
    Code(u8),
    /// This signal killed its process.
    Signal(i32),
    /// It wrote more than its limit and was killed.
    OutputLimit,
    /// Its output could not be stored (this errno) and it was killed.
    OutputFailed(i32),
    /// The container's init died before the job's end was known.
    InitDied,
}

impl ExitCause {
    /// The status that a client of the protocol sees: the code, or 255 for every other end.
    pub fn status(self) -> u32 {
        match self {
            Self::Code(code) => u32::from(code),
            _ => 255,
        }
    }
}
