//! Which versions of a message or a file a program reads: an update replaces the programs under running containers, so a
//! program meets helpers and files of the version before, and helpers meet programs of the next.

use std::ops::RangeInclusive;

/// The current version and the one before it.
pub const fn spoken(current: u32) -> RangeInclusive<u32> {
    RangeInclusive::new(if current > 1 { current - 1 } else { 1 }, current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_before_is_read_and_no_other() {
        assert_eq!(spoken(1), 1..=1);
        assert_eq!(spoken(2), 1..=2);
        assert_eq!(spoken(7), 6..=7);
    }
}
