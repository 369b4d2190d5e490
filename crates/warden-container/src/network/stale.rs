//! What the table holds of each container, and of none: how what is left of those that are no more is found, and deleted
//! in one transaction with nothing else.
//!
//! Elements belong to the container whose interface they name, forwarded ports to the one whose address they lead to. What
//! names neither is not of our making, and stays.

// What arrives here may be anything: no length, index or sum may be taken on trust.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::collections::{BTreeMap, HashMap, HashSet};

use warden_linux::netlink::nftables::{self, Batch, Element};
use warden_linux::netlink::{Protocol, Refusal, Socket};

use super::interfaces::owner;
use super::table::{self, FORWARDS, INTERFACES, MEMBERS, OUTGOING};
use super::{Network, failed, open};
use crate::error::Error;
use crate::id::Id;
use crate::pool::lock;

/// Bytes of an interface's name in a key.
const NAME: usize = 16;
/// The sets, in an order in which their elements can be deleted; forwarded ports before the addresses that they lead to, so
/// that a container which is being connected has both.
const SETS: [&str; 6] = [OUTGOING, FORWARDS[0], FORWARDS[1], MEMBERS[0], MEMBERS[1], INTERFACES];

/// What a table holds of one container, or a forwarded port that leads to none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) owner: Option<Id>,
    /// What it is called, the same whenever it is looked at.
    pub(crate) name: String,
    chain: Option<String>,
    elements: Vec<(&'static str, Vec<u8>)>,
}

/// Lists what a table holds, in this process's network namespace; nothing where there is no such table.
pub(crate) fn entries(table: &str) -> Result<Option<Vec<Entry>>, Error> {
    read(&mut open(Protocol::Netfilter)?, table).map_err(failed)
}

/// Deletes entries by their names: all of them, or none.
pub(crate) fn delete(table: &str, names: &HashSet<&str>) -> Result<(), Error> {
    delete_by(&mut open(Protocol::Netfilter)?, table, |entry| names.contains(entry.name.as_str()))
}

impl Network {
    /// The same, but for what is known of containers that are connected.
    pub(crate) fn delete_stale(&self, names: &HashSet<&str>) -> Result<(), Error> {
        let state = &mut *lock(&self.state);
        let (members, table) = (&state.members, &state.firewall.table);
        delete_by(&mut state.filter, table, |entry| {
            names.contains(entry.name.as_str()) && !entry.owner.is_some_and(|id| members.contains_key(&id))
        })
    }
}

fn delete_by(socket: &mut Socket, table: &str, is_wanted: impl Fn(&Entry) -> bool) -> Result<(), Error> {
    let entries = read(socket, table).map_err(failed)?.unwrap_or_default();
    let wanted: Vec<_> = entries.iter().filter(|entry| is_wanted(entry)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new(table);
    for (set, key) in wanted.iter().flat_map(|entry| &entry.elements) {
        batch.delete_element(set, key);
    }
    for chain in wanted.iter().filter_map(|entry| entry.chain.as_deref()) {
        batch.delete_chain(chain);
    }
    batch.commit(socket).map_err(failed)
}

fn read(socket: &mut Socket, table: &str) -> Result<Option<Vec<Entry>>, Refusal> {
    let chains = nftables::chains(socket, table)?;
    if chains.is_empty() {
        return Ok(None);
    }
    let mut sets = Vec::new();
    for set in SETS {
        match nftables::elements(socket, table, set) {
            Ok(elements) => sets.push((set, elements)),
            Err(refusal) if refusal.is_absence() => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(Some(sort(table, chains, sets)))
}

/// Tells apart whose each thing is.
fn sort(table: &str, chains: Vec<String>, sets: Vec<(&'static str, Vec<Element>)>) -> Vec<Entry> {
    let addresses: HashMap<Vec<u8>, Id> = sets
        .iter()
        .filter(|(set, _)| MEMBERS.contains(set))
        .flat_map(|(_, elements)| elements)
        .filter_map(|element| Some((element.key.get(NAME..)?.to_vec(), owner_of(&element.key)?)))
        .collect();
    let mut entries = BTreeMap::<Id, Entry>::new();
    let mut orphans = Vec::new();
    let entry = |owner, name: &str| Entry {
        owner,
        name: format!("inet {table} {name}"),
        chain: None,
        elements: Vec::new(),
    };
    for chain in chains {
        if let Some(id) = table::owner(&chain) {
            entries.insert(id, Entry { chain: Some(chain.clone()), ..entry(Some(id), &chain) });
        }
    }
    for (set, elements) in sets {
        for Element { key, value } in elements {
            let is_forward = FORWARDS.contains(&set);
            let owner = if is_forward {
                // Behind the address stands the port, in four bytes.
                let address = value.len().checked_sub(4).and_then(|length| value.get(..length));
                address.and_then(|address| addresses.get(address).copied())
            } else {
                owner_of(&key)
            };
            match (owner, is_forward.then(|| port(&key)).flatten()) {
                (Some(id), _) => {
                    let of = || entry(Some(id), &format!("{set} of {id}"));
                    entries.entry(id).or_insert_with(of).elements.push((set, key));
                }
                (None, Some(port)) => {
                    let elements = vec![(set, key)];
                    orphans.push(Entry { elements, ..entry(None, &format!("{set} {port}")) });
                }
                (None, None) => {}
            }
        }
    }
    entries.into_values().chain(orphans).collect()
}

/// The container whose interface a key begins with.
fn owner_of(key: &[u8]) -> Option<Id> {
    let name = key.get(..NAME)?.split(|byte| *byte == 0).next()?;
    owner(std::str::from_utf8(name).ok()?)
}

/// The protocol's number and the port of a key.
fn port(key: &[u8]) -> Option<String> {
    match key {
        [protocol, _, _, _, high, low, ..] => {
            Some(format!("{protocol}:{}", u16::from_be_bytes([*high, *low])))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn element(key: &[u8], value: &[u8]) -> Element {
        Element { key: key.to_vec(), value: value.to_vec() }
    }

    #[test]
    fn each_thing_is_its_containers_and_what_names_none_is_nobodys() {
        let [one, two] = [b"00000000001", b"00000000002"].map(|id| Id::parse(id).unwrap());
        let interface = |id: Id| nftables::interface(&format!("w-{id}-0"));
        let address = |last| Ipv4Addr::new(10, 254, 0, last).into();
        let member = |id: Id, last| nftables::interface_and_address(&format!("w-{id}-0"), address(last));
        let forward = |port, last| {
            element(&nftables::protocol_and_port(6, port), &nftables::address_and_port(address(last), 80))
        };
        let chains = ["common", "out-00000000001", "out-x", "forward"].map(str::to_owned).to_vec();
        let sets = vec![
            (OUTGOING, vec![element(&interface(one), b""), element(&nftables::interface("eth0"), b"")]),
            (FORWARDS[0], vec![forward(61_001, 2), forward(61_002, 6), forward(61_003, 99)]),
            (MEMBERS[0], vec![element(&member(one, 2), b""), element(&member(two, 6), b"")]),
            (INTERFACES, vec![element(&interface(one), b""), element(b"short", b"")]),
        ];
        let found = sort("t", chains, sets);
        let told: Vec<_> = found.iter().map(|e| (e.owner, e.name.as_str(), e.elements.len())).collect();
        assert_eq!(
            told,
            [
                (Some(one), "inet t out-00000000001", 4),
                (Some(two), "inet t forwards of 00000000002", 2),
                (None, "inet t forwards 6:61003", 1),
            ]
        );
        assert_eq!(found[0].chain.as_deref(), Some("out-00000000001"));
        assert_eq!(found[1].chain, None);
    }
}
