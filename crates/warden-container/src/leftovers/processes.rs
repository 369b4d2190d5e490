//! Processes that work on a container's directory: its iomux, whatever has become of its pid file.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{Context, Error};
use crate::id::Id;
use crate::undying;

/// How long a killed process may take to be gone.
const END_TIME: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// What the program is called.
const PROGRAM: &str = "iomux";

/// The supervisor of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) id: Id,
}

/// All of a depot.
pub(crate) fn of(depot: &Path) -> Vec<Process> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| look(pid, depot)).collect()
}

/// Kills those of some containers, and waits for their end.
pub(crate) fn end(depot: &Path, is_wanted: impl Fn(Id) -> bool) -> Result<(), Error> {
    let errors = of(depot).into_iter().filter(|process| is_wanted(process.id));
    let errors = errors.filter_map(|process| kill(&process, depot).err()).collect();
    Error::join(errors).map_or(Ok(()), Err)
}

fn kill(process: &Process, depot: &Path) -> Result<(), Error> {
    let action = || format!("killing {} {} of container {}", process.name, process.pid, process.id);
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(()) };
    let Ok(held) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // Looked at once it is held: the number may belong to somebody else by now.
    if look(process.pid, depot).as_ref() != Some(process) {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(&held, Signal::KILL) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        sent => sent.context(action)?,
    }
    let mut ended = [PollFd::new(&held, PollFlags::IN)];
    match rustix::event::poll(&mut ended, Some(&END_TIME)).context(action)? {
        0 => Err(std::io::Error::other(undying::describe(process.pid))).context(action),
        _ => Ok(()),
    }
}

fn look(pid: i32, depot: &Path) -> Option<Process> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // Before it has entered the directory, it is known by its argument alone.
    let place = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let (name, id) = read(&line, &place, depot)?;
    Some(Process { pid, name, id })
}

/// Whether a command line with a current directory is that of a supervisor in this depot.
fn read(line: &[u8], place: &Path, depot: &Path) -> Option<(String, Id)> {
    let mut arguments = line.split(|byte| *byte == 0).map(|bytes| Path::new(OsStr::from_bytes(bytes)));
    let name = arguments.next()?.file_name()?;
    let spec = arguments.find(|argument| argument.ends_with("spec.json"))?.parent()?;
    if name != PROGRAM {
        return None;
    }
    let id = Id::parse(spec.file_name()?.as_bytes())?;
    // The kernel marks a directory that was removed; the depot may have been moved since.
    let place = place.as_os_str().as_bytes();
    let place = PathBuf::from(OsStr::from_bytes(place.strip_suffix(b" (deleted)").unwrap_or(place)));
    let is_here =
        |directory: &Path| directory == depot.join(id) || directory == depot.join(".trash").join(id);
    (is_here(&place) || spec == depot.join(id) && !place.ends_with(id)).then(|| (PROGRAM.to_owned(), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_is_known_by_program_spec_and_depot() {
        let depot = Path::new("/depot");
        let found = |line: &str, place: &str| {
            read(line.replace(' ', "\0").as_bytes(), Path::new(place), depot).map(|(_, id)| id.to_string())
        };
        let id = Some("00000000001".to_owned());
        let line = "/usr/lib/warden/iomux /depot/00000000001/spec.json";
        assert_eq!(found(line, "/"), id, "it has not entered the directory yet");
        assert_eq!(found(line, "/depot/00000000001"), id);
        assert_eq!(found(line, "/depot/.trash/00000000001 (deleted)"), id);
        assert_eq!(
            found("iomux --adopt /old/00000000001/spec.json", "/depot/00000000001"),
            id,
            "it was moved"
        );
        for (line, place) in [
            (line, "/moved/00000000001"),
            ("iomux /other/00000000001/spec.json", "/"),
            ("iomux /other/00000000001/spec.json", "/other/00000000001"),
            ("vi /depot/00000000001/spec.json", "/depot/00000000001"),
            ("iomux /depot/x/spec.json", "/depot/x"),
            ("iomux", "/depot/00000000001"),
            ("", ""),
        ] {
            assert_eq!(found(line, place), None, "{line} in {place}");
        }
    }
}
