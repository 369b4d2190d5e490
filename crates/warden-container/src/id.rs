//! Ids of containers: 11 characters, so that `w-<id>-0` fits into the name of a network interface.

use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::pool::lock;

/// Characters of an id.
const LENGTH: usize = 11;
/// The digits, by value.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The id of a container: what every name of its files and kernel objects is made from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; LENGTH]);

impl Id {
    /// Writes bits 54 to 0 of a number in base 32.
    fn of(number: u64) -> Self {
        Self(std::array::from_fn(|position| {
            let shift = 5 * (LENGTH - 1 - position);
            DIGITS[(number >> shift) as usize & 31]
        }))
    }

    /// Reads an id, if the name is one.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let id: [u8; LENGTH] = name.try_into().ok()?;
        id.iter().all(|digit| DIGITS.contains(digit)).then_some(Self(id))
    }

    /// The number that it is.
    fn number(self) -> u64 {
        let digit = |digit: &u8| DIGITS.iter().position(|known| known == digit).unwrap_or_default() as u64;
        self.0.iter().fold(0, |number, character| number << 5 | digit(character))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AsRef<Path> for Id {
    fn as_ref(&self) -> &Path {
        Path::new(self.as_str())
    }
}

/// Hands out ids: microseconds since the epoch at the first, one more each time.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    next: Mutex<Option<u64>>,
}

impl Ids {
    /// The next id.
    pub(crate) fn next(&self) -> Id {
        self.next_after(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_micros() as u64
        })
    }

    /// Hands out none up to this one: it was used, and the clock may have been set back since.
    pub(crate) fn pass(&self, used: Id) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        let mut next = lock(&self.next);
        // Of the clock's number an id keeps 55 bits.
        let number = next.unwrap_or(now);
        let mask = (1 << 55) - 1;
        let ahead = used.number().wrapping_sub(number & mask) & mask;
        *next = Some(if ahead < 1 << 54 { number.wrapping_add(ahead + 1) } else { number });
    }

    fn next_after(&self, first: impl FnOnce() -> u64) -> Id {
        let mut next = lock(&self.next);
        let number = next.unwrap_or_else(first);
        *next = Some(number.wrapping_add(1));
        Id::of(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_base_32_of_55_bits() {
        for (number, text) in [
            (0, "00000000000"),
            (31, "0000000000v"),
            (32, "00000000010"),
            ((1 << 55) - 1, "vvvvvvvvvvv"),
            (1 << 55, "00000000000"),
            (1_700_000_000_000_000, "1ga4gc1sg00"),
        ] {
            assert_eq!(Id::of(number).as_str(), text);
            assert_eq!(Id::parse(text.as_bytes()), Some(Id::of(number)));
        }
    }

    #[test]
    fn ids_go_up_by_one_from_the_first_moment() {
        let ids = Ids::default();
        assert_eq!(ids.next_after(|| 1_000).as_str(), Id::of(1_000).as_str());
        assert_eq!(ids.next_after(|| 5_000), Id::of(1_001));
        assert!(Ids::default().next().as_str() > "0");
    }

    #[test]
    fn an_id_that_was_used_is_passed() {
        let ids = Ids::default();
        let first = ids.next();
        let used = Id::of(first.number() + 1_000_000_000);
        ids.pass(used);
        assert_eq!(ids.next(), Id::of(used.number() + 1));
        ids.pass(first);
        assert_eq!(ids.next(), Id::of(used.number() + 2), "it does not go back");
    }

    #[test]
    fn other_names_are_no_ids() {
        for name in ["", "0000000000", "000000000000", "0000000000w", "0000000000A", "../../../..", ".images"]
        {
            assert_eq!(Id::parse(name.as_bytes()), None, "{name}");
        }
    }
}
