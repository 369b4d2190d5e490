//! Places at which a test build ends as a crash would: `WARDEN_FAILPOINT=NAME:N` ends it when it reaches NAME for the Nth
//! time. In the product there are none.

/// Ends the process, if this is the place.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: std::fmt::Arguments<'_>) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: LazyLock<Option<(String, AtomicU32)>> = LazyLock::new(|| {
        let text = std::env::var("WARDEN_FAILPOINT").ok()?;
        let (name, times) = text.rsplit_once(':')?;
        Some((name.to_owned(), AtomicU32::new(times.parse().ok()?)))
    });
    if let Some((wanted, times)) = &*WANTED
        && *wanted == name.to_string()
        && times.fetch_sub(1, Ordering::SeqCst) == 1
    {
        // As if it were killed: nothing is flushed, nothing is dropped.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn reach(_name: std::fmt::Arguments<'_>) {}
