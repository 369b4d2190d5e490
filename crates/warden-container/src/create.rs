//! How a container is made: what it is asked for is checked first; then the ledger's objects are made in their order, or
//! none of them, and the first error is told.

use std::fs;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::container::{Container, Shared};
use crate::dns;
use crate::error::{Error, blocking};
use crate::id::Id;
use crate::image::Lower;
use crate::leases::Leases;
use crate::ledger::{self, Object};
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

/// A request for a container.
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
        let handle = self.reservation.handle().to_vec();
        let grace = self.request.grace_time.or(self.machine.settings.grace_time);
        let mut making = Making::new(self.machine, self.registry, self.id, self.request);
        making.handle.clone_from(&handle);
        let making = blocking(move || making.finish(&Object::ALL)).await?;
        let (Some(shared), Some(supervisor)) = (making.shared, making.supervisor) else {
            return Err(unordered(Object::Snapshot));
        };
        let shown = handle.get(..HANDLE_SHOWN).unwrap_or(&handle).escape_ascii().to_string();
        let address = shared.addresses.container;
        self.reservation.fill(Container::launch(shared, supervisor), grace, self.by);
        tracing::info!(container = %self.id, handle = shown, address = %address, "created");
        Ok(handle)
    }
}

/// A container that is being made: what its objects are made from, and what they have in memory.
#[derive(Debug)]
pub(crate) struct Making {
    machine: Arc<Machine>,
    registry: Arc<Registry>,
    id: Id,
    request: Create,
    pub(crate) handle: Vec<u8>,
    leases: Option<Leases>,
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) shared: Option<Arc<Shared>>,
}

impl Making {
    pub(crate) fn new(machine: Arc<Machine>, registry: Arc<Registry>, id: Id, request: Create) -> Self {
        let (handle, leases, supervisor, shared) = (Vec::new(), None, None, None);
        Self { machine, registry, id, request, handle, leases, supervisor, shared }
    }

    /// Makes objects, or none of them; blocks, within a runtime.
    pub(crate) fn finish(mut self, objects: &[Object]) -> Result<Self, Error> {
        let (machine, id) = (Arc::clone(&self.machine), self.id);
        let ledger::Failure { error, left } = match ledger::create(&*machine, id, &mut self, objects) {
            Ok(()) => return Ok(self),
            Err(failure) => failure,
        };
        tracing::debug!(container = %id, %error, "a creation was undone");
        if let Some(left) = left {
            tracing::error!(container = %id, error = %left, "a container that was not made is still there");
        }
        Err(error)
    }

    /// Makes one object.
    pub(crate) fn make(&mut self, object: Object) -> Result<(), Error> {
        let (machine, id) = (Arc::clone(&self.machine), self.id);
        match object {
            Object::Leases => {
                self.check()?;
                self.leases = Some(machine.lease(id, self.request.network.as_deref())?);
                Ok(())
            }
            Object::Directory => machine.depot.create(id, self.leases()?.ids.map_or(0, |ids| ids.host_start)),
            Object::Cgroups => make_cgroups(&machine, id),
            Object::Spec => self.write_spec(),
            Object::Processes => {
                let spec = machine.depot.spec_path(id);
                let started = Supervisor::start(&machine.supervisor, &spec);
                self.supervisor = Some(Handle::current().block_on(started)?);
                Ok(())
            }
            Object::Network => {
                let supervisor = self.supervisor.as_ref().ok_or_else(|| unordered(object))?;
                let namespace = Namespace::of(supervisor.init, supervisor.process.id())?;
                machine.network.attach(id, self.leases()?.addresses, &namespace)
            }
            Object::Snapshot => self.write_snapshot(),
        }
    }

    /// Refuses what cannot be, before anything is made.
    fn check(&self) -> Result<(), Error> {
        for bind in &self.request.binds {
            let source = warden_init::byte_string::ByteString(bind.source.clone());
            if !source.as_path().is_absolute() || fs::metadata(source.as_path()).is_err() {
                return Err(Error::NoBindSource(bind.source.clone()));
            }
        }
        Ok(())
    }

    fn write_spec(&self) -> Result<(), Error> {
        let (machine, id) = (&self.machine, self.id);
        let requested = self.request.rootfs.as_deref().map(Lower::requested).transpose()?;
        let lower = requested.as_ref().unwrap_or(&machine.lower);
        let host_resolv_conf = fs::read(dns::RESOLV_CONF).unwrap_or_default();
        machine.dns.serve(&machine.network, &host_resolv_conf);
        let spec = Plan {
            id,
            init: &machine.init,
            leases: &self.leases()?,
            cgroups: machine.cgroups.of(id),
            lower: &lower.path,
            system: &lower.system,
            directory: &machine.depot.directory(id),
            binds: &self.request.binds,
            confinement: machine.settings.confinement,
            dns_servers: &machine.settings.dns_servers,
            dns_forwarder: machine.dns.is_enabled(),
            host_resolv_conf: &host_resolv_conf,
        }
        .spec()?;
        machine.depot.write_spec(id, &spec).map(drop)
    }

    /// Writes down for the next daemon that there is a container; it is one from now on.
    fn write_snapshot(&mut self) -> Result<(), Error> {
        let grace = self.request.grace_time.or(self.machine.settings.grace_time);
        let (machine, handle) = (Arc::clone(&self.machine), self.handle.clone());
        let shared = Shared::new(self.id, handle, machine, &self.registry, self.leases()?, grace);
        shared.set_state(State::Active);
        shared.save()?;
        self.shared = Some(shared);
        Ok(())
    }

    fn leases(&self) -> Result<Leases, Error> {
        self.leases.ok_or_else(|| unordered(Object::Leases))
    }
}

fn make_cgroups(machine: &Machine, id: Id) -> Result<(), Error> {
    machine.cgroups.create(id, !machine.settings.device_rules, machine.settings.max_tasks)?;
    match machine.io_device {
        Some(device) => machine.cgroups.limit_io(id, device, &machine.settings.io_limits),
        None => Ok(()),
    }
}

/// A fault of ours: an object that is made before what it is made from.
fn unordered(object: Object) -> Error {
    let source = std::io::Error::other("it is made out of order");
    Error::Failed { action: format!("making the {object:?} of a container"), source }
}
