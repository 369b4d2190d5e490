//! How a container comes to a client: one that was made ahead, or else one that is made now; it is given a handle, its
//! snapshot is written, and from then on clients find it.

use std::sync::Arc;

use crate::container::{Container, Shared};
use crate::error::{Error, blocking};
use crate::leases::{Leases, asked_network};
use crate::machine::Machine;
use crate::references::ConnectionId;
use crate::registry::{Registry, Reservation};
use crate::request::Create;
use crate::standing::{self, NotFurnished, Standing};
use crate::state::State;
use crate::warm_pool::WarmPool;

/// The most bytes of a handle in a log line.
const HANDLE_SHOWN: usize = 64;

/// A container that is being created.
pub(crate) struct Creation {
    pub(crate) machine: Arc<Machine>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) warm: Arc<WarmPool>,
    /// The handle that the client chose.
    pub(crate) chosen: Option<Reservation>,
    pub(crate) request: Create,
    /// Who asked for it.
    pub(crate) by: ConnectionId,
}

impl Creation {
    /// Makes the container and returns its handle.
    pub(crate) async fn run(mut self) -> Result<Vec<u8>, Error> {
        let machine = Arc::clone(&self.machine);
        let _busy = machine.activity.begin();
        while let Some(standing) = self.warm.take(&self.request).await {
            if let Some((standing, reservation)) = self.furnish(standing).await? {
                return self.hand_out(standing, reservation, "warm").await;
            }
        }
        let leases = self.lease().await?;
        let id = self.machine.ids.next();
        let reservation = match self.chosen.take() {
            Some(chosen) => chosen,
            None => self.registry.reserve(id.as_str().as_bytes().to_vec())?,
        };
        let standing = Standing::make(&self.machine, id, leases, self.request.clone()).await?;
        self.hand_out(standing, reservation, "cold").await
    }

    /// Gives a container of the pool what the request asks for; nothing when it is none that can be handed out.
    async fn furnish(&mut self, mut standing: Standing) -> Result<Option<(Standing, Reservation)>, Error> {
        let own_name = || self.registry.reserve(standing.id.as_str().as_bytes().to_vec());
        let own = if self.chosen.is_none() { own_name().ok() } else { None };
        if (self.chosen.is_none() && own.is_none()) || !standing.is_sound() {
            tracing::warn!(container = %standing.id, "a container of the pool cannot be handed out");
            standing.give_up(&self.machine).await;
            return Ok(None);
        }
        let (machine, request) = (Arc::clone(&self.machine), self.request.clone());
        let (mut standing, lacks) = blocking(move || {
            let lacks = standing.lacks(&machine, &request);
            Ok((standing, lacks))
        })
        .await?;
        let furnished = match lacks {
            Ok(true) => standing.furnish().await,
            Ok(false) => Ok(()),
            Err(refusal) => {
                self.warm.put_back(standing).await;
                return Err(refusal);
            }
        };
        if let Err(failure) = furnished {
            // What it has of it by now is not known.
            standing.give_up(&self.machine).await;
            return match failure {
                NotFurnished::Refused(error) => Err(error),
                NotFurnished::Lost => Ok(None),
            };
        }
        Ok(own.or_else(|| self.chosen.take()).map(|reservation| (standing, reservation)))
    }

    /// Leases what the container needs; what the pool of containers holds of it comes after those who ask.
    async fn lease(&self) -> Result<Leases, Error> {
        let asked = self.request.network.as_deref();
        loop {
            let error = match self.machine.pools.lease(asked) {
                Ok(leases) => return Ok(leases),
                Err(error) => error,
            };
            let this = match error {
                Error::NetworkTaken(_) => asked.map(asked_network),
                _ => None,
            };
            match self.warm.surrender(this).await {
                Some(standing) => standing.give_up(&self.machine).await,
                None => return Err(error),
            }
        }
    }

    /// Writes down for the next daemon that there is this container, and lets clients find it.
    async fn hand_out(
        self,
        standing: Standing,
        reservation: Reservation,
        kind: &'static str,
    ) -> Result<Vec<u8>, Error> {
        let Standing { id, leases, supervisor, .. } = standing;
        let handle = reservation.handle().to_vec();
        let shown = handle.get(..HANDLE_SHOWN).unwrap_or(&handle).escape_ascii().to_string();
        let address = leases.addresses.container;
        let grace = self.request.grace_time.or(self.machine.settings.grace_time);
        let machine = Arc::clone(&self.machine);
        let shared = Shared::new(id, handle.clone(), machine, &self.registry, leases, grace);
        let saving = Arc::clone(&shared);
        let saved = blocking(move || {
            saving.set_state(State::Active);
            saving.save()
        });
        if let Err(error) = saved.await {
            return Err(standing::end(&self.machine, supervisor, id, shared.take_leases(), error).await);
        }
        reservation.fill(Container::launch(shared, supervisor), grace, self.by);
        tracing::info!(container = %id, handle = shown, %address, kind, "created");
        Ok(handle)
    }
}
