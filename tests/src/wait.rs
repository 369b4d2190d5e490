//! Waiting for what happens outside of the test's own control.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

/// How many times as long everything may take here: `WARDEN_TEST_PATIENCE`, for machines that are interpreted.
pub(crate) fn patience() -> u32 {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| {
        let factor = std::env::var("WARDEN_TEST_PATIENCE").unwrap_or_else(|_| "1".to_owned());
        factor.parse().expect("WARDEN_TEST_PATIENCE is a whole number")
    });
    *FACTOR
}

/// How many containers are a crowd: a hundred, or `WARDEN_TEST_CROWD`, for machines that are interpreted.
pub fn crowd() -> usize {
    let number = std::env::var("WARDEN_TEST_CROWD").unwrap_or_else(|_| "100".to_owned());
    number.parse().expect("WARDEN_TEST_CROWD is a whole number")
}

/// Waits until `happened`, at most `seconds` times the machine's factor; panics with `what` when it does not happen.
#[track_caller]
pub fn eventually(what: &str, seconds: u64, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds) * patience();
    while !happened() {
        assert!(Instant::now() < deadline, "not so after {seconds} s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Does something, and panics when it took longer than `seconds`; gives its result and how long it took.
#[track_caller]
pub fn within<T>(seconds: f64, what: &str, action: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = action();
    let took = start.elapsed();
    assert!(
        took.as_secs_f64() <= seconds * f64::from(patience()),
        "{what} took {took:?}, more than {seconds} s"
    );
    (result, took)
}
