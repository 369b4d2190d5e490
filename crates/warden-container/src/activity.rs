//! How busy clients keep the daemon: what can wait waits for a moment at which nobody else does.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::pool::lock;

/// Requests under way that make or end processes.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    state: Mutex<State>,
    /// The last request has ended, or something of the pools is free again.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    /// When the last one ended.
    ended: Option<Instant>,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy<'a>(&'a Activity);

impl Activity {
    /// Counts a request.
    pub(crate) fn begin(&self) -> Busy<'_> {
        lock(&self.state).under_way += 1;
        Busy(self)
    }

    /// Wakes who waits for a change.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Waits for a change since the last one was waited for. For one waiter.
    pub(crate) async fn change(&self) {
        self.changed.notified().await;
    }

    /// Waits until there has been no request for a while. For one waiter.
    pub(crate) async fn quiet(&self, pause: Duration) {
        while let Some(left) = self.until_quiet(pause) {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => self.change().await,
            }
        }
    }

    /// How long it takes at least until it is quiet; nothing when it is, no time when requests are under way.
    fn until_quiet(&self, pause: Duration) -> Option<Option<Duration>> {
        let state = lock(&self.state);
        if state.under_way > 0 {
            return Some(None);
        }
        let left = pause.saturating_sub(state.ended?.elapsed());
        (!left.is_zero()).then_some(Some(left))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let last = {
            let mut state = lock(&self.0.state);
            state.under_way -= 1;
            state.ended = Some(Instant::now());
            state.under_way == 0
        };
        if last {
            self.0.changed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_can_wait_waits_for_the_last_request_and_a_pause() {
        let activity = Activity::default();
        let pause = Duration::from_secs(3600);
        assert_eq!(activity.until_quiet(pause), None, "nothing was ever asked");
        let (first, second) = (activity.begin(), activity.begin());
        assert_eq!(activity.until_quiet(pause), Some(None));
        drop(first);
        assert_eq!(activity.until_quiet(pause), Some(None));
        drop(second);
        assert!(matches!(activity.until_quiet(pause), Some(Some(_))));
        assert_eq!(activity.until_quiet(Duration::ZERO), None);
        activity.quiet(Duration::ZERO).await;
        activity.change().await;
    }
}
