//! What is done when iomux dies under a container that lives, or says what is not understood and is ended: another takes
//! its place, and nothing is lost.
//!
//! Until it is ready no request is taken from the inbox: clients wait, and notice nothing else. A job that was being
//! started is known to the next iomux or was never started. Copies end, for their helpers die with the iomux that has
//! made them.

use std::time::Duration;

use tokio::task::JoinHandle;
use warden_iomux::message::{Event, Step};

use crate::actor::Actor;
use crate::error::{Context, Error};
use crate::link::Lost;
use crate::supervisor::Supervisor;
use crate::undying;

/// How many that follow each other may die before they are ready.
const ATTEMPTS: u32 = 5;
/// How long the first that died is waited for before the next is tried; each further one for as much longer.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a killed one may take to be gone.
const END_TIME: Duration = Duration::from_secs(5);

/// The next iomux, while it is being started.
pub(crate) type TakeOver = JoinHandle<Result<Supervisor, Error>>;

impl Actor {
    /// Has another iomux take over from one that has died, or has to die.
    pub(crate) fn replace_supervisor(&mut self, lost: &Lost) {
        match lost {
            Lost::Closed => {
                tracing::warn!(container = %self.shared.id, "iomux has died: another takes over");
            }
            lost => {
                tracing::error!(container = %self.shared.id, error = %lost, "iomux is ended: another takes over");
            }
        }
        self.link = None;
        self.end_copies("its supervisor has died");
        let old = self.process.take();
        let machine = self.shared.machine.clone();
        let spec = machine.depot.spec_path(self.shared.id);
        self.take_over = Some(tokio::spawn(async move {
            // Two would read the same pipes.
            if let Some(old) = old {
                old.kill();
                if tokio::time::timeout(END_TIME, old.end()).await.is_err() {
                    let source = std::io::Error::other(undying::describe(old.id().cast_signed()));
                    return Err(source).context(|| "killing iomux".to_owned());
                }
            }
            let mut attempt = 1;
            loop {
                match Supervisor::take_over(&machine.supervisors, &spec).await {
                    Err(error) if attempt < ATTEMPTS && !matches!(error, Error::TimedOut { .. }) => {
                        tracing::warn!(%error, attempt, "an iomux did not take over");
                        // What it lacked, on the disk say, may be there in a moment.
                        tokio::time::sleep(PAUSE * attempt).await;
                        attempt += 1;
                    }
                    outcome => return outcome,
                }
            }
        }));
    }

    /// Goes on with the next iomux, or without any.
    pub(crate) fn taken_over(&mut self, outcome: Result<Supervisor, Error>) {
        self.take_over = None;
        match outcome {
            Ok(Supervisor { link, process, told, .. }) => {
                self.link = Some(link);
                self.process = Some(process);
                // Jobs that the one before had not begun are begun by this one.
                let not_begun = |event: &Event| matches!(event, Event::SpawnFailed { step: Step::Init, .. });
                for event in told.into_iter().filter(|event| !not_begun(event)) {
                    self.hear(event);
                }
                self.start_again();
            }
            Err(error) => {
                tracing::error!(container = %self.shared.id, %error, "no iomux takes over");
                self.lose(&Lost::Closed);
            }
        }
    }
}
