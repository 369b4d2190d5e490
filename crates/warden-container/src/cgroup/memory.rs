//! The limit of a group's memory, swap included, as either version keeps it.

use std::fs;
use std::io;
use std::path::Path;

use warden_linux::file::read_text;

use crate::cgroup::hierarchy::Version;
use crate::cgroup::stat::{UNLIMITED, bytes_or_max};
use crate::cgroup::write_existing;

/// The least that can be limited: a page, bytes.
const PAGE: u64 = 4096;
/// How often the kernel is asked to give memory back before a limit below the use is refused, as it does itself on version 1.
const ATTEMPTS: usize = 5;
const EBUSY: i32 = 16;

/// Checks a limit against the machine's memory and swap; `None` stands for no limit, or says why it cannot be.
pub(crate) fn check(bytes: u64, machine: u64) -> Result<Option<u64>, String> {
    match bytes {
        0..PAGE => Err(format!("less than a page of {PAGE} bytes")),
        UNLIMITED.. => Ok(None),
        _ if bytes > machine => Err(format!("above the machine's memory of {machine} bytes")),
        _ => Ok(Some(bytes)),
    }
}

/// Bytes of memory and swap that the machine has.
pub(crate) fn of_machine() -> u64 {
    let machine = rustix::system::sysinfo();
    let unit = u64::from(machine.mem_unit.max(1));
    (machine.totalram as u64).saturating_add(machine.totalswap as u64).saturating_mul(unit)
}

/// Reads the limit, bytes.
pub(super) fn limit(version: Version, directory: &Path) -> io::Result<u64> {
    number(
        directory,
        match version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        },
    )
}

/// Sets the limit of memory and swap together; where one part is refused, the other is as before.
pub(super) fn set_limit(version: Version, directory: &Path, limit: Option<u64>) -> io::Result<()> {
    match version {
        Version::V1 => set_v1(directory, limit),
        Version::V2 => set_v2(directory, limit),
    }
}

fn set_v1(directory: &Path, limit: Option<u64>) -> io::Result<()> {
    let text = limit.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
    let (memory, both) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    let before = number(directory, memory)?;
    let Some(both_before) = if_there(number(directory, both))? else {
        return write_existing(&directory.join(memory), &text);
    };
    // At no moment may memory alone have more than memory and swap together.
    let (first, second, undo) = if limit.unwrap_or(UNLIMITED) > both_before {
        (both, memory, both_before)
    } else {
        (memory, both, before)
    };
    write_existing(&directory.join(first), &text)?;
    write_existing(&directory.join(second), &text).inspect_err(|_| {
        // What was possible a moment ago is possible again, or nothing is.
        let _ = write_existing(&directory.join(first), &undo.to_string());
    })
}

/// Version 2 limits swap beside memory: with a limit there is no swap, so that both together keep it.
fn set_v2(directory: &Path, limit: Option<u64>) -> io::Result<()> {
    let (memory, swap) = (directory.join("memory.max"), directory.join("memory.swap.max"));
    let before = if_there(fs::read_to_string(&swap))?;
    if before.is_some() {
        write_existing(&swap, if limit.is_some() { "0" } else { "max" })?;
    }
    let set = match limit {
        Some(bytes) => make_room(directory, bytes).and_then(|()| write_existing(&memory, &bytes.to_string())),
        None => write_existing(&memory, "max"),
    };
    set.inspect_err(|_| {
        if let Some(before) = before {
            // As above.
            let _ = write_existing(&swap, before.trim());
        }
    })
}

/// Has memory given back until the limit holds. Version 2 kills where it does not; version 1 refuses, and so do we.
fn make_room(directory: &Path, limit: u64) -> io::Result<()> {
    for _ in 0..ATTEMPTS {
        let excess = used(directory)?.saturating_sub(limit);
        if excess == 0 {
            return Ok(());
        }
        // It fails when it gets less than asked for; what counts is what is used then.
        let _ = write_existing(&directory.join("memory.reclaim"), &excess.to_string());
    }
    if used(directory)? <= limit { Ok(()) } else { Err(io::Error::from_raw_os_error(EBUSY)) }
}

fn used(directory: &Path) -> io::Result<u64> {
    let swap = if_there(number(directory, "memory.swap.current"))?.unwrap_or(0);
    Ok(number(directory, "memory.current")?.saturating_add(swap))
}

/// The most that was used at one time, bytes, where the kernel tells.
pub(super) fn peak(version: Version, directory: &Path) -> Option<u64> {
    let file = match version {
        Version::V1 => "memory.max_usage_in_bytes",
        Version::V2 => "memory.peak",
    };
    number(directory, file).ok()
}

fn number(directory: &Path, file: &str) -> io::Result<u64> {
    bytes_or_max(&read_text(&directory.join(file))?).ok_or(io::ErrorKind::InvalidData.into())
}

fn if_there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Has the kernel take back the pages of files that are charged to a group without processes: they would keep the dead group
/// in memory.
pub(super) fn shed_pages(version: Version, directory: &Path) {
    // Refused where some are in use all the same.
    let _ = match version {
        // `memory.force_empty` would try sixteen times in vain, since what is charged for the kernel's own objects stays.
        Version::V1 => {
            let kernel = read_text(&directory.join("memory.kmem.usage_in_bytes"));
            fs::write(directory.join("memory.limit_in_bytes"), kernel.as_deref().unwrap_or("0").trim_end())
        }
        Version::V2 => read_text(&directory.join("memory.stat")).and_then(|stat| {
            let pages = stat.lines().find_map(|line| line.strip_prefix("file ")).unwrap_or("0");
            if pages == "0" { Ok(()) } else { fs::write(directory.join("memory.reclaim"), pages) }
        }),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    fn content(directory: &tempfile::TempDir, file: &str) -> String {
        fs::read_to_string(directory.path().join(file)).unwrap()
    }

    #[test]
    fn a_limit_is_at_least_a_page_and_at_most_the_machine() {
        let machine = 1000 * MIB;
        for refused in [0, 1, 4095, machine + 1, UNLIMITED - 1] {
            assert!(check(refused, machine).is_err(), "{refused}");
        }
        for taken in [4096, 4097, machine] {
            assert_eq!(check(taken, machine), Ok(Some(taken)));
        }
        for none in [UNLIMITED, 1 << 63, u64::MAX] {
            assert_eq!(check(none, machine), Ok(None), "{none}");
        }
        assert!(of_machine() > 64 * MIB);
    }

    #[test]
    fn memory_without_swap_accounting_has_one_file() {
        let group = group(&[("memory.limit_in_bytes", "0")]);
        set_limit(Version::V1, group.path(), Some(5 * MIB)).unwrap();
        assert_eq!(limit(Version::V1, group.path()).unwrap(), 5 * MIB);
        assert!(!group.path().join("memory.memsw.limit_in_bytes").exists());
    }

    #[test]
    fn version_2_takes_the_swap_away_and_gives_it_back() {
        let group =
            group(&[("memory.max", "max\n"), ("memory.swap.max", "max\n"), ("memory.current", "4096\n")]);
        assert_eq!(limit(Version::V2, group.path()).unwrap(), UNLIMITED);
        fs::write(group.path().join("memory.max"), "").unwrap();
        fs::write(group.path().join("memory.swap.max"), "").unwrap();
        set_limit(Version::V2, group.path(), Some(MIB)).unwrap();
        assert_eq!(
            (content(&group, "memory.max"), content(&group, "memory.swap.max")),
            (MIB.to_string(), "0".into())
        );
    }

    #[test]
    fn version_2_refuses_what_is_used_already_and_changes_nothing() {
        let group =
            group(&[("memory.max", "max"), ("memory.swap.max", "max"), ("memory.current", "8388608")]);
        let refused = set_limit(Version::V2, group.path(), Some(MIB)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(EBUSY));
        assert_eq!(
            (content(&group, "memory.max"), content(&group, "memory.swap.max")),
            ("max".into(), "max".into())
        );
    }
}
