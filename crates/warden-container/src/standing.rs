//! A container that was made before anybody asked for it: all of the ledger's objects but the snapshot. How it becomes
//! what a request asks for, and how it ends if nobody wants it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use warden_iomux::message::{Event, Request};

use crate::create::Making;
use crate::dns;
use crate::error::{Error, blocking};
use crate::ledger::Object;
use crate::request::Create;
use crate::supervisor;

/// How long inserting mounts may take.
const FURNISH_TIME: Duration = Duration::from_secs(30);

/// What came of handing a container over.
pub(crate) enum HandedOver {
    /// It is what was asked for, and has its snapshot.
    Whole(Making),
    /// It has ended meanwhile, or cannot be reached.
    Lost(Making),
    /// The request cannot be served by anything; the container is as it was.
    Refused(Making, Error),
    /// What it has of the request by now is not known.
    Failed(Making, Error),
}

/// How far the steps went that block.
enum Looked {
    Whole,
    /// Its spec is written anew, and iomux has to follow it.
    Lacking,
    Refused(Error),
    Failed(Error),
}

/// Why a container does not have what its spec says.
enum NotFurnished {
    Lost,
    Refused(Error),
}

impl Making {
    /// Gives it what a request asks for, and its snapshot.
    pub(crate) async fn hand_over(mut self, request: Create) -> HandedOver {
        self.request = request;
        if !self.is_sound() {
            return HandedOver::Lost(self);
        }
        let (mut standing, mut looked) = match apart(self, Self::look).await {
            Ok(both) => both,
            Err(lost) => return lost,
        };
        if matches!(looked, Looked::Lacking) {
            match standing.furnish().await {
                Ok(()) => {}
                Err(NotFurnished::Lost) => return HandedOver::Lost(standing),
                Err(NotFurnished::Refused(error)) => return HandedOver::Failed(standing, error),
            }
            (standing, looked) = match apart(standing, Self::complete).await {
                Ok(both) => both,
                Err(lost) => return lost,
            };
        }
        match looked {
            Looked::Whole => HandedOver::Whole(standing),
            Looked::Refused(error) => {
                standing.request = Create::default();
                HandedOver::Refused(standing, error)
            }
            Looked::Failed(error) => HandedOver::Failed(standing, error),
            Looked::Lacking => HandedOver::Lost(standing),
        }
    }

    /// Whether it stands, as far as its supervisor has told.
    fn is_sound(&mut self) -> bool {
        self.supervisor.as_mut().is_some_and(|supervisor| supervisor.link.next_now().is_none())
    }

    /// Completes it, if nothing is to be done inside. Blocks.
    fn look(&mut self) -> Looked {
        if let Err(refusal) = self.check() {
            return Looked::Refused(refusal);
        }
        let is_current = fs::read(dns::RESOLV_CONF).unwrap_or_default() == self.host_resolv_conf;
        if self.request.binds.is_empty() && is_current {
            return self.complete();
        }
        match self.write_spec() {
            Ok(()) => Looked::Lacking,
            Err(error @ Error::BadBindDestination(_)) => Looked::Refused(error),
            Err(error) => Looked::Failed(error),
        }
    }

    /// Makes what is missing in the ledger. Blocks.
    fn complete(&mut self) -> Looked {
        match self.make(Object::Snapshot) {
            Ok(()) => Looked::Whole,
            Err(error) => Looked::Failed(error),
        }
    }

    /// Has iomux give it what its spec says by now.
    async fn furnish(&mut self) -> Result<(), NotFurnished> {
        let link =
            self.supervisor.as_mut().map(|supervisor| &mut supervisor.link).ok_or(NotFurnished::Lost)?;
        link.send(&Request::Furnish, None).map_err(|_| NotFurnished::Lost)?;
        match tokio::time::timeout(FURNISH_TIME, link.next()).await {
            Ok(Ok(Event::Furnished)) => Ok(()),
            Ok(Ok(Event::NotFurnished { step, object, errno })) => {
                Err(NotFurnished::Refused(supervisor::refusal(&step, &object, errno)))
            }
            Ok(_) => Err(NotFurnished::Lost),
            Err(_) => Err(NotFurnished::Refused(Error::TimedOut {
                action: "inserting the bind mounts".to_owned(),
                seconds: FURNISH_TIME.as_secs(),
            })),
        }
    }

    /// Ends it: what it holds of the pools is as if nobody had taken it.
    pub(crate) async fn give_up(mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            // It may have ended by itself; what it leaves is killed with the other objects.
            supervisor.process.kill();
            supervisor.process.end().await;
        }
        let id = self.id;
        let ended = blocking(move || {
            self.machine.pools.unused(id);
            self.machine.destroy(id)
        });
        if let Err(error) = ended.await {
            tracing::error!(container = %id, %error, "a container that was made ahead is still there");
        }
    }
}

/// Does a step that blocks off the async threads; after a panic there the container is ended from its id alone.
async fn apart(
    mut standing: Making,
    step: fn(&mut Making) -> Looked,
) -> Result<(Making, Looked), HandedOver> {
    let lost = Making::new(
        Arc::clone(&standing.machine),
        Arc::clone(&standing.registry),
        standing.id,
        Create::default(),
    );
    let done = tokio::task::spawn_blocking(move || {
        let looked = step(&mut standing);
        (standing, looked)
    });
    done.await.map_err(|_| HandedOver::Lost(lost))
}
