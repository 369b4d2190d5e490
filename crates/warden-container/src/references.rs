//! Which connections keep a container alive, and when one that nobody keeps shall be destroyed: pure, time passed in.
//!
//! A connection references a container when it created it, named it in a request, or was opened while it existed. Time
//! is one counter: a connection's or container's number says what came before what, so the third rule needs no list.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

/// A container, by its place in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(u64);

/// A connection, by its place in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(u64);

#[derive(Debug)]
struct Referenced {
    grace: Option<Duration>,
    /// Connections that were opened before, and created or named it.
    holders: HashSet<ConnectionId>,
    deadline: Option<Instant>,
}

/// All references of all connections.
#[derive(Debug, Default)]
pub(crate) struct References {
    counter: u64,
    /// Open connections, each with the older containers that it holds.
    connections: BTreeMap<ConnectionId, HashSet<Key>>,
    containers: BTreeMap<Key, Referenced>,
    deadlines: BTreeSet<(Instant, Key)>,
}

impl References {
    /// Opens a connection: it references every container there is, so no grace time runs any more.
    pub(crate) fn open(&mut self) -> ConnectionId {
        for (_, key) in std::mem::take(&mut self.deadlines) {
            if let Some(container) = self.containers.get_mut(&key) {
                container.deadline = None;
            }
        }
        let id = ConnectionId(self.count());
        self.connections.insert(id, HashSet::new());
        id
    }

    /// Closes a connection: the grace time of containers that it was the last to reference begins.
    pub(crate) fn close(&mut self, id: ConnectionId, now: Instant) {
        let Some(held) = self.connections.remove(&id) else { return };
        for key in &held {
            if let Some(container) = self.containers.get_mut(key) {
                container.holders.remove(&id);
            }
        }
        // Only what it held, or what is younger than every other connection, can have lost its last reference.
        let newest = self.connections.last_key_value().map_or(0, |(newest, _)| newest.0);
        let seen_by_it = self.containers.range(Key(newest)..Key(id.0.max(newest))).map(|(&key, _)| key);
        let candidates: BTreeSet<Key> = held.into_iter().chain(seen_by_it).collect();
        for key in candidates {
            self.start_grace_unless_referenced(key, now);
        }
    }

    /// Adds a container that connection `by` has created.
    pub(crate) fn add(&mut self, grace: Option<Duration>, by: ConnectionId, now: Instant) -> Key {
        let key = Key(self.count());
        self.containers.insert(key, Referenced { grace, holders: HashSet::new(), deadline: None });
        self.name(key, by);
        // The creator may have gone meanwhile.
        self.start_grace_unless_referenced(key, now);
        key
    }

    /// Adds a container that an earlier daemon has made: its grace time begins.
    pub(crate) fn adopt(&mut self, grace: Option<Duration>, now: Instant) -> Key {
        let key = Key(self.count());
        self.containers.insert(key, Referenced { grace, holders: HashSet::new(), deadline: None });
        self.start_grace_unless_referenced(key, now);
        key
    }

    /// Notes that a connection has named a container.
    pub(crate) fn name(&mut self, key: Key, by: ConnectionId) {
        let Some(held) = self.connections.get_mut(&by) else { return };
        let Some(container) = self.containers.get_mut(&key) else { return };
        if let Some(deadline) = container.deadline.take() {
            self.deadlines.remove(&(deadline, key));
        }
        if by.0 < key.0 && container.holders.insert(by) {
            held.insert(key);
        }
    }

    /// Forgets a container.
    pub(crate) fn remove(&mut self, key: Key) {
        let Some(container) = self.containers.remove(&key) else { return };
        if let Some(deadline) = container.deadline {
            self.deadlines.remove(&(deadline, key));
        }
        for holder in container.holders {
            if let Some(held) = self.connections.get_mut(&holder) {
                held.remove(&key);
            }
        }
    }

    /// The moment at which [`References::expired`] has something to say.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Takes the containers whose grace time is over; each is told once.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<Key> {
        let mut expired = Vec::new();
        while let Some(&(deadline, key)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(container) = self.containers.get_mut(&key) {
                container.deadline = None;
            }
            expired.push(key);
        }
        expired
    }

    fn start_grace_unless_referenced(&mut self, key: Key, now: Instant) {
        let newest = self.connections.last_key_value().map_or(0, |(newest, _)| newest.0);
        let Some(container) = self.containers.get_mut(&key) else { return };
        if newest > key.0 || !container.holders.is_empty() || container.deadline.is_some() {
            return;
        }
        let deadline = container.grace.and_then(|grace| now.checked_add(grace));
        container.deadline = deadline;
        self.deadlines.extend(deadline.map(|deadline| (deadline, key)));
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(300);

    fn start() -> (References, ConnectionId, Instant) {
        let mut references = References::default();
        let connection = references.open();
        (references, connection, Instant::now())
    }

    #[test]
    fn the_creator_keeps_its_container() {
        let (mut references, creator, now) = start();
        let key = references.add(Some(GRACE), creator, now);
        assert_eq!(references.next_deadline(), None);
        references.close(creator, now);
        assert_eq!(references.next_deadline(), Some(now + GRACE));
        assert!(references.expired(now + GRACE - Duration::from_nanos(1)).is_empty());
        assert_eq!(references.expired(now + GRACE), [key]);
        assert!(references.expired(now + GRACE).is_empty(), "told once");
    }

    #[test]
    fn the_grace_time_of_an_adopted_container_begins_until_somebody_connects() {
        let mut references = References::default();
        let now = Instant::now();
        let key = references.adopt(Some(GRACE), now);
        references.adopt(None, now);
        assert_eq!(references.next_deadline(), Some(now + GRACE));
        let visitor = references.open();
        assert_eq!(references.next_deadline(), None);
        references.close(visitor, now + GRACE);
        assert_eq!(references.expired(now + GRACE * 2), [key]);
    }

    #[test]
    fn a_later_connection_keeps_every_container_without_naming_it() {
        let (mut references, creator, now) = start();
        references.add(Some(GRACE), creator, now);
        let later = references.open();
        references.close(creator, now);
        assert_eq!(references.next_deadline(), None);
        references.close(later, now);
        assert_eq!(references.next_deadline(), Some(now + GRACE));
    }

    #[test]
    fn an_earlier_connection_keeps_it_only_once_it_has_named_it() {
        let (mut references, earlier, now) = start();
        let creator = references.open();
        let key = references.add(Some(GRACE), creator, now);
        references.close(creator, now);
        assert_eq!(references.next_deadline(), Some(now + GRACE), "the earlier one does not know it");
        references.name(key, earlier);
        assert_eq!(references.next_deadline(), None);
        references.close(earlier, now + GRACE);
        assert_eq!(references.next_deadline(), Some(now + GRACE * 2));
    }

    #[test]
    fn any_new_connection_cancels_every_grace_time() {
        let (mut references, creator, now) = start();
        references.add(Some(GRACE), creator, now);
        references.add(Some(GRACE * 2), creator, now);
        references.close(creator, now);
        let visitor = references.open();
        assert_eq!(references.next_deadline(), None);
        references.close(visitor, now + GRACE);
        assert_eq!(references.next_deadline(), Some(now + GRACE * 2), "it begins anew");
        assert_eq!(references.expired(now + GRACE * 3).len(), 2);
    }

    #[test]
    fn the_middle_of_several_connections_changes_nothing() {
        let (mut references, creator, now) = start();
        references.add(Some(GRACE), creator, now);
        let [a, b, c] = std::array::from_fn(|_| references.open());
        for connection in [b, creator, c] {
            references.close(connection, now);
            assert_eq!(references.next_deadline(), None);
        }
        references.close(a, now);
        assert!(references.next_deadline().is_some());
    }

    #[test]
    fn grace_times_of_none_zero_and_beyond_the_clock() {
        let (mut references, creator, now) = start();
        let _never = references.add(None, creator, now);
        let _overflow = references.add(Some(Duration::MAX), creator, now);
        let at_once = references.add(Some(Duration::ZERO), creator, now);
        references.close(creator, now);
        assert_eq!(references.expired(now), [at_once]);
        assert_eq!(references.next_deadline(), None);
    }

    #[test]
    fn a_creator_that_vanished_while_creating_does_not_keep_it() {
        let (mut references, creator, now) = start();
        references.close(creator, now);
        references.add(Some(GRACE), creator, now);
        assert_eq!(references.next_deadline(), Some(now + GRACE));
    }

    #[test]
    fn a_removed_container_has_no_deadline() {
        let (mut references, creator, now) = start();
        let key = references.add(Some(GRACE), creator, now);
        references.close(creator, now);
        references.remove(key);
        references.remove(key);
        assert_eq!(references.next_deadline(), None);
        references.name(key, creator);
        references.close(creator, now);
        assert!(references.expired(now + GRACE).is_empty());
    }

    #[test]
    fn agrees_with_the_plain_rule_on_every_short_history() {
        // Every sequence of five steps over two connections and one container, checked against explicit sets.
        for number in 0..6_u32.pow(6) {
            check_history(&(0..6).map(|step| number / 6_u32.pow(step) % 6).collect::<Vec<_>>());
        }
    }

    /// Steps: 0, 1 open a connection; 2, 3 close it; 4 creates by the first (once); 5 names by the second.
    fn check_history(steps: &[u32]) {
        let now = Instant::now();
        let mut references = References::default();
        let mut open: [Option<ConnectionId>; 2] = [None; 2];
        let mut refers = [false; 2];
        let mut container = None;
        let mut pending = false;
        for &step in steps {
            match step {
                0 | 1 if open[step as usize].is_none() => {
                    open[step as usize] = Some(references.open());
                    refers[step as usize] = container.is_some();
                    pending = false;
                }
                2 | 3 => {
                    let which = step as usize - 2;
                    if let Some(id) = open[which].take() {
                        references.close(id, now);
                        let last = std::mem::take(&mut refers[which]) && !refers.contains(&true);
                        pending |= last && container.is_some();
                    }
                }
                4 if container.is_none() => {
                    if let Some(creator) = open[0] {
                        container = Some(references.add(Some(GRACE), creator, now));
                        refers[0] = true;
                    }
                }
                5 => {
                    if let (Some(key), Some(id)) = (container, open[1]) {
                        references.name(key, id);
                        refers[1] = true;
                        pending = false;
                    }
                }
                _ => {}
            }
            assert_eq!(references.next_deadline().is_some(), pending, "{steps:?}");
        }
    }
}
