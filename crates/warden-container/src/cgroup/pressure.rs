//! How long the tasks of a group have waited for a resource, where the kernel measures it: version 2 with PSI.

use std::path::Path;

use warden_linux::file::read_text;

use crate::info::{Pressure, PressureStat, Stall};

/// Reads all that the kernel tells; none where it measures nothing.
pub(super) fn read(directory: &Path) -> Option<PressureStat> {
    let of = |file: &str| read_text(&directory.join(file)).ok().map(|text| parse(&text));
    let stat = PressureStat { cpu: of("cpu.pressure"), memory: of("memory.pressure"), io: of("io.pressure") };
    (stat != PressureStat::default()).then_some(stat)
}

/// Reads lines such as `some avg10=0.12 avg60=0.00 avg300=0.00 total=4711`.
fn parse(text: &str) -> Pressure {
    let line = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let value =
            |key: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        Some(Stall {
            avg10: hundredths(value("avg10")?)?,
            avg60: hundredths(value("avg60")?)?,
            avg300: hundredths(value("avg300")?)?,
            total: value("total")?.parse().ok()?,
        })
    };
    Pressure { some: line("some "), full: line("full ") }
}

/// The kernel writes two digits behind the point.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    let part: u64 = part.parse().ok().filter(|_| part.len() == 2)?;
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn both_lines_are_read_in_hundredths_of_a_percent() {
        let text = "some avg10=0.12 avg60=12.00 avg300=100.00 total=4711\nfull avg10=0.00 avg60=0.05 avg300=0.00 total=5\n";
        let read = parse(text);
        assert_eq!(read.some, Some(Stall { avg10: 12, avg60: 1_200, avg300: 10_000, total: 4_711 }));
        assert_eq!(read.full, Some(Stall { avg10: 0, avg60: 5, avg300: 0, total: 5 }));
        assert_eq!(parse("some avg10=0.1 avg60=1 total=\n"), Pressure::default());
    }

    #[test]
    fn a_kernel_that_measures_nothing_tells_nothing() {
        let group = tempfile::tempdir().unwrap();
        assert_eq!(read(group.path()), None);
        fs::write(group.path().join("io.pressure"), "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")
            .unwrap();
        let stat = read(group.path()).unwrap();
        assert_eq!((stat.cpu, stat.io.unwrap().some.unwrap().total), (None, 7));
    }
}
