//! What of the network belongs to containers that are no more.

use warden_linux::netlink::nftables::Batch;
use warden_linux::netlink::{Protocol, Refusal, Socket, route};

use super::interfaces::{group, owner};
use super::{absent_is_well, failed, open, reaper};
use crate::error::Error;
use crate::id::Id;

/// Interfaces on the host of a table's containers: those of other programs have another group, whatever their names.
pub(super) fn interfaces(socket: &mut Socket, table: &str) -> Result<Vec<(String, Id)>, Refusal> {
    let ours = group(table);
    let of_container = |(name, group): (String, u32)| {
        let id = owner(&name).filter(|_| group == ours)?;
        Some((name, id))
    };
    Ok(route::links(socket)?.into_iter().filter_map(of_container).collect())
}

/// The same for who has no network of its own to look at; in this process's network namespace.
pub(crate) fn all_interfaces(table: &str) -> Result<Vec<(String, Id)>, Error> {
    interfaces(&mut open(Protocol::Route)?, table).map_err(failed)
}

/// Deletes interfaces by their names.
pub(crate) fn delete_interfaces(names: Vec<String>) -> Result<(), Error> {
    reaper::delete(&mut open(Protocol::Route)?, names.into_iter())
}

/// Deletes a whole table.
pub(crate) fn delete_table(table: &str) -> Result<(), Error> {
    let mut batch = Batch::new(table);
    batch.delete_table();
    absent_is_well(batch.commit(&mut open(Protocol::Netfilter)?))
}
