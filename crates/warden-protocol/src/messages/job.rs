//! Messages about the jobs of a container.

use super::container::InfoResponse;
use crate::schema::schema;

schema! {
    /// Starts a script in a container, and does not wait for it.
    message SpawnRequest {
        /// The container.
        1 handle: required string,
        /// What bash reads from its standard input.
        2 script: required string,
        /// Run as the container's root instead of the user vcap.
        3 privileged: optional flag,
        /// Resource limits of the script's processes; they replace the configured ones.
        4 rlimits: optional message ResourceLimits,
        /// Drop the output instead of keeping it.
        5 discard_output: optional flag,
        /// Send each line of output to syslog as well, under `warden.` and this tag.
        6 log_tag: optional string,
    }

    /// The job that was started.
    message SpawnResponse {
        /// Its number, by which link and stream mean it.
        1 job_id: required uint32,
    }

    /// Waits for the end of a job, and returns all that it wrote.
    message LinkRequest {
        /// The container.
        1 handle: required string,
        /// The job.
        2 job_id: required uint32,
    }

    /// How a job ended.
    message LinkResponse {
        /// Exit status, 0 to 255; 255 also when the job was killed or its status is unknown.
        1 exit_status: optional uint32,
        /// What it wrote to its standard output.
        2 stdout: optional string,
        /// What it wrote to its standard error.
        3 stderr: optional string,
        /// The container's state at the end of the job.
        4 info: optional message InfoResponse,
    }

    /// Runs a script in a container, waits for its end, and returns all that it wrote.
    message RunRequest {
        /// The container.
        1 handle: required string,
        /// What bash reads from its standard input.
        2 script: required string,
        /// Run as the container's root instead of the user vcap.
        3 privileged: optional flag,
        /// Resource limits of the script's processes; they replace the configured ones.
        4 rlimits: optional message ResourceLimits,
        /// Drop the output instead of keeping it.
        5 discard_output: optional flag,
        /// Send each line of output to syslog as well, under `warden.` and this tag.
        6 log_tag: optional string,
    }

    /// How the script ended.
    message RunResponse {
        /// Exit status, 0 to 255; 255 also when the job was killed or its status is unknown.
        1 exit_status: optional uint32,
        /// What it wrote to its standard output.
        2 stdout: optional string,
        /// What it wrote to its standard error.
        3 stderr: optional string,
        /// The container's state at the end of the job.
        4 info: optional message InfoResponse,
    }

    /// Returns a job's output from the first byte while it is written, then how the job ended.
    message StreamRequest {
        /// The container.
        1 handle: required string,
        /// The job.
        2 job_id: required uint32,
    }

    /// A piece of a job's output, or, with an exit status, the end of the stream.
    message StreamResponse {
        /// `stdout` or `stderr`; absent at the end.
        1 name: optional string,
        /// A piece of that output, never empty; absent at the end.
        2 data: optional string,
        /// Exit status, 0 to 255; it ends the stream.
        3 exit_status: optional uint32,
        /// The container's state at the end of the job.
        4 info: optional message InfoResponse,
    }

    /// Resource limits of a process, each its soft and its hard limit.
    message ResourceLimits {
        /// Address space, bytes.
        1 r#as: optional uint64,
        /// Core file, bytes.
        2 core: optional uint64,
        /// Processor time, seconds.
        3 cpu: optional uint64,
        /// Data segment, bytes.
        4 data: optional uint64,
        /// Largest file that can be written, bytes.
        5 fsize: optional uint64,
        /// File locks, a count.
        6 locks: optional uint64,
        /// Locked memory, bytes.
        7 memlock: optional uint64,
        /// POSIX message queues, bytes.
        8 msgqueue: optional uint64,
        /// Ceiling of the nice value, as 20 minus nice.
        9 nice: optional uint64,
        /// Open files, a count.
        10 nofile: optional uint64,
        /// Processes of the user, a count.
        11 nproc: optional uint64,
        /// Resident set, bytes; without effect on Linux.
        12 rss: optional uint64,
        /// Ceiling of the real-time priority.
        13 rtprio: optional uint64,
        /// Queued signals, a count.
        14 sigpending: optional uint64,
        /// Stack, bytes.
        15 stack: optional uint64,
    }
}
