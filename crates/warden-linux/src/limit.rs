//! Resource limits of processes.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;

pub use libc::{
    RLIMIT_AS, RLIMIT_CORE, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_LOCKS, RLIMIT_MEMLOCK,
    RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_RSS, RLIMIT_RTPRIO, RLIMIT_SIGPENDING,
    RLIMIT_STACK,
};

/// One resource limit; `u64::MAX` stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// A number of setrlimit(2): one of this module's `RLIMIT_*`.
    pub resource: u32,
    /// What the process may use; it may raise this itself up to `hard`.
    pub soft: u64,
    /// The ceiling.
    pub hard: u64,
}

impl Limit {
    /// Sets it for this process, or, where raising the ceiling is refused or impossible, the nearest possible value;
    /// gives -1 with errno like a system call. Async-signal-safe.
    pub(crate) fn set_nearest(self) -> c_int {
        let wanted = libc::rlimit64 { rlim_cur: self.soft, rlim_max: self.hard };
        if set(self.resource, &wanted) == 0 {
            return 0;
        }
        let mut present = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes `present`, which lives through the call.
        if unsafe { libc::getrlimit64(self.resource, &raw mut present) } == -1 {
            return -1;
        }
        let hard = self.hard.min(present.rlim_max);
        set(self.resource, &libc::rlimit64 { rlim_cur: self.soft.min(hard), rlim_max: hard })
    }
}

fn set(resource: u32, limit: &libc::rlimit64) -> c_int {
    // SAFETY: the kernel reads `limit`, which lives through the call.
    unsafe { libc::setrlimit64(resource, std::ptr::from_ref(limit)) }
}

/// Raises the number of descriptors that this process may have to its ceiling.
pub fn raise_open_files() -> io::Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    Ok(rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?)
}
