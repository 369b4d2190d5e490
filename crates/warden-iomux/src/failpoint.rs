//! Places at which a test build ends as a crash would: `WARDEN_IOMUX_FAILPOINT=NAME:N:FILE` ends it when it reaches NAME for
//! the Nth time and FILE is there, which it takes away: whoever follows goes on. In the product there are none.

/// Ends the process, if this is the place.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: LazyLock<Option<(String, AtomicU32, String)>> = LazyLock::new(|| {
        let text = std::env::var("WARDEN_IOMUX_FAILPOINT").ok()?;
        let mut parts = text.splitn(3, ':');
        let (name, times, token) = (parts.next()?, parts.next()?, parts.next()?);
        Some((name.to_owned(), AtomicU32::new(times.parse().ok()?), token.to_owned()))
    });
    if let Some((wanted, times, token)) = &*WANTED
        && wanted == name
        && times.fetch_sub(1, Ordering::SeqCst) == 1
        && std::fs::remove_file(token).is_ok()
    {
        std::process::abort();
    }
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn reach(_name: &str) {}
