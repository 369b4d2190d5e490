//! Names for containers whose host asks a name server on its own loopback, which they cannot reach.
//!
//! Their resolv.conf names the host's end of their network. What they send there to port 53 is redirected to one socket of
//! the daemon's on the loopback, and passed on from there. No other way leads to it: the port belongs to no outer address,
//! and the redirection is a table of the packet filter that goes with the daemon.

use std::sync::Mutex;

use ipnet::Ipv4Net;

use crate::error::Error;
use crate::network::Network;
use crate::pool::lock;
use crate::settings::Settings;

mod forwarder;
mod resolvers;
mod turns;

use forwarder::Forwarder;
pub(crate) use resolvers::{RESOLV_CONF, inside, needs_forwarder};

/// The forwarder of one daemon, which runs from the first container on that needs it.
#[derive(Debug)]
pub(crate) struct Dns {
    /// Whether there may be one.
    enabled: bool,
    pool: Ipv4Net,
    running: Mutex<Option<Forwarder>>,
}

impl Dns {
    /// Prepares for what the configuration allows; with servers of its own there is nothing to forward.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            enabled: settings.dns_forwarder && settings.dns_servers.is_empty(),
            pool: settings.network.network,
            running: Mutex::new(None),
        }
    }

    /// Whether there may be a forwarder.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Lets the forwarder run, and containers reach it, where the host's resolv.conf makes that necessary.
    ///
    /// Containers do without names where it cannot run: that is told, but ends nothing.
    pub(crate) fn serve(&self, network: &Network, host_resolv_conf: &[u8]) {
        if self.enabled
            && needs_forwarder(host_resolv_conf)
            && let Err(error) = self.start(network)
        {
            tracing::error!(%error, "names are not forwarded: containers find none");
        }
    }

    fn start(&self, network: &Network) -> Result<(), Error> {
        let mut running = lock(&self.running);
        if running.is_some() {
            return Ok(());
        }
        let forwarder = Forwarder::start(self.pool)?;
        network.open_dns(forwarder.port())?;
        tracing::info!(port = forwarder.port(), "names are forwarded to the host's name server");
        *running = Some(forwarder);
        Ok(())
    }
}
