//! What the table holds of each container, and of none: how what is left of those that are no more is found, and deleted
//! in one transaction with nothing else.
//!
//! Elements belong to the container whose interface they name, forwarded ports and rules to the one that has the address.
//! What names neither an interface nor an address of ours is not of our making, and stays; so do chains without rules, which
//! are made ahead.

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

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use warden_linux::netlink::nftables::{self, Batch, Element};
use warden_linux::netlink::{Protocol, Refusal, Socket};

use super::interfaces::{names, owner};
use super::table::{self, FORWARDS, INTERFACES, MEMBERS};
use super::{Network, failed, open};
use crate::error::Error;
use crate::id::Id;
use crate::pool::lock;

/// Bytes of an interface's name in a key.
const NAME: usize = 16;
/// The sets; what belongs to an address is looked at before who has it, so that a container which is being connected has both.
const SETS: [&str; 5] = [FORWARDS[0], FORWARDS[1], MEMBERS[0], MEMBERS[1], INTERFACES];

/// What a table holds of one container, or a forwarded port or a chain's rules of an address that none has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) owner: Option<Id>,
    /// What it is called, the same whenever it is looked at.
    pub(crate) name: String,
    /// Chains that have rules.
    chains: Vec<String>,
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
    for chain in wanted.iter().flat_map(|entry| &entry.chains) {
        batch.flush_chain(chain);
    }
    batch.commit(socket).map_err(failed)
}

fn read(socket: &mut Socket, table: &str) -> Result<Option<Vec<Entry>>, Refusal> {
    let ruled = match nftables::ruled_chains(socket, table) {
        // The table has some as long as it is there.
        Ok(chains) if chains.is_empty() => return Ok(None),
        Err(refusal) if refusal.is_absence() => return Ok(None),
        listed => listed?,
    };
    let mut sets = Vec::new();
    for set in SETS {
        match nftables::elements(socket, table, set) {
            Ok(elements) => sets.push((set, elements)),
            Err(refusal) if refusal.is_absence() => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(Some(sort(table, ruled, sets)))
}

/// Tells apart whose each thing is.
fn sort(table: &str, ruled: BTreeSet<String>, sets: Vec<(&'static str, Vec<Element>)>) -> Vec<Entry> {
    let addresses: HashMap<Vec<u8>, Id> = sets
        .iter()
        .filter(|(set, _)| MEMBERS.contains(set))
        .flat_map(|(_, elements)| elements)
        .filter_map(|element| Some((element.key.get(NAME..)?.to_vec(), owner_of(&element.key)?)))
        .collect();
    let entry = |owner, name: &str| Entry {
        owner,
        name: format!("inet {table} {name}"),
        chains: Vec::new(),
        elements: Vec::new(),
    };
    let mut owned = BTreeMap::<Id, Entry>::new();
    let mut orphans = Vec::new();
    for chain in ruled {
        let Some(address) = table::owner(&chain) else { continue };
        match addresses.get(&nftables::address(address)) {
            Some(&id) => owned.entry(id).or_insert_with(|| of(&entry, id)).chains.push(chain),
            None => orphans.push(Entry { chains: vec![chain.clone()], ..entry(None, &chain) }),
        }
    }
    for (set, elements) in sets {
        for Element { key, value } in elements {
            let port = FORWARDS.contains(&set).then(|| port(&key)).flatten();
            let owner = if port.is_some() {
                // Behind the address stands the port, in four bytes.
                let address = value.len().checked_sub(4).and_then(|length| value.get(..length));
                address.and_then(|address| addresses.get(address).copied())
            } else {
                owner_of(&key)
            };
            match (owner, port) {
                (Some(id), _) => owned.entry(id).or_insert_with(|| of(&entry, id)).elements.push((set, key)),
                (None, Some(port)) => {
                    let elements = vec![(set, key)];
                    orphans.push(Entry { elements, ..entry(None, &format!("{set} {port}")) });
                }
                (None, None) => {}
            }
        }
    }
    owned.into_values().chain(orphans).collect()
}

/// An empty entry of a container, by the name of its interface.
fn of(entry: &impl Fn(Option<Id>, &str) -> Entry, id: Id) -> Entry {
    entry(Some(id), &names(id).host)
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
        let ruled = ["common", "out-10.254.0.2", "out-10.254.0.9", "out-x", "forward"];
        let sets = vec![
            (FORWARDS[0], vec![forward(61_001, 2), forward(61_002, 6), forward(61_003, 99)]),
            (MEMBERS[0], vec![element(&member(one, 2), b""), element(&member(two, 6), b"")]),
            (INTERFACES, vec![element(&interface(one), b""), element(&nftables::interface("eth0"), b"")]),
        ];
        let found = sort("t", ruled.map(str::to_owned).into(), sets);
        let told: Vec<_> =
            found.iter().map(|e| (e.owner, e.name.as_str(), e.chains.len(), e.elements.len())).collect();
        assert_eq!(
            told,
            [
                (Some(one), "inet t w-00000000001-0", 1, 3),
                (Some(two), "inet t w-00000000002-0", 0, 2),
                (None, "inet t out-10.254.0.9", 1, 0),
                (None, "inet t forwards 6:61003", 0, 1),
            ]
        );
    }
}
