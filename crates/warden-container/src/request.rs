//! What a client asks of the domain.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use warden_init::message::Resource;
pub use warden_iomux::message::Direction;

/// A container to make.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// The client's name for it; its id when absent.
    pub handle: Option<Vec<u8>>,
    /// Its grace time; the configured one when absent.
    pub grace_time: Option<Duration>,
    /// An address in the /30 that it shall have, as text.
    pub network: Option<Vec<u8>>,
    /// A directory that replaces the configured image.
    pub rootfs: Option<Vec<u8>>,
    /// Host directories and files to show inside.
    pub binds: Vec<Bind>,
}

/// A host directory or file to show inside.
#[derive(Clone, Debug)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: Vec<u8>,
    /// Absolute path inside.
    pub destination: Vec<u8>,
    /// Whether the inside may write.
    pub writable: bool,
}

/// A script to run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What bash reads from its standard input.
    pub script: Vec<u8>,
    /// As the container's root instead of vcap.
    pub privileged: bool,
    /// Limits of this job; they replace the configured ones.
    pub rlimits: Vec<(Resource, u64)>,
    /// Drop the output instead of keeping it.
    pub discard_output: bool,
    /// Send each line of output to syslog under `warden.<tag>` too.
    pub log_tag: Option<Vec<u8>>,
}

/// Limits of a container's processor time; what is absent stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its share, relative to other containers, whose default is 1024.
    pub shares: Option<u64>,
    /// Microseconds of processor time in each 100,000, over all processors together; `u64::MAX` lifts the quota.
    pub quota: Option<u64>,
}

/// Limits of what a container stores; what is absent stays as it is, 0 lifts a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Space that may be passed for a grace time.
    pub soft: Option<Space>,
    /// Space that is never passed.
    pub hard: Option<Space>,
    /// Files that may be passed for a grace time.
    pub soft_inodes: Option<u64>,
    /// Files that are never passed.
    pub hard_inodes: Option<u64>,
}

/// An amount of space, in the unit in which a client gave it; it is kept in whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Bytes.
    Bytes(u64),
    /// Blocks of [`Space::BLOCK`] bytes.
    Blocks(u64),
}

impl Space {
    /// Bytes of a block.
    pub const BLOCK: u64 = 1024;
}

/// A limit of bandwidth, the same into a container and out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may go at once after a pause.
    pub burst: u64,
}

impl Bandwidth {
    /// What lifts a limit.
    pub(crate) const UNLIMITED: Self = Self { rate: u32::MAX as u64, burst: u32::MAX as u64 };
}

/// How to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stop {
    /// Answer at once, stop later.
    pub background: bool,
    /// KILL at once instead of TERM first.
    pub kill: bool,
}

/// Files to copy between the host and a container.
#[derive(Clone, Debug)]
pub struct Copy {
    /// From where to where.
    pub direction: Direction,
    /// What is copied; with "/" at its end, the content of that directory.
    pub source: Vec<u8>,
    /// Where it goes.
    pub target: Vec<u8>,
    /// Who owns the files on the host, for copies out: `user`, `user:group` or `:group`, names or numbers.
    pub owner: Option<Vec<u8>>,
}

/// A port of the host to forward into a container.
#[derive(Clone, Copy, Debug)]
pub struct NetIn {
    /// What is forwarded.
    pub protocol: Transport,
    /// The host's port; the next of the pool when absent.
    pub host_port: Option<u16>,
    /// The container's port; the host's when absent.
    pub container_port: Option<u16>,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the protocols'")]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];
}

/// Traffic to let out of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "crate::network::OutFields", try_from = "crate::network::OutFields")]
pub struct NetOut {
    /// An address, a network or a range, as text; any when absent.
    pub network: Option<Vec<u8>>,
    /// A port there; any when absent.
    pub port: Option<u32>,
    /// Ports there, as text; it goes before a port.
    pub port_range: Option<Vec<u8>>,
    /// The protocol.
    pub protocol: Protocol,
    /// ICMP type; -1 is any.
    pub icmp_type: Option<i32>,
    /// ICMP code; -1 is any.
    pub icmp_code: Option<i32>,
    /// Whether the kernel logs new connections.
    pub log: bool,
}

/// A protocol over IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the protocols'")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Icmp,
    /// Every one.
    All,
}
