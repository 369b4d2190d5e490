//! A container's pair of interfaces, the peer made in place.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use warden_linux::netlink::route::{self, End};
use warden_linux::netlink::{Protocol, Requests, Socket};

const PREFIX: u8 = 30;

/// Connects the container `number`, whose network is a /30 of its own.
pub(crate) fn connect(number: u32, namespace: BorrowedFd<'_>) -> Result<()> {
    let network = u32::from(Ipv4Addr::new(10, 128, 0, 0)) + (number % (1 << 20)) * 4;
    let (host, address) = (IpAddr::from(Ipv4Addr::from(network + 1)), Ipv4Addr::from(network + 2));
    let container = IpAddr::from(address);
    let mac = |end: u8| {
        let [a, b, c, d] = address.octets();
        [2, end, a, b, c, d]
    };
    let (outer, inner) = (format!("f{number}-0"), format!("f{number}-1"));
    let mut outside = Socket::open(Protocol::Route).context("opening a netlink socket")?;
    let mut inside = Socket::open_in(Protocol::Route, namespace).context("opening one inside")?;
    let mut requests = Requests::default();
    let (here, there) = (End { name: &outer, mac: mac(0) }, End { name: &inner, mac: mac(1) });
    route::add_veth(&mut requests, here, there, namespace, 1500, 0);
    outside.execute(requests)?;
    let index = route::link_index(&mut inside, &inner)?;
    let mut requests = Requests::default();
    route::set_loopback_up(&mut requests);
    route::set_up(&mut requests, index);
    route::add_address(&mut requests, index, container, PREFIX);
    route::add_neighbour(&mut requests, index, host, mac(0));
    route::add_default_route(&mut requests, index, host);
    inside.execute(requests)?;
    let index = route::link_index(&mut outside, &outer)?;
    let mut requests = Requests::default();
    route::set_up(&mut requests, index);
    route::add_address(&mut requests, index, host, PREFIX);
    route::add_neighbour(&mut requests, index, container, mac(1));
    outside.execute(requests)?;
    Ok(())
}
