//! Networks of many containers that need not exist: for tests, and for the benchmark of the packet filter's table.
#![allow(clippy::expect_used, reason = "it fails by panicking")]

use std::net::Ipv4Addr;
#[cfg(feature = "benchmark")]
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};

use super::records::{ContainerNetwork, PortMapping, Records};
#[cfg(feature = "benchmark")]
use super::{Network, failed};
#[cfg(feature = "benchmark")]
use crate::error::Error;
use crate::id::Id;
use crate::request::{NetOut, Transport};
use crate::settings::{Addresses, AddressesV6, PortPool, Settings};

/// Settings with room for thousands, with IPv6.
pub(super) fn settings() -> Settings {
    let mut settings = crate::settings::sample("/nowhere".as_ref());
    settings.network.network = Ipv4Net::new_assert(Ipv4Addr::new(10, 254, 0, 0), 16);
    settings.network.network_v6 = Some(Ipv6Net::new_assert((0xfd00 << 112).into(), 64));
    settings.ports = PortPool { start: 61_001, size: 4_000 };
    settings
}

/// A container with two forwarded ports and two rules.
pub(super) fn container(number: u16) -> ContainerNetwork {
    let first = u32::from(Ipv4Addr::new(10, 254, 0, 0)) + u32::from(number) * 4;
    let first_v6 = (0xfd00 << 112) + u128::from(number) * 4;
    let mapping = |protocol, host_port| PortMapping { protocol, host_port, container_port: 80 };
    let out = |network: &str, log| NetOut { network: Some(network.into()), log, ..NetOut::default() };
    ContainerNetwork {
        id: Id::parse(format!("{number:011}").as_bytes()).expect("eleven digits are an id"),
        addresses: Addresses {
            network: Ipv4Net::new_assert(first.into(), 30),
            host: (first + 1).into(),
            container: (first + 2).into(),
            v6: Some(AddressesV6 {
                network: Ipv6Net::new_assert((first_v6).into(), 126),
                host: (first_v6 + 1).into(),
                container: (first_v6 + 2).into(),
            }),
        },
        records: Records {
            net_in: vec![mapping(Transport::Tcp, 61_001 + number), mapping(Transport::Udp, 10_000 + number)],
            net_out: vec![out("192.0.2.0/24", false), out("2001:db8::1-2001:db8::9", true)],
        },
    }
}

/// The table of some containers, none of which exists.
#[cfg(feature = "benchmark")]
#[derive(Debug)]
pub struct FilterTable {
    network: Network,
    count: u16,
}

#[cfg(feature = "benchmark")]
impl FilterTable {
    /// Writes it in the network namespace of the calling thread; each container has two ports and two rules.
    pub fn of(count: u16) -> Result<Self, Error> {
        let network = Network::open(&settings())?;
        network.restore((0..count).map(container).collect(), &[])?;
        Ok(Self { network, count })
    }

    /// Adds one more container, opens something to it, its first rule and a second, and removes it, by the transactions that requests
    /// make; gives how long each took. Each `turn` is for other addresses.
    pub fn live(&self, turn: u16) -> Result<[Duration; 4], Error> {
        let ContainerNetwork { id, addresses, records } = container(self.count + turn);
        let mut state = super::lock(&self.network.state);
        let mut last = Instant::now();
        let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed();
        state.connect(id, addresses).map_err(failed)?;
        let added = lap();
        let request = &records.net_out[0];
        let rule = super::rule::read(request)?;
        state.allow(id, request, &rule).map_err(failed)?;
        let first = lap();
        state.allow(id, request, &rule).map_err(failed)?;
        let second = lap();
        state.disconnect(id).map_err(failed)?;
        Ok([added, first, second, lap()])
    }
}
