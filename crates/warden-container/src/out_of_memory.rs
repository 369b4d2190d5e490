//! What is done when a container runs out of memory: it is told, logged, and the container is stopped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::Actor;
use crate::cgroup::oom::{Alarm, Watch};
use crate::shared::Shared;
use crate::state::State;

/// What clients show to their users.
const EVENT: &str = "out of memory";
/// How long the kernel may take to kill, and to say so.
const VICTIM_TIME: Duration = Duration::from_millis(200);

impl Actor {
    /// Waits for the end of the memory from now on.
    pub(crate) fn watch(&mut self, watch: Watch) {
        match Alarm::new(watch) {
            Ok(alarm) => self.alarm = Some(alarm),
            Err(error) => {
                tracing::error!(container = %self.shared.id, %error, "the memory cannot be watched")
            }
        }
    }

    /// Stops the container, once; who stops or destroys it already need not hear of it.
    pub(crate) fn ran_out_of_memory(&mut self, outcome: io::Result<()>) {
        self.alarm = None;
        if self.shared.state() != State::Active {
            return;
        }
        if let Err(error) = outcome {
            tracing::error!(container = %self.shared.id, %error, "the memory is watched no more");
            return;
        }
        self.shared.add_event(EVENT);
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || report(&shared));
        self.shared.set_state(State::Stopped);
        self.begin_stop(false, None);
        self.save_later();
    }
}

/// Logs how much was in use, and which process was killed: a moment later, for version 1 tells the end of the memory
/// before the kernel chooses.
fn report(shared: &Shared) {
    let peak = shared.machine.cgroups.memory_peak(shared.id);
    let limit = shared.limits.requested().memory;
    std::thread::sleep(VICTIM_TIME);
    let victim = shared.machine.cgroups.victim(shared.id);
    let pid = victim.as_ref().map(|victim| victim.pid);
    let killed = victim.as_ref().map(|victim| victim.name.as_str());
    tracing::warn!(container = %shared.id, limit, peak, killed, pid, "{EVENT}: the container is stopped");
}

/// Waits for the end of the memory, if that is watched.
pub(crate) async fn next(alarm: Option<&mut Alarm>) -> io::Result<()> {
    match alarm {
        Some(alarm) => alarm.next().await,
        None => std::future::pending().await,
    }
}
