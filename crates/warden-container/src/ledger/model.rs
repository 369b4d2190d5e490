//! A machine of kernel objects in memory, with a daemon on it that crashes, or is refused, at any of its steps.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;

use super::{Ground, Object, change, end, recover};
use crate::error::Error;
use crate::id::Id;
use crate::pool::lock;

/// What stays when the daemon ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) directories: BTreeMap<Id, Directory>,
    trash: BTreeSet<Id>,
    /// By hierarchy; with the limit that each has.
    pub(super) cgroups: BTreeMap<(Id, u8), Option<u64>>,
    iomux: BTreeSet<Id>,
    /// Init and all that runs with it.
    pub(super) inside: BTreeSet<Id>,
    /// What of `inside` ignores SIGKILL.
    pub(super) undying: BTreeSet<Id>,
    /// Of the host: `w-<id>-0`, and `w-<id>-2` where bandwidth is limited.
    pub(super) links: BTreeSet<(Id, u8)>,
    /// Containers with rules, and the ports that lead to them.
    pub(super) rules: BTreeMap<Id, BTreeSet<u16>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    layer: bool,
    spec: bool,
    /// iomux.pid
    pid: bool,
    unfinished: Option<Snapshot>,
    pub(super) snapshot: Option<Snapshot>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    ending: bool,
    network: u32,
    pub(super) ports: BTreeSet<u16>,
    pub(super) limit: Option<u64>,
}

/// What a daemon has in memory.
#[derive(Debug, Default)]
struct Memory {
    leases: BTreeMap<Id, u32>,
    members: BTreeMap<Id, Snapshot>,
    /// Interfaces that are deleted a little later.
    reaping: BTreeSet<(Id, u8)>,
    /// Steps that are still done.
    steps: Option<usize>,
    crashed: bool,
}

/// What becomes of the step at which a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The daemon is killed instead.
    Crash,
    /// It is refused; the next ones are not.
    Refusal,
}

/// One life of a daemon on a machine.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) kernel: Mutex<Kernel>,
    memory: Mutex<Memory>,
    end: End,
}

const HIERARCHIES: [u8; 3] = [0, 1, 2];

impl Model {
    /// A daemon that does this many steps.
    pub(super) fn new(kernel: Kernel, steps: Option<usize>, end: End) -> Self {
        let memory = Memory { steps, ..Memory::default() };
        Self { kernel: Mutex::new(kernel), memory: Mutex::new(memory), end }
    }

    /// The same daemon, which does this many further steps.
    pub(super) fn then(self, steps: usize, end: End) -> Self {
        lock(&self.memory).steps = Some(steps);
        Self { end, ..self }
    }

    /// Ends the daemon's life, whatever it was about to do; what runs without it runs on.
    pub(super) fn into_kernel(self) -> Kernel {
        self.kernel.into_inner().unwrap()
    }

    /// Forgets what the next writing of a snapshot replaces.
    pub(super) fn tidy(&self, id: Id) {
        if let Some(directory) = lock(&self.kernel).directories.get_mut(&id) {
            directory.unfinished = None;
        }
    }

    pub(super) fn crashed(&self) -> bool {
        lock(&self.memory).crashed
    }

    pub(super) fn holds(&self, id: Id) -> bool {
        lock(&self.memory).leases.contains_key(&id)
    }

    /// One change of the kernel's objects, unless this is where it ends.
    fn step<T>(&self, change: impl FnOnce(&mut Kernel, &mut Memory) -> T) -> Result<(), Error> {
        let memory = &mut *lock(&self.memory);
        let failure = |text| Err(Error::Failed { action: "a step".into(), source: io::Error::other(text) });
        if memory.crashed {
            return failure("crashed");
        }
        match &mut memory.steps {
            Some(0) => {
                memory.steps = None;
                memory.crashed = self.end == End::Crash;
                return failure("refused");
            }
            Some(steps) => *steps -= 1,
            None => {}
        }
        change(&mut lock(&self.kernel), memory);
        Ok(())
    }

    fn kernel<T>(&self, look: impl FnOnce(&Kernel) -> T) -> T {
        look(&lock(&self.kernel))
    }

    /// Writes what memory has of a container into its directory: whole, or not.
    pub(super) fn save(&self, id: Id, ending: bool) -> Result<(), Error> {
        self.step(|kernel, memory| {
            let network = memory.leases.get(&id).copied().unwrap_or_default();
            let member = memory.members.get(&id).cloned().unwrap_or_default();
            if let Some(directory) = kernel.directories.get_mut(&id) {
                let before = directory.snapshot.clone().unwrap_or(Snapshot { network, ..member.clone() });
                directory.unfinished =
                    Some(if ending { Snapshot { ending, ..before } } else { Snapshot { network, ..member } });
            }
        })?;
        self.step(|kernel, _| {
            if let Some(directory) = kernel.directories.get_mut(&id) {
                directory.snapshot = directory.unfinished.take();
            }
        })
    }

    /// Creates a container.
    pub(super) fn create(&self, id: Id) -> Result<(), super::Failure> {
        super::create(self, id, &mut id.clone(), &Object::ALL)
    }

    /// Forwards a port.
    pub(super) fn net_in(&self, id: Id, port: u16) -> Result<(), Error> {
        let apply = || {
            self.step(|kernel, memory| {
                kernel.rules.entry(id).or_default().insert(port);
                memory.members.entry(id).or_default().ports.insert(port);
            })
        };
        let undo = |(): &()| {
            self.step(|kernel, memory| {
                kernel.rules.entry(id).or_default().remove(&port);
                memory.members.entry(id).or_default().ports.remove(&port);
            })
        };
        change(apply, || self.save(id, false), undo)
    }

    /// Limits something, which takes an interface too.
    pub(super) fn limit(&self, id: Id, limit: u64) -> Result<(), Error> {
        let apply = || {
            self.step(|kernel, _| kernel.links.insert((id, 2)))?;
            for hierarchy in HIERARCHIES {
                self.step(|kernel, _| kernel.cgroups.insert((id, hierarchy), Some(limit)))?;
            }
            self.step(|_, memory| memory.members.entry(id).or_default().limit = Some(limit))
        };
        let before = lock(&self.memory).members.get(&id).and_then(|member| member.limit);
        let undo = |(): &()| {
            for hierarchy in HIERARCHIES {
                self.step(|kernel, _| kernel.cgroups.insert((id, hierarchy), before))?;
            }
            self.step(|_, memory| memory.members.entry(id).or_default().limit = before)
        };
        change(apply, || self.save(id, false), undo)
    }

    /// Ends a container as its actor does: what takes long is left for later.
    pub(super) fn end_early(&self, id: Id) -> Result<(), Error> {
        self.save(id, true)?;
        self.end_processes(id)?;
        self.disconnect(id)?;
        self.discard(id)
    }

    /// Starts the daemon: takes over or removes what there is; answers with who is taken over.
    pub(super) fn start(&self) -> Result<Vec<Id>, Error> {
        let remains = recover(self)?;
        let errors = remains.doomed.iter().filter_map(|&id| end(self, id).err()).collect();
        for &(id, limit) in &remains.survivors {
            self.tidy(id);
            for hierarchy in HIERARCHIES {
                self.step(|kernel, _| kernel.cgroups.insert((id, hierarchy), limit))?;
            }
        }
        self.empty_trash()?;
        self.settle();
        let survivors = remains.survivors.into_iter().map(|(id, _)| id).collect();
        Error::join(errors).map_or(Ok(survivors), Err)
    }

    fn empty_trash(&self) -> Result<(), Error> {
        if self.kernel(|kernel| kernel.trash.is_empty()) {
            return Ok(());
        }
        self.step(|kernel, _| kernel.trash.clear())
    }

    /// What the reaper of a daemon that lives does in the end.
    pub(super) fn settle(&self) {
        let memory = &mut *lock(&self.memory);
        if !memory.crashed {
            let mut kernel = lock(&self.kernel);
            kernel.links.retain(|link| !memory.reaping.contains(link));
        }
    }

    fn make_processes(&self, id: Id) -> Result<(), Error> {
        self.step(|kernel, _| kernel.iomux.insert(id))?;
        self.step(|kernel, _| kernel.directories.entry(id).or_default().pid = true)?;
        self.step(|kernel, _| kernel.inside.insert(id))
    }

    fn end_processes(&self, id: Id) -> Result<(), Error> {
        // By the pid file, or by a search where there is none.
        if self.kernel(|kernel| kernel.iomux.contains(&id)) {
            self.step(|kernel, _| kernel.iomux.remove(&id))?;
        }
        if self.kernel(|kernel| kernel.inside.contains(&id)) {
            // A process is found by its control group.
            assert!(self.kernel(|kernel| kernel.cgroups.contains_key(&(id, 0))), "{id}");
            self.step(|kernel, _| {
                if !kernel.undying.contains(&id) {
                    kernel.inside.remove(&id);
                    // The namespace goes, with this end of the pair.
                    kernel.links.remove(&(id, 0));
                }
            })?;
            if self.kernel(|kernel| kernel.inside.contains(&id)) {
                return Err(Error::TimedOut { action: format!("killing {id}"), seconds: 10 });
            }
        }
        Ok(())
    }

    fn connect(&self, id: Id) -> Result<(), Error> {
        self.step(|kernel, memory| {
            kernel.rules.insert(id, BTreeSet::new());
            memory.members.insert(id, Snapshot::default());
        })?;
        self.step(|kernel, _| kernel.links.insert((id, 0)))
    }

    fn disconnect(&self, id: Id) -> Result<(), Error> {
        if !lock(&self.memory).members.contains_key(&id) {
            return Ok(());
        }
        self.step(|kernel, memory| {
            kernel.rules.remove(&id);
            memory.members.remove(&id);
            memory.reaping.extend([(id, 0), (id, 2)]);
        })
    }
}

impl Ground for Model {
    type Making = Id;
    type Survivor = (Id, Option<u64>);

    fn make(&self, making: &mut Id, object: Object) -> Result<(), Error> {
        let id = *making;
        match object {
            Object::Leases => self.step(|_, memory| {
                let free = (0..).find(|network| memory.leases.values().all(|held| held != network));
                memory.leases.insert(id, free.unwrap());
            }),
            Object::Directory => {
                self.step(|kernel, _| kernel.directories.insert(id, Directory::default()))?;
                self.step(|kernel, _| kernel.directories.entry(id).or_default().layer = true)
            }
            Object::Cgroups => HIERARCHIES.iter().try_for_each(|&hierarchy| {
                self.step(|kernel, _| kernel.cgroups.insert((id, hierarchy), None))
            }),
            Object::Spec => self.step(|kernel, _| kernel.directories.entry(id).or_default().spec = true),
            Object::Processes => self.make_processes(id),
            Object::Network => self.connect(id),
            Object::Snapshot => self.save(id, false),
        }
    }

    fn discard(&self, id: Id) -> Result<(), Error> {
        if !self.kernel(|kernel| kernel.directories.contains_key(&id)) {
            return Ok(());
        }
        self.step(|kernel, _| {
            kernel.directories.remove(&id);
            kernel.trash.insert(id);
        })
    }

    fn undo(&self, id: Id, object: Object) -> Result<(), Error> {
        match object {
            Object::Leases => {
                lock(&self.memory).leases.remove(&id);
                Ok(())
            }
            Object::Directory => {
                if !self.kernel(|kernel| kernel.directories.contains_key(&id)) {
                    return self.empty_trash();
                }
                self.discard(id)?;
                self.empty_trash()
            }
            Object::Cgroups => HIERARCHIES.iter().try_for_each(|&hierarchy| {
                if !self.kernel(|kernel| kernel.cgroups.contains_key(&(id, hierarchy))) {
                    return Ok(());
                }
                assert!(
                    self.kernel(|kernel| !kernel.inside.contains(&id)),
                    "a group with tasks is not removed"
                );
                self.step(|kernel, _| kernel.cgroups.remove(&(id, hierarchy)))
            }),
            Object::Spec => Ok(()),
            Object::Processes => self.end_processes(id),
            Object::Network => self.disconnect(id),
            Object::Snapshot => {
                let found =
                    self.kernel(|kernel| kernel.directories.get(&id).and_then(|d| d.snapshot.clone()));
                match found {
                    Some(snapshot) if !snapshot.ending => self.save(id, true),
                    _ => Ok(()),
                }
            }
        }
    }

    fn known(&self) -> Result<Vec<Id>, Error> {
        Ok(self.kernel(|kernel| {
            let known: BTreeSet<Id> = kernel.directories.keys().chain(&kernel.trash).copied().collect();
            known.into_iter().collect()
        }))
    }

    fn judge(&self, id: Id) -> Result<Option<(Id, Option<u64>)>, Error> {
        let snapshot = self.kernel(|kernel| kernel.directories.get(&id).and_then(|d| d.snapshot.clone()));
        let Some(snapshot) = snapshot else { return Ok(None) };
        let memory = &mut *lock(&self.memory);
        assert!(memory.leases.values().all(|held| *held != snapshot.network), "an address of two containers");
        memory.leases.insert(id, snapshot.network);
        if snapshot.ending || self.kernel(|kernel| !kernel.inside.contains(&id)) {
            return Ok(None);
        }
        memory.members.insert(id, snapshot.clone());
        Ok(Some((id, snapshot.limit)))
    }

    fn restore(&self, survivors: &mut Vec<(Id, Option<u64>)>, _: &[Id]) -> Result<(), Error> {
        self.step(|kernel, memory| {
            let ports = memory.members.iter().map(|(id, member)| (*id, member.ports.clone()));
            kernel.rules = ports.collect();
        })?;
        let kept: BTreeSet<Id> = survivors.iter().map(|(id, _)| *id).collect();
        let links = self.kernel(|kernel| kernel.links.clone());
        links
            .into_iter()
            .filter(|(id, _)| !kept.contains(id))
            .try_for_each(|link| self.step(|kernel, _| kernel.links.remove(&link)))
    }
}
