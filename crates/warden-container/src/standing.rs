//! A container that stands, and that no client knows yet: how it is made, and how it ends if nobody wants it.

use std::fs;
use std::sync::Arc;

use warden_init::byte_string::ByteString;
use warden_init::spec::Spec;
use warden_iomux::message::{Event, Request};

use crate::dns;
use crate::error::{Error, blocking};
use crate::id::Id;
use crate::image::Lower;
use crate::leases::Leases;
use crate::machine::Machine;
use crate::network::Namespace;
use crate::plan::Plan;
use crate::request::{Bind, Create};
use crate::supervisor::{self, START_TIME, Supervisor};

/// A container without a handle. It has no snapshot: a daemon that follows removes it.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) id: Id,
    pub(crate) leases: Leases,
    pub(crate) supervisor: Supervisor,
    /// The host's resolv.conf that it was made with.
    pub(crate) host_resolv_conf: Vec<u8>,
}

impl Standing {
    /// Makes one; where that fails, nothing is left of it.
    pub(crate) async fn make(
        machine: &Arc<Machine>,
        id: Id,
        leases: Leases,
        request: Create,
    ) -> Result<Self, Error> {
        let preparing = Arc::clone(machine);
        let (leases, prepared) = blocking(move || {
            let prepared = prepare(&preparing, id, &leases, &request);
            Ok((leases, prepared))
        })
        .await?;
        let host_resolv_conf = match prepared {
            Ok(host_resolv_conf) => host_resolv_conf,
            Err(error) => return Err(undo(machine, id, Some(leases), error).await),
        };
        match Supervisor::start(&machine.supervisor, &machine.depot.spec_path(id)).await {
            Ok(supervisor) => Self { id, leases, supervisor, host_resolv_conf }.connect(machine).await,
            Err(error) => Err(undo(machine, id, Some(leases), error).await),
        }
    }

    /// Connects it to the host's network.
    async fn connect(self, machine: &Arc<Machine>) -> Result<Self, Error> {
        let (id, addresses) = (self.id, self.leases.addresses);
        let (init, parent) = (self.supervisor.init, self.supervisor.process.id());
        let network = Arc::clone(machine);
        let attach = move || network.network.attach(id, addresses, &Namespace::of(init, parent)?);
        match blocking(attach).await {
            Ok(()) => Ok(self),
            Err(error) => Err(end(machine, self.supervisor, id, Some(self.leases), error).await),
        }
    }

    /// Whether it still stands, as far as its supervisor has told.
    pub(crate) fn is_sound(&mut self) -> bool {
        self.supervisor.link.next_now().is_none()
    }

    /// Whether it differs from what a request asks for now; its spec is written anew then. Blocks.
    pub(crate) fn lacks(&self, machine: &Machine, request: &Create) -> Result<bool, Error> {
        check_sources(&request.binds)?;
        let host_resolv_conf = fs::read(dns::RESOLV_CONF).unwrap_or_default();
        if request.binds.is_empty() && host_resolv_conf == self.host_resolv_conf {
            return Ok(false);
        }
        let spec = spec(machine, self.id, &self.leases, &machine.lower, &request.binds, &host_resolv_conf)?;
        machine.dns.serve(&machine.network, &host_resolv_conf);
        machine.depot.write_spec(self.id, &spec)?;
        Ok(true)
    }

    /// Has it given what its spec says by now; the error says whose it is.
    pub(crate) async fn furnish(&mut self) -> Result<(), NotFurnished> {
        let link = &mut self.supervisor.link;
        link.send(&Request::Furnish, None).map_err(|_| NotFurnished::Lost)?;
        match tokio::time::timeout(START_TIME, link.next()).await {
            Ok(Ok(Event::Furnished)) => Ok(()),
            Ok(Ok(Event::NotFurnished { step, object, errno })) => {
                Err(NotFurnished::Refused(supervisor::refusal(&step, &object, errno)))
            }
            Ok(_) => Err(NotFurnished::Lost),
            Err(_) => Err(NotFurnished::Refused(Error::TimedOut {
                action: "furnishing the container".to_owned(),
                seconds: START_TIME.as_secs(),
            })),
        }
    }

    /// Ends one that no client has ever known: what it holds is free as before.
    pub(crate) async fn give_up(self, machine: &Arc<Machine>) {
        let Self { id, leases, mut supervisor, .. } = self;
        supervisor.process.kill();
        supervisor.process.end().await;
        let ending = Arc::clone(machine);
        match blocking(move || ending.teardown(id)).await {
            Ok(()) => leases.give_back(),
            Err(error) => {
                tracing::error!(container = %id, %error, "a container that nobody asked for is still there");
                leases.quarantine();
            }
        }
    }
}

/// Why a container was not given what a request asks for.
#[derive(Debug)]
pub(crate) enum NotFurnished {
    /// It cannot be given.
    Refused(Error),
    /// The container is of no use any more.
    Lost,
}

/// The steps that block: checks first, then what must be undone. Gives the host's resolv.conf.
fn prepare(machine: &Machine, id: Id, leases: &Leases, request: &Create) -> Result<Vec<u8>, Error> {
    let requested = request.rootfs.as_deref().map(Lower::requested).transpose()?;
    let lower = requested.as_ref().unwrap_or(&machine.lower);
    check_sources(&request.binds)?;
    let settings = &machine.settings;
    let host_resolv_conf = fs::read(dns::RESOLV_CONF).unwrap_or_default();
    machine.dns.serve(&machine.network, &host_resolv_conf);
    let spec = spec(machine, id, leases, lower, &request.binds, &host_resolv_conf)?;
    machine.cgroups.create(id, !settings.device_rules, settings.max_tasks)?;
    if let Some(device) = machine.io_device {
        machine.cgroups.limit_io(id, device, &settings.io_limits)?;
    }
    machine.depot.create(id, leases.ids.map_or(0, |ids| ids.host_start))?;
    machine.depot.write_spec(id, &spec)?;
    Ok(host_resolv_conf)
}

fn check_sources(binds: &[Bind]) -> Result<(), Error> {
    for bind in binds {
        let source = ByteString(bind.source.clone());
        if !source.as_path().is_absolute() || fs::metadata(source.as_path()).is_err() {
            return Err(Error::NoBindSource(bind.source.clone()));
        }
    }
    Ok(())
}

fn spec(
    machine: &Machine,
    id: Id,
    leases: &Leases,
    lower: &Lower,
    binds: &[Bind],
    host_resolv_conf: &[u8],
) -> Result<Spec, Error> {
    Plan {
        id,
        init: &machine.init,
        leases,
        cgroups: machine.cgroups.of(id),
        lower: &lower.path,
        system: &lower.system,
        directory: &machine.depot.directory(id),
        binds,
        confinement: machine.settings.confinement,
        dns_servers: &machine.settings.dns_servers,
        dns_forwarder: machine.dns.is_enabled(),
        host_resolv_conf,
    }
    .spec()
}

/// Ends what stands, undoes all steps and returns the error that made it necessary.
pub(crate) async fn end(
    machine: &Arc<Machine>,
    mut supervisor: Supervisor,
    id: Id,
    leases: Option<Leases>,
    error: Error,
) -> Error {
    // It may have ended by itself; what it leaves is killed with the other steps.
    supervisor.process.kill();
    supervisor.process.end().await;
    undo(machine, id, leases, error).await
}

/// Undoes all steps and returns the error that made it necessary; what cannot be ended keeps its leases.
async fn undo(machine: &Arc<Machine>, id: Id, leases: Option<Leases>, error: Error) -> Error {
    tracing::debug!(container = %id, %error, "undoing a creation");
    let machine = Arc::clone(machine);
    if let Err(undoing) = blocking(move || machine.teardown(id)).await {
        tracing::error!(container = %id, error = %undoing, "a container that was not made is still there");
        if let Some(leases) = leases {
            leases.quarantine();
        }
    }
    error
}
