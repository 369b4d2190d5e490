//! Limits of one writable layer: a pure function from what holds and what is asked for to what shall hold.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::request::{Disk, Space};

/// What a client's words call it.
const WHAT: &str = "disk limit";

/// Limits of one writable layer; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes that may be passed for the file system's grace time.
    pub soft_bytes: u64,
    /// Bytes that are never passed.
    pub hard_bytes: u64,
    /// Files that may be passed for the file system's grace time.
    pub soft_inodes: u64,
    /// Files that are never passed.
    pub hard_inodes: u64,
}

/// How large a file system is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    /// 0 where it makes inodes as it needs them.
    pub(crate) inodes: u64,
}

/// The limits that shall hold, or the value that cannot be.
pub(crate) fn merge(before: Limits, asked: &Disk, size: Size) -> Result<Limits, Error> {
    let space = |asked: Option<Space>, before| asked.map_or(Ok(before), |space| bytes(space, size.bytes));
    let inodes =
        |asked: Option<u64>, before| asked.map_or(Ok(before), |count| check_inodes(count, size.inodes));
    let wanted = Limits {
        soft_bytes: space(asked.soft, before.soft_bytes)?,
        hard_bytes: space(asked.hard, before.hard_bytes)?,
        soft_inodes: inodes(asked.soft_inodes, before.soft_inodes)?,
        hard_inodes: inodes(asked.hard_inodes, before.hard_inodes)?,
    };
    check_order(wanted.soft_bytes, wanted.hard_bytes, "bytes")?;
    check_order(wanted.soft_inodes, wanted.hard_inodes, "files")?;
    Ok(wanted)
}

/// Whole blocks of space, in bytes.
fn bytes(space: Space, most: u64) -> Result<u64, Error> {
    let (value, unit, size) = match space {
        Space::Bytes(bytes) => (bytes, "bytes", 1),
        Space::Blocks(blocks) => (blocks, "blocks of 1024 bytes", Space::BLOCK),
    };
    match value.checked_mul(size).and_then(|bytes| bytes.checked_next_multiple_of(Space::BLOCK)) {
        Some(bytes) if bytes <= most => Ok(bytes),
        _ => Err(refused(value, format!("the file system has {} {unit}", most / size))),
    }
}

/// A number of files that some file system can have.
fn check_inodes(count: u64, most: u64) -> Result<u64, Error> {
    // Clients ask for more than a small file system has; what no file system of these has is a mistake.
    let most = most.max(u32::MAX.into());
    if count <= most { Ok(count) } else { Err(refused(count, format!("more than {most} files"))) }
}

fn check_order(soft: u64, hard: u64, unit: &str) -> Result<(), Error> {
    if hard != 0 && soft > hard {
        return Err(refused(soft, format!("the soft limit is above the hard one of {hard} {unit}")));
    }
    Ok(())
}

fn refused(value: u64, reason: String) -> Error {
    Error::BadLimit { what: WHAT, value, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { bytes: 1 << 30, inodes: 1000 };
    const BEFORE: Limits = Limits { soft_bytes: 1024, hard_bytes: 4096, soft_inodes: 5, hard_inodes: 9 };

    #[test]
    fn what_is_not_asked_for_stays() {
        assert_eq!(merge(BEFORE, &Disk::default(), SIZE).unwrap(), BEFORE);
        let asked = Disk { hard_inodes: Some(7), ..Disk::default() };
        assert_eq!(merge(BEFORE, &asked, SIZE).unwrap(), Limits { hard_inodes: 7, ..BEFORE });
    }

    #[test]
    fn space_is_rounded_up_to_blocks_and_zero_is_no_limit() {
        for (space, bytes) in [
            (Space::Bytes(0), 0),
            (Space::Bytes(1), 1024),
            (Space::Bytes(1024), 1024),
            (Space::Bytes(1025), 2048),
            (Space::Blocks(0), 0),
            (Space::Blocks(3), 3072),
            (Space::Bytes(1 << 30), 1 << 30),
            (Space::Blocks(1 << 20), 1 << 30),
        ] {
            let asked = Disk { hard: Some(space), soft: Some(Space::Bytes(0)), ..Disk::default() };
            assert_eq!(merge(BEFORE, &asked, SIZE).unwrap().hard_bytes, bytes, "{space:?}");
        }
    }

    #[test]
    fn each_impossible_value_is_named() {
        let hard = |space| Disk { hard: Some(space), ..Disk::default() };
        let soft = |space| Disk { soft: Some(space), ..Disk::default() };
        let files = |count| Disk { hard_inodes: Some(count), ..Disk::default() };
        for (asked, text) in [
            (hard(Space::Bytes(u64::MAX)), "18446744073709551615: the file system has 1073741824 bytes"),
            (hard(Space::Bytes((1 << 30) + 1)), "1073741825: the file system has 1073741824 bytes"),
            (hard(Space::Blocks(u64::MAX)), "18446744073709551615: the file system has 1048576 blocks"),
            (hard(Space::Blocks(1 << 54)), "18014398509481984: the file system has 1048576 blocks"),
            (soft(Space::Blocks((1 << 20) + 1)), "1048577: the file system has 1048576 blocks"),
            (soft(Space::Bytes(4097)), "5120: the soft limit is above the hard one of 4096 bytes"),
            (hard(Space::Bytes(1)), ""),
            (files(1 << 32), "4294967296: more than 4294967295 files"),
            (files(u64::MAX), "18446744073709551615: more than 4294967295 files"),
            (files(4), "5: the soft limit is above the hard one of 4 files"),
        ] {
            match merge(BEFORE, &asked, SIZE) {
                Ok(_) => assert_eq!(text, ""),
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.starts_with(&format!("Failed setting disk limit: {text}")), "{error}");
                    assert!(!text.is_empty(), "{error}");
                }
            }
        }
    }
}
