//! Messages about a container's life and state.

use crate::schema::schema;

schema! {
    /// Creates a container.
    message CreateRequest {
        /// Directories and files of the host to show inside.
        1 bind_mounts: repeated message BindMount,
        /// Seconds for which the container outlives the last connection that references it; the configured time when absent.
        2 grace_time: optional uint32,
        /// Name by which later requests mean the container; its id when absent.
        3 handle: optional string,
        /// IPv4 address in the /30 network that the container shall have; the next of the pool when absent.
        4 network: optional string,
        /// Directory on the host to use as the root file system; the configured image when absent.
        5 rootfs: optional string,
    }

    /// A directory or file of the host to show inside.
    message BindMount {
        /// Absolute path on the host.
        1 src_path: required string,
        /// Absolute path inside the container.
        2 dst_path: required string,
        /// Whether it can be written from inside.
        3 mode: required enum Mode,
    }

    /// Whether a bind mount can be written from inside.
    enum Mode "Mode" {
        /// It cannot.
        Ro "RO" = 0,
        /// It can.
        Rw "RW" = 1,
    }

    /// The container that was created.
    message CreateResponse {
        /// Its handle.
        1 handle: required string,
    }

    /// Stops all processes in a container; it can no longer run anything then.
    message StopRequest {
        /// The container.
        1 handle: required string,
        /// Answer at once, without waiting for the end of the processes.
        10 background: optional flag,
        /// Send KILL at once, instead of TERM first and KILL after 10 seconds.
        20 kill: optional flag,
    }

    /// Says that they are stopped.
    message StopResponse {}

    /// Stops a container and removes all that belongs to it.
    message DestroyRequest {
        /// The container.
        1 handle: required string,
    }

    /// Says that nothing is left of it.
    message DestroyResponse {}

    /// Tells the state of a container.
    message InfoRequest {
        /// The container.
        1 handle: required string,
    }

    /// The state of a container.
    message InfoResponse {
        /// `born`, `active`, `stopped` or `destroyed`.
        10 state: optional string,
        /// What happened to it, such as `out of memory`.
        20 events: repeated string,
        /// IPv4 address of the host's end of its network.
        30 host_ip: optional string,
        /// IPv4 address of the container.
        31 container_ip: optional string,
        /// Its directory on the host.
        32 container_path: optional string,
        /// IPv6 address of the host's end of its network, where it has one.
        33 host_ipv6: optional string,
        /// IPv6 address of the container, where it has one.
        34 container_ipv6: optional string,
        /// Its memory.
        40 memory_stat: optional message MemoryStat,
        /// Its processor time.
        41 cpu_stat: optional message CpuStat,
        /// What it stores.
        42 disk_stat: optional message DiskStat,
        /// Its limits of bandwidth.
        43 bandwidth_stat: optional message BandwidthStat,
        /// Its jobs that have not ended.
        44 job_ids: repeated uint64,
        /// How long its tasks have waited for what they needed, where the kernel measures it.
        50 pressure_stat: optional message PressureStat,
    }

    /// The memory of a container: numbers without `total_` are its own, those with it include cgroups below.
    message MemoryStat {
        /// Page cache, bytes.
        1 cache: optional uint64,
        /// Anonymous memory, bytes.
        2 rss: optional uint64,
        /// Mapped files, bytes.
        3 mapped_file: optional uint64,
        /// Pages charged, a count.
        4 pgpgin: optional uint64,
        /// Pages uncharged, a count.
        5 pgpgout: optional uint64,
        /// Swap in use, bytes.
        6 swap: optional uint64,
        /// Page faults, a count.
        7 pgfault: optional uint64,
        /// Page faults that read from a disk, a count.
        8 pgmajfault: optional uint64,
        /// Anonymous memory not used lately, bytes.
        9 inactive_anon: optional uint64,
        /// Anonymous memory used lately, bytes.
        10 active_anon: optional uint64,
        /// Files' pages not used lately, bytes.
        11 inactive_file: optional uint64,
        /// Files' pages used lately, bytes.
        12 active_file: optional uint64,
        /// Memory that cannot be reclaimed, bytes.
        13 unevictable: optional uint64,
        /// Limit of memory, bytes.
        14 hierarchical_memory_limit: optional uint64,
        /// Limit of memory and swap together, bytes.
        15 hierarchical_memsw_limit: optional uint64,
        /// Page cache, bytes.
        16 total_cache: optional uint64,
        /// Anonymous memory, bytes.
        17 total_rss: optional uint64,
        /// Mapped files, bytes.
        18 total_mapped_file: optional uint64,
        /// Pages charged, a count.
        19 total_pgpgin: optional uint64,
        /// Pages uncharged, a count.
        20 total_pgpgout: optional uint64,
        /// Swap in use, bytes.
        21 total_swap: optional uint64,
        /// Page faults, a count.
        22 total_pgfault: optional uint64,
        /// Page faults that read from a disk, a count.
        23 total_pgmajfault: optional uint64,
        /// Anonymous memory not used lately, bytes.
        24 total_inactive_anon: optional uint64,
        /// Anonymous memory used lately, bytes.
        25 total_active_anon: optional uint64,
        /// Files' pages not used lately, bytes.
        26 total_inactive_file: optional uint64,
        /// Files' pages used lately, bytes.
        27 total_active_file: optional uint64,
        /// Memory that cannot be reclaimed, bytes.
        28 total_unevictable: optional uint64,
    }

    /// The processor time of a container.
    message CpuStat {
        /// All of it, nanoseconds.
        1 usage: optional uint64,
        /// In programs, hundredths of a second.
        2 user: optional uint64,
        /// In the kernel, hundredths of a second.
        3 system: optional uint64,
    }

    /// What a container stores.
    message DiskStat {
        /// Its files' content, bytes.
        1 bytes_used: optional uint64,
        /// Its files, a count; absent where they are not counted.
        2 inodes_used: optional uint64,
        /// What counts and limits: ext4 or xfs (project quotas), or btrfs (quota groups).
        3 backend: optional string,
    }

    /// The limits of a container's bandwidth; 4294967295 is no limit.
    message BandwidthStat {
        /// Into the container, bytes per second.
        1 in_rate: optional uint64,
        /// Into the container at once, bytes.
        2 in_burst: optional uint64,
        /// Out of the container, bytes per second.
        3 out_rate: optional uint64,
        /// Out of the container at once, bytes.
        4 out_burst: optional uint64,
    }

    /// How long the tasks of a container have waited for each resource.
    message PressureStat {
        /// For a processor.
        1 cpu: optional message Pressure,
        /// For memory.
        2 memory: optional message Pressure,
        /// For a disk.
        3 io: optional message Pressure,
    }

    /// The waiting for one resource: while some task waited, and while all that had work to do did.
    message Pressure {
        /// Of the last 10 seconds, hundredths of a percent.
        1 some_avg10: optional uint64,
        /// Of the last minute, hundredths of a percent.
        2 some_avg60: optional uint64,
        /// Of the last 5 minutes, hundredths of a percent.
        3 some_avg300: optional uint64,
        /// Since the container was made, microseconds.
        4 some_total: optional uint64,
        /// Of the last 10 seconds, hundredths of a percent.
        5 full_avg10: optional uint64,
        /// Of the last minute, hundredths of a percent.
        6 full_avg60: optional uint64,
        /// Of the last 5 minutes, hundredths of a percent.
        7 full_avg300: optional uint64,
        /// Since the container was made, microseconds.
        8 full_total: optional uint64,
    }
}
