//! The connections that the kernel keeps track of.

use std::net::IpAddr;

use super::{Refusal, Requests, Socket, attribute, attributes, flag};

const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const NUMBER: u16 = 12;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
/// What a filter compares of a direction: the protocol, and the port that it goes to.
const BY_PROTOCOL_AND_DESTINATION: u32 = 1 << 3 | 1 << 5;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION: u16 = 3;
const UDP: u8 = 17;
/// Bits of the status of connections whose addresses are changed.
const TRANSLATED: u32 = 0x30;

/// One direction of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Direction<'a>(&'a [u8]);

/// A connection.
#[derive(Clone, Copy, Debug)]
pub struct Tracked<'a>(&'a [u8]);

impl<'a> Tracked<'a> {
    /// The way of its first packet.
    pub fn original(&self) -> Direction<'a> {
        Direction(attribute(self.0, ORIGINAL).unwrap_or_default())
    }

    /// The way of the answers.
    pub fn reply(&self) -> Direction<'a> {
        Direction(attribute(self.0, REPLY).unwrap_or_default())
    }

    /// Whether its addresses are changed on the way.
    pub fn is_translated(&self) -> bool {
        let status = attribute(self.0, STATUS).and_then(|value| value.first_chunk().copied());
        status.is_some_and(|bits| u32::from_be_bytes(bits) & TRANSLATED != 0)
    }
}

impl Direction<'_> {
    /// Whether it begins or ends at an address.
    pub fn has(&self, address: IpAddr) -> bool {
        [self.source(), self.destination()].contains(&Some(address))
    }

    /// Where it begins.
    pub fn source(&self) -> Option<IpAddr> {
        self.address(1, 3)
    }

    /// Where it ends.
    pub fn destination(&self) -> Option<IpAddr> {
        self.address(2, 4)
    }

    fn address(&self, ipv4: u16, ipv6: u16) -> Option<IpAddr> {
        let addresses = attribute(self.0, TUPLE_ADDRESSES)?;
        let short = attribute(addresses, ipv4).and_then(|value| <[u8; 4]>::try_from(value).ok());
        let long = attribute(addresses, ipv6).and_then(|value| <[u8; 16]>::try_from(value).ok());
        short.map(IpAddr::from).or(long.map(IpAddr::from))
    }

    /// The port of UDP that it goes to.
    pub fn udp_port(&self) -> Option<u16> {
        let protocol = attribute(self.0, TUPLE_PROTOCOL)?;
        if attribute(protocol, PROTOCOL_NUMBER)? != [UDP] {
            return None;
        }
        attribute(protocol, PROTOCOL_DESTINATION)?.first_chunk().copied().map(u16::from_be_bytes)
    }
}

/// The header of a request: the address family, version 0, no resource.
fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// IPv4 and IPv6 together: the kernel walks through its table once.
const EVERY: u8 = 0;

/// Forgets the connections that `which` chooses, and says how many; the next packets of them begin new ones.
pub fn forget(socket: &mut Socket, which: impl FnMut(&Tracked<'_>) -> bool) -> Result<usize, Refusal> {
    let mut request = Requests::default();
    request.push("listing connections".to_owned(), GET, flag::DUMP, &header(EVERY), |_| {});
    forget_listed(socket, request, which)
}

/// The same of those alone whose first packet went to a port of UDP: the kernel tells of no others.
pub fn forget_udp(
    socket: &mut Socket,
    ipv6: bool,
    port: u16,
    which: impl FnMut(&Tracked<'_>) -> bool,
) -> Result<usize, Refusal> {
    let mut request = Requests::default();
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    let header = header(family as u8);
    request.push("listing connections to a port".to_owned(), GET, flag::DUMP, &header, |body| {
        body.nested(ORIGINAL, |original| {
            original.nested(TUPLE_PROTOCOL, |protocol| {
                protocol.bytes(PROTOCOL_NUMBER, &[UDP]);
                protocol.bytes(PROTOCOL_DESTINATION, &port.to_be_bytes());
            });
        });
        body.nested(FILTER, |filter| {
            filter.bytes(FILTER_ORIGINAL, &BY_PROTOCOL_AND_DESTINATION.to_ne_bytes());
        });
    });
    forget_listed(socket, request, which)
}

fn forget_listed(
    socket: &mut Socket,
    request: Requests,
    mut which: impl FnMut(&Tracked<'_>) -> bool,
) -> Result<usize, Refusal> {
    let mut found = Vec::new();
    socket.ask(request, |body| {
        let connection = Tracked(body.get(4..).unwrap_or_default());
        if which(&connection) {
            let number = attribute(connection.0, NUMBER).unwrap_or_default().to_vec();
            let family = body.first().copied().unwrap_or(EVERY);
            found.push((family, connection.original().0.to_vec(), number));
        }
    })?;
    for (family, tuple, number) in &found {
        let mut request = Requests::default();
        let action = "ending a connection".to_owned();
        request.push(action, DELETE, 0, &header(*family), |body| {
            body.nested(ORIGINAL, |original| {
                for (kind, value) in attributes(tuple) {
                    original.nested(kind, |part| {
                        for (kind, value) in attributes(value) {
                            part.bytes(kind, value);
                        }
                    });
                }
            });
            // Another connection may have taken its place by now.
            body.bytes(NUMBER, number);
        });
        match socket.execute(request) {
            // It has ended by itself.
            Err(refusal) if refusal.is_absence() => {}
            other => other?,
        }
    }
    Ok(found.len())
}
