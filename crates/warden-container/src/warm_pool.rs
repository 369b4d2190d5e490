//! Containers that are made before anybody asks for them.
//!
//! They are complete but for what only a request can tell: a handle, bind mounts, a grace time. They are handed out in the
//! order in which they were made, which is the order of their addresses and ids: a client cannot tell by those that there is
//! a pool. A request that none of them serves, for it names a root file system, takes the place of the first, which is
//! ended; while only such requests come, fewer and fewer are kept ready. One is made at a time, and only while no request that makes or ends processes is under
//! way. Who comes while one is being made, and finds none ready, gets that one.
//!
//! No client sees what waits here: it is in no list, has no snapshot and no grace time. It holds addresses and ids of
//! their pools, and gives them up to whoever finds a pool empty, or asks for just that address.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::create::Making;
use crate::error::{Error, blocking};
use crate::leases::asked_network;
use crate::ledger::Object;
use crate::machine::Machine;
use crate::pool::lock;
use crate::pressure;
use crate::registry::Registry;
use crate::request::Create;

/// How long nobody must have asked for anything before a container is made ahead.
const PAUSE: Duration = Duration::from_millis(5);
/// How long nothing is made ahead after that has failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What a container has that waits, beside what it holds of the pools.
const BUT_LEASES_AND_SNAPSHOT: &[Object] =
    &[Object::Directory, Object::Cgroups, Object::Spec, Object::Processes, Object::Network];

/// The containers that wait to be handed out.
#[derive(Debug)]
pub(crate) struct WarmPool {
    machine: Arc<Machine>,
    registry: Arc<Registry>,
    state: Mutex<State>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    ending: Notify,
}

#[derive(Debug, Default)]
struct State {
    parked: VecDeque<Making>,
    making: Option<Underway>,
    /// Requests in a row that the pool could not serve: so many fewer are kept ready.
    unserved: usize,
    closed: bool,
}

/// The container that is being made.
#[derive(Debug)]
struct Underway {
    network: Ipv4Addr,
    /// Who waits for it.
    claim: Option<oneshot::Sender<Making>>,
}

/// What the pool has for a request.
#[allow(clippy::large_enum_variant, reason = "it is taken apart where it is made")]
pub(crate) enum Offer {
    /// A container that serves it, once it is furnished.
    Serving(Making),
    /// One that cannot, and holds what comes next in the order of addresses, users and ids.
    GivingWay(Making),
    Nothing,
}

/// What was found.
#[allow(clippy::large_enum_variant, reason = "it is taken apart where it is made")]
enum Found {
    Parked(Making),
    Making(oneshot::Receiver<Making>),
    Nothing,
}

impl State {
    /// Takes the next container, or that with this network, or a claim on the one that is being made.
    fn take(&mut self, network: Option<Ipv4Addr>) -> Found {
        let wanted = |other: Ipv4Addr| network.is_none_or(|network| network == other);
        let has =
            |parked: &Making| parked.leases().is_ok_and(|leases| wanted(leases.addresses.network.network()));
        let position = self.parked.iter().position(has);
        if let Some(standing) = position.and_then(|position| self.parked.remove(position)) {
            return Found::Parked(standing);
        }
        match &mut self.making {
            Some(Underway { network, claim }) if claim.is_none() && wanted(*network) => {
                let (sender, receiver) = oneshot::channel();
                *claim = Some(sender);
                Found::Making(receiver)
            }
            _ => Found::Nothing,
        }
    }
}

impl WarmPool {
    /// Begins to fill the pool, if there shall be one.
    pub(crate) fn start(machine: Arc<Machine>, registry: Arc<Registry>) -> Arc<Self> {
        let filled = machine.settings.warm_pool_size > 0;
        let pool = Arc::new(Self {
            machine,
            registry,
            state: Mutex::default(),
            keeper: Mutex::default(),
            ending: Notify::new(),
        });
        if filled {
            *lock(&pool.keeper) = Some(tokio::spawn(Arc::clone(&pool).keep_full()));
        }
        pool
    }

    /// Takes what there is for a request.
    pub(crate) async fn offer(&self, request: &Create) -> Offer {
        let network = request.network.as_deref().map(asked_network);
        if request.rootfs.is_none() {
            lock(&self.state).unserved = 0;
            return self.find(network).await.map_or(Offer::Nothing, Offer::Serving);
        }
        lock(&self.state).unserved += 1;
        self.find(network).await.map_or(Offer::Nothing, Offer::GivingWay)
    }

    /// Takes a container whose addresses and ids somebody needs; `network`: that which holds just these addresses.
    pub(crate) async fn surrender(&self, network: Option<Ipv4Addr>) -> Option<Making> {
        self.find(network).await
    }

    async fn find(&self, network: Option<Ipv4Addr>) -> Option<Making> {
        let found = lock(&self.state).take(network);
        match found {
            Found::Parked(standing) => Some(standing),
            Found::Making(claim) => claim.await.ok(),
            Found::Nothing => None,
        }
    }

    /// Puts one back that was taken and left as it was: it is the next again.
    pub(crate) async fn put_back(&self, standing: Making) {
        let closed = {
            let mut state = lock(&self.state);
            if state.closed {
                Some(standing)
            } else {
                state.parked.push_front(standing);
                None
            }
        };
        if let Some(standing) = closed {
            standing.give_up().await;
        }
    }

    /// Ends what waits; nothing is made ahead any more.
    pub(crate) async fn close(&self) {
        let parked = {
            let mut state = lock(&self.state);
            state.closed = true;
            std::mem::take(&mut state.parked)
        };
        self.ending.notify_one();
        let mut ending = JoinSet::new();
        for standing in parked {
            ending.spawn(standing.give_up());
        }
        let keeper = lock(&self.keeper).take();
        if let Some(keeper) = keeper {
            // A panic there was told; nothing of it is to be waited for.
            let _ = keeper.await;
        }
        ending.join_all().await;
    }

    /// Ends the task that fills the pool, and leaves what there is to the next daemon.
    pub(crate) fn abandon(&self) {
        if let Some(keeper) = lock(&self.keeper).take() {
            keeper.abort();
        }
    }

    async fn keep_full(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.is_due() => {}
                () = self.ending.notified() => return,
            }
            let Err(error) = self.add_one().await else { continue };
            let pause = match error {
                Error::NoNetwork | Error::NoUser | Error::NoIds(_) => {
                    tracing::debug!(%error, "no container is made ahead");
                    PAUSE
                }
                error => {
                    tracing::warn!(%error, "making a container ahead");
                    PAUSE_AFTER_FAILURE
                }
            };
            let again = async {
                tokio::time::sleep(pause).await;
                self.machine.activity.change().await;
            };
            tokio::select! {
                () = again => {}
                () = self.ending.notified() => return,
            }
        }
    }

    /// Waits until a container is missing and nobody else is busy.
    async fn is_due(&self) {
        loop {
            self.machine.activity.quiet(PAUSE).await;
            if self.is_wanting() {
                return;
            }
            self.machine.activity.change().await;
        }
    }

    fn is_wanting(&self) -> bool {
        let state = lock(&self.state);
        state.parked.len() < self.machine.settings.warm_pool_size.saturating_sub(state.unserved)
    }

    async fn add_one(&self) -> Result<(), Error> {
        let machine = &self.machine;
        pressure::check(machine.settings.memory_thresholds)?;
        let (machine, registry) = (Arc::clone(machine), Arc::clone(&self.registry));
        let id = machine.ids.next();
        let mut making = Making::new(machine, registry, id, Create::default());
        {
            // Together: who finds the address taken must find who has it.
            let mut state = lock(&self.state);
            let network = making.lease_at_once()?.addresses.network.network();
            state.making = Some(Underway { network, claim: None });
        }
        let made = blocking(move || making.finish(BUT_LEASES_AND_SNAPSHOT)).await;
        if made.is_err() {
            let machine = Arc::clone(&self.machine);
            // Of those that follow all was undone; the leases were made before.
            if let Err(error) = blocking(move || machine.destroy(id)).await {
                tracing::error!(container = %id, %error, "a container that was to be made ahead is still there");
            }
        }
        self.place(made).await
    }

    /// Parks what was made, or gives it to who waits for it.
    async fn place(&self, made: Result<Making, Error>) -> Result<(), Error> {
        let unwanted = {
            let mut state = lock(&self.state);
            let claim = state.making.take().and_then(|making| making.claim);
            let standing = made?;
            tracing::debug!(container = %standing.id, "made ahead");
            let unclaimed = match claim {
                Some(claim) => claim.send(standing),
                None => Err(standing),
            };
            match unclaimed {
                Ok(()) => None,
                Err(standing) if state.closed => Some(standing),
                Err(standing) => {
                    state.parked.push_back(standing);
                    None
                }
            }
        };
        if let Some(standing) = unwanted {
            standing.give_up().await;
        }
        Ok(())
    }
}
