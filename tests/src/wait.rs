//! Waiting for what happens outside of the test's own control.

use std::thread;
use std::time::{Duration, Instant};

/// Waits until `happened`, at most `seconds`; panics with `what` when it does not happen.
#[track_caller]
pub fn eventually(what: &str, seconds: u64, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
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
    assert!(took.as_secs_f64() <= seconds, "{what} took {took:?}, more than {seconds} s");
    (result, took)
}
