//! Memory of processes and of the machine, from /proc.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use warden_tests::{Daemon, kernel};

/// After how long it is looked whether memory is still being given back.
const PAUSE: Duration = Duration::from_secs(1);
/// Kilobytes that come and go all the time.
const QUIET: f64 = 1024.0;

/// Kilobytes that a file of `NAME: VALUE kB` lines gives for a name.
pub(crate) fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the machine's memory is used for, in kilobytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) available: f64,
    pub(crate) slab: f64,
    /// Page tables and stacks of the kernel for processes.
    pub(crate) tasks: f64,
}

impl Machine {
    /// Reads it once the kernel has given back what others have left, and what it can do without; waits for that so many
    /// times at most.
    pub(crate) fn at_rest(patience: u32) -> Result<Self> {
        let mut last = Self::now()?;
        for _ in 0..patience {
            rustix::fs::sync();
            fs::write("/proc/sys/vm/drop_caches", "3")?;
            sleep(PAUSE);
            let now = Self::now()?;
            if (now.slab - last.slab).abs() + (now.available - last.available).abs() < QUIET {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }

    fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        let get = |name: &str| field(&text, name).with_context(|| format!("/proc/meminfo has no {name}"));
        Ok(Self {
            available: get("MemAvailable")?,
            slab: get("Slab")?,
            tasks: get("PageTables")? + get("KernelStack")?,
        })
    }
}

/// The share of memory that the processes of a daemon's containers have, their supervisors among them, in kilobytes.
pub(crate) fn of_containers(daemon: &Daemon) -> f64 {
    daemon.helpers().iter().filter_map(|process| of(process.pid, "Pss")).sum()
}

/// A field of the memory of one process.
fn of(pid: i32, name: &str) -> Option<f64> {
    field(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, name)
}

/// The resident memory of a process, in kilobytes.
pub(crate) fn resident(pid: i32) -> Option<f64> {
    kernel::status_field(pid, "VmRSS")?.split(' ').next()?.parse().ok()
}

/// How often each thread of a process has gone to sleep.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sleeps(BTreeMap<OsString, f64>);

impl Sleeps {
    /// Reads it.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
        let count = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("status")).ok()?;
            Some((task.file_name(), field(&text, "voluntary_ctxt_switches")?))
        };
        Ok(Self(tasks.flatten().filter_map(count).collect()))
    }

    /// How often threads were woken since an earlier time; the end of one was a wake-up too.
    pub(crate) fn woken_since(&self, before: &Self) -> f64 {
        let more = self.0.iter().map(|(thread, now)| now - before.0.get(thread).copied().unwrap_or(0.0));
        let ended = before.0.keys().filter(|thread| !self.0.contains_key(*thread)).count();
        more.sum::<f64>() + ended as f64
    }
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: i32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let text = "MemTotal:  5 kB\nSlab:     12 kB\nvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(text, "Slab"), Some(12.0));
        assert_eq!(field(text, "voluntary_ctxt_switches"), Some(7.0));
        assert_eq!(field(text, "Sla"), None);
    }

    #[test]
    fn threads_that_come_and_go_are_counted() {
        let sleeps = |all: &[(&str, f64)]| {
            Sleeps(all.iter().map(|(thread, count)| (OsString::from(thread), *count)).collect())
        };
        let (before, after) = (sleeps(&[("1", 5.0), ("2", 100.0)]), sleeps(&[("1", 7.0), ("3", 4.0)]));
        assert_eq!(after.woken_since(&before), 7.0);
        assert_eq!(after.woken_since(&after), 0.0);
    }

    #[test]
    fn this_process() {
        let pid = std::process::id() as i32;
        assert!(resident(pid).unwrap() > 100.0 && descriptors(pid).unwrap() >= 3);
        assert!(of(pid, "Pss").unwrap() > 0.0 && Sleeps::of(pid).is_ok());
        assert!(Machine::now().unwrap().available > 0.0);
    }
}
