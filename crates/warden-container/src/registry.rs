//! Which containers there are, by handle, in the order of their creation, and who references them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::container::Container;
use crate::error::Error;
use crate::pool::lock;
use crate::references::{ConnectionId, Key, References};

/// All containers that clients can name.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Mutex<Entries>,
    /// Grace times may have begun.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    /// Handles in use; without a key while the container is being created.
    handles: HashMap<Vec<u8>, Option<Key>>,
    containers: BTreeMap<Key, Arc<Container>>,
    references: References,
}

impl Registry {
    /// Opens a connection.
    pub(crate) fn open(&self) -> ConnectionId {
        lock(&self.entries).references.open()
    }

    /// Closes a connection.
    pub(crate) fn close(&self, id: ConnectionId) {
        lock(&self.entries).references.close(id, Instant::now());
        self.changed.notify_one();
    }

    /// Reserves a handle for a container that is being created.
    pub(crate) fn reserve(self: &Arc<Self>, handle: Vec<u8>) -> Result<Reservation, Error> {
        let mut entries = lock(&self.entries);
        if entries.handles.contains_key(&handle) {
            return Err(Error::HandleExists(handle));
        }
        entries.handles.insert(handle.clone(), None);
        Ok(Reservation { registry: Arc::clone(self), handle })
    }

    /// Finds a container; the connection references it from now on.
    pub(crate) fn find(&self, handle: &[u8], by: ConnectionId) -> Result<Arc<Container>, Error> {
        let mut entries = lock(&self.entries);
        let key = entries.handles.get(handle).copied().flatten().ok_or(Error::UnknownHandle)?;
        entries.references.name(key, by);
        entries.containers.get(&key).cloned().ok_or(Error::UnknownHandle)
    }

    /// Lists the handles in the order of creation.
    pub(crate) fn list(&self) -> Vec<Vec<u8>> {
        lock(&self.entries).containers.values().map(|container| container.handle().to_vec()).collect()
    }

    /// Forgets a container: its handle is free.
    pub(crate) fn remove(&self, handle: &[u8]) {
        let mut entries = lock(&self.entries);
        let Some(key) = entries.handles.remove(handle).flatten() else { return };
        let container = entries.containers.remove(&key);
        entries.references.remove(key);
        drop(entries);
        drop(container);
    }

    /// Destroys containers whose grace time is over, for ever.
    pub(crate) async fn keep_grace_times(self: Arc<Self>) {
        loop {
            let (expired, next) = self.expired();
            for container in expired {
                tokio::spawn(destroy_unreferenced(container));
            }
            let passed = async {
                match next {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passed => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn expired(&self) -> (Vec<Arc<Container>>, Option<Instant>) {
        let mut entries = lock(&self.entries);
        let keys = entries.references.expired(Instant::now());
        let expired = keys.iter().filter_map(|key| entries.containers.get(key).cloned()).collect();
        (expired, entries.references.next_deadline())
    }
}

async fn destroy_unreferenced(container: Arc<Container>) {
    tracing::info!(container = %container.id(), "destroying: its grace time is over");
    // A failure was logged where it happened; the container is there for the next who asks.
    if let Err(error) = container.destroy().await {
        tracing::debug!(container = %container.id(), %error, "not destroyed after its grace time");
    }
}

/// A handle that nobody else can take; free again when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    registry: Arc<Registry>,
    handle: Vec<u8>,
}

impl Reservation {
    /// The handle.
    pub(crate) fn handle(&self) -> &[u8] {
        &self.handle
    }

    /// Gives the handle to a container that connection `by` has created.
    pub(crate) fn fill(self, container: Arc<Container>, grace: Option<Duration>, by: ConnectionId) {
        self.enter(container, |references| references.add(grace, by, Instant::now()));
    }

    /// Gives the handle to a container that an earlier daemon has made.
    pub(crate) fn fill_adopted(self, container: Arc<Container>, grace: Option<Duration>) {
        self.enter(container, |references| references.adopt(grace, Instant::now()));
    }

    fn enter(self, container: Arc<Container>, reference: impl FnOnce(&mut References) -> Key) {
        let mut entries = lock(&self.registry.entries);
        let key = reference(&mut entries.references);
        entries.handles.insert(self.handle.clone(), Some(key));
        entries.containers.insert(key, container);
        drop(entries);
        self.registry.changed.notify_one();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut entries = lock(&self.registry.entries);
        if entries.handles.get(&self.handle) == Some(&None) {
            entries.handles.remove(&self.handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_handle_is_taken_but_not_known() {
        let registry = Arc::new(Registry::default());
        let connection = registry.open();
        let reservation = registry.reserve(b"a\xff".to_vec()).unwrap();
        assert_eq!(reservation.handle(), b"a\xff");
        assert!(matches!(registry.reserve(b"a\xff".to_vec()), Err(Error::HandleExists(_))));
        assert!(matches!(registry.find(b"a\xff", connection), Err(Error::UnknownHandle)));
        assert!(registry.list().is_empty());
        drop(reservation);
        assert!(registry.reserve(b"a\xff".to_vec()).is_ok());
    }
}
