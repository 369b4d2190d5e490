//! The kernel's view: processes, mounts and cgroups, read from /proc and /sys.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

/// A process of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id on the host.
    pub pid: i32,
    /// Its command line, arguments separated by spaces.
    pub command: String,
}

/// All processes that have to do with a directory or cgroup whose name contains `mark`, but for the test itself.
///
/// A zombie counts as long as nobody has reaped it.
pub fn processes_of(mark: &str) -> Vec<Process> {
    processes().into_iter().filter(|process| belongs(process, mark)).collect()
}

fn belongs(process: &Process, mark: &str) -> bool {
    let directory = PathBuf::from(format!("/proc/{}", process.pid));
    let link = |name: &str| fs::read_link(directory.join(name)).unwrap_or_default();
    process.pid != i32::try_from(std::process::id()).unwrap()
        && (process.command.contains(mark)
            || fs::read_to_string(directory.join("cgroup")).unwrap_or_default().contains(mark)
            || ["cwd", "exe", "root"].iter().any(|name| holds(link(name).as_os_str().as_bytes(), mark)))
}

fn holds(bytes: &[u8], mark: &str) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// All processes of the machine.
pub fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is readable");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(process).collect()
}

fn process(pid: i32) -> Option<Process> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line: Vec<u8> = line.iter().map(|&byte| if byte == 0 { b' ' } else { byte }).collect();
    Some(Process { pid, command: String::from_utf8_lossy(&line).into_owned() })
}

/// The processes in a container's cgroups, wshd among them.
pub fn processes_in_cgroup(id: &str) -> Vec<Process> {
    let name = format!("/instance-{id}");
    let inside = |process: &Process| {
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default();
        cgroups.lines().any(|line| line.ends_with(&name) || line.contains(&format!("{name}/")))
    };
    processes().into_iter().filter(inside).collect()
}

/// Lines of this mount namespace's table that contain `mark`.
pub fn mounts_of(mark: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table is readable");
    table.lines().filter(|line| line.contains(mark)).map(str::to_owned).collect()
}

/// The root directories of all cgroup hierarchies, of both versions.
pub fn cgroup_roots() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table is readable");
    let root = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let kind = filesystem.split(' ').next()?;
        (kind == "cgroup" || kind == "cgroup2")
            .then(|| PathBuf::from(mount.split(' ').nth(4).unwrap_or_default()))
    };
    table.lines().filter_map(root).collect()
}

/// Directories of all hierarchies called `parent` below the root, and all below them, deepest first.
pub fn cgroups_of(parent: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in cgroup_roots() {
        collect(&root.join(parent), &mut found);
    }
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect(&entry.path(), found);
    }
    found.push(directory.to_owned());
}

/// One field of /proc/PID/status.
pub fn status_field(pid: i32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned))?;
    Some(line.trim().to_owned())
}

/// The most memory that a process ever had resident, in KiB.
pub fn peak_memory(pid: i32) -> u64 {
    let field = status_field(pid, "VmHWM").expect("the process is alive");
    field.split(' ').next().unwrap().parse().unwrap()
}

/// The memory that a process has written to and shares with nobody, in KiB.
pub fn private_memory(pid: i32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the process is alive");
    let (mut writable, mut sum) = (false, 0);
    for line in maps.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            // A program's own pages count as written, too, until its file is on the disk.
            [range, permissions, ..] if range.contains('-') => writable = permissions.contains('w'),
            ["Private_Dirty:", size, "kB"] if writable => sum += size.parse::<u64>().unwrap(),
            _ => {}
        }
    }
    sum
}

/// The parent of a process.
pub fn parent_of(pid: i32) -> Option<i32> {
    status_field(pid, "PPid")?.parse().ok()
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    status_field(pid, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// Sends a signal to one process; one that is gone is no error.
pub fn signal(pid: i32, signal: Signal) {
    let _ = rustix::process::kill_process(Pid::from_raw(pid).expect("a process id is positive"), signal);
}
