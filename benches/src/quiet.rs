//! Waiting until the machine does nothing: who has a turn must not pay for what the one before has left to the kernel.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long nothing must run. What wardend removes later it begins within 50 ms; the kernel's grace periods are shorter.
const QUIET: Duration = Duration::from_millis(70);
/// A machine that is never quiet is measured all the same.
const PATIENCE: Duration = Duration::from_millis(400);
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until nothing but this process has run for a while, but not for long.
pub(crate) fn wait() {
    let start = Instant::now();
    let mut since = start;
    while since.elapsed() < QUIET && start.elapsed() < PATIENCE {
        sleep(PAUSE);
        let loads = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        if running(&loads).is_none_or(|count| count > 1) {
            since = Instant::now();
        }
    }
}

/// How many tasks run or could, by the text of /proc/loadavg.
fn running(loads: &str) -> Option<u32> {
    loads.split(' ').nth(3)?.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_runs() {
        assert_eq!(running("0.08 0.12 0.33 3/217 4711\n"), Some(3));
        assert_eq!(running(""), None);
        let loads = fs::read_to_string("/proc/loadavg").unwrap();
        assert!(running(&loads).unwrap() >= 1);
    }

    #[test]
    fn it_waits_a_while_and_not_for_ever() {
        let start = Instant::now();
        wait();
        assert!(start.elapsed() >= QUIET);
    }
}
