//! What the kernel and the depot hold of containers that are no more: how it is found, told apart from what only looks alike,
//! and removed.
//!
//! A container's directory in the depot is the first that it has and the last that it loses (`ledger`); so
//! whatever bears an id that has no directory, not even one that a daemon has moved to the trash, is left over. The directories are listed after everything else: what was
//! found before and has none then is gone, or is a leftover. Which of both, a second look a little later tells.
//!
//! An interface is ours by its group, a rule by its table, a control group by the configured parent, a process and a mount
//! by the depot; names alone are nobody's.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cgroup::{self, Cgroups};
use crate::error::{Context, Error};
use crate::id::Id;
use crate::machine::Machine;
use crate::network::{left, stale};

mod depot;
mod doctor;
mod loops;
pub(crate) mod processes;
pub(crate) mod reconcile;

pub use doctor::Doctor;

/// How long the processes of a leftover may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// One thing that is left over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leftover {
    /// What it is.
    pub kind: Kind,
    /// Its name, as the kernel or the file system knows it.
    pub name: String,
    pub(crate) id: Option<Id>,
}

/// What a leftover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is what it is called")]
pub enum Kind {
    Process,
    Interface,
    /// What the packet filter's table holds of one container, or a forwarded port that leads to none.
    Rules,
    /// The packet filter's table, when no container is left.
    Table,
    Cgroup,
    Mount,
    /// A loop device of the depot's image, or of a file in the depot, that is not the depot's.
    LoopDevice,
    /// Something that was being removed.
    Trash,
    /// A container that no daemon will take over.
    Container,
    /// Something in the depot that is no container: told, and left alone.
    Unknown,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Interface => "interface",
            Self::Rules => "rules",
            Self::Table => "table",
            Self::Cgroup => "cgroup",
            Self::Mount => "mount",
            Self::LoopDevice => "loop-device",
            Self::Trash => "trash",
            Self::Container => "container",
            Self::Unknown => "unknown",
        })
    }
}

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) depot: &'a Path,
    pub(crate) cgroups: Option<&'a Cgroups>,
    /// The packet filter's table.
    pub(crate) table: &'a str,
    /// The file that is mounted at the depot.
    pub(crate) image: Option<&'a Path>,
    /// Whether a daemon uses the depot.
    pub(crate) in_use: bool,
    /// The daemon's machine, where it is the daemon who looks.
    pub(crate) machine: Option<&'a Machine>,
}

impl Place<'_> {
    /// Looks once.
    pub(crate) fn look(&self) -> Result<Vec<Leftover>, Error> {
        let interfaces = left::all_interfaces(self.table)?;
        let rules = stale::entries(self.table)?;
        let groups = self.cgroups.map(|cgroups| cgroups.parent.strays()).unwrap_or_default();
        let processes = processes::of(self.depot);
        let mounts = depot::mounts(self.depot);
        let trash = depot::trash(self.depot);
        // Last of all.
        let known = depot::known(self.depot, self.in_use)?;
        let is_stray = |id: &Id| !known.contains(id);
        let mut found = Vec::new();
        let mut add = |kind, name: String, id| found.push(Leftover { kind, name, id });
        for process in processes.into_iter().filter(|process| is_stray(&process.id)) {
            add(Kind::Process, format!("{} ({})", process.pid, process.name), Some(process.id));
        }
        for (name, id) in interfaces.into_iter().filter(|(_, id)| is_stray(id)) {
            add(Kind::Interface, name, Some(id));
        }
        if rules.is_some() && known.is_empty() && !self.in_use {
            add(Kind::Table, format!("inet {}", self.table), None);
        } else {
            let rules = rules.unwrap_or_default().into_iter();
            for rule in rules.filter(|rule| rule.owner.as_ref().is_none_or(is_stray)) {
                add(Kind::Rules, rule.name, rule.owner);
            }
        }
        for id in groups.into_iter().filter(is_stray) {
            add(Kind::Cgroup, cgroup::name(id), Some(id));
        }
        for (path, id) in mounts.into_iter().filter(|(_, id)| id.is_none_or(|id| is_stray(&id))) {
            add(Kind::Mount, path.display().to_string(), id);
        }
        for device in loops::of(self.image, self.depot) {
            add(Kind::LoopDevice, device.display().to_string(), None);
        }
        for name in trash.into_iter().filter(|name| !self.is_awaited(name)) {
            add(Kind::Trash, name, None);
        }
        for name in depot::unknown(self.depot) {
            add(Kind::Unknown, name, None);
        }
        Ok(found)
    }

    /// Whether a daemon removes an entry of the trash by itself, sooner or later.
    fn is_awaited(&self, name: &str) -> bool {
        let is_container = || Id::parse(name.as_bytes()).is_some();
        self.machine.map_or_else(|| self.in_use && is_container(), |machine| machine.inherited.holds(name))
    }

    /// Looks twice, and gives what was there both times: what is on its way is no leftover.
    pub(crate) fn look_twice(&self, pause: Duration) -> Result<Vec<Leftover>, Error> {
        let first = self.look()?;
        if first.is_empty() {
            return Ok(first);
        }
        std::thread::sleep(pause);
        let again: HashSet<Leftover> = self.look()?.into_iter().collect();
        Ok(first.into_iter().filter(|found| again.contains(found)).collect())
    }

    /// Removes what was found; tells what became of each: removed, left alone, or why not.
    pub(crate) fn remove_all(&self, found: Vec<Leftover>) -> Vec<(Leftover, Result<bool, Error>)> {
        let rules: HashSet<&str> = found
            .iter()
            .filter(|leftover| leftover.kind == Kind::Rules)
            .map(|leftover| leftover.name.as_str())
            .collect();
        let deleted = match self.machine {
            _ if rules.is_empty() => Ok(()),
            Some(machine) => machine.network.delete_stale(&rules),
            None => stale::delete(self.table, &rules),
        };
        let remove = |leftover: Leftover| {
            let outcome = match leftover.kind {
                Kind::Rules => deleted.as_ref().map(|()| true).map_err(Error::again),
                _ => self.remove(&leftover),
            };
            (leftover, outcome)
        };
        found.into_iter().map(remove).collect()
    }

    /// Removes one; `false` for what is left to people.
    fn remove(&self, leftover: &Leftover) -> Result<bool, Error> {
        match (leftover.kind, leftover.id) {
            (Kind::Process, Some(id)) => processes::end(self.depot, |other| other == id)?,
            (Kind::Interface, _) => left::delete_interfaces(vec![leftover.name.clone()])?,
            (Kind::Table, _) => left::delete_table(self.table)?,
            (Kind::Cgroup, Some(id)) => {
                let Some(cgroups) = self.cgroups else { return Ok(false) };
                cgroups.kill(id, Instant::now() + PATIENCE)?;
                cgroups.remove(id, Instant::now() + PATIENCE)?;
            }
            (Kind::Mount, _) => {
                let path = PathBuf::from(&leftover.name);
                rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH)
                    .context(|| format!("unmounting {}", path.display()))?;
            }
            (Kind::Trash, _) => {
                crate::depot::empty(self.depot, &leftover.name)?;
            }
            // An operator may be at work with one: it goes when an operator says so.
            (Kind::LoopDevice, _) if self.machine.is_none() => {
                return loops::release(Path::new(&leftover.name));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
