//! The host's ports that are forwarded to containers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use super::table::Forward;
use crate::error::Error;
use crate::id::Id;
use crate::pool::{Lease, LeasePool};
use crate::request::{NetIn, Transport};
use crate::settings::PortPool;

/// All forwarded ports, and the pool of those that nobody named.
#[derive(Debug)]
pub(super) struct Forwards {
    pool: PortPool,
    leases: LeasePool,
    taken: HashMap<(Transport, u16), Taken>,
}

#[derive(Debug)]
struct Taken {
    by: Id,
    forward: Forward,
    _lease: Option<Lease>,
}

/// A port of the host that nobody else gets while this lives.
#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) port: u16,
    lease: Option<Lease>,
}

impl Forwards {
    /// Fills the pool.
    pub(super) fn new(pool: PortPool) -> Self {
        let leases = LeasePool::new(pool.size.into(), Duration::ZERO);
        Self { pool, leases, taken: HashMap::new() }
    }

    /// Reserves the port that was asked for, or the next of the pool.
    pub(super) fn reserve(&self, request: &NetIn) -> Result<Reserved, Error> {
        if let Some(port) = request.host_port {
            if self.taken.contains_key(&(request.protocol, port)) {
                return Err(Error::PortTaken { port, protocol: request.protocol });
            }
            let index = port.checked_sub(self.pool.start).map(u32::from);
            return Ok(Reserved { port, lease: index.and_then(|index| self.leases.lease_this(index)) });
        }
        // Those that were asked for while another protocol had them are not leased.
        let mut passed = Vec::new();
        while let Some(lease) = self.leases.lease() {
            let port =
                u16::try_from(u32::from(self.pool.start) + lease.index()).map_err(|_| Error::NoPort)?;
            if !self.taken.contains_key(&(request.protocol, port)) {
                return Ok(Reserved { port, lease: Some(lease) });
            }
            passed.push(lease);
        }
        Err(Error::NoPort)
    }

    /// Keeps a port for a container.
    pub(super) fn keep(&mut self, by: Id, forward: Forward, reserved: Reserved) {
        let key = (forward.protocol, forward.host_port);
        if let Entry::Vacant(entry) = self.taken.entry(key) {
            entry.insert(Taken { by, forward, _lease: reserved.lease });
        }
    }

    /// The forwards of a container.
    pub(super) fn of(&self, id: Id) -> impl Iterator<Item = Forward> {
        self.taken.values().filter(move |taken| taken.by == id).map(|taken| taken.forward)
    }

    /// Gives back what a container has.
    pub(super) fn release(&mut self, id: Id) {
        self.taken.retain(|_, taken| taken.by != id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn asked(protocol: Transport, host_port: Option<u16>) -> NetIn {
        NetIn { protocol, host_port, container_port: None }
    }

    fn take(forwards: &mut Forwards, id: Id, request: NetIn) -> Result<u16, String> {
        let reserved = forwards.reserve(&request).map_err(|error| error.to_string())?;
        let host_port = reserved.port;
        let address = Ipv4Addr::new(10, 0, 0, 2);
        let forward = Forward { protocol: request.protocol, host_port, address, port: host_port };
        forwards.keep(id, forward, reserved);
        Ok(host_port)
    }

    #[test]
    fn ports_are_taken_in_order_and_never_twice() {
        use Transport::{Tcp, Udp};
        let [one, two] = [b"00000000001", b"00000000002"].map(|name| Id::parse(name).unwrap());
        let mut forwards = Forwards::new(PortPool { start: 61_001, size: 3 });
        assert_eq!(take(&mut forwards, one, asked(Tcp, None)), Ok(61_001));
        assert_eq!(take(&mut forwards, one, asked(Tcp, Some(61_002))), Ok(61_002));
        assert_eq!(take(&mut forwards, two, asked(Udp, Some(61_002))), Ok(61_002));
        assert_eq!(
            take(&mut forwards, two, asked(Tcp, Some(61_002))),
            Err("port 61002 of the host is already mapped (TCP)".to_owned())
        );
        assert_eq!(take(&mut forwards, two, asked(Tcp, None)), Ok(61_003));
        assert_eq!(take(&mut forwards, two, asked(Tcp, None)), Err("no port available".to_owned()));
        assert_eq!(take(&mut forwards, two, asked(Tcp, Some(80))), Ok(80));
        assert_eq!(forwards.of(one).count(), 2);
        forwards.release(one);
        assert_eq!(forwards.of(one).count(), 0);
        assert!(take(&mut forwards, two, asked(Tcp, None)).is_ok());
    }

    #[test]
    fn what_is_not_kept_is_free_again() {
        let forwards = Forwards::new(PortPool { start: 65_535, size: 1 });
        for _ in 0..2 {
            assert_eq!(forwards.reserve(&asked(Transport::Tcp, None)).unwrap().port, 65_535);
        }
    }
}
