//! What the network needs of the kernel, tried before a container needs it: the packet filter's table and the interfaces of
//! one container, in a network namespace that goes at once.

use std::fs::File;
use std::thread;

use warden_linux::namespace::leave_network;

use super::{Namespace, Network, owner};
use crate::error::{Context, Error};
use crate::id::{Id, Ids};
use crate::leases::Pools;
use crate::request::Bandwidth;
use crate::settings::Settings;

/// Some limit.
const LIMIT: Bandwidth = Bandwidth { rate: 1 << 20, burst: 1 << 20 };

/// Whether a container can have a network here, with this table: an error where it cannot, and whether its bandwidth can be limited where it can.
///
/// Changes nothing of this process's network namespace; needs root.
pub fn attempt(settings: &Settings) -> Result<Result<(), Error>, Error> {
    owner::examine(settings)?;
    let id = Ids::default().next();
    let apart = || {
        let network = make(settings, id)?;
        Ok(network.limit_bandwidth(id, None, LIMIT))
    };
    let action = || "trying a container's network".to_owned();
    let thread = thread::Builder::new().name("trial".to_owned());
    thread::scope(|scope| {
        let trial = thread.spawn_scoped(scope, apart).context(action)?;
        trial.join().unwrap_or_else(|_| Err(std::io::Error::other("it panicked")).context(action))
    })
}

/// Makes it, in a network namespace that this thread has alone.
fn make(settings: &Settings, id: Id) -> Result<Network, Error> {
    leave_network().context(|| "making a network namespace".to_owned())?;
    let own = "/proc/thread-self/ns/net";
    let namespace = File::open(own).context(|| format!("opening {own}"))?;
    let addresses = Pools::new(settings).lease(id, None)?.addresses;
    let network = Network::open(settings)?;
    network.restore(Vec::new(), &[])?;
    network.attach(id, addresses, &Namespace::from(namespace))?;
    Ok(network)
}
