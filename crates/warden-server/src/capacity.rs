//! What all clients together may ask of the daemon at the same time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Requests up to this many bytes are not counted: the number of connections bounds them.
const SMALL: usize = 64 * 1024;

/// What is left of the configured limits; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    requests: Arc<Semaphore>,
    most_requests: usize,
    /// In KiB.
    memory: Arc<Semaphore>,
    most_memory: u64,
}

/// A limit that is reached.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// The requests under way.
    #[error("too many requests at the same time: the server does {0}, its limit (server.max_requests)")]
    Requests(usize),
    /// The long requests that are held in memory.
    #[error(
        "too many long requests at the same time: the server holds {0} bytes of them, its limit (server.max_request_memory)"
    )]
    Memory(u64),
}

/// A part of the capacity, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Capacity {
    /// Allows this many requests, and this many bytes of long ones.
    pub(crate) fn new(requests: usize, memory: u64) -> Self {
        let kilobytes = usize::try_from(memory.div_ceil(1024)).unwrap_or(usize::MAX);
        Self {
            requests: Arc::new(Semaphore::new(requests.min(Semaphore::MAX_PERMITS))),
            most_requests: requests,
            memory: Arc::new(Semaphore::new(kilobytes.min(Semaphore::MAX_PERMITS))),
            most_memory: memory,
        }
    }

    /// Takes one request's share.
    pub(crate) fn request(&self) -> Result<Share, Exhausted> {
        share(Arc::clone(&self.requests).try_acquire_owned(), || Exhausted::Requests(self.most_requests))
    }

    /// Takes the share of a request of this many bytes.
    pub(crate) fn memory(&self, bytes: usize) -> Result<Share, Exhausted> {
        if bytes <= SMALL {
            return Ok(Share(None));
        }
        let kilobytes = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.memory).try_acquire_many_owned(kilobytes);
        share(taken, || Exhausted::Memory(self.most_memory))
    }
}

fn share(
    taken: Result<OwnedSemaphorePermit, TryAcquireError>,
    exhausted: impl FnOnce() -> Exhausted,
) -> Result<Share, Exhausted> {
    taken.map(|permit| Share(Some(permit))).map_err(|_| exhausted())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_refused_by_name_and_comes_back() {
        let capacity = Capacity::new(2, 1 << 20);
        let held = [capacity.request().unwrap(), capacity.clone().request().unwrap()];
        assert_eq!(
            capacity.request().unwrap_err().to_string(),
            "too many requests at the same time: the server does 2, its limit (server.max_requests)"
        );
        drop(held);
        capacity.request().unwrap();
    }

    #[test]
    fn long_requests_share_the_memory_and_short_ones_need_none() {
        let capacity = Capacity::new(1, 1 << 20);
        let _held = capacity.memory(1 << 20).unwrap();
        capacity.memory(SMALL).unwrap();
        assert_eq!(capacity.memory(SMALL + 1).unwrap_err(), Exhausted::Memory(1 << 20));
    }
}
