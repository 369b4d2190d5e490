//! The containers' network: a pair of interfaces each, and one table of the packet filter for all.
//!
//! What belongs to one container is keyed by its interface's name in the table's maps and sets, so that a change costs
//! the same however many there are. A container can do nothing in it before its rules are in force: its interface is
//! set up last. docs/network.md says what is let through.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, mpsc};

use warden_linux::netlink::nftables::Batch;
use warden_linux::netlink::route::{self, End, Mac};
use warden_linux::netlink::{Protocol, Refusal, Requests, Socket, conntrack, nftables};

use crate::error::{Context, Error};
use crate::id::Id;
use crate::network::forwards::Forwards;
use crate::network::table::{Forward, Table};
use crate::pool::lock;
use crate::request::{NetIn, NetOut};
use crate::settings::{Addresses, Firewall, Settings};

mod forwards;
mod namespace;
mod reaper;
mod records;
mod rule;
mod table;

pub(crate) use namespace::Namespace;
pub(crate) use records::{ContainerNetwork, OutFields, PortMapping, Records};

/// The kernel's switch for sending on what came for others.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// The kernel's number of the hook `forward`.
const FORWARD_HOOK: u32 = 2;

/// The network of all containers of one daemon.
#[derive(Debug)]
pub(crate) struct Network {
    firewall: Firewall,
    state: Mutex<State>,
    /// Takes the names of interfaces that shall be gone.
    reaper: mpsc::Sender<String>,
}

#[derive(Debug)]
struct State {
    route: Socket,
    filter: Socket,
    attached: HashMap<Id, Addresses>,
    forwards: Forwards,
    opened: HashMap<Id, Vec<NetOut>>,
}

/// A container that cannot be connected as its records say, and why.
pub(crate) type NotAdopted = (Id, Error);

impl Network {
    /// Makes the table anew in one step, with the containers that are taken over; removes the interfaces of those that
    /// are gone, and lets the host forward.
    pub(crate) fn prepare(
        settings: &Settings,
        adopted: Vec<ContainerNetwork>,
        leftovers: &[Id],
    ) -> Result<(Self, Vec<NotAdopted>), Error> {
        let firewall = settings.firewall.clone();
        let open =
            |protocol| Socket::open(protocol).context(|| format!("opening a netlink socket of {protocol:?}"));
        let mut route = open(Protocol::Route)?;
        let mut filter = open(Protocol::Netfilter)?;
        allow_forwarding()?;
        let mut batch = Batch::new(&firewall.table);
        let mut table = Table::new(&mut batch);
        table.set_up(settings.network.network, &firewall);
        let mut forwards = Forwards::new(settings.ports);
        let (mut attached, mut opened) = (HashMap::new(), HashMap::new());
        for ContainerNetwork { id, addresses, records } in adopted {
            table.add_container(id, &names(id).host, addresses.container);
            for mapping in &records.net_in {
                let PortMapping { protocol, host_port, container_port } = *mapping;
                let request = NetIn { protocol, host_port: Some(host_port), container_port: None };
                let reserved = forwards.reserve(&request)?;
                let forward =
                    Forward { protocol, host_port, address: addresses.container, port: container_port };
                table.add_forward(forward);
                forwards.keep(id, forward, reserved);
            }
            for request in &records.net_out {
                table.allow(id, &rule::read(request)?);
            }
            attached.insert(id, addresses);
            opened.insert(id, records.net_out);
        }
        batch.commit(&mut filter).map_err(failed)?;
        for id in leftovers {
            delete_link(&mut route, &names(*id).host)?;
        }
        name_other_filters(&mut filter, &firewall.table);
        let state = Mutex::new(State { route, filter, attached, forwards, opened });
        Ok((Self { firewall, state, reaper: reaper::start()? }, Vec::new()))
    }

    /// What clients have opened for a container; none when it is not connected.
    pub(crate) fn records(&self, id: Id) -> Option<Records> {
        let state = lock(&self.state);
        state.attached.get(&id)?;
        let mapping = |forward: Forward| PortMapping {
            protocol: forward.protocol,
            host_port: forward.host_port,
            container_port: forward.port,
        };
        let net_in = state.forwards.of(id).map(mapping).collect();
        Some(Records { net_in, net_out: state.opened.get(&id).cloned().unwrap_or_default() })
    }

    /// Connects a container: its rules first, then its interfaces.
    pub(crate) fn attach(&self, id: Id, addresses: Addresses, namespace: &Namespace) -> Result<(), Error> {
        let names = names(id);
        let mut state = lock(&self.state);
        let State { route, filter, attached, .. } = &mut *state;
        let mut batch = Batch::new(&self.firewall.table);
        Table::new(&mut batch).add_container(id, &names.host, addresses.container);
        batch.commit(filter).map_err(failed)?;
        attached.insert(id, addresses);
        connect(route, &names, addresses, namespace.as_fd(), self.firewall.mtu).map_err(failed)
    }

    /// Disconnects a container: rules, connections and addresses at once, its interface soon.
    pub(crate) fn detach(&self, id: Id) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let State { route, filter, attached, forwards, opened } = &mut *state;
        let Entry::Occupied(entry) = attached.entry(id) else { return Ok(()) };
        let addresses = *entry.get();
        let names = names(id);
        let mut batch = Batch::new(&self.firewall.table);
        let mut table = Table::new(&mut batch);
        for forward in forwards.of(id) {
            table.delete_forward(forward);
        }
        table.delete_container(id, &names.host, addresses.container);
        match batch.commit(filter) {
            // Somebody has emptied the table: there is nothing left to delete.
            Err(refusal) if refusal.is_absence() => {
                tracing::warn!(container = %id, error = %refusal, "rules were gone before their container");
            }
            other => other.map_err(failed)?,
        }
        entry.remove();
        forwards.release(id);
        opened.remove(&id);
        // The route must be gone before the addresses are used again; deleting the interface takes the kernel long.
        let unroute = route::link_index(route, &names.host).and_then(|index| {
            let mut requests = Requests::default();
            route::delete_address(&mut requests, index, addresses.host, addresses.network.prefix_len());
            route.execute(requests)
        });
        absent_is_well(unroute)?;
        // The reaper lives as long as this.
        let _ = self.reaper.send(names.host);
        conntrack::forget(filter, addresses.container).map(drop).map_err(failed)
    }

    /// Forwards a port of the host to a container; answers both ports.
    pub(crate) fn net_in(&self, id: Id, request: NetIn) -> Result<(u16, u16), Error> {
        let mut state = lock(&self.state);
        let State { route, filter, attached, forwards, .. } = &mut *state;
        let addresses = *attached.get(&id).ok_or(Error::UnknownHandle)?;
        let reserved = forwards.reserve(&request)?;
        let target = Forward {
            protocol: request.protocol,
            host_port: reserved.port,
            address: addresses.container,
            port: request.container_port.unwrap_or(reserved.port),
        };
        // So that the host reaches the port at 127.0.0.1; the table drops what comes from a container for there.
        let index = route::link_index(route, &names(id).host).map_err(failed)?;
        let mut requests = Requests::default();
        route::route_loopback(&mut requests, index);
        route.execute(requests).map_err(failed)?;
        let mut batch = Batch::new(&self.firewall.table);
        Table::new(&mut batch).add_forward(target);
        batch.commit(filter).map_err(failed)?;
        forwards.keep(id, target, reserved);
        Ok((target.host_port, target.port))
    }

    /// Lets a container reach something.
    pub(crate) fn net_out(&self, id: Id, request: &NetOut) -> Result<(), Error> {
        let rule = rule::read(request)?;
        let mut state = lock(&self.state);
        let State { filter, attached, opened, .. } = &mut *state;
        attached.get(&id).ok_or(Error::UnknownHandle)?;
        let mut batch = Batch::new(&self.firewall.table);
        Table::new(&mut batch).allow(id, &rule);
        batch.commit(filter).map_err(failed)?;
        opened.entry(id).or_default().push(request.clone());
        Ok(())
    }

    /// Removes the table, when no container is left.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        if !state.attached.is_empty() {
            return;
        }
        let mut batch = Batch::new(&self.firewall.table);
        batch.delete_table();
        match batch.commit(&mut state.filter) {
            Err(refusal) if !refusal.is_absence() => {
                tracing::warn!(error = %refusal, "the packet filter's table was not removed");
            }
            _ => {}
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.close();
    }
}

/// The interfaces of one container.
#[derive(Debug)]
struct Names {
    host: String,
    container: String,
}

fn names(id: Id) -> Names {
    Names { host: format!("w-{id}-0"), container: format!("w-{id}-1") }
}

/// An Ethernet address made from an IP address: no two containers of a host have the same.
fn mac(end: u8, address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    // The first byte says that it is locally administered.
    [2, end, a, b, c, d]
}

/// Makes both interfaces, the container's first to be usable, the host's last.
fn connect(
    socket: &mut Socket,
    names: &Names,
    addresses: Addresses,
    namespace: BorrowedFd<'_>,
    mtu: u16,
) -> Result<(), Refusal> {
    let refused = |source| Refusal {
        action: "opening a netlink socket of the container".to_owned(),
        words: None,
        source,
    };
    let mut inside = Socket::open_in(Protocol::Route, namespace).map_err(refused)?;
    let prefix = addresses.network.prefix_len();
    let here = End { name: &names.host, mac: mac(0, addresses.container) };
    let there = End { name: &names.container, mac: mac(1, addresses.container) };
    let mut requests = Requests::default();
    route::add_veth(&mut requests, here, there, namespace, mtu.into());
    socket.execute(requests)?;
    let index = route::link_index(socket, &names.host)?;
    let inner = route::link_index(&mut inside, &names.container)?;

    let mut requests = Requests::default();
    route::set_up(&mut requests, inner);
    route::add_address(&mut requests, inner, addresses.container, prefix);
    // Neighbours are stated: asking for them would fill the host's table when many containers talk.
    route::add_neighbour(&mut requests, inner, addresses.host, here.mac);
    route::add_default_route(&mut requests, inner, addresses.host);
    inside.execute(requests)?;

    let mut requests = Requests::default();
    route::set_up(&mut requests, index);
    route::add_address(&mut requests, index, addresses.host, prefix);
    route::add_neighbour(&mut requests, index, addresses.container, there.mac);
    socket.execute(requests)
}

fn delete_link(socket: &mut Socket, name: &str) -> Result<(), Error> {
    let mut requests = Requests::default();
    route::delete_link(&mut requests, name);
    absent_is_well(socket.execute(requests))
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

/// Lets the host forward; where that cannot be written it must be so already.
fn allow_forwarding() -> Result<(), Error> {
    let action = || format!("writing 1 to {FORWARDING}");
    if fs::read(FORWARDING).context(action)?.trim_ascii() == b"1" {
        return Ok(());
    }
    fs::write(FORWARDING, "1").context(action)
}

/// Tells the operator whose rules may drop what ours let through.
fn name_other_filters(socket: &mut Socket, own: &str) {
    match nftables::base_chains(socket) {
        Ok(chains) => {
            for chain in chains {
                if chain.hook == FORWARD_HOOK && chain.drops && chain.table != own {
                    tracing::warn!(
                        table = chain.table,
                        chain = chain.name,
                        "another program's rules drop what they do not know of forwarding: containers may reach nothing"
                    );
                }
            }
        }
        Err(error) => tracing::warn!(%error, "whether other programs drop forwarding is not known"),
    }
}
