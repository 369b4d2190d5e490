//! The connections of destroyed containers, which the kernel goes on tracking: whoever gets an address next inherits none.
//!
//! To find those of an address the kernel walks through the whole table, which takes it many milliseconds whatever is
//! in there. So a thread of its own does it once for all containers that were destroyed meanwhile; only then are their
//! addresses given back. Whoever needs one of these, or a port of the host that led to one, hurries the thread and waits.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use warden_linux::netlink::{Protocol, Refusal, Socket, conntrack};

use crate::error::{Context, Error};
use crate::id::Id;
use crate::leases::Held;
use crate::pool::lock;
use crate::settings::Addresses;

/// How long destroyed containers are gathered, unless somebody waits.
const GATHERING: Duration = Duration::from_millis(100);
/// Pause after the kernel has refused.
const PAUSE: Duration = Duration::from_secs(1);

/// What is left of one container.
#[derive(Debug)]
struct Left {
    id: Id,
    addresses: Addresses,
    /// Given back when this is dropped.
    _held: Held,
    /// Whether a port of the host led to it.
    mapped: bool,
}

/// Forgets connections in the background.
#[derive(Debug)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something was added, or somebody is in a hurry.
    added: Condvar,
    /// A round has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Left>,
    /// Whether the round that is under way is about a container with mapped ports.
    mapped: bool,
    working: bool,
    hurried: bool,
    closed: bool,
    /// Rounds that have ended.
    rounds: u64,
}

impl Connections {
    /// Starts the thread; it ends with this value, when nothing is left.
    pub(super) fn start() -> Result<Self, Error> {
        let socket = Socket::open(Protocol::Netfilter)
            .context(|| "opening a netlink socket for tracked connections".to_owned())?;
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        thread::Builder::new()
            .name("connections".to_owned())
            .spawn(move || its.work(socket))
            .context(|| "starting the thread that forgets connections".to_owned())?;
        Ok(Self(shared))
    }

    /// Forgets the connections of a container that nothing is left of, then gives back what it held.
    pub(super) fn forget(&self, id: Id, addresses: Addresses, held: Held, mapped: bool) {
        lock(&self.0.queue).waiting.push(Left { id, addresses, _held: held, mapped });
        self.0.added.notify_one();
    }

    /// Waits until the connections of all that was given to this are forgotten. Blocks.
    pub(super) fn settle(&self) {
        self.settle_if(|_| true);
    }

    /// The same, if one of them had ports of the host.
    pub(super) fn settle_ports(&self) {
        self.settle_if(|queue| queue.mapped || queue.waiting.iter().any(|left| left.mapped));
    }

    fn settle_if(&self, needed: impl FnOnce(&Queue) -> bool) {
        let mut queue = lock(&self.0.queue);
        if !needed(&queue) {
            return;
        }
        // The round that is under way does not know of what came after its beginning.
        let enough = queue.rounds + u64::from(queue.working) + u64::from(!queue.waiting.is_empty());
        while queue.rounds < enough {
            queue.hurried = true;
            self.0.added.notify_one();
            queue = self.0.ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        lock(&self.0.queue).closed = true;
        self.0.added.notify_one();
    }
}

impl Shared {
    fn work(&self, mut socket: Socket) {
        while let Some(left) = self.next() {
            let failed = forget_all(&mut socket, &left).err();
            let mut again = Vec::new();
            if let Some(error) = failed {
                let containers: Vec<_> = left.iter().map(|left| left.id.to_string()).collect();
                tracing::error!(?containers, %error, "addresses are kept: the connections of these containers are still tracked");
                again = left;
            } else {
                drop(left);
            }
            let mut queue = lock(&self.queue);
            (queue.working, queue.mapped) = (false, false);
            queue.rounds += 1;
            self.ended.notify_all();
            if !again.is_empty() && !queue.closed {
                queue.waiting.extend(again);
                drop(queue);
                thread::sleep(PAUSE);
            }
        }
    }

    /// Waits for something to do and takes all of it; none when the daemon ends.
    fn next(&self) -> Option<Vec<Left>> {
        let queue = lock(&self.queue);
        let idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.closed;
        let queue = self.added.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        let patient = |queue: &mut Queue| !queue.hurried && !queue.closed;
        let (mut queue, _) =
            self.added.wait_timeout_while(queue, GATHERING, patient).unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.is_empty() {
            return None;
        }
        queue.hurried = false;
        queue.working = true;
        queue.mapped = queue.waiting.iter().any(|left| left.mapped);
        Some(std::mem::take(&mut queue.waiting))
    }
}

fn forget_all(socket: &mut Socket, left: &[Left]) -> Result<(), Refusal> {
    let addresses: HashSet<IpAddr> = left.iter().flat_map(|left| left.addresses.inside()).collect();
    forget(socket, |address| addresses.contains(&address))
}

/// Forgets all connections from or to such addresses.
pub(super) fn forget(socket: &mut Socket, is_one: impl Fn(IpAddr) -> bool) -> Result<(), Refusal> {
    let forgotten = conntrack::forget(socket, |connection| {
        let ways = [connection.original(), connection.reply()];
        ways.iter().flat_map(|way| [way.source(), way.destination()]).flatten().any(&is_one)
    });
    forgotten.map(drop)
}
