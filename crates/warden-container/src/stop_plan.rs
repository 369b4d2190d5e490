//! When a stopping container is sent which signal: pure, time passed in.
//!
//! TERM at once and each second; after ten seconds KILL, each second too (a process may be born between two). When that
//! does not help, wshd is held up itself, by a file system of the tenant's that never answers: then the container ends as a
//! whole, for wshd can be killed whatever it waits for. And when even that is not seen to happen, an end, because no
//! request may hang.

use std::time::{Duration, Instant};

/// How long processes may take to end by themselves.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two signals.
const PERIOD: Duration = Duration::from_secs(1);
/// How long wshd may take to have killed everything.
const KILL_TIME: Duration = Duration::from_secs(3);
/// How long the end of the container may take then.
const END_TIME: Duration = Duration::from_secs(10);

/// Signals that a container is stopped with.
pub(crate) const TERM: i32 = 15;
/// The signal that cannot be ignored.
pub(crate) const KILL: i32 = 9;

/// A stop under way.
#[derive(Debug)]
pub(crate) struct StopPlan {
    kill_from: Instant,
    next: Instant,
    ended: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Wait,
    /// Send this signal to everybody.
    Signal(i32),
    /// Kill wshd and, by that, everybody.
    End,
    /// Nothing helps.
    GiveUp,
}

impl StopPlan {
    /// Begins a stop, with TERM or with KILL.
    pub(crate) fn new(now: Instant, kill: bool) -> Self {
        Self { kill_from: if kill { now } else { now + PATIENCE }, next: now, ended: false }
    }

    /// Goes over to KILL at once.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if now < self.kill_from {
            *self = Self::new(now, true);
        }
    }

    /// When there is something to be done.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Says what is to be done, and counts it as done.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        let end = self.kill_from + KILL_TIME;
        if now >= end + END_TIME {
            return Due::GiveUp;
        }
        if now >= end {
            self.next = end + END_TIME;
            return if std::mem::replace(&mut self.ended, true) { Due::Wait } else { Due::End };
        }
        if now < self.next {
            return Due::Wait;
        }
        let kill = now >= self.kill_from;
        // The step to KILL is not late because a TERM was.
        self.next = if kill { (now + PERIOD).min(end) } else { (now + PERIOD).min(self.kill_from) };
        Due::Signal(if kill { KILL } else { TERM })
    }

    /// The whole time that it may take.
    pub(crate) fn limit() -> Duration {
        PATIENCE + KILL_TIME + END_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All signals of a stop whose timer is always exact, by second.
    fn signals(mut plan: StopPlan, start: Instant) -> Vec<(u64, Due)> {
        let mut all = Vec::new();
        loop {
            let now = plan.next();
            let due = plan.due(now);
            all.push(((now - start).as_secs(), due));
            if due == Due::GiveUp {
                return all;
            }
        }
    }

    #[test]
    fn term_each_second_then_kill_then_the_whole_container_then_an_end() {
        let now = Instant::now();
        let all = signals(StopPlan::new(now, false), now);
        let expected = (0..10).map(|second| (second, Due::Signal(TERM)));
        let expected = expected.chain((10..13).map(|second| (second, Due::Signal(KILL))));
        assert_eq!(all, expected.chain([(13, Due::End), (23, Due::GiveUp)]).collect::<Vec<_>>());
        assert_eq!(StopPlan::limit().as_secs(), 23);
    }

    #[test]
    fn kill_begins_at_once() {
        let now = Instant::now();
        let all = signals(StopPlan::new(now, true), now);
        assert_eq!((all[0], all.len()), ((0, Due::Signal(KILL)), 5));
    }

    #[test]
    fn nothing_is_due_between_two_signals() {
        let now = Instant::now();
        let mut plan = StopPlan::new(now, false);
        assert_eq!(plan.due(now), Due::Signal(TERM));
        assert_eq!(plan.due(now), Due::Wait);
        assert_eq!(plan.next(), now + PERIOD);
    }

    #[test]
    fn who_is_in_a_hurry_kills_earlier_but_not_twice() {
        let now = Instant::now();
        let mut plan = StopPlan::new(now, false);
        plan.due(now);
        plan.hurry(now);
        assert_eq!(plan.due(now), Due::Signal(KILL));
        plan.hurry(now + PERIOD / 2);
        assert_eq!(plan.due(now + PERIOD / 2), Due::Wait);
    }

    #[test]
    fn a_late_timer_still_goes_over_to_kill() {
        let now = Instant::now();
        let mut plan = StopPlan::new(now, false);
        assert_eq!(plan.due(now + Duration::from_millis(9_500)), Due::Signal(TERM));
        assert_eq!(plan.next(), now + PATIENCE);
    }
}
