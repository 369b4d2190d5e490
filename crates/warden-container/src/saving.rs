//! How a container's [`Snapshot`] is kept up: whoever changes what it tells notes the change, and writes it before the
//! client hears of it. Several changes at the same time are one writing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::actor::{Actor, Reply};
use crate::error::{Context, Error, blocking};
use crate::ledger;
use crate::pool::lock;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::state::State;

impl Shared {
    /// Notes that the snapshot on the disk is not true any more.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the snapshot on the disk is true, or none is needed any more.
    fn is_saved(&self) -> bool {
        self.saved.load(Ordering::SeqCst) == self.changes.load(Ordering::SeqCst) || self.is_gone()
    }

    /// Writes down that it is being destroyed: nobody takes it over any more. Blocks.
    pub(crate) fn withdraw(&self) -> Result<(), Error> {
        let _turn = lock(&self.saving);
        let changes = self.changes.load(Ordering::SeqCst);
        Snapshot::withdraw(&self.path)
            .context(|| format!("withdrawing the snapshot of container {}", self.id))?;
        self.saved.store(changes, Ordering::SeqCst);
        Ok(())
    }

    /// Writes the snapshot, unless the one on the disk is true. Blocks.
    pub(crate) fn save(&self) -> Result<(), Error> {
        let _turn = lock(&self.saving);
        // Before the container is looked at: what changes meanwhile is written by who changes it.
        let changes = self.changes.load(Ordering::SeqCst);
        if self.saved.load(Ordering::SeqCst) == changes || self.is_gone() {
            return Ok(());
        }
        match self.snapshot().write(&self.path) {
            // Its directory is on its way to the trash.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.state() == State::Destroyed => {}
            written => written.context(|| format!("writing the snapshot of container {}", self.id))?,
        }
        self.saved.store(changes, Ordering::SeqCst);
        Ok(())
    }

    /// Makes a change that the snapshot tells of, and writes it; undoes it where that fails. Blocks.
    pub(crate) fn change<T>(
        &self,
        apply: impl FnOnce() -> Result<T, Error>,
        undo: impl FnOnce(&T) -> Result<(), Error>,
    ) -> Result<T, Error> {
        let apply = || apply().inspect(|_| self.changed());
        ledger::change(
            apply,
            || self.save(),
            |changed| {
                undo(changed)?;
                // Somebody else's change may have written this one too, meanwhile.
                self.changed();
                if let Err(error) = self.save() {
                    tracing::debug!(container = %self.id, %error, "the snapshot is as it was before");
                }
                Ok(())
            },
        )
    }

    /// Has everything that a client is about to be told on the disk.
    pub(crate) async fn settle(self: &Arc<Self>) {
        if self.is_saved() {
            return;
        }
        let shared = Arc::clone(self);
        if let Err(error) = blocking(move || shared.save()).await {
            tracing::error!(container = %self.id, %error, "the next daemon would not know what a client is told");
        }
    }

    fn snapshot(&self) -> Snapshot {
        let (state, events) = self.state_and_events();
        let opened = self.machine.network.records(self.id).unwrap_or_default();
        let pool = self.machine.settings.ports;
        let pooled = |port: &u16| (pool.start..).contains(port) && port - pool.start < pool.size;
        let mut jobs = self.jobs.ends();
        let mut accounted = lock(&self.accounted);
        // What was forgotten comes to nobody again.
        accounted.retain(|job, _| self.jobs.get(*job).is_some());
        jobs.extend(accounted.iter().map(|(job, status)| (*job, Some(*status))));
        drop(accounted);
        Snapshot {
            id: self.id,
            handle: self.handle.clone(),
            state,
            birth: self.birth,
            events,
            grace_time: self.grace.map(|grace| grace.as_secs()),
            stopping: self.stopping.load(Ordering::SeqCst),
            quarantined: self.quarantined.load(Ordering::SeqCst),
            jobs,
            network: self.addresses.network.network(),
            network_v6: self.addresses.v6.map(|v6| v6.network.network()),
            user: self.user,
            ids: self.ids,
            limits: self.limits.requested(),
            out_of_memory: self.out_of_memory.load(Ordering::SeqCst),
            ports: opened.net_in.iter().map(|mapping| mapping.host_port).filter(pooled).collect(),
            opened,
        }
    }
}

impl Actor {
    /// Writes the snapshot off the async threads; what cannot be written is said and tried again with the next change.
    pub(crate) fn save_later(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = shared.save() {
                tracing::error!(container = %shared.id, %error, "the next daemon would not know of a change");
            }
        });
    }

    /// Answers once the snapshot is written, or tells that it could not be.
    pub(crate) fn answer_saved(&self, reply: Reply<()>, outcome: Result<(), Error>) {
        let shared = Arc::clone(&self.shared);
        if shared.is_saved() {
            return drop(reply.send(outcome));
        }
        tokio::spawn(async move {
            let saved = blocking(move || shared.save()).await;
            drop(reply.send(outcome.and(saved)));
        });
    }
}
