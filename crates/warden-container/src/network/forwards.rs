//! The host's ports that are forwarded to containers.

use std::collections::HashMap;
use std::time::Duration;

use super::records::PortMapping;
use crate::error::Error;
use crate::pool::{Lease, LeasePool};
use crate::request::{NetIn, Transport};
use crate::settings::PortPool;

/// All forwarded ports, and the pool of those that nobody named.
#[derive(Debug)]
pub(super) struct Forwards {
    pool: PortPool,
    leases: LeasePool,
    /// Each with its lease, where it is one of the pool.
    taken: HashMap<(Transport, u16), Option<Lease>>,
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

    /// Reserves the port that was asked for, or the next of the pool that no protocol uses.
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
            if !Transport::ALL.iter().any(|&protocol| self.taken.contains_key(&(protocol, port))) {
                return Ok(Reserved { port, lease: Some(lease) });
            }
            passed.push(lease);
        }
        Err(Error::NoPort)
    }

    /// Keeps a port.
    pub(super) fn keep(&mut self, protocol: Transport, reserved: Reserved) {
        self.taken.insert((protocol, reserved.port), reserved.lease);
    }

    /// Gives ports back.
    pub(super) fn release(&mut self, mappings: &[PortMapping]) {
        for mapping in mappings {
            self.taken.remove(&(mapping.protocol, mapping.host_port));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(protocol: Transport, host_port: Option<u16>) -> NetIn {
        NetIn { protocol, host_port, container_port: None }
    }

    fn take(forwards: &mut Forwards, protocol: Transport, port: Option<u16>) -> Result<u16, String> {
        let reserved = forwards.reserve(&asked(protocol, port)).map_err(|error| error.to_string())?;
        let port = reserved.port;
        forwards.keep(protocol, reserved);
        Ok(port)
    }

    fn mapping(protocol: Transport, host_port: u16) -> PortMapping {
        PortMapping { protocol, host_port, container_port: host_port }
    }

    #[test]
    fn ports_are_taken_in_order_and_never_twice() {
        use Transport::{Tcp, Udp};
        let mut forwards = Forwards::new(PortPool { start: 61_001, size: 4 });
        assert_eq!(take(&mut forwards, Tcp, None), Ok(61_001));
        assert_eq!(take(&mut forwards, Tcp, Some(61_002)), Ok(61_002));
        assert_eq!(take(&mut forwards, Udp, Some(61_002)), Ok(61_002), "who has one may ask for the other");
        assert_eq!(
            take(&mut forwards, Tcp, Some(61_002)),
            Err("port 61002 of the host is already mapped (TCP)".to_owned())
        );
        assert_eq!(take(&mut forwards, Udp, None), Ok(61_003), "one pool for both");
        assert_eq!(take(&mut forwards, Tcp, None), Ok(61_004));
        assert_eq!(take(&mut forwards, Tcp, None), Err("no port available".to_owned()));
        assert_eq!(take(&mut forwards, Tcp, Some(80)), Ok(80));
        forwards.release(&[mapping(Tcp, 61_002)]);
        assert_eq!(take(&mut forwards, Tcp, None), Err("no port available".to_owned()), "UDP still has it");
        assert_eq!(take(&mut forwards, Tcp, Some(61_002)), Ok(61_002));
        forwards.release(&[mapping(Tcp, 61_002), mapping(Udp, 61_002)]);
        assert_eq!(take(&mut forwards, Tcp, None), Ok(61_002));
    }

    #[test]
    fn what_is_not_kept_is_free_again() {
        let forwards = Forwards::new(PortPool { start: 65_535, size: 1 });
        for _ in 0..2 {
            assert_eq!(forwards.reserve(&asked(Transport::Tcp, None)).unwrap().port, 65_535);
        }
    }
}
