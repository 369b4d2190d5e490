//! A process that does nothing but hold new namespaces, until somebody else has them open. It borrows the memory of its maker,
//! which goes on meanwhile: to make one costs no copy of that memory, and to end it nothing either.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use crate::process::{self, Namespaces};

/// Bytes of its stack, on which there is little.
const STACK: usize = 16 * 1024;

/// Such a process; killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Bystander {
    pid: i32,
    pidfd: OwnedFd,
    /// Its own as long as it lives.
    _stack: Vec<u128>,
}

impl Bystander {
    /// Makes one, which ends with the thread that makes it; new process ids are not for it.
    pub fn new(namespaces: Namespaces) -> io::Result<Self> {
        let mut pidfd: RawFd = -1;
        let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
        let maker = usize::try_from(process::id()).unwrap_or_default();
        let flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD | namespaces.bits() as c_int;
        // No handler of this process may run there, on the memory of both.
        let blocked = crate::signal::block_all()?;
        // SAFETY: the stack is the child's alone until it is reaped, which `drop` awaits before it frees it, and its end is
        // aligned as its element; all signals are blocked, so no handler runs in the child; `stand_by` makes plain system
        // calls, none of which allocates, locks, unwinds, or sets errno, which the two share; the kernel writes `pidfd`
        // before clone returns.
        let pid = unsafe {
            let top = stack.as_mut_ptr().add(stack.capacity()).cast::<c_void>();
            libc::clone(stand_by, top, flags, std::ptr::without_provenance_mut(maker), &raw mut pidfd)
        };
        let error = io::Error::last_os_error();
        drop(blocked);
        if pid == -1 {
            return Err(error);
        }
        // SAFETY: the kernel stored a new descriptor, close-on-exec, that nothing else owns.
        Ok(Self { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, _stack: stack })
    }

    /// Its process id, as its maker sees it.
    pub fn id(&self) -> i32 {
        self.pid
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // Neither fails for a child that nobody else reaps.
        let _ = process::kill_by_pidfd(self.pidfd.as_fd());
        let _ = process::wait(self.pidfd.as_fd());
    }
}

/// The process's whole life.
extern "C" fn stand_by(maker: *mut c_void) -> c_int {
    loop {
        // SAFETY: system calls that touch no memory. The first never fails, and the last ends only by a signal that kills.
        unsafe {
            libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            // The maker may have died before the kernel was asked to tell.
            if libc::syscall(libc::SYS_getppid) as usize != maker.addr() {
                return 1;
            }
            libc::syscall(libc::SYS_pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_holds_a_namespace_and_is_gone_when_dropped() {
        let bystander = Bystander::new(Namespaces::NEWUTS).unwrap();
        let namespace = |pid: i32| std::fs::metadata(format!("/proc/{pid}/ns/uts"));
        let (own, held) = (namespace(process::id()).unwrap(), namespace(bystander.id()).unwrap());
        assert_ne!(own.ino(), held.ino());
        let pid = bystander.id();
        drop(bystander);
        assert!(namespace(pid).is_err());
    }

    #[test]
    fn it_ends_with_its_maker() {
        let pid = std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                let bystander = Bystander::new(Namespaces::NEWUTS).unwrap();
                let pid = bystander.id();
                let call = || std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
                while !call().starts_with(&format!("{} ", libc::SYS_pause)) {
                    std::thread::yield_now();
                }
                // Not dropped: its thread ends first, and its stack stays.
                std::mem::forget(bystander);
                pid
            });
            made.join().unwrap()
        });
        // SAFETY: waits for this child alone and stores nothing.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    }
}
