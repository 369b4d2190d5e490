//! Starting a program, whose failures come back as values.
//!
//! The way of vfork costs the least: the child borrows this process's memory until it has become the program. But from the
//! moment at which the child has its user's id until it is the program, that user's other processes may stop it (SIGSTOP),
//! and who has called vfork waits for ever. Where there may be any, the child gets a copy of the memory.
//!
//! To borrow memory without waiting as vfork does is no third way: from then on, each change of this process's score for
//! running out of memory (oom_score_adj) has the kernel look at all processes of the machine.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};

use crate::limit::Limit;
use crate::process::pointers;

/// Bytes of stack that the child has until exec.
const STACK: usize = 64 * 1024;

/// How long a child may take until it is sent on its way again, in case that somebody has stopped it.
const NUDGE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// After so many times it is killed: 20 s.
const NUDGES: u32 = 1000;

/// A program and the state in which it starts.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its paths: the first at which there is a program that the user may execute is it.
    pub paths: &'a [CString],
    /// Its arguments, the name first.
    pub arguments: &'a [CString],
    /// Its whole environment.
    pub environment: &'a [CString],
    /// Its working directory, entered as its user.
    pub directory: &'a CStr,
    /// Its stdin, stdout and stderr, each of a number above 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Whether its stdin is a terminal that becomes its session's controlling one.
    pub in_terminal: bool,
    /// Its user.
    pub user: u32,
    /// Its group.
    pub group: u32,
    /// Its supplementary groups.
    pub groups: &'a [u32],
    /// Whether nothing that it starts can have more rights than it has.
    pub no_new_privileges: bool,
    /// Its resource limits; where the kernel refuses a raise, the highest value that it grants is set.
    pub limits: &'a [Limit],
    /// The permission bits that its new files lack.
    pub umask: u32,
}

/// What the child runs on until it is the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// This process's, which is suspended meanwhile: for where nobody can stop the child.
    Borrowed,
    /// A copy. A child that is stopped is sent on its way, and killed if it is stopped for too long.
    Copied,
}

/// What was being done when a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named for its system call")]
pub enum Stage {
    Clone,
    Session,
    Descriptors,
    Terminal,
    Limits,
    Ids,
    Directory,
    Exec,
}

/// A start that failed.
#[derive(Debug, thiserror::Error)]
#[error("start a program: {stage:?}")]
pub struct SpawnError {
    /// What was being done.
    pub stage: Stage,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Stages by the number that a child which has a copy of the memory tells.
const STAGES: [Stage; 8] = [
    Stage::Clone,
    Stage::Session,
    Stage::Descriptors,
    Stage::Terminal,
    Stage::Limits,
    Stage::Ids,
    Stage::Directory,
    Stage::Exec,
];

/// The step that failed, and the kernel's answer.
type Failed = (Stage, c_int);

/// What the child reads, all of it made before it exists, and where it leaves its failure.
struct Orders<'a> {
    program: &'a Program<'a>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    failed: Option<Failed>,
    /// Where it tells its failure if its memory is a copy.
    pipe: Option<OwnedFd>,
}

/// Starts a program as the leader of a new session, without any other descriptor or signal state of this process;
/// gives its process id.
pub fn spawn(program: &Program<'_>, memory: Memory) -> Result<i32, SpawnError> {
    if program.stdio.iter().any(|fd| fd.as_raw_fd() <= 2) {
        return Err(failure(Stage::Descriptors, libc::EINVAL));
    }
    let orders = Orders {
        program,
        arguments: pointers(program.arguments),
        environment: pointers(program.environment),
        failed: None,
        pipe: None,
    };
    let started = match memory {
        Memory::Borrowed => borrow_memory(orders),
        Memory::Copied => copy_memory(orders),
    };
    match started.map_err(|source| SpawnError { stage: Stage::Clone, source })? {
        (pid, None) => Ok(pid),
        (pid, Some((stage, errno))) => {
            // SAFETY: waits for this child alone, which has begun to end and can be stopped no more, and stores nothing.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            Err(failure(stage, errno))
        }
    }
}

fn borrow_memory(mut orders: Orders<'_>) -> io::Result<(i32, Option<Failed>)> {
    let pid = start(&mut orders, libc::CLONE_VM | libc::CLONE_VFORK)?;
    Ok((pid, orders.failed))
}

fn copy_memory(mut orders: Orders<'_>) -> io::Result<(i32, Option<Failed>)> {
    let (told, pipe) = crate::file::pipe()?;
    if pipe.as_raw_fd() <= 2 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    orders.pipe = Some(pipe);
    let pid = start(&mut orders, 0)?;
    // The end of the pipe is the moment at which the child is the program.
    drop(orders);
    Ok((pid, Pid::from_raw(pid).and_then(|pid| hear(pid, &told))))
}

fn start(orders: &mut Orders<'_>, flags: c_int) -> io::Result<i32> {
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    let blocked = crate::signal::block_all()?;
    // SAFETY: a child that borrows this memory suspends this thread until it has ended or become a program, so `orders` and
    // `stack` outlive its use of them; the stack's end is aligned as its element; all signals are blocked, so no handler runs
    // in the child on this memory. A copy has its own of both. `child` calls nothing that allocates, locks or unwinds.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity()).cast::<c_void>();
        libc::clone(child, top, flags | libc::SIGCHLD, std::ptr::from_mut(orders).cast())
    };
    let error = io::Error::last_os_error();
    drop(blocked);
    if pid == -1 { Err(error) } else { Ok(pid) }
}

/// Waits until the child is the program, or is past being stopped on its way out; gives why it is not the program. A child
/// that somebody stops is sent on.
fn hear(child: Pid, told: &OwnedFd) -> Option<Failed> {
    let mut nudges = 0;
    loop {
        // Not for what it tells: who has told may still be stopped.
        let mut events = [PollFd::new(told, PollFlags::empty())];
        if rustix::event::poll(&mut events, Some(&NUDGE)) != Ok(0) && !events[0].revents().is_empty() {
            return read_failure(told);
        }
        nudges += 1;
        let signal = if nudges < NUDGES { Signal::CONT } else { Signal::KILL };
        let _ = rustix::process::kill_process(child, signal);
    }
}

/// Reads what a child has told that is no more; nothing if it is the program.
fn read_failure(told: &OwnedFd) -> Option<Failed> {
    let mut bytes = [0; size_of::<[c_int; 2]>()];
    if rustix::io::read(told, &mut bytes) == Ok(0) {
        return None;
    }
    let [stage, errno] = bytes.as_chunks().0 else { return Some((Stage::Clone, libc::EIO)) };
    let stage = usize::try_from(c_int::from_ne_bytes(*stage)).ok().and_then(|number| STAGES.get(number));
    Some((*stage.unwrap_or(&Stage::Clone), c_int::from_ne_bytes(*errno)))
}

fn failure(stage: Stage, errno: c_int) -> SpawnError {
    SpawnError { stage, source: io::Error::from_raw_os_error(errno) }
}

/// The child's whole life before exec.
extern "C" fn child(orders: *mut c_void) -> c_int {
    // SAFETY: the parent passes its `Orders` and waits, or they are a copy, so this is the only reference in use.
    let orders = unsafe { &mut *orders.cast::<Orders<'_>>() };
    let Err(stage) = become_program(orders);
    // SAFETY: errno is a plain thread-local integer, which the child may share with its waiting parent.
    let errno = unsafe { *libc::__errno_location() };
    orders.failed = Some((stage, errno));
    if let Some(pipe) = &orders.pipe {
        let told = [stage as c_int, errno];
        // SAFETY: the kernel reads two integers. Nobody is left to tell of a failure.
        unsafe { libc::write(pipe.as_raw_fd(), told.as_ptr().cast(), size_of_val(&told)) };
    }
    127
}

/// Does each step; gives the one that failed, with errno as the step left it.
fn become_program(orders: &Orders<'_>) -> Result<std::convert::Infallible, Stage> {
    let program = orders.program;
    // First: what is sent to the group of the maker does not reach it any more.
    // SAFETY: async-signal-safe, as all calls below.
    check(Stage::Session, unsafe { libc::setsid() }.into())?;
    reset_handlers();
    take_descriptors(&program.stdio)?;
    if program.in_terminal {
        // SAFETY: the request takes its argument by value: 0, no terminal is taken from another session.
        check(Stage::Terminal, unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }.into())?;
    }
    for limit in program.limits {
        check(Stage::Limits, limit.set_nearest().into())?;
    }
    // The ids are set by raw calls: the C library's would signal its threads, which are the parent's.
    let groups = program.groups;
    // SAFETY: the kernel reads as many ids as the slice has.
    check(Stage::Ids, unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    let (user, group) = (program.user, program.group);
    // SAFETY: touches no memory.
    check(Stage::Ids, unsafe { libc::syscall(libc::SYS_setresgid, group, group, group) })?;
    // Another user than root has no capability from here on; what root gets at exec is bounded by what this process
    // has bounded, and the filter of system calls is inherited from it.
    // SAFETY: touches no memory.
    check(Stage::Ids, unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) })?;
    if program.no_new_privileges {
        // SAFETY: touches no memory.
        check(Stage::Ids, unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    }
    // SAFETY: the path is a C string.
    check(Stage::Directory, unsafe { libc::chdir(program.directory.as_ptr()) }.into())?;
    // SAFETY: umask only swaps a number.
    unsafe { libc::umask(program.umask) };
    crate::signal::unblock_all();
    execute(orders);
    Err(Stage::Exec)
}

/// Becomes the first of the program's paths that is one; returns with errno, which tells of one that may not be executed
/// rather than of those that are not there, as execvp does.
fn execute(orders: &Orders<'_>) {
    let mut denied = false;
    for path in orders.program.paths {
        // SAFETY: the path is a C string, both arrays end with a null pointer, and errno is a plain integer.
        let errno = unsafe {
            libc::execve(path.as_ptr(), orders.arguments.as_ptr(), orders.environment.as_ptr());
            *libc::__errno_location()
        };
        match errno {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => denied = true,
            _ => return,
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = if denied { libc::EACCES } else { libc::ENOENT } };
}

fn check(stage: Stage, result: i64) -> Result<(), Stage> {
    if result == -1 { Err(stage) } else { Ok(()) }
}

/// Gives every signal its default action: exec keeps the ignored ones ignored.
fn reset_handlers() {
    // The kernel's struct sigaction: handler (SIG_DFL), flags, restorer, mask. The C library's call spares the signals
    // that it keeps for itself, which this process may have inherited as ignored.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads `default`, which is as large as its structure on every 64-bit machine; the child has
        // its own table of handlers (no CLONE_SIGHAND). KILL and STOP only return an error.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
    }
}

/// Makes the three descriptors 0, 1 and 2, and lets exec close all others.
fn take_descriptors(stdio: &[BorrowedFd<'_>; 3]) -> Result<(), Stage> {
    for (number, fd) in stdio.iter().enumerate() {
        // SAFETY: dup2 touches no memory; the child has its own table of descriptors (no CLONE_FILES).
        check(Stage::Descriptors, unsafe { libc::dup2(fd.as_raw_fd(), number as RawFd) }.into())?;
    }
    // SAFETY: as above.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(Stage::Descriptors, closed)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};
    use std::os::fd::AsFd;

    use super::*;

    fn run(script: &str, limits: &[Limit], memory: Memory) -> Result<(c_int, String), SpawnError> {
        let null = File::open("/dev/null").unwrap();
        let mut out = tempfile::tempfile().unwrap();
        let arguments = [c"/bin/sh", c"-c"].map(CString::from).into_iter();
        let arguments: Vec<_> = arguments.chain([CString::new(script).unwrap()]).collect();
        let environment = [c"A=b".to_owned()];
        let missing = [c"/nowhere".to_owned(), c"/dev/null/sh".to_owned()];
        let present = [&missing[..], &[c"/etc/passwd".to_owned(), c"/bin/sh".to_owned()]].concat();
        // SAFETY: these calls only read this process's ids.
        let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
        let program = Program {
            paths: if script.is_empty() { &missing } else { &present },
            arguments: &arguments,
            environment: &environment,
            directory: if script == "lost" { c"/nowhere" } else { c"/" },
            stdio: [null.as_fd(), out.as_fd(), out.as_fd()],
            in_terminal: script == "no terminal",
            user,
            group,
            groups: &[group, 4711],
            no_new_privileges: true,
            limits,
            umask: 0o27,
        };
        let pid = spawn(&program, memory)?;
        let mut status = 0;
        // SAFETY: `status` lives through the call.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        let mut text = String::new();
        out.rewind().unwrap();
        out.read_to_string(&mut text).unwrap();
        Ok((libc::WEXITSTATUS(status), text))
    }

    const BOTH: [Memory; 2] = [Memory::Borrowed, Memory::Copied];

    #[test]
    fn a_program_starts_in_the_stated_state() {
        let nofile = Limit { resource: libc::RLIMIT_NOFILE, soft: 77, hard: 77 };
        let script = "umask; pwd; ulimit -n; ls /proc/self/fd | wc -l; echo $A; grep -E 'Sig[BI]|Groups|NoNew' /proc/self/status; exit 3";
        for memory in BOTH {
            let (code, text) = run(script, &[nofile], memory).unwrap();
            let none = "0000000000000000";
            assert_eq!(code, 3);
            let status = format!("Groups:\t0 4711 \nSigBlk:\t{none}\nSigIgn:\t{none}\nNoNewPrivs:\t1\n");
            assert_eq!(text, format!("0027\n/\n77\n4\nb\n{status}"));
        }
    }

    #[test]
    fn a_limit_beyond_the_grantable_is_set_to_the_nearest() {
        let beyond = Limit { resource: libc::RLIMIT_NOFILE, soft: 1 << 40, hard: 1 << 40 };
        let (code, text) = run("ulimit -n", &[beyond], Memory::Borrowed).unwrap();
        assert_eq!(code, 0);
        assert!(text.trim().parse::<u64>().unwrap() > 0, "{text}");
    }

    #[test]
    fn a_failure_names_its_stage() {
        for memory in BOTH {
            for (script, stage, errno) in [
                ("", Stage::Exec, libc::ENOENT),
                ("no terminal", Stage::Terminal, libc::ENOTTY),
                ("lost", Stage::Directory, libc::ENOENT),
            ] {
                let error = run(script, &[], memory).unwrap_err();
                assert_eq!((error.stage, error.source.raw_os_error()), (stage, Some(errno)), "{memory:?}");
            }
        }
    }

    #[test]
    fn who_is_stopped_after_it_has_told_is_sent_on() {
        let (told, tell) = crate::file::pipe().unwrap();
        // As a start that failed does it: Exec, ENOENT. Nobody but `hear` continues it.
        let script = "printf '\\007\\000\\000\\000\\002\\000\\000\\000'; kill -STOP $$";
        let mut child =
            std::process::Command::new("/bin/sh").args(["-c", script]).stdout(tell).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        assert_eq!(hear(pid, &told), Some((Stage::Exec, libc::ENOENT)));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while child.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline, "it is still stopped");
            std::thread::yield_now();
        }
    }

    #[test]
    fn each_stage_has_its_number() {
        for (number, stage) in STAGES.into_iter().enumerate() {
            assert_eq!(stage as usize, number);
        }
        // The last of them.
        assert_eq!(STAGES.len(), Stage::Exec as usize + 1);
    }
}
