//! What an operator's `wardend doctor` sees, beside a daemon or without one.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{Kind, Leftover, Place, processes};
use crate::cgroup::Cgroups;
use crate::depot;
use crate::disk::image;
use crate::error::{Context, Error};
use crate::machine::Machine;
use crate::network::owner;
use crate::recovery;
use crate::settings::Settings;

/// How long what is on its way is given to arrive, while a daemon works.
const PAUSE: Duration = Duration::from_secs(2);

/// Looks at a depot and the kernel without changing either.
#[derive(Debug)]
pub struct Doctor {
    settings: Settings,
    depot: PathBuf,
    /// Held while no daemon uses the depot, so that none begins to.
    lock: Option<File>,
    cgroups: Option<Cgroups>,
}

impl Doctor {
    /// Comes to the depot of these settings.
    pub fn visit(settings: Settings) -> Result<Self, Error> {
        let depot = settings.real_depot();
        // What another depot's containers have would look left over.
        owner::examine(&settings)?;
        // Behind a mount that is not seen here containers would look as if they had no directory.
        if let Some(image) = &settings.depot_image
            && !image::is_mounted_at(&depot)
            && !processes::of(&depot).is_empty()
        {
            let why = format!("{} is not mounted there, and its containers run", image.path.display());
            return Err(io::Error::other(why)).context(|| format!("looking into depot {}", depot.display()));
        }
        let lock = depot::lock_unused(&depot)?;
        let cgroups = Cgroups::inspect(&settings.cgroup_parent)?;
        Ok(Self { settings, depot, lock, cgroups })
    }

    /// Whether a daemon uses the depot.
    pub fn is_in_use(&self) -> bool {
        self.lock.is_none() && self.depot.exists()
    }

    /// Finds what is left over.
    pub fn examine(&self) -> Result<Vec<Leftover>, Error> {
        let place = self.place();
        if self.is_in_use() {
            return place.look_twice(PAUSE);
        }
        let mut found = place.look()?;
        for id in depot::ids(&self.depot)? {
            let directory = self.depot.join(id);
            if let Err((reason, _)) = recovery::judge(id, &directory) {
                reason.check_version(&directory)?;
                found.push(Leftover { kind: Kind::Container, name: format!("{id}: {reason}"), id: Some(id) });
            }
        }
        Ok(found)
    }

    /// Removes what was found; tells what became of each: removed, left alone, or why not.
    pub fn repair(mut self, found: Vec<Leftover>) -> Vec<(Leftover, Result<bool, Error>)> {
        let (containers, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|leftover| leftover.kind == Kind::Container);
        let place = self.place();
        let mut done = place.remove_all(others);
        if containers.is_empty() {
            return done;
        }
        // The machine locks both itself.
        self.lock = None;
        self.cgroups = None;
        let machine = Machine::open(self.settings);
        for leftover in containers {
            let outcome = match (&machine, leftover.id) {
                (Ok(machine), Some(id)) => machine.destroy(id).map(|()| true),
                (Err(error), _) => Err(error.again()),
                (Ok(_), None) => Ok(false),
            };
            done.push((leftover, outcome));
        }
        if let Ok(machine) = machine {
            machine.cgroups.parent.remove();
        }
        done
    }

    fn place(&self) -> Place<'_> {
        Place {
            depot: &self.depot,
            cgroups: self.cgroups.as_ref(),
            table: &self.settings.firewall.table,
            image: self.settings.depot_image.as_ref().map(|image| image.path.as_path()),
            in_use: self.is_in_use(),
            machine: None,
        }
    }
}
