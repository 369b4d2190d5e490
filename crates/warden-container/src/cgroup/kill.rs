//! Killing whatever is in a group.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal};
use warden_linux::file;

use crate::cgroup::hierarchy::Version;
use crate::cgroup::{PAUSE, write_existing};
use crate::undying;

/// Links of a directory that holds none: its name, and its own `.`.
const LINKS_WITHOUT_DIRECTORIES: u64 = 2;
/// How many processes that do not die are described.
const SHOWN: usize = 4;

/// Kills every process in a group and below it until none is left; a group that does not exist is empty.
pub(super) fn all(version: Version, directory: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        let processes = match below(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            processes => processes?,
        };
        if processes.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(survivors(&processes));
        }
        match version {
            Version::V1 => kill_each(directory, &processes)?,
            Version::V2 => write_existing(&directory.join("cgroup.kill"), "1")?,
        }
        std::thread::sleep(PAUSE);
    }
}

fn survivors(processes: &[Pid]) -> io::Error {
    let told: Vec<_> =
        processes.iter().take(SHOWN).map(|pid| undying::describe(pid.as_raw_nonzero().get())).collect();
    let more = match processes.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    io::Error::new(io::ErrorKind::TimedOut, format!("it does not die: {}{more}", told.join("; ")))
}

/// Kills processes by descriptor: a number may have gone to somebody else since it was read, so it is read again.
fn kill_each(directory: &Path, processes: &[Pid]) -> io::Result<()> {
    let open = |&pid: &Pid| Some((pid, rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?));
    let opened: Vec<(Pid, OwnedFd)> = processes.iter().filter_map(open).collect();
    let still_there = below(directory)?;
    for (_, process) in opened.iter().filter(|(pid, _)| still_there.contains(pid)) {
        match rustix::process::pidfd_send_signal(process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Whether a process is in a group, or below it.
pub(super) fn is_populated(directory: &Path) -> bool {
    below(directory).is_ok_and(|processes| !processes.is_empty())
}

/// Lists the processes of a group and of those below it.
fn below(directory: &Path) -> io::Result<Vec<Pid>> {
    let listed = file::read_text(&directory.join("cgroup.procs"))?;
    // 0 is a process of another pid namespace: it cannot be named from here.
    let mut processes: Vec<Pid> =
        listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect();
    // The kernel counts a directory's own, so that most of these need not be read.
    if fs::metadata(directory)?.nlink() <= LINKS_WITHOUT_DIRECTORIES {
        return Ok(processes);
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            processes.extend(below(&entry.path())?);
        }
    }
    Ok(processes)
}
