//! Those who have sent UDP to a port of the host before it was mapped: the kernel has connected them to the host itself, and
//! goes on doing so for as long as they send.
//!
//! To find them the kernel walks through its whole table, which takes it milliseconds whatever is in there. It does that
//! beside everybody else, on sockets of its own, only for the families in which the port is mapped, and tells of nobody
//! who has sent to another port.

use std::sync::Mutex;

use warden_linux::netlink::{Protocol, Refusal, Socket, conntrack, route};

use crate::error::Error;
use crate::pool::lock;

/// Forgets them.
#[derive(Debug)]
pub(super) struct Senders(Mutex<Sockets>);

#[derive(Debug)]
struct Sockets {
    filter: Socket,
    route: Socket,
}

impl Senders {
    /// Makes ready.
    pub(super) fn open() -> Result<Self, Error> {
        let sockets =
            Sockets { filter: super::open(Protocol::Netfilter)?, route: super::open(Protocol::Route)? };
        Ok(Self(Mutex::new(sockets)))
    }

    /// Forgets who sent to a port that is mapped now: whoever goes on sending meets the mapping. Blocks.
    pub(super) fn forget(&self, port: u16, ipv6: bool) {
        let mut sockets = lock(&self.0);
        let families: &[bool] = if ipv6 { &[false, true] } else { &[false] };
        for &ipv6 in families {
            if let Err(error) = forget(&mut sockets, port, ipv6) {
                tracing::warn!(port, %error, "who sent to this port before may not reach its container");
            }
        }
    }
}

fn forget(Sockets { filter, route }: &mut Sockets, port: u16, ipv6: bool) -> Result<usize, Refusal> {
    conntrack::forget_udp(filter, ipv6, port, |connection| {
        let way = connection.original();
        let local = |address| route::is_local(route, address).unwrap_or_default();
        // What the filter of a kernel lets through is looked at all the same.
        !connection.is_translated() && way.udp_port() == Some(port) && way.destination().is_some_and(local)
    })
}
