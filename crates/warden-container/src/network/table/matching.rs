//! What packets are compared with.

use ipnet::IpNet;
use warden_linux::netlink::nftables::{Compare, Connection, Expression, Meta, Part};

use super::INTERFACES;
use crate::network::rule::Traffic;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The kernel's numbers of address families.
const INET: [u8; 1] = [2];
const INET6: [u8; 1] = [10];
/// States of packets that somebody waits for.
pub(super) const ANSWERS: [u8; 4] = (Connection::ESTABLISHED | Connection::RELATED).to_ne_bytes();
pub(super) const INVALID: [u8; 4] = Connection::INVALID.to_ne_bytes();
pub(super) const REDIRECTED: [u8; 4] = Connection::REDIRECTED.to_ne_bytes();

/// An address in the header of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// Reads an address, of four or sixteen bytes.
pub(super) fn address(end: End, ipv6: bool, slot: u32) -> Expression<'static> {
    let (offset, length) = match (end, ipv6) {
        (End::Source, false) => (12, 4),
        (End::Destination, false) => (16, 4),
        (End::Source, true) => (8, 16),
        (End::Destination, true) => (24, 16),
    };
    Expression::Payload { part: Part::Network, offset, length, slot }
}

/// Goes on with packets of IPv4, or of IPv6.
pub(super) fn family(ipv6: bool) -> [Expression<'static>; 2] {
    [
        Expression::Meta { key: Meta::Family, slot: 0 },
        Expression::Compare { slot: 0, how: Compare::Equal, value: if ipv6 { &INET6 } else { &INET } },
    ]
}

/// The same of packets that belong to a connection.
pub(super) fn connection_family(ipv6: bool) -> [Expression<'static>; 2] {
    [
        Expression::Connection { key: Connection::Family, slot: 0 },
        Expression::Compare { slot: 0, how: Compare::Equal, value: if ipv6 { &INET6 } else { &INET } },
    ]
}

pub(super) fn interface(key: Meta) -> Expression<'static> {
    Expression::Meta { key, slot: 0 }
}

pub(super) fn from_container() -> [Expression<'static>; 2] {
    [interface(Meta::InputInterface), Expression::Lookup { set: INTERFACES, slot: 0 }]
}

pub(super) fn to_container() -> [Expression<'static>; 2] {
    [interface(Meta::OutputInterface), Expression::Lookup { set: INTERFACES, slot: 0 }]
}

/// Goes on where a packet of the protocol goes to the port.
pub(super) fn to_port<'a>(protocol: &'a [u8; 1], port: &'a [u8; 2]) -> [Expression<'a>; 4] {
    [
        Expression::Meta { key: Meta::Protocol, slot: 0 },
        Expression::Compare { slot: 0, how: Compare::Equal, value: protocol },
        Expression::Payload { part: Part::Transport, offset: 2, length: 2, slot: 0 },
        Expression::Compare { slot: 0, how: Compare::Equal, value: port },
    ]
}

/// Goes on where one of the bits is set.
pub(super) fn connection(key: Connection, bits: &[u8; 4]) -> [Expression<'_>; 3] {
    [
        Expression::Connection { key, slot: 0 },
        Expression::Mask { slot: 0, mask: bits },
        Expression::Compare { slot: 0, how: Compare::Different, value: &[0; 4] },
    ]
}

/// Goes on where none of the bits is set.
pub(super) fn without(key: Connection, bits: &[u8; 4]) -> [Expression<'_>; 3] {
    [
        Expression::Connection { key, slot: 0 },
        Expression::Mask { slot: 0, mask: bits },
        Expression::Compare { slot: 0, how: Compare::Equal, value: &[0; 4] },
    ]
}

/// Sets the bits of the connection's mark.
pub(super) fn set_mark(bits: &[u8; 4]) -> [Expression<'_>; 3] {
    [
        Expression::Connection { key: Connection::Mark, slot: 0 },
        Expression::SetBits { slot: 0, bits },
        Expression::MarkConnection { slot: 0 },
    ]
}

/// A network as the packet filter compares it.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    pub(super) ipv6: bool,
    address: Vec<u8>,
    mask: Vec<u8>,
}

impl Prefix {
    pub(super) fn of(network: IpNet) -> Self {
        let (address, mask) = match network {
            IpNet::V4(network) => (network.network().octets().to_vec(), network.netmask().octets().to_vec()),
            IpNet::V6(network) => (network.network().octets().to_vec(), network.netmask().octets().to_vec()),
        };
        Self { ipv6: matches!(network, IpNet::V6(_)), address, mask }
    }

    /// Goes on where an address is in the network, or is not; the packet is of the network's family.
    pub(super) fn compare(&self, end: End, how: Compare) -> [Expression<'_>; 3] {
        [
            address(end, self.ipv6, 0),
            Expression::Mask { slot: 0, mask: &self.mask },
            Expression::Compare { slot: 0, how, value: &self.address },
        ]
    }
}

/// What a kind of traffic is compared with.
pub(super) struct Ports {
    protocol: Option<[u8; 1]>,
    length: u32,
    offset: u32,
    first: [u8; 2],
    last: [u8; 2],
}

impl Ports {
    /// The comparison for packets to IPv4 or IPv6 addresses.
    pub(super) fn of(traffic: Traffic, ipv6: bool) -> Self {
        let icmp = if ipv6 { ICMPV6 } else { ICMP };
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
            Traffic::Icmp(None) => ports(icmp, None),
            // Type and code stand side by side: one number of two bytes, or of one.
            Traffic::Icmp(Some((kind, None))) => {
                Self { protocol: Some([icmp]), length: 1, offset: 0, first: [kind, 0], last: [kind, 0] }
            }
            Traffic::Icmp(Some((kind, Some(code)))) => {
                Self { protocol: Some([icmp]), length: 2, offset: 0, first: [kind, code], last: [kind, code] }
            }
        }
    }

    /// The expressions that compare.
    pub(super) fn expressions(&self) -> Vec<Expression<'_>> {
        let mut list = Vec::new();
        if let Some(protocol) = &self.protocol {
            list.push(match protocol {
                [ICMP | ICMPV6] => Expression::Meta { key: Meta::Protocol, slot: 0 },
                _ => Expression::Connection { key: Connection::Protocol, slot: 0 },
            });
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
