//! How a container's groups end: whoever is in them is killed, then they are removed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};
use warden_linux::file;

use crate::cgroup::hierarchy::{Hierarchy, Version};
use crate::cgroup::{Cgroups, memory, write_existing};
use crate::error::{Context, Error};
use crate::id::Id;
use crate::undying;

/// Pause between attempts of something that the kernel finishes by itself.
const PAUSE: Duration = Duration::from_millis(5);
/// Links of a directory that holds none: its name, and its own `.`.
const LINKS_WITHOUT_DIRECTORIES: u64 = 2;
/// How many processes that do not die are described.
const SHOWN: usize = 4;

impl Cgroups {
    /// Kills every process of one container; returns when none is left, or fails at the deadline.
    ///
    /// Groups in which nobody is are removed: that the kernel lets them go shows it, for less than it takes to list whoever
    /// is in them.
    pub(crate) fn kill(&self, id: Id, deadline: Instant) -> Result<(), Error> {
        let (memory, mut left): (Vec<_>, Vec<_>) =
            self.parent.hierarchies.iter().partition(|hierarchy| hierarchy.has("memory"));
        left.retain(|hierarchy| !self.remove_empty(hierarchy, id));
        // Whoever is still there must not be hurried out of memory.
        let found = !left.is_empty();
        left.extend(memory.into_iter().filter(|hierarchy| found || !self.remove_empty(hierarchy, id)));
        for hierarchy in &left {
            // What is frozen does not die.
            if hierarchy.version == Version::V1 && hierarchy.has("freezer") {
                let _ = fs::write(self.parent.directory(hierarchy, id).join("freezer.state"), "THAWED");
            }
        }
        for hierarchy in left {
            let directory = self.parent.directory(hierarchy, id);
            kill_all(hierarchy.version, &directory, deadline)
                .context(|| format!("killing the processes of cgroup {}", directory.display()))?;
        }
        Ok(())
    }

    /// Removes the groups of one container, if there are any; goes on past errors.
    pub(crate) fn remove(&self, id: Id, deadline: Instant) -> Result<(), Error> {
        let left = self.parent.hierarchies.iter().filter(|hierarchy| !self.remove_empty(hierarchy, id));
        let removed = left.map(|hierarchy| {
            let directory = self.parent.directory(hierarchy, id);
            remove_all(&directory, deadline).context(|| format!("removing cgroup {}", directory.display()))
        });
        Error::join(removed.filter_map(Result::err).collect()).map_or(Ok(()), Err)
    }

    /// Removes a container's group in which nobody is and nothing is below; whether it is gone.
    fn remove_empty(&self, hierarchy: &Hierarchy, id: Id) -> bool {
        let directory = self.parent.directory(hierarchy, id);
        if hierarchy.has("memory") {
            memory::shed_pages(hierarchy.version, &directory);
        }
        match fs::remove_dir(&directory) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Kills every process in a group and below it until none is left; a group that does not exist is empty.
fn kill_all(version: Version, directory: &Path, deadline: Instant) -> io::Result<()> {
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

/// Removes a group and the groups below it, waiting while dead processes still count.
fn remove_all(directory: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        let removed = match fs::remove_dir(directory) {
            // Of a process that is not quite gone, or of groups below.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                remove_below(directory).and_then(|()| fs::remove_dir(directory))
            }
            removed => removed,
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            removed => return removed,
        }
    }
}

fn remove_below(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
            fs::remove_dir(entry.path())?;
        }
    }
    Ok(())
}
