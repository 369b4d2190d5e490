//! What `info` tells of a container.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::state::State;

/// A container at one moment.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its state.
    pub state: State,
    /// What happened to it, in order: texts that clients show to their users.
    pub events: Vec<String>,
    /// The host's end of its network.
    pub host_ip: Ipv4Addr,
    /// Its own end.
    pub container_ip: Ipv4Addr,
    /// Both ends in IPv6, the host's first, where it has that.
    pub ipv6: Option<(Ipv6Addr, Ipv6Addr)>,
    /// Its directory in the depot.
    pub path: PathBuf,
    /// Its memory, where the kernel tells.
    pub memory: Option<MemoryStat>,
    /// Its CPU time, where the kernel tells.
    pub cpu: Option<CpuStat>,
    /// What it stores, where the depot's file system counts it.
    pub disk: Option<DiskStat>,
    /// How long its tasks have waited for what they needed, where the kernel tells.
    pub pressure: Option<PressureStat>,
    /// Its limits of bandwidth.
    pub bandwidth: BandwidthStat,
    /// Its running jobs.
    pub jobs: Vec<u32>,
}

/// Memory, in bytes (pgpgin, pgpgout, pgfault, pgmajfault: in events), named as in cgroup version 1's memory.stat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the kernel's; absent where the kernel does not tell")]
pub struct MemoryStat {
    pub cache: Option<u64>,
    pub rss: Option<u64>,
    pub mapped_file: Option<u64>,
    pub pgpgin: Option<u64>,
    pub pgpgout: Option<u64>,
    pub swap: Option<u64>,
    pub pgfault: Option<u64>,
    pub pgmajfault: Option<u64>,
    pub inactive_anon: Option<u64>,
    pub active_anon: Option<u64>,
    pub inactive_file: Option<u64>,
    pub active_file: Option<u64>,
    pub unevictable: Option<u64>,
    pub hierarchical_memory_limit: Option<u64>,
    pub hierarchical_memsw_limit: Option<u64>,
    pub total_cache: Option<u64>,
    pub total_rss: Option<u64>,
    pub total_mapped_file: Option<u64>,
    pub total_pgpgin: Option<u64>,
    pub total_pgpgout: Option<u64>,
    pub total_swap: Option<u64>,
    pub total_pgfault: Option<u64>,
    pub total_pgmajfault: Option<u64>,
    pub total_inactive_anon: Option<u64>,
    pub total_active_anon: Option<u64>,
    pub total_inactive_file: Option<u64>,
    pub total_active_file: Option<u64>,
    pub total_unevictable: Option<u64>,
}

/// CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStat {
    /// All of it, in nanoseconds.
    pub usage: Option<u64>,
    /// In user mode, in USER_HZ (hundredths of a second).
    pub user: Option<u64>,
    /// In the kernel, in USER_HZ (hundredths of a second).
    pub system: Option<u64>,
}

/// What a container stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskStat {
    /// Bytes.
    pub bytes_used: u64,
    /// Files, where they are counted.
    pub inodes_used: Option<u64>,
    /// What counts and limits.
    pub backend: &'static str,
}

/// Limits of bandwidth: 4294967295 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandwidthStat {
    /// Towards the container, bytes per second.
    pub in_rate: u64,
    /// Towards the container at once, bytes.
    pub in_burst: u64,
    /// From the container, bytes per second.
    pub out_rate: u64,
    /// From the container at once, bytes.
    pub out_burst: u64,
}

impl Default for BandwidthStat {
    fn default() -> Self {
        let none = u32::MAX.into();
        Self { in_rate: none, in_burst: none, out_rate: none, out_burst: none }
    }
}

/// How long the tasks of a container have waited, for each resource that the kernel measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PressureStat {
    /// For a processor.
    pub cpu: Option<Pressure>,
    /// For memory.
    pub memory: Option<Pressure>,
    /// For a disk.
    pub io: Option<Pressure>,
}

/// The waiting for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Some task waited.
    pub some: Option<Stall>,
    /// All that had work to do waited.
    pub full: Option<Stall>,
}

/// A part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Of the last 10 seconds, in hundredths of a percent.
    pub avg10: u64,
    /// Of the last minute, in hundredths of a percent.
    pub avg60: u64,
    /// Of the last 5 minutes, in hundredths of a percent.
    pub avg300: u64,
    /// Since it was made, in microseconds.
    pub total: u64,
}
