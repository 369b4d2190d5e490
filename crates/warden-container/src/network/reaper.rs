//! Deletes the interfaces of containers that are gone, away from everybody who waits.
//!
//! The kernel deletes an interface with the container's network namespace, many of them at a time; one alone costs tens
//! of milliseconds. So the reaper comes late, and finds only those whose namespace somebody still holds.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use warden_linux::netlink::{Protocol, Socket};

use super::interfaces;
use crate::error::{Context, Error};

/// How long the kernel is given to delete an interface by itself.
const PATIENCE: Duration = Duration::from_millis(300);

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
        for name in std::iter::once(first).chain(names.try_iter()) {
            if let Err(error) = interfaces::delete(&mut socket, &name) {
                tracing::error!(interface = name, %error, "an interface of a destroyed container is still there");
            }
        }
    }
}
