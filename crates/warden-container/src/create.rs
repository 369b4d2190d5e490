//! How a container is made: ordered steps; when one fails, what was made is undone and the first error is told.

use std::fs;
use std::sync::Arc;

use crate::container::{Container, Shared};
use crate::dns;
use crate::error::{Error, blocking};
use crate::id::Id;
use crate::image::Lower;
use crate::leases::Leases;
use crate::machine::Machine;
use crate::network::Namespace;
use crate::plan::Plan;
use crate::references::ConnectionId;
use crate::registry::{Registry, Reservation};
use crate::request::Create;
use crate::state::State;
use crate::supervisor::Supervisor;

/// The most bytes of a handle in a log line.
const HANDLE_SHOWN: usize = 64;

/// A container that is being made.
pub(crate) struct Creation {
    pub(crate) machine: Arc<Machine>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) id: Id,
    pub(crate) reservation: Reservation,
    pub(crate) request: Create,
    /// Who asked for it.
    pub(crate) by: ConnectionId,
}

impl Creation {
    /// Makes the container and returns its handle.
    pub(crate) async fn run(self) -> Result<Vec<u8>, Error> {
        self.machine.removals.room().await?;
        let leases = lease(&self.machine, self.request.network.clone()).await?;
        let request = self.request;
        let grace = request.grace_time.or(self.machine.settings.grace_time);
        let (machine, id) = (Arc::clone(&self.machine), self.id);
        let (leases, prepared) = blocking(move || {
            let prepared = prepare(&machine, id, &leases, &request);
            Ok((leases, prepared))
        })
        .await?;
        let built = match prepared {
            Ok(()) => {
                Supervisor::start(&self.machine.supervisor, &self.machine.depot.spec_path(self.id)).await
            }
            Err(error) => Err(error),
        };
        let supervisor = match built {
            Ok(supervisor) => supervisor,
            Err(error) => return Err(undo(self.machine, self.id, Some(leases), error).await),
        };
        let handle = self.reservation.handle().to_vec();
        let shown = handle.get(..HANDLE_SHOWN).unwrap_or(&handle).escape_ascii().to_string();
        let addresses = leases.addresses;
        let machine = Arc::clone(&self.machine);
        let shared = Shared::new(self.id, handle.clone(), machine, &self.registry, leases, grace);
        let supervisor = match connect(&shared, supervisor).await {
            Ok(supervisor) => supervisor,
            Err(error) => return Err(undo(self.machine, self.id, shared.take_leases(), error).await),
        };
        self.reservation.fill(Container::launch(shared, supervisor), grace, self.by);
        tracing::info!(container = %self.id, handle = shown, address = %addresses.container, "created");
        Ok(handle)
    }
}

/// Leases what a container needs; what is on its way back to an empty pool is waited for.
async fn lease(machine: &Arc<Machine>, network: Option<Vec<u8>>) -> Result<Leases, Error> {
    match machine.pools.lease(network.as_deref()) {
        Ok(leases) => Ok(leases),
        Err(_) => {
            let machine = Arc::clone(machine);
            blocking(move || {
                machine.network.settle();
                machine.pools.lease(network.as_deref())
            })
            .await
        }
    }
}

/// The steps that block: checks first, then what must be undone.
fn prepare(machine: &Machine, id: Id, leases: &Leases, request: &Create) -> Result<(), Error> {
    let requested = request.rootfs.as_deref().map(Lower::requested).transpose()?;
    let lower = requested.as_ref().unwrap_or(&machine.lower);
    for bind in &request.binds {
        let source = warden_init::byte_string::ByteString(bind.source.clone());
        if !source.as_path().is_absolute() || fs::metadata(source.as_path()).is_err() {
            return Err(Error::NoBindSource(bind.source.clone()));
        }
    }
    let directory = machine.depot.directory(id);
    let settings = &machine.settings;
    let host_resolv_conf = fs::read(dns::RESOLV_CONF).unwrap_or_default();
    machine.dns.serve(&machine.network, &host_resolv_conf);
    let spec = Plan {
        id,
        init: &machine.init,
        leases,
        cgroups: machine.cgroups.of(id),
        lower: &lower.path,
        system: &lower.system,
        directory: &directory,
        binds: &request.binds,
        confinement: machine.settings.confinement,
        dns_servers: &settings.dns_servers,
        dns_forwarder: machine.dns.is_enabled(),
        host_resolv_conf: &host_resolv_conf,
    }
    .spec()?;
    machine.cgroups.create(id, !machine.settings.device_rules, machine.settings.max_tasks)?;
    if let Some(device) = machine.io_device {
        machine.cgroups.limit_io(id, device, &machine.settings.io_limits)?;
    }
    machine.depot.create(id, leases.ids.map_or(0, |ids| ids.host_start))?;
    machine.depot.write_spec(id, &spec)?;
    Ok(())
}

/// Connects a container that stands to the host's network, and writes down for the next daemon that there is one; where
/// that fails it is ended.
async fn connect(shared: &Arc<Shared>, mut supervisor: Supervisor) -> Result<Supervisor, Error> {
    let (init, parent) = (supervisor.init, supervisor.process.id());
    let shared = Arc::clone(shared);
    let attach = move || {
        let network = &shared.machine.network;
        network.attach(shared.id, shared.addresses, &Namespace::of(init, parent)?)?;
        shared.set_state(State::Active);
        shared.save()
    };
    match blocking(attach).await {
        Ok(()) => Ok(supervisor),
        Err(error) => {
            // It may have ended by itself; what it leaves is killed with the other steps.
            supervisor.process.kill();
            supervisor.process.end().await;
            Err(error)
        }
    }
}

/// Undoes all steps and returns the error that made it necessary; what cannot be ended keeps its leases.
async fn undo(machine: Arc<Machine>, id: Id, leases: Option<Leases>, error: Error) -> Error {
    tracing::debug!(container = %id, %error, "undoing a creation");
    let undoing = {
        let machine = Arc::clone(&machine);
        blocking(move || machine.teardown(id)).await
    };
    match (undoing, leases) {
        (Ok(()), Some(leases)) => machine.network.give_back(id, leases),
        (Ok(()), None) => {}
        (Err(undoing), leases) => {
            tracing::error!(container = %id, error = %undoing, "a container that was not made is still there");
            if let Some(leases) = leases {
                leases.quarantine();
            }
        }
    }
    error
}
