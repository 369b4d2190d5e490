//! What of the network belongs to containers that are no more.

use std::collections::HashSet;

use warden_linux::netlink::nftables::{self, Batch};
use warden_linux::netlink::{Protocol, Refusal, Socket, route};

use super::interfaces::{group, owner};
use super::table::INTERFACES;
use super::{failed, open, reaper};
use crate::error::Error;
use crate::id::Id;

/// Interfaces of a table's containers but for these: those of other programs have another group, whatever their names.
pub(super) fn interfaces(
    socket: &mut Socket,
    table: &str,
    known: &HashSet<Id>,
) -> Result<Vec<String>, Refusal> {
    let ours = group(table);
    let stray = |(name, group): (String, u32)| {
        (group == ours && owner(&name).is_some_and(|id| !known.contains(&id))).then_some(name)
    };
    Ok(route::links(socket)?.into_iter().filter_map(stray).collect())
}

/// The same with their containers, for who has no network of its own to look at; in this process's network namespace.
pub(crate) fn stray_interfaces(table: &str, known: &HashSet<Id>) -> Result<Vec<(String, Id)>, Error> {
    let names = interfaces(&mut open(Protocol::Route)?, table, known).map_err(failed)?;
    Ok(names.into_iter().filter_map(|name| owner(&name).map(|id| (name, id))).collect())
}

/// Deletes interfaces by their names.
pub(crate) fn delete_interfaces(names: Vec<String>) -> Result<(), Error> {
    reaper::delete(&mut open(Protocol::Route)?, names.into_iter());
    Ok(())
}

/// Containers but for these that a table has rules for; nothing where there is no such table.
pub(crate) fn stray_rules(table: &str, known: &HashSet<Id>) -> Result<Option<Vec<Id>>, Error> {
    match nftables::keys(&mut open(Protocol::Netfilter)?, table, INTERFACES) {
        Err(refusal) if refusal.is_absence() => Ok(None),
        Err(refusal) => Err(failed(refusal)),
        Ok(names) => {
            let text = |name: &[u8]| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
            let owners = names.iter().filter_map(|name| owner(&text(name)));
            Ok(Some(owners.filter(|id| !known.contains(id)).collect()))
        }
    }
}

/// Deletes a whole table.
pub(crate) fn delete_table(table: &str) -> Result<(), Error> {
    let mut batch = Batch::new(table);
    batch.delete_table();
    match batch.commit(&mut open(Protocol::Netfilter)?) {
        Err(refusal) if !refusal.is_absence() => Err(failed(refusal)),
        _ => Ok(()),
    }
}
