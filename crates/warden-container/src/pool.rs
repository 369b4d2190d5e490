//! Pools of things that are numbered from 0: taken in order, given back to the tail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    /// Indexes that nobody has used after all, by the turn in which they were taken: they go before all others.
    unused: BTreeMap<u64, u32>,
    /// How often one was leased.
    turns: u64,
    /// Indexes that came back, each with the moment from which it can be taken again.
    released: VecDeque<(u32, Instant)>,
    /// How long an index rests.
    delay: Duration,
}

impl Pool {
    /// Makes a pool of `0..size` whose indexes rest for `delay` when they come back.
    pub(crate) fn new(size: u32, delay: Duration) -> Self {
        Self {
            fresh: 0..size,
            taken_ahead: BTreeSet::new(),
            unused: BTreeMap::new(),
            turns: 0,
            released: VecDeque::new(),
            delay,
        }
    }

    /// Takes the head, unless it rests: those behind it are not looked at, as in the original.
    pub(crate) fn acquire(&mut self, now: Instant) -> Option<u32> {
        if let Some((_, index)) = self.unused.pop_first() {
            return Some(index);
        }
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
        let unused = self.unused.iter().find(|&(_, free)| *free == index).map(|(&turn, _)| turn);
        if unused.is_some_and(|turn| self.unused.remove(&turn).is_some()) {
            return true;
        }
        let found = self.released.iter().position(|&(free, from)| free == index && from <= now);
        found.and_then(|position| self.released.remove(position)).is_some()
    }

    /// Puts an index that was taken in some turn and never used back: it is as if it had not been taken.
    pub(crate) fn give_back(&mut self, index: u32, turn: u64) {
        self.unused.insert(turn, index);
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
        self.take(|pool, now| pool.acquire(now))
    }

    /// Leases this index.
    pub(crate) fn lease_this(&self, index: u32) -> Option<Lease> {
        self.take(|pool, now| pool.acquire_this(index, now).then_some(index))
    }

    fn take(&self, acquire: impl FnOnce(&mut Pool, Instant) -> Option<u32>) -> Option<Lease> {
        let mut pool = lock(&self.0);
        let index = acquire(&mut pool, Instant::now())?;
        pool.turns += 1;
        Some(Lease { index, turn: pool.turns, unused: false, pool: Arc::clone(&self.0) })
    }
}

/// An index that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    index: u32,
    /// When it was leased, among all leases of its pool.
    turn: u64,
    unused: bool,
    pool: Arc<Mutex<Pool>>,
}

impl Lease {
    /// The index.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Notes that the index was never used.
    pub(crate) fn unused(&mut self) {
        self.unused = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut pool = lock(&self.pool);
        if self.unused {
            pool.give_back(self.index, self.turn)
        } else {
            pool.release(self.index, Instant::now())
        }
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
    fn what_was_leased_and_not_used_is_leased_again_first_in_the_same_order() {
        let pool = LeasePool::new(4, REST);
        let [mut first, mut second, third] = [(); 3].map(|()| pool.lease().unwrap());
        first.unused();
        second.unused();
        // Whatever comes back first, and without a rest.
        drop((second, first, third));
        let again: Vec<_> = std::iter::from_fn(|| pool.lease()).map(|lease| lease.index()).collect();
        assert_eq!(again, [0, 1, 3], "2 rests");
        let pool = LeasePool::new(2, REST);
        pool.lease().unwrap().unused();
        let asked = pool.lease_this(0).unwrap();
        assert!(pool.lease_this(0).is_none());
        assert_eq!((asked.index(), pool.lease().unwrap().index()), (0, 1));
    }

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
