//! Deletes the interfaces of containers that are gone, away from everybody who waits.
//!
//! The kernel deletes an interface with the container's network namespace, many of them at a time; one alone costs tens
//! of milliseconds. So the reaper comes late, finds only those whose namespace somebody still holds and those of the
//! host's own, and deletes them together.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use warden_linux::netlink::{Protocol, Requests, Socket, route};

use super::absent_is_well;
use crate::error::{Context, Error};

/// How long the kernel is given to delete an interface by itself.
const PATIENCE: Duration = Duration::from_millis(300);
/// Interfaces named to the kernel in one message.
const AT_ONCE: usize = 256;
/// The group of interfaces that are about to be deleted, whichever daemon has put them there.
const DOOMED: u32 = u32::from_be_bytes(*b"ward");

/// Starts the reaper; it ends when nobody can send to it any more.
pub(super) fn start() -> Result<Sender<String>, Error> {
    let socket =
        Socket::open(Protocol::Route).context(|| "opening a netlink socket of the reaper".to_owned())?;
    let (sender, names) = mpsc::channel();
    thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(move || reap(socket, &names))
        .context(|| "starting the reaper of interfaces".to_owned())?;
    Ok(sender)
}

fn reap(mut socket: Socket, names: &Receiver<String>) {
    while let Ok(first) = names.recv() {
        thread::sleep(PATIENCE);
        if let Err(error) = delete(&mut socket, std::iter::once(first).chain(names.try_iter())) {
            tracing::error!(%error, "interfaces of destroyed containers are still there");
        }
    }
}

/// Deletes interfaces, as far as they are there, and all that are in the group already; goes on past errors.
pub(super) fn delete(socket: &mut Socket, names: impl Iterator<Item = String>) -> Result<(), Error> {
    let names: Vec<_> = names.collect();
    let mut errors = Vec::new();
    for some in names.chunks(AT_ONCE) {
        let mut requests = Requests::default();
        for name in some {
            route::set_group(&mut requests, name, DOOMED);
        }
        // Most have gone already, or never were.
        errors.extend(absent_is_well(socket.execute(requests)).err());
    }
    let mut requests = Requests::default();
    route::delete_group(&mut requests, DOOMED);
    errors.extend(absent_is_well(socket.execute(requests)).err());
    Error::join(errors).map_or(Ok(()), Err)
}
