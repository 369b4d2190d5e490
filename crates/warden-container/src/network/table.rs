//! The table of the packet filter: what each chain decides.
//!
//! ```text
//! guard    prerouting  from a container: for 127.0.0.0/8 -> drop; source its own -> on; else -> drop (IPv6 too)
//! redirect prerouting  for the host itself, port in `forwards` -> the container's port
//! local    output      the same, for what the host itself sends
//! forward  forward     answers -> accept; from a container -> out-<id>; to a container -> incoming
//! input    input       answers -> accept; from a container -> refuse, unless the host may be reached
//! closed   output      IPv6 to a container -> drop
//! hide     postrouting from the pool to elsewhere, or from 127.0.0.1 to a container -> the host's address
//!
//! out-<id>             what net_out has opened -> accept; rest -> common
//! common               allow_networks -> accept; rest -> refuse
//! incoming             redirected -> accept; rest -> drop
//! ```

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use warden_linux::netlink::nftables::Verdict::{Accept, Drop, Goto};
use warden_linux::netlink::nftables::{
    self, Batch, ChainKind, Compare, Connection, Expression, Field, Held, Holds, Hook, Meta, Part,
};

use super::rule::{Rule, Traffic};
use crate::id::Id;
use crate::request::Transport;
use crate::settings::Firewall;

/// Names of the containers' interfaces on the host.
const INTERFACES: &str = "interfaces";
/// Each with the address that its container may send from.
const MEMBERS: &str = "members";
/// Each with the chain of what its container may send.
const OUTGOING: &str = "outgoing";
/// Protocols and ports of the host, each with an address and a port of a container.
const FORWARDS: &str = "forwards";

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
/// Where the addresses are in the header of IPv4.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

/// The kernel's numbers of address families.
const INET: [u8; 1] = [2];
const INET6: [u8; 1] = [10];
/// States of packets that somebody waits for.
const ANSWERS: [u8; 4] = (Connection::ESTABLISHED | Connection::RELATED).to_ne_bytes();
const REDIRECTED: [u8; 4] = Connection::REDIRECTED.to_ne_bytes();
const LOOPBACK: Prefix = Prefix { address: [127, 0, 0, 0], mask: [255, 0, 0, 0] };

/// A network as the packet filter compares it.
#[derive(Debug)]
struct Prefix {
    address: [u8; 4],
    mask: [u8; 4],
}

impl Prefix {
    fn of(network: Ipv4Net) -> Self {
        Self { address: network.network().octets(), mask: network.netmask().octets() }
    }
}

fn family(number: &[u8; 1]) -> [Expression<'_>; 2] {
    [
        Expression::Meta { key: Meta::Family, slot: 0 },
        Expression::Compare { slot: 0, how: Compare::Equal, value: number },
    ]
}

fn ipv4() -> [Expression<'static>; 2] {
    family(&INET)
}

fn interface(key: Meta) -> Expression<'static> {
    Expression::Meta { key, slot: 0 }
}

fn address(offset: u32, slot: u32) -> Expression<'static> {
    Expression::Payload { part: Part::Network, offset, length: 4, slot }
}

fn from_container() -> [Expression<'static>; 2] {
    [interface(Meta::InputInterface), Expression::Lookup { set: INTERFACES, slot: 0 }]
}

fn to_container() -> [Expression<'static>; 2] {
    [interface(Meta::OutputInterface), Expression::Lookup { set: INTERFACES, slot: 0 }]
}

fn in_network(offset: u32, prefix: &Prefix, how: Compare) -> [Expression<'_>; 3] {
    [
        address(offset, 0),
        Expression::Mask { slot: 0, mask: &prefix.mask },
        Expression::Compare { slot: 0, how, value: &prefix.address },
    ]
}

/// Goes on where one of the bits is set.
fn connection(key: Connection, bits: &[u8; 4]) -> [Expression<'_>; 3] {
    [
        Expression::Connection { key, slot: 0 },
        Expression::Mask { slot: 0, mask: bits },
        Expression::Compare { slot: 0, how: Compare::Different, value: &[0; 4] },
    ]
}

/// A port of the host that leads into a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) protocol: Transport,
    pub(super) host_port: u16,
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

/// Writes changes of the table into a batch.
#[derive(Debug)]
pub(super) struct Table<'a, 'b>(&'a mut Batch<'b>);

impl<'a, 'b> Table<'a, 'b> {
    /// Writes into this batch.
    pub(super) fn new(batch: &'a mut Batch<'b>) -> Self {
        Self(batch)
    }

    /// Makes the table anew, whatever there was of it.
    pub(super) fn set_up(&mut self, pool: Ipv4Net, firewall: &Firewall) {
        // Deleted is only what exists.
        self.0.add_table();
        self.0.delete_table();
        self.0.add_table();
        self.0.add_set(INTERFACES, &[Field::Interface], Holds::Nothing);
        self.0.add_set(MEMBERS, &[Field::Interface, Field::Address], Holds::Nothing);
        self.0.add_set(OUTGOING, &[Field::Interface], Holds::Verdicts);
        let port = [Field::Protocol, Field::Port];
        self.0.add_set(FORWARDS, &port, Holds::Values(&[Field::Address, Field::Port]));
        self.guard();
        self.common(&firewall.allow_networks);
        self.forward();
        self.input(firewall.allow_host_access);
        self.redirect();
        self.hide(pool);
    }

    fn guard(&mut self) {
        self.0.add_chain("from-container");
        self.rule(
            "from-container",
            &[&ipv4(), &in_network(DESTINATION, &LOOPBACK, Compare::Equal), &[Expression::Verdict(Drop)]],
        );
        let own = [
            interface(Meta::InputInterface),
            address(SOURCE, 4),
            Expression::Lookup { set: MEMBERS, slot: 0 },
            Expression::Verdict(Accept),
        ];
        self.rule("from-container", &[&ipv4(), &own]);
        self.0.add_rule("from-container", &[Expression::Verdict(Drop)]);
        // Before connections are tracked: what is not the container's leaves no trace.
        self.0.add_base_chain("guard", ChainKind::Filter, Hook::Prerouting, -300);
        self.rule("guard", &[&from_container(), &[Expression::Verdict(Goto("from-container"))]]);
        self.0.add_base_chain("closed", ChainKind::Filter, Hook::Output, 0);
        self.rule("closed", &[&family(&INET6), &to_container(), &[Expression::Verdict(Drop)]]);
    }

    fn common(&mut self, allowed: &[Ipv4Net]) {
        self.0.add_chain("common");
        for network in allowed {
            self.rule(
                "common",
                &[
                    &ipv4(),
                    &in_network(DESTINATION, &Prefix::of(*network), Compare::Equal),
                    &[Expression::Verdict(Accept)],
                ],
            );
        }
        self.0.add_rule("common", &[Expression::Reject]);
    }

    fn forward(&mut self) {
        self.0.add_chain("incoming");
        self.rule(
            "incoming",
            &[&connection(Connection::Status, &REDIRECTED), &[Expression::Verdict(Accept)]],
        );
        self.0.add_rule("incoming", &[Expression::Verdict(Drop)]);
        self.0.add_base_chain("forward", ChainKind::Filter, Hook::Forward, 0);
        self.rule("forward", &[&connection(Connection::State, &ANSWERS), &[Expression::Verdict(Accept)]]);
        let outgoing = Expression::VerdictMap { set: OUTGOING, slot: 0 };
        self.0.add_rule("forward", &[interface(Meta::InputInterface), outgoing]);
        self.rule("forward", &[&to_container(), &[Expression::Verdict(Goto("incoming"))]]);
    }

    fn input(&mut self, open: bool) {
        self.0.add_base_chain("input", ChainKind::Filter, Hook::Input, 0);
        if !open {
            self.rule("input", &[&connection(Connection::State, &ANSWERS), &[Expression::Verdict(Accept)]]);
            self.rule("input", &[&from_container(), &[Expression::Reject]]);
        }
    }

    fn redirect(&mut self) {
        for (name, hook) in [("redirect", Hook::Prerouting), ("local", Hook::Output)] {
            self.0.add_base_chain(name, ChainKind::Nat, hook, -100);
            let port = [
                Expression::DestinationKind { slot: 0 },
                Expression::Compare { slot: 0, how: Compare::Equal, value: &Expression::LOCAL },
                Expression::Meta { key: Meta::Protocol, slot: 0 },
                Expression::Payload { part: Part::Transport, offset: 2, length: 2, slot: 1 },
                Expression::Map { set: FORWARDS, slot: 0, into: 0 },
                Expression::Redirect { address: 0, port: 1 },
            ];
            self.rule(name, &[&ipv4(), &port]);
        }
    }

    fn hide(&mut self, pool: Ipv4Net) {
        self.0.add_base_chain("hide", ChainKind::Nat, Hook::Postrouting, 100);
        let pool = Prefix::of(pool);
        let from_pool = in_network(SOURCE, &pool, Compare::Equal);
        let to_elsewhere = in_network(DESTINATION, &pool, Compare::Different);
        let hide = [Expression::Masquerade];
        self.rule("hide", &[&ipv4(), &from_pool, &to_elsewhere, &hide]);
        // The host's own requests to 127.0.0.1, which no answer would find.
        let from_loopback = in_network(SOURCE, &LOOPBACK, Compare::Equal);
        self.rule("hide", &[&ipv4(), &from_loopback, &to_container(), &hide]);
        // A container that asks for a port of the host and meets itself.
        let itself = [
            interface(Meta::OutputInterface),
            address(SOURCE, 4),
            Expression::Lookup { set: MEMBERS, slot: 0 },
        ];
        self.rule("hide", &[&ipv4(), &connection(Connection::Status, &REDIRECTED), &itself, &hide]);
    }

    /// Adds a container that may reach what all may.
    pub(super) fn add_container(&mut self, id: Id, interface: &str, address: Ipv4Addr) {
        let chain = chain(id);
        self.0.add_chain(&chain);
        self.0.add_rule(&chain, &[Expression::Verdict(Goto("common"))]);
        let name = nftables::interface(interface);
        self.0.add_element(INTERFACES, &name, Held::Nothing);
        self.0.add_element(MEMBERS, &nftables::interface_and_address(interface, address), Held::Nothing);
        self.0.add_element(OUTGOING, &name, Held::Verdict(Goto(&chain)));
    }

    /// Deletes a container.
    pub(super) fn delete_container(&mut self, id: Id, interface: &str, address: Ipv4Addr) {
        let name = nftables::interface(interface);
        self.0.delete_element(OUTGOING, &name);
        self.0.delete_element(MEMBERS, &nftables::interface_and_address(interface, address));
        self.0.delete_element(INTERFACES, &name);
        self.0.delete_chain(&chain(id));
    }

    /// Adds a forwarded port.
    pub(super) fn add_forward(&mut self, forward: Forward) {
        let target = nftables::address_and_port(forward.address, forward.port);
        self.0.add_element(FORWARDS, &key(forward), Held::Value(&target));
    }

    /// Deletes a forwarded port.
    pub(super) fn delete_forward(&mut self, forward: Forward) {
        self.0.delete_element(FORWARDS, &key(forward));
    }

    /// Lets a container reach something more.
    pub(super) fn allow(&mut self, id: Id, rule: &Rule) {
        let prefix = format!("warden-i-{id} ");
        let (from, to) = rule.addresses.map(|(from, to)| (from.octets(), to.octets())).unwrap_or_default();
        let mut expressions = ipv4().to_vec();
        if rule.addresses.is_some() {
            expressions
                .extend([address(DESTINATION, 0), Expression::Range { slot: 0, from: &from, to: &to }]);
        }
        let ports = Ports::of(rule.traffic);
        expressions.extend(ports.expressions());
        if rule.log {
            // Answers do not come here: what does is new.
            expressions.push(Expression::Log { prefix: &prefix });
        }
        expressions.push(Expression::Verdict(Accept));
        self.0.insert_rule(&chain(id), &expressions);
    }

    fn rule(&mut self, chain: &str, parts: &[&[Expression<'_>]]) {
        self.0.add_rule(chain, &parts.concat());
    }
}

fn chain(id: Id) -> String {
    format!("out-{id}")
}

fn key(forward: Forward) -> [u8; 8] {
    let protocol = match forward.protocol {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    };
    nftables::protocol_and_port(protocol, forward.host_port)
}

/// What a kind of traffic is compared with.
struct Ports {
    protocol: Option<[u8; 1]>,
    length: u32,
    offset: u32,
    first: [u8; 2],
    last: [u8; 2],
}

impl Ports {
    fn of(traffic: Traffic) -> Self {
        let any = Self { protocol: None, length: 0, offset: 0, first: [0; 2], last: [0; 2] };
        let ports = |protocol, ports: Option<(u16, u16)>| match ports {
            None => Self { protocol: Some([protocol]), ..any },
            Some((first, last)) => Self {
                protocol: Some([protocol]),
                length: 2,
                offset: 2,
                first: first.to_be_bytes(),
                last: last.to_be_bytes(),
            },
        };
        match traffic {
            Traffic::All => any,
            Traffic::Tcp(range) => ports(TCP, range),
            Traffic::Udp(range) => ports(UDP, range),
            Traffic::Icmp(None) => ports(ICMP, None),
            // Type and code stand side by side: one number of two bytes, or of one.
            Traffic::Icmp(Some((kind, None))) => {
                Self { protocol: Some([ICMP]), length: 1, offset: 0, first: [kind, 0], last: [kind, 0] }
            }
            Traffic::Icmp(Some((kind, Some(code)))) => {
                Self { protocol: Some([ICMP]), length: 2, offset: 0, first: [kind, code], last: [kind, code] }
            }
        }
    }

    fn expressions(&self) -> Vec<Expression<'_>> {
        let mut list = Vec::new();
        if let Some(protocol) = &self.protocol {
            list.push(Expression::Meta { key: Meta::Protocol, slot: 0 });
            list.push(Expression::Compare { slot: 0, how: Compare::Equal, value: protocol });
        }
        if self.length > 0 {
            let Self { offset, length, .. } = *self;
            let [from, to] = [&self.first, &self.last].map(|bytes| &bytes[..length as usize]);
            list.push(Expression::Payload { part: Part::Transport, offset, length, slot: 0 });
            list.push(if from == to {
                Expression::Compare { slot: 0, how: Compare::Equal, value: from }
            } else {
                Expression::Range { slot: 0, from, to }
            });
        }
        list
    }
}
