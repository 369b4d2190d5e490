//! Messages about a container's limits.

use crate::schema::schema;

schema! {
    /// Sets or reads a container's limit of memory.
    message LimitMemoryRequest {
        /// The container.
        1 handle: required string,
        /// New limit, bytes; it is only read when absent.
        2 limit_in_bytes: optional uint64,
    }

    /// The limit of memory.
    message LimitMemoryResponse {
        /// As the kernel keeps it, bytes.
        1 limit_in_bytes: optional uint64,
    }

    /// Sets or reads a container's limits of disk space; of several names for one limit the later one wins.
    message LimitDiskRequest {
        /// The container.
        1 handle: required string,
        /// Hard limit of space, blocks of 1024 bytes.
        10 block_limit: optional uint64,
        /// The same.
        11 block: optional uint64,
        /// Soft limit of space, blocks of 1024 bytes.
        12 block_soft: optional uint64,
        /// Hard limit of space, blocks of 1024 bytes.
        13 block_hard: optional uint64,
        /// Hard limit of files, a count.
        20 inode_limit: optional uint64,
        /// The same.
        21 inode: optional uint64,
        /// Soft limit of files, a count.
        22 inode_soft: optional uint64,
        /// Hard limit of files, a count.
        23 inode_hard: optional uint64,
        /// Hard limit of space, bytes.
        30 byte_limit: optional uint64,
        /// The same.
        31 byte: optional uint64,
        /// Soft limit of space, bytes.
        32 byte_soft: optional uint64,
        /// Hard limit of space, bytes.
        33 byte_hard: optional uint64,
    }

    /// The limits of disk space, under each of their names.
    message LimitDiskResponse {
        /// Hard limit of space, blocks of 1024 bytes.
        10 block_limit: optional uint64,
        /// The same.
        11 block: optional uint64,
        /// Soft limit of space, blocks of 1024 bytes.
        12 block_soft: optional uint64,
        /// Hard limit of space, blocks of 1024 bytes.
        13 block_hard: optional uint64,
        /// Hard limit of files, a count.
        20 inode_limit: optional uint64,
        /// The same.
        21 inode: optional uint64,
        /// Soft limit of files, a count.
        22 inode_soft: optional uint64,
        /// Hard limit of files, a count.
        23 inode_hard: optional uint64,
        /// Hard limit of space, bytes.
        30 byte_limit: optional uint64,
        /// The same.
        31 byte: optional uint64,
        /// Soft limit of space, bytes.
        32 byte_soft: optional uint64,
        /// Hard limit of space, bytes.
        33 byte_hard: optional uint64,
    }

    /// Sets a container's limits of bandwidth, one for each direction.
    message LimitBandwidthRequest {
        /// The container.
        1 handle: required string,
        /// Rate, bytes per second.
        2 rate: required uint64,
        /// Burst, bytes.
        3 burst: required uint64,
    }

    /// The limits of bandwidth.
    message LimitBandwidthResponse {
        /// Rate, bytes per second.
        1 rate: required uint64,
        /// Burst, bytes.
        2 burst: required uint64,
    }

    /// Sets or reads a container's share of processor time, and its quota.
    message LimitCpuRequest {
        /// The container.
        1 handle: required string,
        /// New share, relative to other containers, whose default is 1024; it is only read when absent.
        2 limit_in_shares: optional uint64,
        /// New quota, microseconds of processor time in each 100000, over all processors; 18446744073709551615 lifts it.
        3 quota_us: optional uint64,
    }

    /// The share of processor time.
    message LimitCpuResponse {
        /// As the kernel keeps it.
        1 limit_in_shares: optional uint64,
        /// The quota, in the same unit; absent when there is none.
        2 quota_us: optional uint64,
    }
}
