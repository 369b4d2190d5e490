//! Which processes the kernel ends first where memory runs out: jobs, before their init.
//!
//! A process inherits the score of its maker. So init has the jobs' own for the moment in which it makes one, and no job
//! exists without it. The kernel lets nobody inside open the file of a process that cannot be traced, not even the
//! process itself: init is handed its own, opened while it was the host's root.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

/// Thousandths of the container's memory that count as used by a job on top of what it uses. A fifth is far more than
/// init ever has, also in a small container, and, where the whole machine runs out, prefers jobs to the machine's
/// own programs without making a small job the first victim.
const JOBS: i32 = 200;

/// Opens the score of this process.
pub(crate) fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/proc/self/oom_score_adj")
}

/// Gives this process, and what it makes, no less than zero, whatever a service manager has given the daemon.
///
/// The kernel lets a process go down to what was last set for it by who has the host's CAP_SYS_RESOURCE: a job could have
/// the machine's own programs ended before it. So it is set while this is the host's root.
pub(crate) fn deny_less_than_zero() -> io::Result<()> {
    let mut file = open()?;
    let own = read(&mut file)?;
    // Also where it is not below zero: what was set last may be.
    file.write_all(own.max(0).to_string().as_bytes())
}

fn read(file: &mut File) -> io::Result<i32> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    text.trim().parse().map_err(io::Error::other)
}

/// Init's own score, which it can change.
#[derive(Debug)]
pub struct Score {
    file: File,
    own: String,
    jobs: String,
}

impl Score {
    /// Takes what the builder has opened.
    pub fn adopt(mut file: File) -> io::Result<Self> {
        // The builder's, and the least that the kernel grants again.
        let number = read(&mut file)?;
        Ok(Self { file, own: number.to_string(), jobs: JOBS.max(number).to_string() })
    }

    /// Makes a child that has the jobs' score, which it passes on to all of its own.
    ///
    /// A score that cannot be changed changes the order in which processes are ended, and nothing else.
    pub(crate) fn lend<T>(&self, make: impl FnOnce() -> T) -> T {
        let _ = (&self.file).write(self.jobs.as_bytes());
        let made = make();
        let _ = (&self.file).write(self.own.as_bytes());
        made
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use warden_linux::process;
    use warden_linux::spawn::{Memory, Program, spawn};

    use super::*;

    #[test]
    fn each_child_has_the_jobs_score_and_its_maker_its_own_again() {
        let score = Score::adopt(open().unwrap()).unwrap();
        let own = || std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let before = own();
        let null = File::open("/dev/null").unwrap();
        let identity = std::fs::metadata("/proc/self").unwrap();
        // Memory that a child still borrows when its maker goes on would have the two take each other's score.
        for memory in [Memory::Borrowed, Memory::Copied].repeat(10) {
            let mut out = tempfile::tempfile().unwrap();
            let arguments = [c"/bin/cat", c"/proc/self/oom_score_adj"].map(Into::into);
            let program = Program {
                paths: &[c"/bin/cat".into()],
                arguments: &arguments,
                environment: &[],
                directory: c"/",
                stdio: [null.as_fd(), out.as_fd(), out.as_fd()],
                in_terminal: false,
                user: identity.uid(),
                group: identity.gid(),
                groups: &[identity.gid()],
                no_new_privileges: false,
                limits: &[],
                umask: 0o22,
            };
            let pid = score.lend(|| spawn(&program, memory)).unwrap();
            let pidfd = process::open_pidfd(pid).unwrap();
            process::wait(pidfd.as_fd()).unwrap();
            let mut text = String::new();
            out.rewind().unwrap();
            out.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), own().as_str()), ("200\n", before.as_str()));
        }
    }
}
