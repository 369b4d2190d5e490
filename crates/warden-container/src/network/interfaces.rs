//! The pair of interfaces of one container.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use warden_linux::netlink::route::{self, End, Mac};
use warden_linux::netlink::{Protocol, Refusal, Requests, Socket};

use super::absent_is_well;
use crate::error::Error;
use crate::id::Id;
use crate::settings::Addresses;

/// The interfaces of one container.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) host: String,
    container: String,
    /// What the container sends waits before this one, once its bandwidth is limited.
    pub(super) outward: String,
}

impl Names {
    /// Those that are not in the container.
    pub(super) fn on_the_host(self) -> [String; 2] {
        [self.host, self.outward]
    }
}

pub(super) fn names(id: Id) -> Names {
    Names { host: format!("w-{id}-0"), container: format!("w-{id}-1"), outward: format!("w-{id}-2") }
}

/// The container that an interface belongs to, by its name.
pub(super) fn owner(name: &str) -> Option<Id> {
    let (id, end) = name.strip_prefix("w-")?.rsplit_once('-')?;
    matches!(end, "0" | "2").then(|| Id::parse(id.as_bytes())).flatten()
}

/// The group of the interfaces that belong to a table: names may look alike, and other programs' are not ours to delete.
pub(super) fn group(table: &str) -> u32 {
    let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    // Small numbers are people's own, and `ip` knows none that is negative.
    table.bytes().fold(0x811c_9dc5, mix) >> 4 | 1 << 30
}

/// An Ethernet address made from an IP address: no two containers of a host have the same.
fn mac(end: u8, address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    // The first byte says that it is locally administered.
    [2, end, a, b, c, d]
}

/// Makes both interfaces, the container's first to be usable, with its loopback, the host's last; gives the number of the
/// host's.
pub(super) fn connect(
    socket: &mut Socket,
    names: &Names,
    addresses: Addresses,
    namespace: BorrowedFd<'_>,
    mtu: u16,
    loopback: bool,
    group: u32,
) -> Result<u32, Refusal> {
    let refused = |source| Refusal {
        action: "opening a netlink socket of the container".to_owned(),
        words: None,
        source,
    };
    let mut inside = Socket::open_in(Protocol::Route, namespace).map_err(refused)?;
    let here = End { name: &names.host, mac: mac(0, addresses.container) };
    let there = End { name: &names.container, mac: mac(1, addresses.container) };
    let mut requests = Requests::default();
    route::add_veth(&mut requests, here, there, namespace, mtu.into(), group);
    socket.execute(requests)?;
    let index = route::link_index(socket, &names.host)?;
    let inner = route::link_index(&mut inside, &names.container)?;

    let mut requests = Requests::default();
    route::set_loopback_up(&mut requests);
    route::set_up(&mut requests, inner);
    for (host, container, prefix) in addresses.pairs() {
        route::add_address(&mut requests, inner, container, prefix);
        // Neighbours are stated: asking for them would fill the host's table when many containers talk.
        route::add_neighbour(&mut requests, inner, host, here.mac);
        route::add_default_route(&mut requests, inner, host);
    }
    inside.execute(requests)?;

    let mut requests = Requests::default();
    route::set_up(&mut requests, index);
    for (host, container, prefix) in addresses.pairs() {
        route::add_address(&mut requests, index, host, prefix);
        route::add_neighbour(&mut requests, index, container, there.mac);
    }
    if loopback {
        route::route_loopback(&mut requests, &names.host);
    }
    socket.execute(requests).map(|()| index)
}

/// Takes the host's addresses, and the routes with them: they must be gone before they are used again. Leaves the
/// interface, which is looked for where its number is not known, to the reaper. Whether a packet has ever passed it, as far
/// as that is known.
pub(super) fn disconnect(
    socket: &mut Socket,
    names: &Names,
    index: Option<u32>,
    addresses: Addresses,
) -> Result<bool, Error> {
    let index = index.map_or_else(|| route::link_index(socket, &names.host), Ok);
    let disconnected = index.and_then(|index| {
        let mut requests = Requests::default();
        for (host, _, prefix) in addresses.pairs() {
            route::delete_address(&mut requests, index, host, prefix);
        }
        socket.execute(requests)?;
        // Nothing is routed to it any more.
        route::link_traffic(socket, index)
    });
    match disconnected {
        Ok(packets) => Ok(packets > 0),
        Err(refusal) => absent_is_well(Err(refusal)).map(|()| true),
    }
}

/// Lets packets between a container and 127.0.0.1 pass, as redirections need; the table drops what a container itself
/// sends there.
pub(super) fn route_loopback(socket: &mut Socket, names: &Names) -> Result<(), Refusal> {
    let mut requests = Requests::default();
    route::route_loopback(&mut requests, &names.host);
    socket.execute(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_known_by_its_name() {
        for (name, owned) in [
            ("w-0123456789a-0", true),
            ("w-0123456789a-2", true),
            ("w-0123456789a-1", false),
            ("w-abc-0", false),
            ("w-0123456789z-0", false),
            ("v-0123456789a-0", false),
            ("w-0123456789a", false),
            ("eth0", false),
        ] {
            assert_eq!(owner(name).is_some(), owned, "{name}");
        }
    }

    #[test]
    fn tables_have_groups_of_their_own() {
        let groups = ["warden", "warden2", ""].map(group);
        assert!(groups[0] != groups[1] && groups[1] != groups[2]);
        let ours = (1 << 30)..(1 << 30) + (1 << 28);
        assert!(
            groups.iter().all(|group| ours.contains(group)),
            "not those of people, nor that of the doomed"
        );
    }
}
