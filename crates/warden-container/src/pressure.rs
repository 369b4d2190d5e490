//! Whether the machine has memory left for another container: refused by name is better than thrashing for all.

// What arrives here may be anything: no length, index or sum may be taken on trust.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use warden_linux::file::read_text;

use crate::error::Error;

/// The share of time in which tasks waited for memory, where the kernel measures it.
const PRESSURE: &str = "/proc/pressure/memory";
/// What the machine has.
const MEMORY: &str = "/proc/meminfo";

/// When a new container is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Percent of the last ten seconds in which every task waited for memory.
    pub pressure: u32,
    /// Bytes that must be available.
    pub available: u64,
}

/// Refuses a new container while the machine is short of memory; what cannot be known refuses nothing.
pub(crate) fn check(thresholds: Thresholds) -> Result<(), Error> {
    let read = |path: &str| read_text(path.as_ref()).unwrap_or_default();
    judge(thresholds, &read(PRESSURE), &read(MEMORY))
}

fn judge(thresholds: Thresholds, pressure: &str, memory: &str) -> Result<(), Error> {
    if let Some(percent) = waiting(pressure)
        && percent >= f64::from(thresholds.pressure)
    {
        return Err(Error::MemoryPressure { percent, limit: thresholds.pressure });
    }
    match available(memory) {
        Some(bytes) if bytes < thresholds.available => {
            Err(Error::LittleMemory { bytes, limit: thresholds.available })
        }
        _ => Ok(()),
    }
}

/// `full avg10=PERCENT ...` of a file of pressure.
fn waiting(pressure: &str) -> Option<f64> {
    let line = pressure.lines().find_map(|line| line.strip_prefix("full "))?;
    line.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

/// `MemAvailable: KIBIBYTES kB`, in bytes.
fn available(memory: &str) -> Option<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { pressure: 10, available: 64 << 20 };

    fn pressure(full: &str) -> String {
        format!(
            "some avg10=99.00 avg60=1.00 avg300=0.00 total=502\nfull avg10={full} avg60=99.00 avg300=99.00 total=457\n"
        )
    }

    fn memory(kilobytes: u64) -> String {
        format!("MemTotal:       24684084 kB\nMemFree:        1 kB\nMemAvailable:   {kilobytes} kB\n")
    }

    #[test]
    fn a_machine_with_memory_takes_another_container() {
        judge(THRESHOLDS, &pressure("9.99"), &memory(65_536)).unwrap();
    }

    #[test]
    fn pressure_and_want_are_refused_by_name() {
        let refused = judge(THRESHOLDS, &pressure("10.00"), &memory(65_536)).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the machine is short of memory: all tasks waited for it in 10 % of the last 10 s, the limit is 10 % \
             (server.memory_pressure.max_percent)"
        );
        let refused = judge(THRESHOLDS, &pressure("0.00"), &memory(65_535)).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the machine is short of memory: 67107840 bytes are available, a new container needs 67108864 \
             (server.memory_pressure.min_available)"
        );
    }

    #[test]
    fn what_the_kernel_does_not_tell_refuses_nothing() {
        for text in ["", "full", "full avg10=", "full avg10=x avg60=1", "some avg10=50.00"] {
            judge(THRESHOLDS, text, "MemAvailable: much\nMemAvailable:").unwrap();
        }
        judge(THRESHOLDS, "", "MemAvailable: 18446744073709551615 kB").unwrap();
    }

    #[test]
    fn this_machine_can_be_asked() {
        assert!(available(&read_text(MEMORY.as_ref()).unwrap()).is_some_and(|bytes| bytes > 0));
    }
}
