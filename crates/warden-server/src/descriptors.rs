//! How many files the daemon may have open: a few for each container, connection and job.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What 2,000 busy containers need, rounded up.
pub(crate) const WANTED: u64 = 65_536;

/// Raises the limit as far as the kernel lets it; goes on with what there is.
pub(crate) fn raise() {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    // Only CAP_SYS_RESOURCE may raise the hard limit; in a container of its own even root lacks it.
    if hard < WANTED && set(WANTED).is_ok() {
        return;
    }
    match set(hard) {
        Ok(()) if hard < WANTED => {
            tracing::warn!(
                limit = hard,
                "few files may be open: the hard limit of nofile could not be raised"
            );
        }
        Ok(()) => {}
        Err(error) => tracing::warn!(%error, "raising the limit of open files to the hard limit"),
    }
}

fn set(limit: u64) -> rustix::io::Result<()> {
    let limit = (limit != u64::MAX).then_some(limit);
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })
}
