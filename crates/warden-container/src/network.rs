//! The containers' network: a pair of interfaces each, and one table of the packet filter for all.
//!
//! What belongs to one container is keyed by its interface's name in the table's maps and sets, so that no change writes
//! more however many there are; what the kernel does with it is in docs/network.md. A container can do nothing in it before
//! its rules are in force: its interface is set up last. docs/network.md says what is let through.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock, mpsc};

use warden_linux::netlink::nftables::{BaseChain, Batch, Watch};
use warden_linux::netlink::{Protocol, Refusal, Socket, nftables};

use crate::error::{Context, Error};
use crate::id::Id;
use crate::info::BandwidthStat;
use crate::leases::Held;
use crate::network::chains::Chains;
use crate::network::connections::Connections;
use crate::network::forwards::Forwards;
use crate::network::interfaces::{group, names};
use crate::network::repair::Repairs;
use crate::network::senders::Senders;
use crate::network::state::{Departed, State};
use crate::network::table::PoolNetworks;
use crate::pool::lock;
use crate::request::{Bandwidth, NetIn, NetOut, Transport};
use crate::settings::{Addresses, Settings};

mod bandwidth;
mod chains;
mod connections;
#[cfg(any(test, feature = "benchmark"))]
pub(crate) mod exercise;
mod forwarding;
mod forwards;
mod interfaces;
pub(crate) mod left;
mod namespace;
pub(crate) mod owner;
mod reaper;
mod records;
mod repair;
mod rule;
mod senders;
pub(crate) mod stale;
mod state;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod trial;
mod withdrawal;

pub(crate) use namespace::Namespace;
pub(crate) use records::{ContainerNetwork, OutFields, PortMapping, Records};

/// The kernel's number of the hook `forward`.
const FORWARD_HOOK: u32 = 2;

/// The network of all containers of one daemon.
#[derive(Debug)]
pub(crate) struct Network {
    state: Arc<Mutex<State>>,
    /// Asks the kernel what it holds, without waiting for those who change it.
    look: Mutex<Socket>,
    /// Largest packet of the interfaces, in bytes.
    mtu: u16,
    /// Takes the names of interfaces that shall be gone.
    reaper: mpsc::Sender<String>,
    connections: Connections,
    senders: Senders,
    /// Since the table is ours.
    repairs: OnceLock<Repairs>,
}

/// A container that could not be adopted, and why.
pub(crate) type NotAdopted = (Id, Error);

impl Network {
    /// Makes ready; the kernel's table stays as it is until [`Network::restore`], and must not be another depot's.
    pub(crate) fn open(settings: &Settings) -> Result<Self, Error> {
        owner::examine(settings)?;
        let filter = open(Protocol::Netfilter)?;
        let state = State {
            route: open(Protocol::Route)?,
            filter,
            pool: PoolNetworks { v4: settings.network.network, v6: settings.network.network_v6 },
            firewall: settings.firewall.clone(),
            depot: settings.real_depot(),
            members: HashMap::new(),
            chains: Chains::default(),
            departed: HashMap::new(),
            held: HashMap::new(),
            forwards: Forwards::new(settings.ports),
            dns: None,
            closed: true,
        };
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
            look: Mutex::new(open(Protocol::Route)?),
            mtu: settings.firewall.mtu,
            reaper: reaper::start()?,
            connections: Connections::start()?,
            senders: Senders::open()?,
            repairs: OnceLock::new(),
        })
    }

    /// Lets the host forward, and writes the whole table with the containers that go on, in one transaction.
    ///
    /// The interfaces of `adopted` are left as they are; those of `leftovers` are deleted. A container that is not
    /// adopted has no rules: whatever it sends is dropped.
    pub(crate) fn restore(
        &self,
        adopted: Vec<ContainerNetwork>,
        leftovers: &[Id],
    ) -> Result<Vec<NotAdopted>, Error> {
        let mut state = lock(&self.state);
        let kept: HashSet<Id> = adopted.iter().map(|container| container.id).collect();
        let mut refused = Vec::new();
        for container in adopted {
            let id = container.id;
            refused.extend(state.adopt(container).err().map(|error| (id, error)));
        }
        forwarding::allow(state.pool.v6.is_some())?;
        let port = state.filter.port();
        let watch = port.and_then(Watch::start).context(|| "watching the packet filter".to_owned())?;
        state.write_all().map_err(failed)?;
        state.closed = false;
        state.forget_strangers().map_err(failed)?;
        let table = state.firewall.table.clone();
        let present = left::interfaces(&mut state.route, &table).map_err(failed)?;
        let there: HashSet<&str> = present.iter().map(|(name, _)| name.as_str()).collect();
        for id in &kept {
            if !there.contains(names(*id).host.as_str()) {
                tracing::error!(container = %id, "its interface was deleted by another program: it reaches nothing");
            }
        }
        let strays = present.into_iter().filter_map(|(name, id)| (!kept.contains(&id)).then_some(name));
        let removed = leftovers.iter().flat_map(|id| names(*id).on_the_host());
        if let Err(error) = reaper::delete(&mut state.route, removed.chain(strays)) {
            tracing::error!(%error, "interfaces that are left over are still there");
        }
        let State { filter, firewall, .. } = &mut *state;
        name_other_filters(filter, &firewall.table);
        drop(state);
        // It is done once.
        let _ = self.repairs.set(Repairs::start(watch, Arc::downgrade(&self.state))?);
        Ok(refused)
    }

    /// Connects a container: its rules first, then its interfaces.
    pub(crate) fn attach(&self, id: Id, addresses: Addresses, namespace: &Namespace) -> Result<(), Error> {
        let names = names(id);
        let mut state = lock(&self.state);
        state.connect(id, addresses).map_err(failed)?;
        let (mtu, loopback) = (state.firewall.mtu, state.dns.is_some());
        let group = group(&state.firewall.table);
        let index =
            interfaces::connect(&mut state.route, &names, addresses, namespace.as_fd(), mtu, loopback, group)
                .map_err(failed)?;
        if let Some(member) = state.members.get_mut(&id) {
            member.index = Some(index);
        }
        Ok(())
    }

    /// Disconnects a container: rules and addresses at once, its interface soon, its connections before anybody gets its
    /// addresses ([`Network::give_back`]). Its ports lead nowhere, and are nobody else's, until nothing of it runs
    /// ([`Network::release_ports`]).
    pub(crate) fn detach(&self, id: Id) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let Some(member) = state.disconnect(id).map_err(failed)? else { return Ok(()) };
        let names = names(id);
        let mapped = !member.records.net_in.is_empty();
        // The container is forgotten: what fails now is told, and does not keep the rest from being done.
        let disconnected = interfaces::disconnect(&mut state.route, &names, member.index, member.addresses);
        // Through what never moved a packet nobody has connected.
        if !matches!(disconnected, Ok(false)) {
            state.departed.insert(id, Departed { addresses: member.addresses, mapped });
        }
        // Deleting the interfaces takes the kernel long. The reaper lives as long as this.
        names.on_the_host().into_iter().for_each(|name| drop(self.reaper.send(name)));
        disconnected.map(drop)
    }

    /// Lets others have the ports of a container of which nothing runs any more.
    pub(crate) fn release_ports(&self, id: Id) {
        let mut state = lock(&self.state);
        let ports = state.held.remove(&id).unwrap_or_default();
        state.forwards.release(&ports);
    }

    /// Keeps everybody else from the ports of a container that is off the network and cannot be destroyed.
    pub(crate) fn hold_ports(&self, id: Id, ports: &[PortMapping]) {
        let mut state = lock(&self.state);
        let mut held = Vec::new();
        for &mapping in ports {
            let PortMapping { protocol, host_port, .. } = mapping;
            let request = NetIn { protocol, host_port: Some(host_port), container_port: None };
            // What is somebody else's by now stays theirs.
            if let Ok(reserved) = state.forwards.reserve(&request) {
                state.forwards.keep(protocol, reserved);
                held.push(mapping);
            }
        }
        if !held.is_empty() {
            state.held.insert(id, held);
        }
    }

    /// Gives back what a container held of the pools, once nothing of it is left and its connections are forgotten.
    pub(crate) fn give_back(&self, id: Id, held: Held) {
        let departed = lock(&self.state).departed.remove(&id);
        if let Some(Departed { addresses, mapped }) = departed {
            self.connections.forget(id, addresses, held, mapped);
        }
    }

    /// Waits until everything that was given back is in the pools. Blocks.
    pub(crate) fn settle(&self) {
        self.connections.settle();
    }

    /// Forwards a port of the host to a container; answers both ports.
    pub(crate) fn net_in(&self, id: Id, request: NetIn) -> Result<(u16, u16), Error> {
        // What still comes in for a port's last owner would not come to the next.
        self.connections.settle_ports();
        let mut state = lock(&self.state);
        if !state.members.contains_key(&id) {
            return Err(Error::UnknownHandle);
        }
        let reserved = state.forwards.reserve(&request)?;
        let mapping = PortMapping {
            protocol: request.protocol,
            host_port: reserved.port,
            container_port: request.container_port.unwrap_or(reserved.port),
        };
        let State { route, members, dns, .. } = &mut *state;
        // The first port has done it, or the way to names.
        if dns.is_none() && members.get(&id).is_some_and(|member| member.records.net_in.is_empty()) {
            interfaces::route_loopback(route, &names(id)).map_err(failed)?;
        }
        state.map(id, mapping).map_err(failed)?;
        state.forwards.keep(mapping.protocol, reserved);
        let ipv6 = state.pool.v6.is_some();
        drop(state);
        if mapping.protocol == Transport::Udp {
            self.senders.forget(mapping.host_port, ipv6);
        }
        Ok((mapping.host_port, mapping.container_port))
    }

    /// Lets a container reach something.
    pub(crate) fn net_out(&self, id: Id, request: &NetOut) -> Result<(), Error> {
        let rule = rule::read(request)?;
        let mut state = lock(&self.state);
        if state.pool.v6.is_none() && rule.addresses.is_some_and(|(first, _)| first.is_ipv6()) {
            let expected = "IPv4: containers have no IPv6 where network.pool_network_v6 is not configured";
            return Err(Error::invalid("network", request.network.as_deref().unwrap_or_default(), expected));
        }
        if !state.members.contains_key(&id) {
            return Err(Error::UnknownHandle);
        }
        state.allow(id, request, &rule).map_err(failed)
    }

    /// Lets containers reach a forwarder of names on 127.0.0.1, as long as this process lives.
    pub(crate) fn open_dns(&self, port: u16) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let members: Vec<_> = state.members.keys().copied().collect();
        for id in members {
            interfaces::route_loopback(&mut state.route, &names(id)).map_err(failed)?;
        }
        state.dns = Some(port);
        state.write_all().map_err(failed)?;
        let State { filter, pool, firewall, .. } = &mut *state;
        let name = format!("{}-dns", firewall.table);
        let mut batch = Batch::new(&name);
        table::redirect_dns(&mut batch, *pool, port);
        batch.commit(filter).map_err(|refusal| {
            // The port will be somebody else's.
            state.dns = None;
            match state.write_all() {
                Ok(()) => failed(refusal),
                Err(again) => failed(again),
            }
        })
    }

    /// How many containers are connected.
    pub(crate) fn count(&self) -> usize {
        lock(&self.state).members.len()
    }

    /// What clients have opened for a container: what a snapshot needs to have it adopted later.
    pub(crate) fn records(&self, id: Id) -> Option<Records> {
        let state = lock(&self.state);
        let connected = state.members.get(&id).map(|member| member.records.clone());
        let held =
            || state.held.get(&id).map(|ports| Records { net_in: ports.clone(), ..Records::default() });
        connected.or_else(held)
    }

    /// Limits the bandwidth of a container in both directions; where that is refused, it is as `before` again.
    pub(crate) fn limit_bandwidth(
        &self,
        id: Id,
        before: Option<Bandwidth>,
        asked: Bandwidth,
    ) -> Result<(), Error> {
        let mtu = self.mtu;
        let bucket = bandwidth::read(asked, mtu)?;
        let before = before.and_then(|before| bandwidth::read(before, mtu).ok().flatten());
        let mut state = lock(&self.state);
        if !state.members.contains_key(&id) {
            return Err(Error::UnknownHandle);
        }
        let group = group(&state.firewall.table);
        bandwidth::apply(&mut state.route, &names(id), (mtu, group), before, bucket).map_err(failed)
    }

    /// Tells the limits of bandwidth of a container as the kernel holds them; `asked` are those that were set last.
    pub(crate) fn bandwidth(&self, id: Id, asked: Bandwidth) -> Result<BandwidthStat, Error> {
        let stat = bandwidth::stat(&mut lock(&self.look), &names(id), self.mtu, asked);
        stat.map_err(failed)
    }

    /// Leaves the table to the next daemon, or removes it when no container is left.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        // The next daemon may be there already: what it does to the table is not repaired.
        let open = !std::mem::replace(&mut state.closed, true);
        if !open || !state.members.is_empty() {
            return;
        }
        let State { filter, firewall, .. } = &mut *state;
        let mut batch = Batch::new(&firewall.table);
        batch.delete_table();
        if let Err(error) = absent_is_well(batch.commit(filter)) {
            tracing::warn!(%error, "the packet filter's table was not removed");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.close();
    }
}

fn open(protocol: Protocol) -> Result<Socket, Error> {
    Socket::open(protocol).context(|| format!("opening a netlink socket of {protocol:?}"))
}

fn absent_is_well(outcome: Result<(), Refusal>) -> Result<(), Error> {
    match outcome {
        Err(refusal) if !refusal.is_absence() => Err(failed(refusal)),
        _ => Ok(()),
    }
}

fn failed(refusal: Refusal) -> Error {
    let Refusal { action, words, source } = refusal;
    match words {
        Some(words) => Error::Failed { action: format!("{action}: {words}"), source },
        None => Error::Failed { action, source },
    }
}

/// Tells the operator whose rules may drop what ours let through.
fn name_other_filters(socket: &mut Socket, own: &str) {
    let chains = match nftables::base_chains(socket) {
        Ok(chains) => chains,
        Err(error) => {
            tracing::warn!(%error, "whether other programs drop forwarding is not known");
            return;
        }
    };
    for chain in chains.into_iter().filter(|chain| drops_forwarding(chain, own)) {
        tracing::warn!(
            table = chain.table,
            chain = chain.name,
            "another program's rules drop what they do not know of forwarding: containers may reach nothing"
        );
    }
}

/// Whether a chain of another table drops by its policy what is forwarded, as those of iptables-nft do for Docker and ufw.
fn drops_forwarding(chain: &BaseChain, own: &str) -> bool {
    chain.hook == FORWARD_HOOK && chain.drops && chain.table != own
}
