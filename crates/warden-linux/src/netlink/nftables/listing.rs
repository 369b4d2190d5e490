//! What a table holds, as the kernel tells it.

use std::collections::BTreeSet;

use super::super::attributes;
use super::{INET, LIST_ITEM, Refusal, Requests, SUBSYSTEM, Socket, attribute, flag, header, text};

const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;

/// An element of a set, or of a map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Element {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value, where it has one that is no verdict.
    pub value: Vec<u8>,
}

/// Lists the elements of a set of a table of the family inet.
pub fn elements(socket: &mut Socket, table: &str, set: &str) -> Result<Vec<Element>, Refusal> {
    let mut request = Requests::default();
    let action = format!("listing the set {set} of table {table}");
    request.push(action, GET_ELEMENT, flag::DUMP, &header(INET, 0), |attributes| {
        attributes.text(1, table).text(2, set);
    });
    let mut elements = Vec::new();
    socket.ask(request, |body| elements.extend(read(body.get(4..).unwrap_or_default())))?;
    Ok(elements)
}

fn read(body: &[u8]) -> impl Iterator<Item = Element> {
    let list = attributes(attribute(body, 3).unwrap_or_default());
    list.filter(|(kind, _)| *kind == LIST_ITEM).filter_map(|(_, element)| {
        let bytes = |kind| attribute(element, kind).and_then(|data| attribute(data, 1));
        Some(Element { key: bytes(1)?.to_vec(), value: bytes(2).unwrap_or_default().to_vec() })
    })
}

/// Lists the names of the chains of a table of the family inet that have rules.
pub fn ruled_chains(socket: &mut Socket, table: &str) -> Result<BTreeSet<String>, Refusal> {
    let mut request = Requests::default();
    let action = format!("listing the rules of table {table}");
    request.push(action, GET_RULE, flag::DUMP, &header(INET, 0), |attributes| {
        attributes.text(1, table);
    });
    let mut chains = BTreeSet::new();
    socket.ask(request, |body| {
        let rest = body.get(4..).unwrap_or_default();
        // Old kernels list the rules of all tables.
        if attribute(rest, 1).map(text).as_deref() == Some(table) {
            chains.extend(attribute(rest, 2).map(text));
        }
    })?;
    Ok(chains)
}
