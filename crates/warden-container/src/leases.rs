//! What a container holds of the host's pools: a network, a user, a range of ids. It holds them by its id, until they are
//! given back by its id: what is never given back, because something of the container is left, is never given out.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use warden_init::spec::IdRange;

use crate::error::Error;
use crate::id::Id;
use crate::pool::{Lease, LeasePool, lock};
use crate::settings::{Addresses, AddressesV6, Settings};

/// Ids that one container is given.
const IDS_PER_CONTAINER: u32 = 65_536;

/// The host's pools.
#[derive(Debug)]
pub(crate) struct Pools {
    network: Ipv4Net,
    network_v6: Option<Ipv6Net>,
    networks: LeasePool,
    first_user: u32,
    users: LeasePool,
    ids: Option<(IdRange, LeasePool)>,
    held: Mutex<HashMap<Id, Held>>,
}

/// What is out of the pools for one container, network, user, ids, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    leases: [Option<Lease>; 3],
}

impl Pools {
    /// Fills the pools.
    pub(crate) fn new(settings: &Settings) -> Self {
        let pool = |size| LeasePool::new(size, Duration::ZERO);
        Self {
            network: settings.network.network.trunc(),
            network_v6: settings.network.network_v6.map(|network| network.trunc()),
            networks: LeasePool::new(networks_in(settings.network.network), settings.network.release_delay),
            first_user: settings.users.start,
            users: pool(settings.users.size),
            ids: settings.ids.map(|range| (range, pool(range.count / IDS_PER_CONTAINER))),
            held: Mutex::default(),
        }
    }

    /// Leases what one container needs; `network` names an address in the /30 that it shall have.
    pub(crate) fn lease(&self, id: Id, network: Option<&[u8]>) -> Result<Leases, Error> {
        let network_lease = match network {
            None => self.networks.lease().ok_or(Error::NoNetwork)?,
            Some(text) => self.lease_network(text)?,
        };
        let user_lease = self.users.lease().ok_or(Error::NoUser)?;
        let ids_lease = self.ids.as_ref().map(lease_ids).transpose()?;
        let (ids, ids_lease) = ids_lease.unzip();
        let leases = Leases {
            addresses: addresses(self.network, self.network_v6, network_lease.index()),
            user: self.first_user.saturating_add(user_lease.index()),
            ids,
        };
        self.hold(id, [Some(network_lease), Some(user_lease), ids_lease]);
        Ok(leases)
    }

    /// Takes out of the pools what a container of an earlier daemon holds, once; what is not in a pool any more it keeps
    /// too.
    pub(crate) fn adopt(
        &self,
        id: Id,
        network: Ipv4Addr,
        network_v6: Option<Ipv6Addr>,
        user: u32,
        ids: Option<IdRange>,
    ) -> Leases {
        let addresses = addresses(
            Ipv4Net::new_assert(network, 30),
            network_v6.map(|network| Ipv6Net::new_assert(network, 126)),
            0,
        );
        if !lock(&self.held).contains_key(&id) {
            let network_lease =
                index_in(self.network, network).and_then(|index| self.networks.lease_this(index));
            self.hold(id, [network_lease, self.user_lease(user), self.ids_lease(ids)]);
        }
        Leases { addresses, user, ids }
    }

    /// The same for one that was never handed out, of which only the user and the ids are known.
    pub(crate) fn adopt_ids(&self, id: Id, user: u32, ids: Option<IdRange>) {
        self.hold(id, [None, self.user_lease(user), self.ids_lease(ids)]);
    }

    fn user_lease(&self, user: u32) -> Option<Lease> {
        user.checked_sub(self.first_user).and_then(|index| self.users.lease_this(index))
    }

    fn ids_lease(&self, ids: Option<IdRange>) -> Option<Lease> {
        let (held, (range, pool)) = ids.zip(self.ids.as_ref())?;
        let offset = held.host_start.checked_sub(range.host_start)?;
        pool.lease_this(offset / IDS_PER_CONTAINER)
    }

    /// Notes that a container was known to nobody: what it holds is leased again first, and without a rest.
    pub(crate) fn unused(&self, id: Id) {
        if let Some(held) = lock(&self.held).get_mut(&id) {
            held.leases.iter_mut().flatten().for_each(Lease::unused);
        }
    }

    /// Who holds something.
    pub(crate) fn holders(&self) -> HashSet<Id> {
        lock(&self.held).keys().copied().collect()
    }

    /// Takes from a container what it holds, if it holds anything.
    pub(crate) fn take(&self, id: Id) -> Option<Held> {
        lock(&self.held).remove(&id)
    }

    fn hold(&self, id: Id, leases: [Option<Lease>; 3]) {
        lock(&self.held).insert(id, Held { leases });
    }

    fn lease_network(&self, text: &[u8]) -> Result<Lease, Error> {
        let asked = asked_network(text);
        let taken = || Error::NetworkTaken(asked.to_string());
        let index = index_in(self.network, asked).ok_or_else(taken)?;
        self.networks.lease_this(index).ok_or_else(taken)
    }
}

fn lease_ids((range, pool): &(IdRange, LeasePool)) -> Result<(IdRange, Lease), Error> {
    let lease = pool.lease().ok_or(Error::NoIds(range.count / IDS_PER_CONTAINER))?;
    let host_start = range.host_start.saturating_add(lease.index() * IDS_PER_CONTAINER);
    Ok((IdRange { host_start, count: IDS_PER_CONTAINER }, lease))
}

/// What one container holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leases {
    /// Its addresses.
    pub(crate) addresses: Addresses,
    /// The inside id of vcap.
    pub(crate) user: u32,
    /// Its host ids.
    pub(crate) ids: Option<IdRange>,
}

/// How many /30s a network holds.
fn networks_in(network: Ipv4Net) -> u32 {
    if network.prefix_len() > 30 { 0 } else { 1 << (30 - u32::from(network.prefix_len())) }
}

/// Reads an address as the original does: what is none is 0.0.0.0.
fn parse_address(text: &[u8]) -> Ipv4Addr {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// The first address of the /30 that a request asks for.
pub(crate) fn asked_network(text: &[u8]) -> Ipv4Addr {
    mask(parse_address(text))
}

/// The first address of an address's /30.
fn mask(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) & !3)
}

/// The number of a /30 in a network.
fn index_in(network: Ipv4Net, first: Ipv4Addr) -> Option<u32> {
    network.contains(&first).then(|| (u32::from(first) - u32::from(network.network())) / 4)
}

/// The addresses of a network's /30 of this number, and of the /126 of the same number.
fn addresses(network: Ipv4Net, network_v6: Option<Ipv6Net>, index: u32) -> Addresses {
    let first = u32::from(network.network()) + index * 4;
    Addresses {
        network: Ipv4Net::new_assert(Ipv4Addr::from(first), 30),
        host: Ipv4Addr::from(first + 1),
        container: Ipv4Addr::from(first + 2),
        v6: network_v6.map(|network| addresses_v6(network, index)),
    }
}

fn addresses_v6(network: Ipv6Net, index: u32) -> AddressesV6 {
    let first = u128::from(network.network()) + u128::from(index) * 4;
    AddressesV6 {
        network: Ipv6Net::new_assert(first.into(), 126),
        host: (first + 1).into(),
        container: (first + 2).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{NetworkPool, UserPool};

    fn id(number: u32) -> Id {
        Id::parse(format!("{number:011}").as_bytes()).unwrap()
    }

    fn pools(network: &str, users: u32, ids: Option<u32>) -> Pools {
        let mut settings = crate::settings::sample("/nowhere".as_ref());
        settings.network = NetworkPool {
            network: network.parse().unwrap(),
            network_v6: Some("fd00:1:2:3::/64".parse().unwrap()),
            release_delay: Duration::ZERO,
        };
        settings.users = UserPool { start: 10_000, size: users };
        settings.ids = ids.map(|ranges| IdRange { host_start: 524_288, count: ranges * 65_536 + 5 });
        Pools::new(&settings)
    }

    #[test]
    fn the_first_containers_get_the_first_of_everything_in_order() {
        let pools = pools("10.254.0.0/24", 8, Some(4));
        let first = pools.lease(id(1), None).unwrap();
        let second = pools.lease(id(2), None).unwrap();
        assert_eq!(first.addresses.network.to_string(), "10.254.0.0/30");
        assert_eq!(first.addresses.host, Ipv4Addr::new(10, 254, 0, 1));
        assert_eq!(first.addresses.container, Ipv4Addr::new(10, 254, 0, 2));
        assert_eq!(second.addresses.container, Ipv4Addr::new(10, 254, 0, 6));
        let v6 = second.addresses.v6.unwrap();
        assert_eq!(v6.network.to_string(), "fd00:1:2:3::4/126");
        assert_eq!(
            (v6.host.to_string(), v6.container.to_string()),
            ("fd00:1:2:3::5".into(), "fd00:1:2:3::6".into())
        );
        assert_eq!((first.user, second.user), (10_000, 10_001));
        assert_eq!(first.ids, Some(IdRange { host_start: 524_288, count: 65_536 }));
        assert_eq!(second.ids, Some(IdRange { host_start: 589_824, count: 65_536 }));
    }

    #[test]
    fn a_network_is_asked_for_by_any_of_its_addresses() {
        let pools = pools("10.254.0.0/24", 8, None);
        let leases = pools.lease(id(1), Some(b"10.254.0.15")).unwrap();
        assert_eq!(leases.addresses.network.to_string(), "10.254.0.12/30");
        let refused = pools.lease(id(2), Some(b"10.254.0.13")).unwrap_err();
        assert_eq!(refused.to_string(), "Could not acquire network: 10.254.0.12");
        drop(pools.take(id(1)));
        drop(pools.take(id(1)));
        assert!(pools.lease(id(2), Some(b"10.254.0.13")).is_ok());
    }

    #[test]
    fn what_is_no_address_of_the_pool_is_refused_as_the_original_does() {
        let pools = pools("10.254.0.0/24", 8, None);
        for (asked, shown) in
            [("hello", "0.0.0.0"), ("", "0.0.0.0"), ("1.2.3.7", "1.2.3.4"), ("10.254.1.0", "10.254.1.0")]
        {
            let refused = pools.lease(id(1), Some(asked.as_bytes())).unwrap_err();
            assert_eq!(refused.to_string(), format!("Could not acquire network: {shown}"));
        }
        assert!(matches!(pools.lease(id(1), Some(b"\xff")), Err(Error::NetworkTaken(_))));
    }

    #[test]
    fn each_empty_pool_is_named_and_gives_back_what_was_taken_before() {
        let networks = pools("10.0.0.0/29", 8, None);
        networks.lease(id(1), None).unwrap();
        networks.lease(id(2), None).unwrap();
        assert_eq!(networks.lease(id(3), None).unwrap_err().to_string(), "Could not acquire network");
        drop(networks.take(id(1)));
        assert!(networks.lease(id(3), None).is_ok());

        let users = pools("10.0.0.0/29", 1, None);
        users.lease(id(1), None).unwrap();
        assert_eq!(users.lease(id(2), None).unwrap_err().to_string(), "no uid available");
        assert_eq!(users.lease(id(2), Some(b"10.0.0.4")).unwrap_err().to_string(), "no uid available");

        let ids = pools("10.0.0.0/29", 8, Some(1));
        ids.lease(id(1), None).unwrap();
        let refused = ids.lease(id(2), None).unwrap_err().to_string();
        assert_eq!(refused, "no host ids available: all 1 ranges are in use");
    }

    #[test]
    fn a_network_is_counted_in_whole_slash_30s() {
        for (network, count) in
            [("10.0.0.0/30", 1), ("10.0.0.0/22", 256), ("10.0.0.0/31", 0), ("0.0.0.0/0", 1 << 30)]
        {
            assert_eq!(networks_in(network.parse().unwrap()), count, "{network}");
        }
    }

    #[test]
    fn what_an_earlier_daemon_gave_out_is_not_given_out_again() {
        let pools = pools("10.254.0.0/24", 8, Some(4));
        let ids = Some(IdRange { host_start: 589_824, count: 65_536 });
        let adopted =
            pools.adopt(id(1), Ipv4Addr::new(10, 254, 0, 4), Some("fd00::4".parse().unwrap()), 10_001, ids);
        assert_eq!(
            adopted.addresses,
            addresses("10.254.0.0/24".parse().unwrap(), Some("fd00::/64".parse().unwrap()), 1)
        );
        assert_eq!((adopted.user, adopted.ids), (10_001, ids));
        let others = [pools.lease(id(2), None).unwrap(), pools.lease(id(3), None).unwrap()];
        assert_eq!(others[1].addresses.network.to_string(), "10.254.0.8/30");
        assert_eq!((others[0].user, others[1].user), (10_000, 10_002));
        assert_eq!(others[1].ids.unwrap().host_start, 655_360);
        drop(pools.take(id(1)));
        assert!(pools.lease(id(4), Some(b"10.254.0.5")).is_ok());
        pools.adopt_ids(id(6), 10_005, Some(IdRange { host_start: 720_896, count: 65_536 }));
        assert!(pools.lease(id(7), None).is_ok_and(|leases| leases.ids.unwrap().host_start != 720_896));
        let elsewhere = pools.adopt(id(5), Ipv4Addr::new(192, 168, 0, 8), None, 5, None);
        assert_eq!(elsewhere.addresses.container, Ipv4Addr::new(192, 168, 0, 10));
    }
}
