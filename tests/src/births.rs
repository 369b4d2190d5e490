//! Processes as they are started, told by the kernel itself: its connector of process events.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// Number and value of the connector of process events, which are also its group.
const EVENTS: u32 = 1;
const LISTEN: u32 = 1;
const IGNORE: u32 = 2;
const FORK: u32 = 1;
const EXEC: u32 = 2;
/// Where the event begins: behind the headers of netlink and of the connector.
const EVENT: usize = 36;
/// Where that which differs between the kinds of events begins in one.
const DETAILS: usize = 16;

/// What a process and all below it have done since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Births {
    /// Processes that it has started itself.
    pub children: usize,
    /// Processes that were started by it or below it.
    pub all: usize,
    /// Programs that were executed below it.
    pub programs: usize,
}

/// Listens to the processes of the whole machine, and keeps those of one tree.
#[derive(Debug)]
pub struct Midwife {
    socket: OwnedFd,
    root: i32,
    tree: HashSet<i32>,
}

impl Midwife {
    /// Watches a process and those below it, `known` among them.
    pub fn of(root: i32, known: impl IntoIterator<Item = i32>) -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(CONNECTOR))
                .expect("the kernel has process events");
        // Other tests start many processes meanwhile.
        sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20).expect("only root makes large buffers");
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, EVENTS))
            .expect("only root hears process events");
        let tree = known.into_iter().chain([root]).collect();
        let midwife = Self { socket, root, tree };
        midwife.say(LISTEN);
        midwife
    }

    /// What has happened since the last look.
    #[track_caller]
    pub fn look(&mut self) -> Births {
        let mut births = Births::default();
        let mut packet = [0; 4096];
        loop {
            match rustix::net::recv(&self.socket, packet.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => self.read(packet.get(EVENT..length).unwrap_or_default(), &mut births),
                Err(Errno::AGAIN) => return births,
                Err(error) => panic!("events of processes were lost: {error}"),
            }
        }
    }

    fn read(&mut self, event: &[u8], births: &mut Births) {
        let number = |place: usize| {
            event.get(place..).and_then(|rest| rest.first_chunk().copied()).map(u32::from_ne_bytes)
        };
        let process = |place| number(DETAILS + place).and_then(|pid| i32::try_from(pid).ok()).unwrap_or(-1);
        match number(0) {
            // Parent's thread and process, child's thread and process: a new thread is no process.
            Some(FORK) if process(8) == process(12) && self.tree.contains(&process(4)) => {
                self.tree.insert(process(12));
                births.all += 1;
                births.children += usize::from(process(4) == self.root);
            }
            Some(EXEC) if self.tree.contains(&process(4)) => births.programs += 1,
            _ => {}
        }
    }

    fn say(&self, operation: u32) {
        let numbers: [u32; 10] = [40, 3, 0, 0, EVENTS, EVENTS, 0, 0, 4, operation];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        rustix::net::sendto(&self.socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))
            .expect("the kernel takes a request for process events");
    }
}

impl Drop for Midwife {
    fn drop(&mut self) {
        self.say(IGNORE);
    }
}
