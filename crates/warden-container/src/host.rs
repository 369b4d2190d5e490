//! The machine's containers: the domain's front door.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::container::Container;
use crate::create::Creation;
use crate::error::{Context, Error, blocking};
use crate::leftovers::reconcile;
use crate::machine::Machine;
use crate::pressure;
use crate::quarantine;
use crate::recovery;
use crate::references::ConnectionId;
use crate::registry::Registry;
use crate::request::Create;
use crate::settings::Settings;
use crate::warm_pool::WarmPool;

/// How long nothing of what is left of destroyed containers may be removed before the daemon ends without it.
const REMOVAL_TIME: Duration = Duration::from_secs(10);

/// All containers of one depot.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    machine: Arc<Machine>,
    registry: Arc<Registry>,
    warm: Arc<WarmPool>,
    grace_times: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.grace_times.abort();
        self.warm.abandon();
    }
}

impl Host {
    /// Examines the machine, prepares depot, image and cgroups, takes over the containers of an earlier daemon, and removes
    /// what else that left.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let (machine, survivors) = blocking(move || Machine::prepare(settings)).await?;
        let machine = Arc::new(machine);
        let registry = Arc::new(Registry::default());
        recovery::adopt(&machine, &registry, survivors).await;
        machine.remove_inherited();
        tokio::spawn(reconcile::keep(Arc::downgrade(&machine), machine.settings.reconcile_interval));
        tokio::spawn(quarantine::keep(Arc::downgrade(&machine)));
        let grace_times = tokio::spawn(Arc::clone(&registry).keep_grace_times()).abort_handle();
        let warm = WarmPool::start(Arc::clone(&machine), Arc::clone(&registry));
        Ok(Self(Arc::new(Inner { machine, registry, warm, grace_times })))
    }

    /// Registers a client's connection; it references containers until it is dropped.
    pub fn connect(&self) -> Connection {
        Connection { id: self.0.registry.open(), host: self.clone() }
    }

    /// Stops to admit requests; containers and jobs go on.
    pub async fn shutdown(&self) {
        self.0.machine.close();
        self.0.grace_times.abort();
        self.0.warm.close().await;
        let machine = Arc::clone(&self.0.machine);
        let removed = blocking(move || {
            machine.removals.finish_all(REMOVAL_TIME);
            machine.inherited.leave(REMOVAL_TIME);
            machine.cgroups.parent.remove();
            machine.network.close();
            machine.leave_depot()
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "something is left behind");
        }
    }
}

/// One client's view; dropping it closes the connection.
#[derive(Debug)]
pub struct Connection {
    host: Host,
    id: ConnectionId,
}

impl Connection {
    /// Makes a container and returns its handle; what has begun is finished, also when nobody waits for it any more.
    pub async fn create(&self, request: Create) -> Result<Vec<u8>, Error> {
        let Inner { machine, registry, warm, .. } = &*self.host.0;
        machine.check_open()?;
        pressure::check(machine.settings.memory_thresholds)?;
        let creation = Creation {
            chosen: request.handle.clone().map(|handle| registry.reserve(handle)).transpose()?,
            machine: Arc::clone(machine),
            registry: Arc::clone(registry),
            warm: Arc::clone(warm),
            request,
            by: self.id,
        };
        let done = tokio::spawn(creation.run()).await;
        done.map_err(io::Error::other).context(|| "creating a container".to_owned())?
    }

    /// Lists the handles in the order of creation.
    pub fn list(&self) -> Vec<Vec<u8>> {
        self.host.0.registry.list()
    }

    /// Finds a container, and references it.
    pub fn container(&self, handle: &[u8]) -> Result<Arc<Container>, Error> {
        self.host.0.registry.find(handle, self.id)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.host.0.registry.close(self.id);
    }
}
