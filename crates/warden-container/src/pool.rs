//! Pools of things that are numbered from 0: taken in order, given back to the tail.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A first-in, first-out pool of indexes; what was never taken costs no memory.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Indexes that were never at the head yet.
    fresh: Range<u32>,
    /// Those of `fresh` that were asked for by number: the head passes over them.
    taken_ahead: BTreeSet<u32>,
    /// Indexes that came back, each with the moment from which it can be taken again.
    released: VecDeque<(u32, Instant)>,
    /// How long an index rests.
    delay: Duration,
}

impl Pool {
    /// Makes a pool of `0..size` whose indexes rest for `delay` when they come back.
    pub(crate) fn new(size: u32, delay: Duration) -> Self {
        Self { fresh: 0..size, taken_ahead: BTreeSet::new(), released: VecDeque::new(), delay }
    }

    /// Takes the head, unless it rests: those behind it are not looked at, as in the original.
    pub(crate) fn acquire(&mut self, now: Instant) -> Option<u32> {
        for index in self.fresh.by_ref() {
            if !self.taken_ahead.remove(&index) {
                return Some(index);
            }
        }
        let &(index, free_from) = self.released.front()?;
        (free_from <= now).then(|| self.released.pop_front())?;
        Some(index)
    }

    /// Takes this index if it is free and does not rest.
    pub(crate) fn acquire_this(&mut self, index: u32, now: Instant) -> bool {
        if self.fresh.contains(&index) && self.taken_ahead.insert(index) {
            return true;
        }
        let found = self.released.iter().position(|&(free, from)| free == index && from <= now);
        found.and_then(|position| self.released.remove(position)).is_some()
    }

    /// Puts an index that was taken to the tail.
    pub(crate) fn release(&mut self, index: u32, now: Instant) {
        // A rest beyond the end of the clock never ends.
        if let Some(free_from) = now.checked_add(self.delay) {
            self.released.push_back((index, free_from));
        }
    }
}

/// A pool that hands out leases.
#[derive(Clone, Debug)]
pub(crate) struct LeasePool(Arc<Mutex<Pool>>);

impl LeasePool {
    /// Makes a pool of `0..size` whose indexes rest for `delay` when they come back.
    pub(crate) fn new(size: u32, delay: Duration) -> Self {
        Self(Arc::new(Mutex::new(Pool::new(size, delay))))
    }

    /// Leases the head of the pool.
    pub(crate) fn lease(&self) -> Option<Lease> {
        let index = lock(&self.0).acquire(Instant::now())?;
        Some(Lease { index, pool: Arc::clone(&self.0) })
    }

    /// Leases this index.
    pub(crate) fn lease_this(&self, index: u32) -> Option<Lease> {
        lock(&self.0).acquire_this(index, Instant::now()).then(|| Lease { index, pool: Arc::clone(&self.0) })
    }
}

/// An index that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    index: u32,
    pool: Arc<Mutex<Pool>>,
}

impl Lease {
    /// The index.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.pool).release(self.index, Instant::now());
    }
}

/// Locks a mutex whose content is sound between any two statements, also after a panic elsewhere.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(5);

    #[test]
    fn indexes_come_in_order_and_return_to_the_tail() {
        let now = Instant::now();
        let mut pool = Pool::new(3, Duration::ZERO);
        assert_eq!([pool.acquire(now), pool.acquire(now)], [Some(0), Some(1)]);
        pool.release(1, now);
        pool.release(0, now);
        let rest: Vec<_> = std::iter::from_fn(|| pool.acquire(now)).collect();
        assert_eq!(rest, [2, 1, 0]);
        assert_eq!(pool.acquire(now), None);
    }

    #[test]
    fn a_released_index_rests() {
        let now = Instant::now();
        let mut pool = Pool::new(1, REST);
        assert_eq!(pool.acquire(now), Some(0));
        pool.release(0, now);
        assert_eq!(pool.acquire(now + REST - Duration::from_millis(1)), None);
        assert!(!pool.acquire_this(0, now));
        assert_eq!(pool.acquire(now + REST), Some(0));
    }

    #[test]
    fn only_the_head_is_looked_at() {
        let now = Instant::now();
        let mut pool = Pool::new(2, REST);
        assert_eq!((pool.acquire(now), pool.acquire(now)), (Some(0), Some(1)));
        pool.release(0, now + REST);
        pool.release(1, now);
        assert_eq!(pool.acquire(now + REST), None, "1 is free, but 0 is before it");
        assert!(pool.acquire_this(1, now + REST), "who names it gets it");
    }

    #[test]
    fn an_index_asked_for_is_handed_out_once() {
        let now = Instant::now();
        let mut pool = Pool::new(4, Duration::ZERO);
        assert!(pool.acquire_this(1, now));
        assert!(!pool.acquire_this(1, now));
        assert!(!pool.acquire_this(4, now), "outside");
        assert!(pool.acquire_this(2, now));
        pool.release(2, now);
        assert!(pool.acquire_this(2, now), "free again, though the head has not come by");
        pool.release(2, now);
        let rest: Vec<_> = std::iter::from_fn(|| pool.acquire(now)).collect();
        assert_eq!(rest, [0, 3, 2]);
        pool.release(1, now);
        assert_eq!(pool.acquire(now), Some(1));
    }

    #[test]
    fn an_empty_pool_has_nothing() {
        assert_eq!(Pool::new(0, REST).acquire(Instant::now()), None);
    }

    #[test]
    fn an_endless_rest_does_not_overflow() {
        let now = Instant::now();
        let mut pool = Pool::new(1, Duration::MAX);
        assert_eq!(pool.acquire(now), Some(0));
        pool.release(0, now);
        assert_eq!(pool.acquire(now), None);
    }

    #[test]
    fn a_dropped_lease_is_released() {
        let pool = LeasePool::new(1, Duration::ZERO);
        let lease = pool.lease().unwrap();
        assert!(pool.lease().is_none() && pool.lease_this(0).is_none());
        drop(lease);
        assert_eq!(pool.lease_this(0).unwrap().index(), 0);
    }
}
