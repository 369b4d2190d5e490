//! The container's init: starts bash for each script that comes in, and answers with how it ended.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitOptions};
use warden_init::confinement::Confinement;
use warden_linux::limit::{self, Limit};
use warden_linux::socket::{Packet, PacketSocket};
use warden_linux::spawn::{self, Memory, Program};
use warden_linux::{file, process};

/// The user of the scripts.
pub(crate) const USER: u32 = 10_000;
/// Its group.
pub(crate) const GROUP: u32 = 10_000;
/// Its directory.
pub(crate) const HOME: &str = "/home/vcap";

/// The longest script.
const LONGEST: usize = 4096;

/// Limits as the product's jobs have them.
const LIMITS: [(u32, u64); 15] = [
    (limit::RLIMIT_AS, u64::MAX),
    (limit::RLIMIT_CORE, 0),
    (limit::RLIMIT_CPU, u64::MAX),
    (limit::RLIMIT_DATA, u64::MAX),
    (limit::RLIMIT_FSIZE, u64::MAX),
    (limit::RLIMIT_LOCKS, u64::MAX),
    (limit::RLIMIT_MEMLOCK, 64 << 10),
    (limit::RLIMIT_MSGQUEUE, 819_200),
    (limit::RLIMIT_NICE, 0),
    (limit::RLIMIT_NOFILE, 1024),
    (limit::RLIMIT_NPROC, 1024),
    (limit::RLIMIT_RSS, u64::MAX),
    (limit::RLIMIT_RTPRIO, 0),
    (limit::RLIMIT_SIGPENDING, 1024),
    (limit::RLIMIT_STACK, 8 << 20),
];

/// Sends a script and waits for its exit status.
pub(crate) fn ask(socket: &PacketSocket, script: &[u8]) -> Result<u8> {
    socket.send(script, &[]).context("sending a script")?;
    let answer = receive(socket).context("waiting for its end")?;
    answer.bytes.first().copied().context("the init has ended")
}

/// Confines the init, whose standard input is the socket.
///
/// What confines all its jobs is laid on here, before the first one, and inherited by them, as the product's init does it:
/// the keyring, the filter of system calls and the bounded capabilities are the product's own.
pub(crate) fn confine() -> io::Result<()> {
    Confinement::FULL.enter()?;
    Confinement::FULL.privileges().bound()
}

/// The init's whole life from then on; nothing else stays open.
pub(crate) fn serve() -> Result<Infallible> {
    process::keep_standard_and(&[])?;
    let socket = PacketSocket::adopt(process::inherited(0)?)?;
    loop {
        let packet = receive(&socket)?;
        if packet.bytes.is_empty() {
            bail!("nobody asks any more");
        }
        let status = run(&packet.bytes).unwrap_or(255);
        socket.send(&[status], &[])?;
    }
}

fn receive(socket: &PacketSocket) -> Result<Packet> {
    loop {
        match socket.receive(LONGEST) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                rustix::event::poll(&mut [PollFd::new(socket, PollFlags::IN)], None)?;
            }
            received => return Ok(received?),
        }
    }
}

/// Starts bash with the script on its standard input, takes its output, and waits for its end.
fn run(script: &[u8]) -> Result<u8> {
    let (stdin, feed) = file::pipe()?;
    let (stdout, out) = file::pipe()?;
    let (stderr, errors) = file::pipe()?;
    File::from(feed).write_all(script)?;
    let pid = start([stdin.as_fd(), out.as_fd(), errors.as_fd()])?;
    drop((stdin, out, errors));
    let mut output = Vec::new();
    File::from(stdout).read_to_end(&mut output)?;
    File::from(stderr).read_to_end(&mut output)?;
    let ended = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty())?;
    Ok(ended.and_then(|(_, status)| status.exit_status()).map_or(255, |code| code as u8))
}

fn start(stdio: [BorrowedFd<'_>; 3]) -> Result<i32> {
    let strings = |all: &[&str]| all.iter().map(|one| CString::new(*one)).collect::<Result<Vec<_>, _>>();
    let limits = LIMITS.map(|(resource, value)| Limit { resource, soft: value, hard: value });
    let home = CString::new(HOME)?;
    let program = Program {
        paths: &strings(&["/bin/bash"])?,
        arguments: &strings(&["/bin/bash"])?,
        environment: &strings(&["HOME=/home/vcap", "USER=vcap", "PATH=/bin:/usr/bin", "LANG=C.UTF-8"])?,
        directory: &home,
        stdio,
        in_terminal: false,
        user: USER,
        group: GROUP,
        groups: &[],
        no_new_privileges: true,
        limits: &limits,
        umask: 0o022,
    };
    Ok(spawn::spawn(&program, Memory::Borrowed)?)
}
