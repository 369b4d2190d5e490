//! The connections that the kernel keeps track of.

use std::net::Ipv4Addr;

use super::{Refusal, Requests, Socket, attribute, attributes, flag};

const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
const INET: u8 = 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const NUMBER: u16 = 12;
const TUPLE_ADDRESSES: u16 = 1;
const ADDRESS_SOURCE: u16 = 1;
const ADDRESS_DESTINATION: u16 = 2;

/// The header of a request: IPv4, version 0, no resource.
const HEADER: [u8; 4] = [INET, 0, 0, 0];

/// Forgets all connections from or to an IPv4 address, and says how many; the next packets of them begin new ones.
pub fn forget(socket: &mut Socket, address: Ipv4Addr) -> Result<usize, Refusal> {
    let mut request = Requests::default();
    request.push("listing connections".to_owned(), GET, flag::DUMP, &HEADER, |_| {});
    let mut found = Vec::new();
    socket.ask(request, |body| {
        let connection = body.get(4..).unwrap_or_default();
        let ends = [ORIGINAL, REPLY].map(|direction| attribute(connection, direction).unwrap_or_default());
        if ends.iter().any(|end| has(end, address)) {
            found.push((ends[0].to_vec(), attribute(connection, NUMBER).unwrap_or_default().to_vec()));
        }
    })?;
    for (tuple, number) in &found {
        let mut request = Requests::default();
        let action = format!("ending a connection of {address}");
        request.push(action, DELETE, 0, &HEADER, |body| {
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

/// Whether one end of a connection's direction is this address.
fn has(tuple: &[u8], address: Ipv4Addr) -> bool {
    let addresses = attribute(tuple, TUPLE_ADDRESSES).unwrap_or_default();
    [ADDRESS_SOURCE, ADDRESS_DESTINATION]
        .iter()
        .any(|&end| attribute(addresses, end) == Some(&address.octets()))
}
