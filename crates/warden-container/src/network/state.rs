//! What the table shall hold, in memory, and its way into the kernel: as changes, or whole.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;

use warden_linux::netlink::nftables::Batch;
use warden_linux::netlink::{Refusal, Socket};

use super::chains::Chains;
use super::connections;
use super::forwards::Forwards;
use super::interfaces::names;
use super::owner;
use super::records::{ContainerNetwork, PortMapping, Records};
use super::rule;
use super::table::{Forward, PoolNetworks, Table};
use crate::error::Error;
use crate::id::Id;
use crate::request::{NetIn, NetOut};
use crate::settings::{Addresses, Firewall};

/// All connected containers.
#[derive(Debug)]
pub(super) struct State {
    pub(super) route: Socket,
    pub(super) filter: Socket,
    pub(super) pool: PoolNetworks,
    pub(super) firewall: Firewall,
    /// Whose containers these are.
    pub(super) depot: PathBuf,
    pub(super) members: HashMap<Id, Member>,
    pub(super) chains: Chains,
    /// Containers that were disconnected, and whose connections may still be tracked.
    pub(super) departed: HashMap<Id, Departed>,
    /// Ports of containers that are off the network, of which something may still run.
    pub(super) held: HashMap<Id, Vec<PortMapping>>,
    pub(super) forwards: Forwards,
    /// The port on 127.0.0.1 where questions for names are taken.
    pub(super) dns: Option<u16>,
    /// The table is nobody's concern any more.
    pub(super) closed: bool,
}

/// One disconnected container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departed {
    pub(super) addresses: Addresses,
    /// Whether ports of the host led to it.
    pub(super) mapped: bool,
}

/// One connected container.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) addresses: Addresses,
    /// The number of the host's interface, where this daemon has made it.
    pub(super) index: Option<u32>,
    pub(super) records: Records,
}

impl Member {
    /// A mapping of its ports as the table holds it: for each of its addresses.
    pub(super) fn forwards(&self, mapping: PortMapping) -> impl Iterator<Item = Forward> + use<> {
        let PortMapping { protocol, host_port, container_port } = mapping;
        let forward = move |address| Forward { protocol, host_port, address, port: container_port };
        self.addresses.inside().map(forward)
    }
}

impl State {
    /// Takes in a container that an earlier daemon has connected, with its ports; all of it or nothing.
    pub(super) fn adopt(&mut self, container: ContainerNetwork) -> Result<(), Error> {
        let ContainerNetwork { id, addresses, records } = container;
        // What cannot be written must not be found out when everything is written.
        records.net_out.iter().try_for_each(|request| rule::read(request).map(drop))?;
        for (done, &mapping) in records.net_in.iter().enumerate() {
            let PortMapping { protocol, host_port, .. } = mapping;
            let request = NetIn { protocol, host_port: Some(host_port), container_port: None };
            match self.forwards.reserve(&request) {
                Ok(reserved) => self.forwards.keep(protocol, reserved),
                Err(error) => {
                    self.forwards.release(&records.net_in[..done]);
                    return Err(error);
                }
            }
        }
        // The whole table is written afterwards.
        if !records.net_out.is_empty() {
            self.chains.add(addresses.inside());
        }
        self.members.insert(id, Member { addresses, index: None, records });
        Ok(())
    }

    /// Takes in a new container.
    pub(super) fn connect(&mut self, id: Id, addresses: Addresses) -> Result<(), Refusal> {
        self.members.insert(id, Member { addresses, index: None, records: Records::default() });
        let added = self.change(|table| table.add_container(&names(id).host, addresses));
        if added.is_err() {
            self.members.remove(&id);
        }
        added
    }

    /// Gives a container up, and keeps its ports for it; `None` when there is no such.
    pub(super) fn disconnect(&mut self, id: Id) -> Result<Option<Member>, Refusal> {
        let Some(member) = self.members.remove(&id) else { return Ok(None) };
        let deleted = self.change(|table| {
            for forward in member.records.net_in.iter().flat_map(|&mapping| member.forwards(mapping)) {
                table.delete_forward(forward);
            }
            table.delete_container(&names(id).host, member.addresses);
            if !member.records.net_out.is_empty() {
                table.close(member.addresses);
            }
        });
        if let Err(refusal) = deleted {
            self.members.insert(id, member);
            return Err(refusal);
        }
        if !member.records.net_in.is_empty() {
            self.held.insert(id, member.records.net_in.clone());
        }
        Ok(Some(member))
    }

    /// Makes a change of the table that memory holds already.
    pub(super) fn change(&mut self, write: impl FnOnce(&mut Table<'_, '_>)) -> Result<(), Refusal> {
        let mut batch = Batch::new(&self.firewall.table);
        write(&mut Table::new(&mut batch));
        match batch.commit(&mut self.filter) {
            Err(refusal) if refusal.is_absence() || refusal.is_duplicate() => {
                tracing::warn!(%refusal, "the packet filter's table was changed by another program: it is written anew");
                self.write_all()
            }
            other => other,
        }
    }

    /// Writes the whole table in the place of whatever there is of it, in one transaction: no packet meets a part.
    pub(super) fn write_all(&mut self) -> Result<(), Refusal> {
        let mut batch = Batch::new(&self.firewall.table);
        let mut table = Table::new(&mut batch);
        table.set_up(&owner::comment(&self.depot), self.pool, &self.firewall, self.dns, &self.chains.all());
        for (&id, member) in &self.members {
            table.add_container(&names(id).host, member.addresses);
            for rule in member.records.net_out.iter().flat_map(rule::read) {
                table.allow(id, member.addresses, &rule, self.firewall.mark());
            }
            for forward in member.records.net_in.iter().flat_map(|&mapping| member.forwards(mapping)) {
                table.add_forward(forward);
            }
        }
        batch.commit(&mut self.filter)
    }

    /// Forgets the connections of all addresses of the pool that no container has: those of an earlier daemon's that
    /// were destroyed when it ended.
    pub(super) fn forget_strangers(&mut self) -> Result<(), Refusal> {
        let Self { filter, pool, members, .. } = self;
        let taken: HashSet<IpAddr> = members.values().flat_map(|member| member.addresses.inside()).collect();
        connections::forget(filter, |address| pool.contains(address) && !taken.contains(&address))
    }

    /// Adds a mapping to a container's, or to the kernel too.
    pub(super) fn map(&mut self, id: Id, mapping: PortMapping) -> Result<(), Refusal> {
        let Some(member) = self.members.get_mut(&id) else { return Ok(()) };
        member.records.net_in.push(mapping);
        let forwards = member.forwards(mapping);
        let changed = self.change(|table| forwards.for_each(|forward| table.add_forward(forward)));
        if let (Err(_), Some(member)) = (&changed, self.members.get_mut(&id)) {
            member.records.net_in.pop();
        }
        changed
    }

    /// Lets a container reach something more.
    pub(super) fn allow(&mut self, id: Id, request: &NetOut, rule: &rule::Rule) -> Result<(), Refusal> {
        let Some(member) = self.members.get_mut(&id) else { return Ok(()) };
        member.records.net_out.push(request.clone());
        let (addresses, mark) = (member.addresses, self.firewall.mark());
        let blocks = self.chains.add(addresses.inside());
        let changed = self.change(|table| {
            table.add_chains(&blocks);
            table.allow(id, addresses, rule, mark);
        });
        if let (Err(_), Some(member)) = (&changed, self.members.get_mut(&id)) {
            member.records.net_out.pop();
            self.chains.remove(&blocks);
        }
        changed
    }
}
