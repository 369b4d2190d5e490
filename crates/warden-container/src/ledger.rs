//! What a container owns, in the order in which it comes to own it: the one list by which containers are made, destroyed,
//! and removed after a crash.
//!
//! ```text
//!              create ------------------------------------------------------->
//!   leases | directory | cgroups | spec | processes | network | snapshot
//!              <------------------------------------------------------ destroy
//! ```
//!
//! Each object is undone from the container's id alone, as often as one likes. The directory comes first and goes last: as
//! long as anything else is there, whoever looks into the depot knows of it. The snapshot comes last and is withdrawn
//! first: only a container that is whole is ever taken over. What is in between has no order but that of its needs
//! ([`Object::needs`]), which also say what is kept when something cannot be undone.
//!
//! The list is data; [`create`], [`destroy`] and [`recover`] interpret it on a [`Ground`]: the machine, or a model of one
//! that crashes after each of its steps.

use crate::error::Error;
use crate::id::Id;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// What a container owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    /// Addresses, a user and ids out of the pools.
    Leases,
    /// The directory in the depot, with the writable layer.
    Directory,
    /// The control groups.
    Cgroups,
    /// `spec.json`.
    Spec,
    /// iomux, init, and whatever runs inside.
    Processes,
    /// Rules of the packet filter, forwarded ports, interfaces.
    Network,
    /// `snapshot.json`.
    Snapshot,
}

impl Object {
    /// All of them, in the order of creation.
    pub(crate) const ALL: [Self; 7] = [
        Self::Leases,
        Self::Directory,
        Self::Cgroups,
        Self::Spec,
        Self::Processes,
        Self::Network,
        Self::Snapshot,
    ];

    /// What must be gone before this may go: what still runs keeps what it uses, and what is left keeps its directory,
    /// by which it is found, and its leases, so that nobody else is given them.
    fn needs(self) -> &'static [Self] {
        match self {
            Self::Leases => &[Self::Directory, Self::Cgroups, Self::Processes, Self::Network],
            Self::Directory => &[Self::Cgroups, Self::Processes, Self::Network],
            Self::Cgroups | Self::Spec => &[Self::Processes],
            Self::Processes | Self::Network | Self::Snapshot => &[],
        }
    }
}

/// What containers stand on.
pub(crate) trait Ground {
    /// A container that is being made.
    type Making;
    /// A container that can be taken over.
    type Survivor;

    /// Makes one object; a failure may leave a part of it.
    fn make(&self, making: &mut Self::Making, object: Object) -> Result<(), Error>;

    /// Undoes one object, whether it is there, or a part of it, or nothing.
    fn undo(&self, id: Id, object: Object) -> Result<(), Error>;

    /// Moves the directory to the trash, if there is one.
    fn discard(&self, id: Id) -> Result<(), Error>;

    /// Every container of which something may be left.
    fn known(&self) -> Result<Vec<Id>, Error>;

    /// Looks at what is left of a container, and takes its leases out of the pools: gives it if it can be taken over.
    fn judge(&self, id: Id) -> Result<Option<Self::Survivor>, Error>;

    /// Has the rules of these containers in the kernel and no others, in one step; those that cannot have theirs are taken
    /// out of the list. The interfaces of the others are removed.
    fn restore(&self, survivors: &mut Vec<Self::Survivor>, others: &[Id]) -> Result<(), Error>;
}

/// Makes objects in the order of creation, and nothing of them when one fails: gives the failure, and that of undoing.
pub(crate) fn create<G: Ground>(
    ground: &G,
    id: Id,
    making: &mut G::Making,
    objects: &[Object],
) -> Result<(), Failure> {
    for (done, &object) in objects.iter().enumerate() {
        if let Err(error) = ground.make(making, object) {
            let undone = destroy(ground, id, objects.get(..=done).unwrap_or(objects));
            return Err(Failure { error, left: undone.err() });
        }
    }
    Ok(())
}

/// Why there is no container.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What failed.
    pub(crate) error: Error,
    /// What could not be undone then.
    pub(crate) left: Option<Error>,
}

/// Undoes objects against the order of creation; goes on past errors, and returns them all.
pub(crate) fn destroy<G: Ground>(ground: &G, id: Id, objects: &[Object]) -> Result<(), Error> {
    let mut errors = Vec::new();
    let mut left = Vec::new();
    for &object in objects.iter().rev() {
        if object.needs().iter().any(|needed| left.contains(needed)) {
            left.push(object);
        } else if let Err(error) = ground.undo(id, object) {
            left.push(object);
            errors.push(error);
        }
    }
    Error::join(errors).map_or(Ok(()), Err)
}

/// Ends a container as [`destroy`] does, but for its files, however many: they are left in the trash. What it held is given
/// back all the same: nothing of it runs that could meet who gets it.
pub(crate) fn end<G: Ground>(ground: &G, id: Id) -> Result<(), Error> {
    const BUT_FILES: [Object; 5] =
        [Object::Cgroups, Object::Spec, Object::Processes, Object::Network, Object::Snapshot];
    destroy(ground, id, &BUT_FILES)?;
    ground.discard(id)?;
    ground.undo(id, Object::Leases)
}

/// What a crash has left.
#[derive(Debug)]
pub(crate) struct Remains<S> {
    /// To be taken over.
    pub(crate) survivors: Vec<S>,
    /// To be ended.
    pub(crate) doomed: Vec<Id>,
}

/// Tells apart what an earlier daemon left, and gives the survivors their rules.
pub(crate) fn recover<G: Ground>(ground: &G) -> Result<Remains<G::Survivor>, Error> {
    let mut remains = Remains { survivors: Vec::new(), doomed: Vec::new() };
    for id in ground.known()? {
        match ground.judge(id)? {
            Some(survivor) => remains.survivors.push(survivor),
            None => remains.doomed.push(id),
        }
    }
    // Until now the rules of an earlier daemon held for what it had left running; from now on ours do.
    ground.restore(&mut remains.survivors, &remains.doomed)?;
    Ok(remains)
}

/// Changes a container that stands: in the kernel first, then in its snapshot; only then may its client hear of it. Where
/// the snapshot cannot be written the kernel's part is undone: what is answered with an error has changed nothing.
pub(crate) fn change<T>(
    apply: impl FnOnce() -> Result<T, Error>,
    save: impl FnOnce() -> Result<(), Error>,
    undo: impl FnOnce(&T) -> Result<(), Error>,
) -> Result<T, Error> {
    let changed = apply()?;
    let Err(error) = save() else { return Ok(changed) };
    let undone = undo(&changed);
    Error::join(vec![error].into_iter().chain(undone.err()).collect()).map_or(Ok(changed), Err)
}
