//! Masks of signals, and signals read from a descriptor.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Keeps signals blocked in this thread until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it restores the mask"]
pub struct Blocked(libc::sigset_t);

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is the one that the kernel gave when it was replaced.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Blocks every signal in this thread.
pub fn block_all() -> io::Result<Blocked> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: sigfillset initializes `all`; the kernel writes `before`; both live through the calls, and `before` is
    // read only after success.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        match libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
            0 => Ok(Blocked(before.assume_init())),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Blocks every signal for the rest of this process's life: what must be known is read from descriptors.
pub fn block_for_good() -> io::Result<()> {
    std::mem::forget(block_all()?);
    Ok(())
}

/// Lets children vanish as soon as they end, whom nobody waits for; or has them wait to be reaped again.
pub fn forget_children(forget: bool) -> io::Result<()> {
    let action = if forget { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither action is a function.
    match unsafe { libc::signal(libc::SIGCHLD, action) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Unblocks every signal. Async-signal-safe.
pub(crate) fn unblock_all() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes `none`, which lives through the call.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// A descriptor that is readable when a child has ended. Never blocks.
#[derive(Debug)]
pub struct ChildSignal(OwnedFd);

impl ChildSignal {
    /// Opens it; SIGCHLD must be blocked already.
    pub fn open() -> io::Result<Self> {
        open(&set_of(&[libc::SIGCHLD])).map(Self)
    }

    /// Forgets the signals that have come; what they tell is asked of the kernel.
    pub fn clear(&self) {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.0, &mut record).is_ok() {}
    }
}

impl AsFd for ChildSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A descriptor that is readable when one of some signals has come. Never blocks.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks these signals for the rest of this process's life, in this thread and those that it makes, and opens it.
    pub fn take(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals);
        // SAFETY: the set lives through the call, which stores nothing.
        match unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
            0 => open(&set).map(Self),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The next signal that has come, if one has.
    pub fn next(&self) -> Option<i32> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        rustix::io::read(&self.0, &mut record).ok()?;
        // Its number is the record's first field.
        record.first_chunk().map(|number| i32::from_ne_bytes(*number))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A set of signals; a number that is none is left out.
fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes `set` before anything else uses it; sigaddset checks the number.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

fn open(set: &libc::sigset_t) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `set`, which lives through the call; the returned descriptor is new.
    unsafe {
        match libc::signalfd(-1, std::ptr::from_ref(set), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_the_place_of_their_action() {
        let signals = Signals::take(&[libc::SIGWINCH, libc::SIGUSR2]).unwrap();
        assert_eq!(signals.next(), None);
        // SAFETY: signals this thread alone, in which they are blocked.
        unsafe {
            libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2);
        }
        assert_eq!((signals.next(), signals.next()), (Some(libc::SIGUSR2), None));
    }
}
