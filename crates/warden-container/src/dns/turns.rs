//! How many questions wait for an answer: of all containers, and of each.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::pool::lock;

/// Questions under way.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    counts: Arc<Mutex<Counts>>,
    most: usize,
    most_each: usize,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    each: HashMap<IpAddr, usize>,
}

/// One question; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    from: IpAddr,
    turns: Turns,
}

impl Turns {
    /// Allows so many at a time, and so many of them from one address.
    pub(super) fn new(most: usize, most_each: usize) -> Self {
        Self { counts: Arc::default(), most, most_each }
    }

    /// Begins a question, unless too many are under way.
    pub(super) fn take(&self, from: IpAddr) -> Option<Turn> {
        let mut counts = lock(&self.counts);
        let own = counts.each.get(&from).copied().unwrap_or_default();
        if counts.all >= self.most || own >= self.most_each {
            return None;
        }
        counts.all += 1;
        counts.each.insert(from, own + 1);
        Some(Turn { from, turns: self.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = lock(&self.turns.counts);
        counts.all -= 1;
        match counts.each.get_mut(&self.from) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(counts.each.remove(&self.from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_bounded_in_all_and_for_each_and_come_back() {
        let turns = Turns::new(3, 2);
        let [one, two] = [[10, 0, 0, 2], [10, 0, 0, 6]].map(IpAddr::from);
        let first = turns.take(one).unwrap();
        let second = turns.take(one).unwrap();
        assert!(turns.take(one).is_none(), "its own bound");
        let third = turns.take(two).unwrap();
        assert!(turns.take(two).is_none(), "the bound of all");
        drop(first);
        let fourth = turns.take(two).unwrap();
        drop((second, third, fourth));
        let counts = lock(&turns.counts);
        assert_eq!((counts.all, counts.each.len()), (0, 0), "nothing is kept of who asks no more");
    }
}
