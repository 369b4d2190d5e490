//! wshd's loop: takes requests from clients, starts processes, reaps everything that ends inside.
//!
//! A job is `running` from Spawn on, `ended` once its process was reaped, and forgotten at Release. Each client hears of
//! every end, and one that comes later first hears of every job that was not released, with new copies of its pipes:
//! whoever takes over from a client that died loses nothing. A job that is attached to a client is that client's alone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use warden_linux::epoll::{Epoll, Interest, Ready};
use warden_linux::process::{self, Ending, Reaped};
use warden_linux::signal::ChildSignal;
use warden_linux::socket::PacketListener;

use crate::confinement::Privileges;
use crate::connection::Connection;
use crate::message::{MAX_PACKET, Process, Reply, Request, SpawnStep, VERSION, VERSIONS, WaitStatus};
use crate::score::Score;
use job::Jobs;
use launch::{Failure, Launched};
use process_tree::Proc;
use stdio::Wish;

mod job;
mod launch;
mod process_tree;
mod stdio;

/// Children reaped in a row before the clients have their turn: orphans may die faster than they are reaped.
const REAPED_PER_TURN: usize = 256;

/// Replies that wait for a client that does not read, before it is dropped.
const MAX_QUEUE: usize = 65_536;

/// Clients at a time.
const MAX_CLIENTS: usize = 64;

const SIGHUP: i32 = 1;

const LISTENER: u64 = 0;
const CHILDREN: u64 = 1;
const FIRST_CLIENT: u64 = 2;

/// What the loop is woken by.
enum Event {
    Connection,
    ChildEnded,
    Client(u64),
}

impl From<Ready> for Event {
    fn from(ready: Ready) -> Self {
        match ready.token {
            LISTENER => Self::Connection,
            CHILDREN => Self::ChildEnded,
            client => Self::Client(client),
        }
    }
}

/// A process that asks.
struct Client {
    connection: Connection,
    /// Whether it said Hello.
    greeted: bool,
    /// How many Idle replies it waits for.
    idle_wanted: u32,
    /// Whether it is to be dropped at the end of the turn.
    lost: bool,
}

/// wshd.
pub struct Server {
    epoll: Epoll,
    listener: PacketListener,
    children: ChildSignal,
    proc: Proc,
    /// The container's devpts, opened before any tenant could mount over it; none if it has none.
    terminals: Option<OwnedFd>,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    jobs: Jobs,
    privileges: Privileges,
    score: Score,
    /// Whether children may have ended that were not reaped yet.
    reaping: bool,
}

impl Server {
    /// Prepares to serve a listening socket; every signal must be blocked.
    pub fn new(listener: OwnedFd, privileges: Privileges, score: Score) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let listener = PacketListener::adopt(listener)?;
        epoll.add(&listener, LISTENER, Interest::Read)?;
        let children = ChildSignal::open()?;
        epoll.add(&children, CHILDREN, Interest::Read)?;
        Ok(Self {
            epoll,
            listener,
            children,
            proc: Proc::open(Path::new("/proc"))?,
            terminals: warden_linux::file::open_directory(Path::new("/dev/pts")).ok(),
            clients: BTreeMap::new(),
            next_client: FIRST_CLIENT,
            jobs: Jobs::default(),
            privileges,
            score,
            reaping: true,
        })
    }

    /// Serves for ever; fails only when waiting itself fails.
    pub fn run(&mut self) -> io::Result<std::convert::Infallible> {
        loop {
            let limit = self.reaping.then_some(Duration::ZERO);
            for ready in self.epoll.wait(limit)? {
                match ready.into() {
                    Event::Connection => self.accept(),
                    Event::ChildEnded => {
                        self.children.clear();
                        self.reaping = true;
                    }
                    Event::Client(client) => self.hear(client),
                }
            }
            if self.reaping {
                self.reap();
            }
            self.flush();
        }
    }

    fn accept(&mut self) {
        let Ok(socket) = self.listener.accept() else { return };
        if self.clients.len() >= MAX_CLIENTS {
            return;
        }
        let token = self.next_client;
        let Ok(connection) = Connection::new(socket, &self.epoll, token, MAX_QUEUE) else { return };
        self.next_client += 1;
        self.clients.insert(token, Client { connection, greeted: false, idle_wanted: 0, lost: false });
    }

    /// Takes one request of a client: each has its turn.
    fn hear(&mut self, token: u64) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        match client.connection.receive::<Request>(MAX_PACKET) {
            Ok(None) => {}
            Ok(Some((Request::Hello { version }, _))) => self.greet(token, version),
            Ok(Some((request, fds))) if client.greeted => self.obey(token, request, fds),
            Ok(Some(_)) | Err(_) => client.lost = true,
        }
    }

    /// Does what other clients have asked for already: one that takes over from a client that died must be told of it.
    fn settle(&mut self, newcomer: u64) {
        let others: Vec<u64> = self.clients.keys().copied().filter(|token| *token != newcomer).collect();
        for token in others {
            for _ in 0..MAX_QUEUE {
                let Some(client) = self.clients.get_mut(&token).filter(|client| !client.lost) else { break };
                match client.connection.receive::<Request>(MAX_PACKET) {
                    Ok(None) => break,
                    Ok(Some((Request::Hello { version }, _))) => self.introduce(token, version),
                    Ok(Some((request, fds))) if client.greeted => self.obey(token, request, fds),
                    Ok(Some(_)) | Err(_) => client.lost = true,
                }
            }
        }
    }

    fn greet(&mut self, token: u64, version: u32) {
        self.settle(token);
        self.introduce(token, version);
    }

    /// Answers a Hello and tells what there is.
    fn introduce(&mut self, token: u64, version: u32) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        client.tell(&Reply::Hello { version: VERSION }, Vec::new());
        if !VERSIONS.contains(&version) || std::mem::replace(&mut client.greeted, true) {
            client.lost = true;
            return;
        }
        for (job, state) in self.jobs.iter().filter(|(_, state)| state.owner.is_none()) {
            let Ok(fds) = state.copy_outputs() else {
                client.lost = true;
                return;
            };
            client.tell(&Reply::Spawned { job, pid: state.pid }, fds);
            if let Some(status) = state.status {
                client.tell(&Reply::Exited { job, status }, Vec::new());
            }
        }
        client.tell(&Reply::Told, Vec::new());
    }

    fn obey(&mut self, token: u64, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Hello { .. } => {}
            Request::Spawn { job, process, outputs_given } => {
                let wish = if outputs_given { Wish::Given } else { Wish::Pipes };
                let started = self.start(job, &process, fds, &wish, None);
                self.answer(token, job, started);
            }
            Request::SpawnAttached { job, process, terminal } => {
                let wish = terminal.map_or(Wish::Given, Wish::Terminal);
                let started = self.start(job, &process, fds, &wish, Some(token));
                self.answer(token, job, started);
            }
            Request::SignalAll { signal } => {
                // The kernel looks at every process of the machine for those that are inside.
                if process::has_children() {
                    // It fails only where there is nobody left to signal, which the reaping tells.
                    let _ = process::kill(-1, signal);
                }
                if let Some(client) = self.clients.get_mut(&token) {
                    client.idle_wanted += 1;
                }
                self.reaping = true;
            }
            Request::KillJob { job } => self.kill_job(job),
            Request::Release { job } => self.jobs.release(job),
        }
    }

    fn answer(&mut self, token: u64, job: u32, started: Result<(i32, Vec<OwnedFd>), Failure>) {
        let (reply, fds) = match started {
            Ok((pid, fds)) => (Reply::Spawned { job, pid }, fds),
            Err((step, errno)) => (Reply::SpawnFailed { job, step, errno }, Vec::new()),
        };
        if let Some(client) = self.clients.get_mut(&token) {
            client.tell(&reply, fds);
        }
    }

    /// Starts a job; gives its process and what its client gets.
    fn start(
        &mut self,
        number: u32,
        process: &Process,
        fds: Vec<OwnedFd>,
        wish: &Wish,
        owner: Option<u64>,
    ) -> Result<(i32, Vec<OwnedFd>), Failure> {
        if self.jobs.contains(number) {
            return Err((SpawnStep::Request, launch::EEXIST));
        }
        let container = launch::Container {
            terminals: self.terminals.as_ref().map(AsFd::as_fd),
            privileges: self.privileges,
            score: &self.score,
        };
        let Launched { mut job, outputs } = launch::launch(process, fds, wish, &container)?;
        job.owner = owner;
        let pid = job.pid;
        self.jobs.insert(number, job);
        Ok((pid, outputs))
    }

    fn kill_job(&mut self, number: u32) {
        if let Some(job) = self.jobs.get(number) {
            self.proc.kill_all(job.pid, self.jobs.owns_session(number), &job.pipes);
        }
    }

    /// Reaps some of the children that have ended, and tells the clients of those that are jobs.
    fn reap(&mut self) {
        for _ in 0..REAPED_PER_TURN {
            match process::reap() {
                Ok(Reaped::Child(pid, ending)) => self.end(pid, ending),
                Ok(Reaped::Running) | Err(_) => {
                    self.reaping = false;
                    return;
                }
                Ok(Reaped::Childless) => {
                    self.reaping = false;
                    self.tell_idle();
                    return;
                }
            }
        }
    }

    fn end(&mut self, pid: i32, ending: Ending) {
        let status = match ending {
            Ending::Code(code) => WaitStatus::Code(code),
            Ending::Signal(signal) => WaitStatus::Signal(signal),
        };
        let Some(job) = self.jobs.end(pid, status) else { return };
        let owner = self.jobs.get(job).and_then(|job| job.owner);
        for (token, client) in self.clients.iter_mut().filter(|(_, client)| client.greeted) {
            if owner.is_none_or(|owner| owner == *token) {
                client.tell(&Reply::Exited { job, status }, Vec::new());
            }
        }
    }

    fn tell_idle(&mut self) {
        for client in self.clients.values_mut() {
            for _ in 0..std::mem::take(&mut client.idle_wanted) {
                client.tell(&Reply::Idle, Vec::new());
            }
        }
    }

    fn flush(&mut self) {
        let epoll = &self.epoll;
        let stays = |client: &mut Client| client.connection.flush(epoll).is_ok() && !client.lost;
        let gone: Vec<u64> = self
            .clients
            .iter_mut()
            .filter_map(|(token, client)| (!stays(client)).then_some(*token))
            .collect();
        for token in gone {
            self.clients.remove(&token);
            self.hang_up(token);
        }
    }

    /// Tells a client's own jobs that it is gone, and forgets them; what they leave is reaped like an orphan.
    fn hang_up(&mut self, token: u64) {
        for number in self.jobs.owned_by(token) {
            // The group of a job that was not reaped yet is its own. One that has ended has nothing to be told.
            if let Some(job) = self.jobs.get(number).filter(|job| job.status.is_none()) {
                let _ = process::kill(-job.pid, SIGHUP);
            }
            self.jobs.abandon(number);
        }
    }
}

impl Client {
    fn tell(&mut self, reply: &Reply, fds: Vec<OwnedFd>) {
        self.lost |= self.connection.send(reply, fds).is_err();
    }
}
