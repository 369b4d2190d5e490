//! Finds and kills the processes of a job in /proc.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use warden_linux::{file, process};

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;

/// Rounds in which a job may go on to multiply before it is killed as far as it is known.
const MAX_ROUNDS: usize = 64;

/// The process id of wshd, inside.
const INIT: i32 = 1;

/// A process as /proc shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    pid: i32,
    parent: i32,
    session: i32,
}

/// The container's /proc, opened before any tenant could mount over it.
pub(super) struct Proc(OwnedFd);

impl Proc {
    /// Opens it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(file::open_directory(path)?))
    }

    /// Kills a job's process and its descendants, its session, and who holds one of its pipes open.
    ///
    /// Each one found is stopped first, so that it can make no others, until no new one turns up.
    pub(super) fn kill_all(&self, leader: i32, session: bool, pipes: &[u64]) {
        let mut found = HashSet::new();
        for _ in 0..MAX_ROUNDS {
            let entries = self.entries();
            let mut members = members(&entries, leader, session, &found);
            members.extend(entries.iter().map(|entry| entry.pid).filter(|pid| self.holds(*pid, pipes)));
            members.remove(&INIT);
            let new: Vec<i32> = members.difference(&found).copied().collect();
            if new.is_empty() {
                break;
            }
            for pid in new {
                let _ = process::kill(pid, SIGSTOP);
                found.insert(pid);
            }
        }
        // A process that is gone by now is what was wanted.
        for pid in found {
            let _ = process::kill(pid, SIGKILL);
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let names = file::names(self.0.as_fd()).unwrap_or_default();
        names.iter().filter_map(|name| self.entry(Path::new(name))).collect()
    }

    fn entry(&self, name: &Path) -> Option<Entry> {
        let pid: i32 = name.to_str()?.parse().ok()?;
        let mut stat = Vec::new();
        // A tenant may have mounted something over a file in here, which open_within refuses.
        let file = File::from(file::open_within(self.0.as_fd(), &name.join("stat")).ok()?);
        file.take(4096).read_to_end(&mut stat).ok()?;
        parse_stat(pid, &stat)
    }

    fn holds(&self, pid: i32, pipes: &[u64]) -> bool {
        if pipes.is_empty() || pid == INIT {
            return false;
        }
        let path = format!("{pid}/fd");
        let Ok(directory) = file::open_within(self.0.as_fd(), Path::new(&path)) else { return false };
        let names = file::names(directory.as_fd()).unwrap_or_default();
        names.iter().any(|name| {
            let target = file::link_target(directory.as_fd(), Path::new(name)).unwrap_or_default();
            pipe_inode(target.as_bytes()).is_some_and(|inode| pipes.contains(&inode))
        })
    }
}

/// Reads the fields of /proc/PID/stat after the name, which may hold anything, parentheses and spaces included.
fn parse_stat(pid: i32, stat: &[u8]) -> Option<Entry> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Entry { pid, parent, session })
}

fn pipe_inode(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"pipe:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The leader, its session if that is its own, those known already, and the descendants of all these.
fn members(entries: &[Entry], leader: i32, session: bool, known: &HashSet<i32>) -> HashSet<i32> {
    let mut members: HashSet<i32> = entries
        .iter()
        .filter(|entry| {
            known.contains(&entry.pid) || (session && [entry.pid, entry.session].contains(&leader))
        })
        .map(|entry| entry.pid)
        .collect();
    loop {
        let before = members.len();
        let children = entries.iter().filter(|entry| members.contains(&entry.parent)).map(|entry| entry.pid);
        let children: Vec<i32> = children.collect();
        members.extend(children);
        if members.len() == before {
            return members;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_parentheses_does_not_shift_the_fields() {
        let entry = parse_stat(7, b"7 (a) R 1) ) S 3 5 6 0 -1 4194560").unwrap();
        assert_eq!(entry, Entry { pid: 7, parent: 3, session: 6 });
        for broken in [&b""[..], b"7 (a", b"7 (a) S", b"7 (a) S 1 2", b"7 (a) S x 2 3"] {
            assert_eq!(parse_stat(7, broken), None);
        }
    }

    #[test]
    fn pipes_are_told_from_other_links() {
        assert_eq!(pipe_inode(b"pipe:[42]"), Some(42));
        for other in [&b"socket:[42]"[..], b"pipe:[]", b"pipe:[4", b"/pipe:[4]"] {
            assert_eq!(pipe_inode(other), None);
        }
    }

    #[test]
    fn a_job_is_its_session_and_its_descendants() {
        let of = |list: &[(i32, i32, i32)]| -> Vec<Entry> {
            list.iter().map(|&(pid, parent, session)| Entry { pid, parent, session }).collect()
        };
        // 10 is the leader; 11 its child; 12 a grandchild in a session of its own; 13 of the session, adopted by init;
        // 20 another job, 21 its child; 14 a child of 12, listed before it.
        let entries = of(&[
            (14, 12, 12),
            (10, 1, 10),
            (11, 10, 10),
            (12, 11, 12),
            (13, 1, 10),
            (20, 1, 20),
            (21, 20, 20),
        ]);
        let sorted = |set: HashSet<i32>| {
            let mut list: Vec<i32> = set.into_iter().collect();
            list.sort_unstable();
            list
        };
        assert_eq!(sorted(members(&entries, 10, true, &HashSet::new())), [10, 11, 12, 13, 14]);
        assert!(members(&entries, 10, false, &HashSet::new()).is_empty());
        assert_eq!(sorted(members(&entries, 10, false, &HashSet::from([20]))), [20, 21]);
    }
}
