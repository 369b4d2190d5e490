//! How a container is made: what it is asked for is checked first; then the ledger's objects are made in their order, or
//! none of them, and the first error is told.

use std::fs;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::container::Container;
use crate::dns;
use crate::error::{Error, blocking};
use crate::id::Id;
use crate::image::Lower;
use crate::leases::{Leases, asked_network};
use crate::ledger::{self, Object};
use crate::machine::Machine;
use crate::network::Namespace;
use crate::plan::Plan;
use crate::references::ConnectionId;
use crate::registry::{Registry, Reservation};
use crate::request::{Bind, Create};
use crate::shared::Shared;
use crate::standing::HandedOver;
use crate::state::State;
use crate::supervisor::Supervisor;
use crate::warm_pool::{Offer, WarmPool};

/// The most bytes of a handle in a log line.
const HANDLE_SHOWN: usize = 64;

/// A request for a container.
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
    /// Finds a container that was made ahead, or makes one, and returns its handle.
    pub(crate) async fn run(mut self) -> Result<Vec<u8>, Error> {
        let machine = Arc::clone(&self.machine);
        machine.removals.room().await?;
        let _busy = machine.activity.begin();
        loop {
            match self.warm.offer(&self.request).await {
                Offer::Serving(standing) => {
                    if let Some((making, reservation)) = self.furnish(standing).await? {
                        return self.hand_out(making, reservation, "made ahead");
                    }
                }
                Offer::GivingWay(standing) => {
                    if let Err(refusal) = self.check().await {
                        self.warm.put_back(standing).await;
                        return Err(refusal);
                    }
                    break standing.give_up().await;
                }
                Offer::Nothing => break,
            }
        }
        let id = self.machine.ids.next();
        let reservation = match self.chosen.take() {
            Some(chosen) => chosen,
            None => self.registry.reserve(id.as_str().as_bytes().to_vec())?,
        };
        loop {
            let (machine, registry) = (Arc::clone(&self.machine), Arc::clone(&self.registry));
            let mut making = Making::new(machine, registry, id, self.request.clone());
            making.handle = reservation.handle().to_vec();
            match blocking(move || making.finish(&Object::ALL)).await {
                Ok(making) => return self.hand_out(making, reservation, "made"),
                Err(error) => self.make_room(error).await?,
            }
        }
    }

    /// Gives a container that was made ahead what the request asks for; nothing when it cannot be handed out.
    async fn furnish(&mut self, mut standing: Making) -> Result<Option<(Making, Reservation)>, Error> {
        let own_name = || self.registry.reserve(standing.id.as_str().as_bytes().to_vec());
        let own = if self.chosen.is_none() { own_name().ok() } else { None };
        let Some(handle) = own.as_ref().or(self.chosen.as_ref()).map(Reservation::handle) else {
            tracing::warn!(container = %standing.id, "a client has the name of a container that was made ahead");
            standing.give_up().await;
            return Ok(None);
        };
        standing.handle = handle.to_vec();
        match standing.hand_over(self.request.clone()).await {
            HandedOver::Whole(making) => {
                Ok(own.or_else(|| self.chosen.take()).map(|reservation| (making, reservation)))
            }
            HandedOver::Lost(standing) => {
                tracing::warn!(container = %standing.id, "a container that was made ahead is of no use any more");
                standing.give_up().await;
                Ok(None)
            }
            HandedOver::Refused(standing, error) => {
                self.warm.put_back(standing).await;
                Err(error)
            }
            HandedOver::Failed(standing, error) => {
                standing.give_up().await;
                Err(error)
            }
        }
    }

    /// Refuses what cannot be, before anything makes way for it.
    async fn check(&self) -> Result<(), Error> {
        let request = self.request.clone();
        blocking(move || {
            check_sources(&request.binds)?;
            request.rootfs.as_deref().map(Lower::requested).transpose().map(drop)
        })
        .await
    }

    /// Makes room in the pool that was empty for who asks; the error, where it is not for what was made ahead.
    async fn make_room(&self, error: Error) -> Result<(), Error> {
        let network = match error {
            Error::NetworkTaken(_) => self.request.network.as_deref().map(asked_network),
            Error::NoNetwork | Error::NoUser | Error::NoIds(_) => None,
            other => return Err(other),
        };
        match self.warm.surrender(network).await {
            Some(standing) => {
                standing.give_up().await;
                Ok(())
            }
            None => Err(error),
        }
    }

    /// Lets clients find it.
    fn hand_out(
        &self,
        making: Making,
        reservation: Reservation,
        origin: &'static str,
    ) -> Result<Vec<u8>, Error> {
        let (Some(shared), Some(supervisor)) = (making.shared, making.supervisor) else {
            return Err(unordered(Object::Snapshot));
        };
        let handle = making.handle;
        let shown = handle.get(..HANDLE_SHOWN).unwrap_or(&handle).escape_ascii().to_string();
        let (address, grace) = (shared.addresses.container, shared.grace);
        reservation.fill(Container::launch(shared, supervisor), grace, self.by);
        tracing::info!(container = %making.id, handle = shown, %address, origin, "created");
        Ok(handle)
    }
}

/// A container that is being made: what its objects are made from, and what they have in memory.
#[derive(Debug)]
pub(crate) struct Making {
    pub(crate) machine: Arc<Machine>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) id: Id,
    pub(crate) request: Create,
    pub(crate) handle: Vec<u8>,
    leases: Option<Leases>,
    /// The host's resolv.conf that its spec was written by.
    pub(crate) host_resolv_conf: Vec<u8>,
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) shared: Option<Arc<Shared>>,
}

impl Making {
    pub(crate) fn new(machine: Arc<Machine>, registry: Arc<Registry>, id: Id, request: Create) -> Self {
        let (leases, supervisor, shared) = (None, None, None);
        let (handle, host_resolv_conf) = Default::default();
        Self { machine, registry, id, request, handle, leases, host_resolv_conf, supervisor, shared }
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
            machine.quarantine.add(id);
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
                let started = Supervisor::start(&machine.supervisors, &spec);
                self.supervisor = Some(Handle::current().block_on(started)?);
                Ok(())
            }
            Object::Network => self.connect(),
            Object::Snapshot => self.write_snapshot(),
        }
    }

    /// Connects the container while it builds its file system, and waits until it stands.
    fn connect(&mut self) -> Result<(), Error> {
        let (machine, id, leases) = (Arc::clone(&self.machine), self.id, self.leases()?);
        let supervisor = self.supervisor.as_mut().ok_or_else(|| unordered(Object::Network))?;
        let attached = Namespace::of(supervisor.init, &supervisor.process)
            .and_then(|namespace| machine.network.attach(id, leases.addresses, &namespace));
        // An init that fails takes its namespace away: its own reason is the one to tell.
        Handle::current().block_on(supervisor.stand(&machine.depot.spec_path(id)))?;
        attached
    }

    /// Refuses what cannot be, before anything is made.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_sources(&self.request.binds)
    }

    pub(crate) fn write_spec(&mut self) -> Result<(), Error> {
        let (machine, id) = (Arc::clone(&self.machine), self.id);
        let requested = self.request.rootfs.as_deref().map(Lower::requested).transpose()?;
        let lower = requested.as_ref().unwrap_or(&machine.lower);
        let host_resolv_conf = fs::read(dns::RESOLV_CONF).unwrap_or_default();
        machine.dns.serve(&machine.network, &host_resolv_conf);
        let spec = Plan {
            id,
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
        self.host_resolv_conf = host_resolv_conf;
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

    /// Leases what is free now: what nobody has asked for waits for nothing.
    pub(crate) fn lease_at_once(&mut self) -> Result<Leases, Error> {
        let leases = self.machine.pools.lease(self.id, None)?;
        self.leases = Some(leases);
        Ok(leases)
    }

    pub(crate) fn leases(&self) -> Result<Leases, Error> {
        self.leases.ok_or_else(|| unordered(Object::Leases))
    }
}

fn check_sources(binds: &[Bind]) -> Result<(), Error> {
    for bind in binds {
        let source = warden_init::byte_string::ByteString(bind.source.clone());
        if !source.as_path().is_absolute() || fs::metadata(source.as_path()).is_err() {
            return Err(Error::NoBindSource(bind.source.clone()));
        }
    }
    Ok(())
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
