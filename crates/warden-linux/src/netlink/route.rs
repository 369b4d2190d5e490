//! Interfaces, addresses, routes and neighbours.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Attributes, Refusal, Requests, Socket, attribute, family, flag, octets, read_u32, read_u64};

/// The number of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;
const GET_STATISTICS: u16 = 94;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_INFO: u16 = 18;
const LINK_FAMILIES: u16 = 26;
const LINK_GROUP: u16 = 27;
const LINK_NAMESPACE: u16 = 28;
const LINK_MASK: u16 = 29;
const LINK_SEND_QUEUES: u16 = 31;
const LINK_RECEIVE_QUEUES: u16 = 32;
const STATISTICS_LINK: u16 = 1;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const INET_CONFIGURATION: u16 = 1;
const INET_ROUTE_LOCALNET: u16 = 26;
const INET6_ADDRESS_MODE: u16 = 8;
const INET6_ADDRESS_MODE_NONE: u8 = 1;

const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_BROADCAST: u16 = 4;
const ADDRESS_FLAG_NODAD: u8 = 0x02;

const ROUTE_DESTINATION: u16 = 1;
const ROUTE_OUT: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_TABLE_MAIN: u8 = 254;
const ROUTE_PROTOCOL_BOOT: u8 = 3;
const ROUTE_UNICAST: u8 = 1;
const ROUTE_LOCAL: u8 = 2;

const NEIGHBOUR_DESTINATION: u16 = 1;
const NEIGHBOUR_ADDRESS: u16 = 2;
const NEIGHBOUR_PERMANENT: u16 = 0x80;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// One end of a pair of interfaces.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Its name, of at most 15 bytes.
    pub name: &'a str,
    /// Its address.
    pub mac: Mac,
}

/// Adds a pair of connected interfaces, one here, in a group, and its peer in another network namespace; both are down.
pub fn add_veth(
    requests: &mut Requests,
    here: End<'_>,
    there: End<'_>,
    namespace: BorrowedFd<'_>,
    mtu: u32,
    group: u32,
) {
    let action = format!("making the interface {}", here.name);
    requests.push(action, NEW_LINK, flag::CREATE | flag::EXCL, &link(0, false), |attributes| {
        describe(attributes, here, mtu);
        one_queue(attributes);
        attributes.number(LINK_GROUP, group);
        attributes.nested(LINK_INFO, |info| {
            info.bytes(INFO_KIND, b"veth").nested(INFO_DATA, |data| {
                // The peer is made where it belongs: moving one costs milliseconds.
                data.nested_after(VETH_PEER, &link(0, false), |peer| {
                    describe(peer, there, mtu);
                    one_queue(peer);
                    peer.number(LINK_NAMESPACE, namespace.as_raw_fd() as u32);
                });
            });
        });
    });
}

fn describe(attributes: &mut Attributes<'_>, end: End<'_>, mtu: u32) {
    attributes.text(LINK_NAME, end.name).bytes(LINK_ADDRESS, &end.mac).number(LINK_MTU, mtu);
}

/// Where nothing is said, the kernel makes a queue for each processor, and takes back all but one: for each end it waits for a
/// grace period, and lets nobody change any interface of the machine meanwhile.
fn one_queue(attributes: &mut Attributes<'_>) {
    attributes.number(LINK_SEND_QUEUES, 1).number(LINK_RECEIVE_QUEUES, 1);
}

/// Adds an interface, in a group, that sends on what is sent to it as if that came in where it first did; it is down.
pub fn add_ifb(requests: &mut Requests, name: &str, mtu: u32, group: u32) {
    let action = format!("making the interface {name}");
    requests.push(action, NEW_LINK, flag::CREATE | flag::EXCL, &link(0, false), |attributes| {
        attributes.text(LINK_NAME, name).number(LINK_MTU, mtu).number(LINK_GROUP, group);
        attributes.nested(LINK_INFO, |info| {
            info.bytes(INFO_KIND, b"ifb");
        });
    });
}

/// Sets the loopback interface up.
pub fn set_loopback_up(requests: &mut Requests) {
    requests.push("setting interface lo up".to_owned(), NEW_LINK, 0, &link(LOOPBACK, true), |_| {});
}

/// Sets an interface up that never gives itself an IPv6 address.
pub fn set_up(requests: &mut Requests, index: u32) {
    let action = format!("closing IPv6 on interface {index}");
    requests.push(action, NEW_LINK, 0, &link(index, false), |attributes| {
        attributes.nested(LINK_FAMILIES, |families| {
            families.nested(libc::AF_INET6 as u16, |inet6| {
                inet6.bytes(INET6_ADDRESS_MODE, &[INET6_ADDRESS_MODE_NONE]);
            });
        });
    });
    requests.push(format!("setting interface {index} up"), NEW_LINK, 0, &link(index, true), |_| {});
}

/// Lets packets from 127.0.0.0/8 leave by an interface, and packets to it come in: whoever does this filters the latter.
pub fn route_loopback(requests: &mut Requests, name: &str) {
    let action = format!("routing loopback addresses on interface {name}");
    requests.push(action, NEW_LINK, 0, &link(0, false), |attributes| {
        attributes.text(LINK_NAME, name);
        attributes.nested(LINK_FAMILIES, |families| {
            families.nested(libc::AF_INET as u16, |inet| {
                inet.nested(INET_CONFIGURATION, |configuration| {
                    configuration.number(INET_ROUTE_LOCALNET, 1);
                });
            });
        });
    });
}

/// Deletes an interface, and its peer with it.
pub fn delete_link(requests: &mut Requests, name: &str) {
    let action = format!("deleting the interface {name}");
    requests.push(action, DELETE_LINK, 0, &link(0, false), |attributes| {
        attributes.text(LINK_NAME, name);
    });
}

/// Puts an interface into a group.
pub fn set_group(requests: &mut Requests, name: &str, group: u32) {
    let action = format!("putting the interface {name} into group {group:#x}");
    // Unlike a NEW_LINK, this never means the whole group when there is no such interface.
    requests.push(action, SET_LINK, 0, &link(0, false), |attributes| {
        attributes.text(LINK_NAME, name).number(LINK_GROUP, group);
    });
}

/// Deletes all interfaces of a group together: many cost the kernel little more than one.
pub fn delete_group(requests: &mut Requests, group: u32) {
    let action = format!("deleting the interfaces of group {group:#x}");
    requests.push(action, DELETE_LINK, 0, &link(0, false), |attributes| {
        attributes.number(LINK_GROUP, group);
    });
}

/// Finds the number of an interface. Beside thousands of pairs the kernel searches long for the other end's namespace.
pub fn link_index(socket: &mut Socket, name: &str) -> Result<u32, Refusal> {
    let mut request = Requests::default();
    let action = format!("looking for the interface {name}");
    request.push(action, GET_LINK, 0, &link(0, false), |attributes| {
        // Without statistics.
        attributes.text(LINK_NAME, name).number(LINK_MASK, 1 << 3);
    });
    let mut index = 0;
    socket.ask(request, |body| index = body.get(4..).and_then(read_u32).unwrap_or_default())?;
    Ok(index)
}

/// Counts the packets that an interface has sent and received, those that were lost included.
pub fn link_traffic(socket: &mut Socket, index: u32) -> Result<u64, Refusal> {
    let mut request = Requests::default();
    let action = format!("reading the statistics of interface {index}");
    // A struct if_stats_msg: what is said about a link itself names the other end's namespace, which takes long to find.
    let mut fixed = [0; 12];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&(1_u32 << (STATISTICS_LINK - 1)).to_ne_bytes());
    request.push(action, GET_STATISTICS, 0, &fixed, |_| {});
    // Received and sent: packets, bytes, errors, dropped; then what is counted twice.
    const COUNTERS: usize = 8;
    let mut count = None;
    socket.ask(request, |body| {
        let counters = body.get(12..).and_then(|rest| attribute(rest, STATISTICS_LINK));
        count = counters.map(|counters| counters.chunks_exact(8).take(COUNTERS).filter_map(read_u64).sum());
    })?;
    // Statistics that are not told may be anything.
    Ok(count.unwrap_or(u64::MAX))
}

/// Lists the names of all interfaces, each with its group.
pub fn links(socket: &mut Socket) -> Result<Vec<(String, u32)>, Refusal> {
    let mut request = Requests::default();
    request.push("listing interfaces".to_owned(), GET_LINK, flag::DUMP, &link(0, false), |attributes| {
        attributes.number(LINK_MASK, 1 << 3);
    });
    let mut links = Vec::new();
    socket.ask(request, |body| {
        let rest = body.get(16..).unwrap_or_default();
        let group = attribute(rest, LINK_GROUP).and_then(read_u32).unwrap_or_default();
        links.extend(attribute(rest, LINK_NAME).map(|name| (super::text(name), group)));
    })?;
    Ok(links)
}

/// Gives an interface an address in its network; one of IPv6 is not looked for among the neighbours first.
pub fn add_address(requests: &mut Requests, index: u32, address: IpAddr, prefix: u8) {
    let mut fixed = address_header(index, address, prefix);
    if address.is_ipv6() {
        fixed[2] = ADDRESS_FLAG_NODAD;
    }
    let flags = flag::CREATE | flag::EXCL;
    requests.push(format!("adding the address {address}"), NEW_ADDRESS, flags, &fixed, |attributes| {
        attributes.bytes(ADDRESS, &octets(address)).bytes(ADDRESS_LOCAL, &octets(address));
        if let IpAddr::V4(address) = address {
            let broadcast = u32::from(address) | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            attributes.bytes(ADDRESS_BROADCAST, &broadcast.to_be_bytes());
        }
    });
}

/// Takes an address from an interface, and the routes with it.
pub fn delete_address(requests: &mut Requests, index: u32, address: IpAddr, prefix: u8) {
    let fixed = address_header(index, address, prefix);
    requests.push(format!("deleting the address {address}"), DELETE_ADDRESS, 0, &fixed, |attributes| {
        attributes.bytes(ADDRESS_LOCAL, &octets(address));
    });
}

/// Sends what has no other route to a gateway.
pub fn add_default_route(requests: &mut Requests, index: u32, gateway: IpAddr) {
    let family = family(gateway);
    let fixed = [family, 0, 0, 0, ROUTE_TABLE_MAIN, ROUTE_PROTOCOL_BOOT, 0, ROUTE_UNICAST, 0, 0, 0, 0];
    let action = format!("adding the default route by {gateway}");
    requests.push(action, NEW_ROUTE, flag::CREATE | flag::EXCL, &fixed, |attributes| {
        attributes.bytes(ROUTE_GATEWAY, &octets(gateway)).number(ROUTE_OUT, index);
    });
}

/// Whether an address is the host's own: what is sent to it does not leave.
pub fn is_local(socket: &mut Socket, address: IpAddr) -> Result<bool, Refusal> {
    let bits = if address.is_ipv6() { 128 } else { 32 };
    let fixed = [family(address), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut request = Requests::default();
    request.push(format!("looking for the route to {address}"), GET_ROUTE, 0, &fixed, |attributes| {
        attributes.bytes(ROUTE_DESTINATION, &octets(address));
    });
    let mut local = false;
    socket.ask(request, |body| local = body.get(7) == Some(&ROUTE_LOCAL))?;
    Ok(local)
}

/// States for ever which Ethernet address a neighbour has.
pub fn add_neighbour(requests: &mut Requests, index: u32, address: IpAddr, mac: Mac) {
    let mut fixed = [0; 12];
    fixed[0] = family(address);
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..10].copy_from_slice(&NEIGHBOUR_PERMANENT.to_ne_bytes());
    let flags = flag::CREATE | flag::REPLACE;
    requests.push(format!("adding the neighbour {address}"), NEW_NEIGHBOUR, flags, &fixed, |attributes| {
        attributes.bytes(NEIGHBOUR_DESTINATION, &octets(address)).bytes(NEIGHBOUR_ADDRESS, &mac);
    });
}

/// A struct ifinfomsg that changes nothing, or that an interface is up.
fn link(index: u32, up: bool) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        let flags = (libc::IFF_UP as u32).to_ne_bytes();
        fixed[8..12].copy_from_slice(&flags);
        fixed[12..16].copy_from_slice(&flags);
    }
    fixed
}

/// A struct ifaddrmsg.
fn address_header(index: u32, address: IpAddr, prefix: u8) -> [u8; 8] {
    let mut fixed = [family(address), prefix, 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed
}
