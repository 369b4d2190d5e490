//! The table of the packet filter: what each chain decides.
//!
//! ```text
//! guard    prerouting  from a container: for 127.0.0.0/8 -> drop; source its own -> on; else -> drop
//! redirect prerouting  for the host itself, port in `forwards` -> the container's port
//! local    output      the same, for what the host itself sends
//! forward  forward     answers -> accept; from a container -> out-<address>, then common; to a container -> incoming
//! input    input       answers, questions for names -> accept; from a container -> refuse, unless the host may be reached
//! closed   output      IPv6 to a container, but for addresses of the pool -> drop
//! hide     postrouting from the pool to elsewhere, or from the loopback to a container -> the host's address
//!
//! out-<address>        what net_out has opened -> the connection is marked; of ICMP -> accept
//! common               marked, allow_networks -> accept; of no connection -> drop; rest -> refuse
//! incoming             redirected -> accept; rest -> drop
//! ```
//!
//! A rule with a verdict, or a map's element with a jump, makes the kernel follow all jumps of the table anew. What comes
//! with each container has neither: `net_out` marks connections, and chains are made many at a time (`chains.rs`).
//!
//! Where no pool of IPv6 is configured, no container has an address of its own in it: all of IPv6 is dropped.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use warden_linux::netlink::nftables::Verdict::{Accept, Drop, Goto, Jump};
use warden_linux::netlink::nftables::{
    self, Batch, ChainKind, Compare, Connection, Expression, Field, Held, Holds, Hook, Meta, Part,
};

use super::chains::Block;
use super::rule::{Rule, Traffic};
use crate::id::Id;
use crate::request::Transport;
use crate::settings::{Addresses, Firewall};

mod matching;

use matching::{
    ANSWERS, End, INVALID, Ports, Prefix, REDIRECTED, TCP, UDP, address, connection, connection_family,
    family, from_container, interface, set_mark, to_container, to_port, without,
};

/// Names of the containers' interfaces on the host.
pub(super) const INTERFACES: &str = "interfaces";
/// Each with the address that its container may send from: of IPv4, of IPv6.
pub(super) const MEMBERS: [&str; 2] = ["members", "members6"];
/// Addresses of containers, each with the chain of what it may reach: of IPv4, of IPv6.
const OUTGOING: [&str; 2] = ["outgoing", "outgoing6"];
/// Protocols and ports of the host, each with an address and a port of a container: of IPv4, of IPv6.
pub(super) const FORWARDS: [&str; 2] = ["forwards", "forwards6"];

/// The port of name servers.
const DNS: u16 = 53;

/// IPv4, then IPv6.
const FAMILIES: [bool; 2] = [false, true];

/// A port of the host that leads into a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) protocol: Transport,
    pub(super) host_port: u16,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// The networks that containers' addresses are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PoolNetworks {
    pub(super) v4: Ipv4Net,
    pub(super) v6: Option<Ipv6Net>,
}

impl PoolNetworks {
    /// Whether an address is of one of them.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(&address),
            IpAddr::V6(address) => self.v6.is_some_and(|network| network.contains(&address)),
        }
    }

    fn prefixes(self) -> impl Iterator<Item = Prefix> {
        let v6 = self.v6.map(IpNet::from);
        [Some(IpNet::from(self.v4)), v6].into_iter().flatten().map(Prefix::of)
    }
}

/// 127.0.0.0/8, which a packet may be routed to where `route_localnet` is set, and ::1, which it never is.
fn loopback(ipv6: bool) -> Prefix {
    let [v4, v6] =
        [Ipv4Net::new_assert([127, 0, 0, 0].into(), 8).into(), Ipv6Net::new_assert(1.into(), 128).into()];
    Prefix::of(if ipv6 { v6 } else { v4 })
}

/// Writes changes of the table into a batch.
#[derive(Debug)]
pub(super) struct Table<'a, 'b>(&'a mut Batch<'b>);

impl<'a, 'b> Table<'a, 'b> {
    /// Writes into this batch.
    pub(super) fn new(batch: &'a mut Batch<'b>) -> Self {
        Self(batch)
    }

    /// Makes the table anew, with a comment, whatever there was of it.
    pub(super) fn set_up(
        &mut self,
        comment: &str,
        pool: PoolNetworks,
        firewall: &Firewall,
        dns: Option<u16>,
        chains: &[Block],
    ) {
        // Deleted is only what exists.
        self.0.add_table();
        self.0.delete_table();
        self.0.add_table_of(comment);
        self.0.add_set(INTERFACES, &[Field::Interface], Holds::Nothing);
        let port = [Field::Protocol, Field::Port];
        for (which, address) in [Field::Address, Field::Address6].into_iter().enumerate() {
            self.0.add_set(MEMBERS[which], &[Field::Interface, address], Holds::Nothing);
            self.0.add_set(FORWARDS[which], &port, Holds::Values(&[address, Field::Port]));
            self.0.add_set(OUTGOING[which], &[address], Holds::Verdicts);
        }
        self.guard(pool);
        self.common(firewall);
        self.forward();
        self.input(firewall.allow_host_access, dns);
        self.redirect();
        self.hide(pool);
        self.add_chains(chains);
    }

    fn guard(&mut self, pool: PoolNetworks) {
        self.0.add_chain("from-container");
        let drop = [Expression::Verdict(Drop)];
        let loopback = loopback(false);
        self.rule(
            "from-container",
            &[&family(false), &loopback.compare(End::Destination, Compare::Equal), &drop],
        );
        for ipv6 in FAMILIES {
            let own = [
                interface(Meta::InputInterface),
                address(End::Source, ipv6, 4),
                Expression::Lookup { set: MEMBERS[usize::from(ipv6)], slot: 0 },
                Expression::Verdict(Accept),
            ];
            self.rule("from-container", &[&family(ipv6), &own]);
        }
        self.0.add_rule("from-container", &drop);
        // Before connections are tracked: what is not the container's leaves no trace.
        self.0.add_base_chain("guard", ChainKind::Filter, Hook::Prerouting, -300);
        self.rule("guard", &[&from_container(), &[Expression::Verdict(Goto("from-container"))]]);
        self.0.add_base_chain("closed", ChainKind::Filter, Hook::Output, 0);
        // What is left are addresses that the kernel gives by itself, and groups.
        let open = pool.v6.map(|network| Prefix::of(network.into()));
        let others = open.as_ref().map(|prefix| prefix.compare(End::Destination, Compare::Different));
        let others = others.as_ref().map(<[_; 3]>::as_slice).unwrap_or_default();
        self.rule("closed", &[&family(true), &to_container(), others, &drop]);
    }

    fn common(&mut self, firewall: &Firewall) {
        self.0.add_chain("common");
        let opened = firewall.mark().to_ne_bytes();
        self.rule("common", &[&connection(Connection::Mark, &opened), &[Expression::Verdict(Accept)]]);
        for network in &firewall.allow_networks {
            let prefix = Prefix::of(*network);
            let within = prefix.compare(End::Destination, Compare::Equal);
            self.rule("common", &[&family(prefix.ipv6), &within, &[Expression::Verdict(Accept)]]);
        }
        // A refusal could end the connection that the kernel has lost sight of.
        self.rule("common", &[&connection(Connection::State, &INVALID), &[Expression::Verdict(Drop)]]);
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
        for ipv6 in FAMILIES {
            // The guard has seen that it is the container's own.
            let chain = [
                address(End::Source, ipv6, 0),
                Expression::VerdictMap { set: OUTGOING[usize::from(ipv6)], slot: 0 },
            ];
            self.rule("forward", &[&from_container(), &family(ipv6), &chain]);
        }
        self.rule("forward", &[&from_container(), &[Expression::Verdict(Goto("common"))]]);
        self.rule("forward", &[&to_container(), &[Expression::Verdict(Goto("incoming"))]]);
    }

    fn input(&mut self, open: bool, dns: Option<u16>) {
        self.0.add_base_chain("input", ChainKind::Filter, Hook::Input, 0);
        if !open {
            self.rule("input", &[&connection(Connection::State, &ANSWERS), &[Expression::Verdict(Accept)]]);
            if let Some(port) = dns {
                let (loopback, port) = (loopback(false), port.to_be_bytes());
                let there = loopback.compare(End::Destination, Compare::Equal);
                for protocol in [[UDP], [TCP]] {
                    // The guard has dropped what a container itself has sent there.
                    self.rule(
                        "input",
                        &[
                            &from_container(),
                            &family(false),
                            &there,
                            &to_port(&protocol, &port),
                            &[Expression::Verdict(Accept)],
                        ],
                    );
                }
            }
            self.rule("input", &[&from_container(), &[Expression::Reject]]);
        }
    }

    fn redirect(&mut self) {
        for (name, hook) in [("redirect", Hook::Prerouting), ("local", Hook::Output)] {
            self.0.add_base_chain(name, ChainKind::Nat, hook, -100);
            for ipv6 in FAMILIES {
                let port = [
                    Expression::DestinationKind { slot: 0 },
                    Expression::Compare { slot: 0, how: Compare::Equal, value: &Expression::LOCAL },
                    Expression::Meta { key: Meta::Protocol, slot: 0 },
                    Expression::Payload { part: Part::Transport, offset: 2, length: 2, slot: 1 },
                    Expression::Map { set: FORWARDS[usize::from(ipv6)], slot: 0, into: 0 },
                    Expression::Redirect { ipv6, address: 0, port: if ipv6 { 4 } else { 1 } },
                ];
                self.rule(name, &[&family(ipv6), &port]);
            }
        }
    }

    fn hide(&mut self, pool: PoolNetworks) {
        self.0.add_base_chain("hide", ChainKind::Nat, Hook::Postrouting, 100);
        let hide = [Expression::Masquerade];
        for prefix in pool.prefixes() {
            let ipv6 = prefix.ipv6;
            let from_pool = prefix.compare(End::Source, Compare::Equal);
            let to_elsewhere = prefix.compare(End::Destination, Compare::Different);
            self.rule("hide", &[&family(ipv6), &from_pool, &to_elsewhere, &hide]);
            // The host's own requests to its loopback, which no answer would find.
            let loopback = loopback(ipv6);
            let from_loopback = loopback.compare(End::Source, Compare::Equal);
            self.rule("hide", &[&family(ipv6), &from_loopback, &to_container(), &hide]);
            // A container that asks for a port of the host and meets itself.
            let itself = [
                interface(Meta::OutputInterface),
                address(End::Source, ipv6, 4),
                Expression::Lookup { set: MEMBERS[usize::from(ipv6)], slot: 0 },
            ];
            let redirected = connection(Connection::Status, &REDIRECTED);
            self.rule("hide", &[&family(ipv6), &redirected, &itself, &hide]);
        }
    }

    /// Adds the chains of addresses that containers may get.
    pub(super) fn add_chains(&mut self, blocks: &[Block]) {
        for address in blocks.iter().flat_map(|block| block.addresses()) {
            let (chain, set) = (chain(address), OUTGOING[usize::from(address.is_ipv6())]);
            self.0.add_chain(&chain);
            self.0.add_element(set, &nftables::address(address), Held::Verdict(Jump(&chain)));
        }
    }

    /// Adds a container that may reach what all may; where the chains of its addresses are there, they are empty.
    pub(super) fn add_container(&mut self, interface: &str, addresses: Addresses) {
        let name = nftables::interface(interface);
        self.0.add_element(INTERFACES, &name, Held::Nothing);
        for address in addresses.inside() {
            let key = nftables::interface_and_address(interface, address);
            self.0.add_element(MEMBERS[usize::from(address.is_ipv6())], &key, Held::Nothing);
        }
    }

    /// Deletes a container, but for what [`Table::close`] does.
    pub(super) fn delete_container(&mut self, interface: &str, addresses: Addresses) {
        let name = nftables::interface(interface);
        for address in addresses.inside() {
            let key = nftables::interface_and_address(interface, address);
            self.0.delete_element(MEMBERS[usize::from(address.is_ipv6())], &key);
        }
        self.0.delete_element(INTERFACES, &name);
    }

    /// Closes all that a container was let reach.
    pub(super) fn close(&mut self, addresses: Addresses) {
        addresses.inside().for_each(|address| self.0.flush_chain(&chain(address)));
    }

    /// Adds a forwarded port.
    pub(super) fn add_forward(&mut self, forward: Forward) {
        let target = nftables::address_and_port(forward.address, forward.port);
        let set = FORWARDS[usize::from(forward.address.is_ipv6())];
        self.0.add_element(set, &key(forward), Held::Value(&target));
    }

    /// Deletes a forwarded port.
    pub(super) fn delete_forward(&mut self, forward: Forward) {
        self.0.delete_element(FORWARDS[usize::from(forward.address.is_ipv6())], &key(forward));
    }

    /// Lets a container reach something more.
    ///
    /// The last opened comes first, and the first that fits decides whether there is a line in the log.
    pub(super) fn allow(&mut self, id: Id, addresses: Addresses, rule: &Rule, mark: u32) {
        let (prefix, mark) = (format!("warden-i-{id} "), mark.to_ne_bytes());
        // Most messages of ICMP begin no connection that could be marked.
        let tracked = !matches!(rule.traffic, Traffic::Icmp(_));
        let range =
            rule.addresses.map(|range| (range.0.is_ipv6(), [range.0, range.1].map(nftables::address)));
        let ports = Ports::of(rule.traffic, range.as_ref().is_some_and(|(ipv6, _)| *ipv6));
        let mut expressions = Vec::new();
        if let Some((ipv6, [from, to])) = &range {
            // The chain is of one family; this is for who lists it.
            expressions.extend(if tracked { connection_family(*ipv6) } else { family(*ipv6) });
            expressions
                .extend([address(End::Destination, *ipv6, 0), Expression::Range { slot: 0, from, to }]);
        }
        expressions.extend(ports.expressions());
        if rule.log {
            // Answers do not come here, but what nobody has answered yet does.
            if tracked {
                expressions.extend(without(Connection::Mark, &mark));
            }
            expressions.push(Expression::Log { prefix: &prefix });
        }
        if tracked {
            expressions.extend(set_mark(&mark));
        } else {
            expressions.push(Expression::Verdict(Accept));
        }
        let reached = range.as_ref().map(|(ipv6, _)| *ipv6);
        for own in addresses.inside().filter(|own| reached.is_none_or(|ipv6| own.is_ipv6() == ipv6)) {
            self.0.insert_rule(&chain(own), &expressions);
        }
    }

    /// Lets a container reach this, and what all may, instead of what it could.
    pub(super) fn allow_only(&mut self, id: Id, addresses: Addresses, rules: &[Rule], mark: u32) {
        self.close(addresses);
        rules.iter().for_each(|rule| self.allow(id, addresses, rule, mark));
    }

    fn rule(&mut self, chain: &str, parts: &[&[Expression<'_>]]) {
        self.0.add_rule(chain, &parts.concat());
    }
}

/// Fills a table of its own: what containers send to port 53 of the host goes to a port on 127.0.0.1.
///
/// The table goes with the process, so that nobody who has the port later is asked.
pub(super) fn redirect_dns(batch: &mut Batch<'_>, pool: PoolNetworks, port: u16) {
    let (pool, port, dns) = (Prefix::of(pool.v4.into()), port.to_be_bytes(), DNS.to_be_bytes());
    batch.add_owned_table();
    // Before forwarded ports.
    batch.add_base_chain("names", ChainKind::Nat, Hook::Prerouting, -101);
    for protocol in [[UDP], [TCP]] {
        let host = [
            Expression::DestinationKind { slot: 0 },
            Expression::Compare { slot: 0, how: Compare::Equal, value: &Expression::LOCAL },
        ];
        let redirect = [
            Expression::Value { slot: 0, value: &[127, 0, 0, 1] },
            Expression::Value { slot: 1, value: &port },
            Expression::Redirect { ipv6: false, address: 0, port: 1 },
        ];
        let parts: [&[Expression<'_>]; 6] = [
            &family(false),
            &pool.compare(End::Source, Compare::Equal),
            &pool.compare(End::Destination, Compare::Equal),
            &host,
            &to_port(&protocol, &dns),
            &redirect,
        ];
        batch.add_rule("names", &parts.concat());
    }
}

fn chain(address: IpAddr) -> String {
    format!("out-{address}")
}

/// The address whose chain this is.
pub(super) fn owner(chain: &str) -> Option<IpAddr> {
    chain.strip_prefix("out-")?.parse().ok()
}

fn key(forward: Forward) -> [u8; 8] {
    let protocol = match forward.protocol {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    };
    nftables::protocol_and_port(protocol, forward.host_port)
}
