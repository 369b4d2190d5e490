//! Processes: made by clone3, replaced by execveat, waited for by pidfd, signalled.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use rustix::process::{Signal, WaitId, WaitIdOptions, WaitOptions};
use rustix::thread::UnshareFlags;

/// Namespaces of a new process.
pub type Namespaces = UnshareFlags;

/// CLONE_INTO_CGROUP; libc's constant is an int, in which this bit is lost.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How a new process differs from its maker.
#[derive(Clone, Copy, Debug)]
pub struct ForkOptions<'a> {
    /// What it does not share.
    pub namespaces: Namespaces,
    /// Whether it becomes a child of its maker's parent (CLONE_PARENT).
    pub sibling: bool,
    /// The version 2 cgroup in which it is born.
    pub cgroup: Option<BorrowedFd<'a>>,
}

impl Default for ForkOptions<'_> {
    fn default() -> Self {
        Self { namespaces: Namespaces::empty(), sibling: false, cgroup: None }
    }
}

/// A process that was just made.
#[derive(Debug)]
pub struct Child {
    /// Its id, as its maker sees it.
    pub pid: i32,
    /// Its pidfd, close-on-exec.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Code(u8),
    /// This signal killed it.
    Signal(i32),
}

/// What [`reap`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// A child that ended.
    Child(i32, Ending),
    /// Children, all of which still run.
    Running,
    /// No child at all.
    Childless,
}

/// Makes a copy of this process that does `work` and exits with the status that it returns.
///
/// Fails with `EDEADLK` in a process of several threads: the copy could find a lock taken for ever.
pub fn fork(options: ForkOptions<'_>, work: impl FnOnce() -> u8) -> io::Result<Child> {
    // SAFETY: changes nothing: the kernel refuses it to one of several threads, and has nothing to do for the only one.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == -1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data, for which zeroes are a value that the kernel defines.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(options.namespaces.bits()) | libc::CLONE_PIDFD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    if options.sibling {
        arguments.flags |= libc::CLONE_PARENT as u64;
    } else {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = options.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of all memory and, the only thread being this one, no lock
    // in it is held by anyone else; the kernel reads `arguments` and writes `pidfd`, both of which live until then.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => exit(catch_unwind(AssertUnwindSafe(work)).unwrap_or(101)),
        // SAFETY: the kernel stored a new descriptor, close-on-exec, that nothing else owns.
        pid => Ok(Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Ends this process at once, without any handler.
pub fn exit(status: u8) -> ! {
    // SAFETY: _exit touches no memory of this process.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Replaces this process's program by the one behind a descriptor, which may be O_PATH; returns only when that failed.
pub fn execute(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with a null pointer and point to strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// The form in which execve takes strings; valid as long as they are.
pub(crate) fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Gives a descriptor a number that survives exec, closing what had it.
pub fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        return Ok(());
    }
    // SAFETY: dup2 touches no memory; the callers own the numbers that they choose, which are those of a program's
    // convention (0, 1, 2 and what it inherits).
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Takes a descriptor that this process was started with: a close-on-exec copy of it.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC only reads the number, which fails with EBADF when it is not open.
    match unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel returned a new descriptor that nothing else owns.
        copy => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
    }
}

/// Opens a pidfd of a process.
pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Kills the process behind a pidfd; one that has ended already is no error.
pub fn kill_by_pidfd(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a child ends, and reaps it.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Ending> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ending::Code(code as u8),
                    (None, signal) => Ending::Signal(signal.unwrap_or(0)),
                });
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps one child that has ended, without waiting.
pub fn reap() -> io::Result<Reaped> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => {
            let ending = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Ending::Code(code as u8),
                (None, signal) => Ending::Signal(signal.unwrap_or(0)),
            };
            Ok(Reaped::Child(pid.as_raw_nonzero().get(), ending))
        }
        Ok(None) => Ok(Reaped::Running),
        Err(rustix::io::Errno::CHILD) => Ok(Reaped::Childless),
        Err(error) => Err(error.into()),
    }
}

/// Whether this process has children, ended ones that nobody has reaped among them.
pub fn has_children() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(WaitId::All, look), Err(rustix::io::Errno::CHILD))
}

/// Sends a signal as kill(2) does: -1 stands for every process that this one may signal, but itself and init.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory of this process.
    match unsafe { libc::kill(pid, signal) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// This process's id.
pub fn id() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Becomes the leader of a new session.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Names this process in /proc/self/comm (at most 15 bytes are kept).
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// Where the kernel keeps the arguments that this process was started with, and shows them from (/proc/self/cmdline).
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    start: usize,
    /// Bytes that there are.
    room: usize,
}

impl Arguments {
    /// Finds them: the first call looks for them, also for the copies of this process. Whoever has read them by `std::env` must not do so again once they are replaced.
    pub fn find() -> io::Result<Self> {
        static FOUND: OnceLock<Arguments> = OnceLock::new();
        match FOUND.get() {
            Some(found) => Ok(*found),
            None => Self::look().map(|found| *FOUND.get_or_init(|| found)),
        }
    }

    fn look() -> io::Result<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // The name before it may hold anything, a parenthesis too; what follows begins with the third field.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let mut bounds = fields.split_whitespace().skip(48 - 3).map(|field| field.parse::<usize>().ok());
        match (bounds.next().flatten(), bounds.next().flatten()) {
            (Some(start), Some(end)) if 0 < start && start < end => Ok(Self { start, room: end - start }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Shows others instead; fails with `E2BIG` when they need more room.
    pub fn replace(self, arguments: &[&[u8]]) -> io::Result<()> {
        let text: Vec<u8> =
            arguments.iter().flat_map(|argument| argument.iter().copied().chain([0])).collect();
        if text.len() > self.room {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        let start = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
        // SAFETY: the kernel has put `room` bytes there, on the stack and writable; no reference to them exists, and by the
        // contract of `find` nobody reads them meanwhile.
        unsafe {
            start.write_bytes(0, self.room);
            start.copy_from_nonoverlapping(text.as_ptr(), text.len());
        }
        Ok(())
    }
}

/// Has the kernel kill this process when the thread that made it, of the process `parent`, ends; fails where it has ended.
pub fn die_with(parent: i32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Before that the kernel would not have killed this one.
    match rustix::process::getppid() {
        Some(found) if found.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(rustix::io::Errno::SRCH.into()),
    }
}

/// Lets no process trace this one or read what it holds, but those that have power over the host's (not dumpable).
pub fn deny_tracing() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// Becomes this user and group, real, effective and saved, without supplementary groups.
///
/// The calling thread alone: glibc's promise for all threads needs memory that a copy of a process may not have.
pub fn set_ids(user: u32, group: u32) -> io::Result<()> {
    let (uid, gid) = (rustix::process::Uid::from_raw(user), rustix::process::Gid::from_raw(group));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Does `work` with another effective user id, and with every capability that this process has as root.
///
/// The calling thread alone, as in [`set_ids`]; it must be root's. The user id alone is different in what `work` forks.
pub fn with_effective_user<T>(user: u32, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    use rustix::process::{Uid, dumpable_behavior, set_dumpable_behavior};
    use rustix::thread::{CapabilitySets, capabilities, set_capabilities, set_thread_res_uid};
    let behavior = dumpable_behavior()?;
    set_thread_res_uid(Uid::ROOT, Uid::from_raw(user), Uid::ROOT)?;
    // The change took the effective capabilities, and the way back gives them.
    let own = capabilities(None);
    let raised =
        own.and_then(|own| set_capabilities(None, CapabilitySets { effective: own.permitted, ..own }));
    let done = raised.map_err(io::Error::from).and_then(|()| work());
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    set_dumpable_behavior(behavior)?;
    done
}

/// Gives up all capabilities for good, also those that a program could bring (no_new_privs).
pub fn drop_capabilities() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    let none = CapabilitySet::empty();
    rustix::thread::set_no_new_privs(true)?;
    Ok(rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?)
}

/// Bounds what programs that this process starts can have to these capabilities, a bit each, and lets none be inherited
/// otherwise; the process itself keeps what it has.
pub fn bound_capabilities(bits: u64) -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    for number in (0..u64::BITS).filter(|number| bits & (1 << number) == 0) {
        // SAFETY: touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } == -1 {
            let error = io::Error::last_os_error();
            // Past the last one that the kernel knows.
            if error.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(error);
        }
    }
    let own = rustix::thread::capabilities(None)?;
    rustix::thread::clear_ambient_capability_set()?;
    Ok(rustix::thread::set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..own })?)
}

/// Closes every descriptor of this process but these, whoever owns it: for a copy of a process that will neither use nor
/// drop what its maker had open, because it ends with [`exit`].
pub fn keep_only(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    close_from(0, kept)
}

/// The same, but that stdin, stdout and stderr are kept, too.
pub fn keep_standard_and(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    close_from(3, kept)
}

fn close_from(mut first: u32, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    numbers.sort_unstable();
    for number in numbers.into_iter().chain([u32::MAX]) {
        // SAFETY: touches no memory; by the callers' contract no value that owns one of these is used any more.
        if first < number && unsafe { libc::syscall(libc::SYS_close_range, first, number - 1, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
        first = first.max(number.saturating_add(1));
    }
    Ok(())
}

/// Gives the pages of the heap that hold nothing any more back to the kernel.
pub fn trim_heap() {
    // SAFETY: what is free is used by nobody.
    unsafe { libc::malloc_trim(0) };
}

/// Sets the mask of permission bits that new files lack.
pub fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_effective_user_has_the_same_capabilities_and_only_meanwhile() {
        let fields = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
            (field("Uid:\t"), field("CapEff:\t"), field("CapPrm:\t"))
        };
        let before = fields();
        assert!(before.0.starts_with("0\t0\t0"), "this test needs root");
        let (ids, effective, permitted) = with_effective_user(4711, || Ok(fields())).unwrap();
        assert_eq!((ids.as_str(), &effective), ("0\t4711\t0\t4711", &before.1));
        assert_eq!(permitted, before.2);
        let failed = with_effective_user(4711, || Err::<(), _>(io::ErrorKind::Other.into()));
        assert!(failed.is_err() && fields() == before);
    }

    #[test]
    fn arguments_that_need_more_room_than_there_is_change_nothing() {
        let shown = || std::fs::read("/proc/self/cmdline").unwrap();
        let (before, arguments) = (shown(), Arguments::find().unwrap());
        let refused = arguments.replace(&[&before, b"more"]).unwrap_err();
        assert_eq!((refused.raw_os_error(), shown()), (Some(libc::E2BIG), before.clone()));
        let same: Vec<&[u8]> = before.strip_suffix(b"\0").unwrap().split(|byte| *byte == 0).collect();
        arguments.replace(&same).unwrap();
        assert_eq!(shown(), before);
    }
}
