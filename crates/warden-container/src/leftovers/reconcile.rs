//! The daemon's own look at what is left over: at its start, and at long intervals.

use std::collections::HashSet;
use std::sync::Weak;
use std::time::Duration;

use super::{Leftover, Place, depot};
use crate::error::{Error, blocking};
use crate::id::Id;
use crate::image;
use crate::ledger::{Ground, Object};
use crate::machine::Machine;

/// How long what is on its way is given to arrive.
const PAUSE: Duration = Duration::from_secs(2);

/// Removes what is left over, before a client is served.
pub(crate) fn at_start(machine: &Machine) {
    let place = place(machine);
    // Where another daemon shares the cgroups, its containers may be half made.
    let found = if machine.cgroups.parent.is_alone() {
        place.look()
    } else {
        place.look_twice(Duration::from_secs(1))
    };
    clean(&place, found);
}

/// Looks again at intervals, as long as there is a machine.
pub(crate) async fn keep(machine: Weak<Machine>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(machine) = machine.upgrade() else { return };
        let looked = blocking(move || {
            let held = leases_without_directory(&machine)?;
            let place = place(&machine);
            clean(&place, place.look_twice(PAUSE));
            if let Err(error) = image::remove_unused(&machine.depot, &machine.lower) {
                tracing::warn!(%error, "old images were not removed");
            }
            // What was being made has its directory by now; what was being destroyed has given them back.
            let still = leases_without_directory(&machine)?;
            for id in held.intersection(&still) {
                tracing::error!(container = %id, "an address, user and ids were left over: they are given back");
                machine.undo(*id, Object::Leases)?;
            }
            Ok(())
        });
        if let Err(error) = looked.await {
            tracing::warn!(%error, "what is left over is not known");
        }
    }
}

fn place(machine: &Machine) -> Place<'_> {
    Place {
        depot: machine.depot.path(),
        cgroups: Some(&machine.cgroups),
        table: &machine.settings.firewall.table,
        image: machine.settings.depot_image.as_ref().map(|image| image.path.as_path()),
        in_use: true,
        machine: Some(machine),
    }
}

fn leases_without_directory(machine: &Machine) -> Result<HashSet<Id>, Error> {
    let holders = machine.pools.holders();
    let known = depot::known(machine.depot.path(), true)?;
    Ok(holders.difference(&known).copied().collect())
}

fn clean(place: &Place<'_>, found: Result<Vec<Leftover>, Error>) {
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "what is left over is not known");
            return;
        }
    };
    for (Leftover { kind, name, .. }, outcome) in place.remove_all(found) {
        match outcome {
            Ok(true) => tracing::warn!(%kind, name, "removed what was left over"),
            Ok(false) => tracing::warn!(%kind, name, "left over, and left alone"),
            Err(error) => tracing::error!(%kind, name, %error, "left over, and cannot be removed"),
        }
    }
}
