//! iomux's loop: what clients ask, what wshd answers, and what the jobs' pipes hold.
//!
//! A job is created with its directory, is `spawned` when wshd says that it runs, and ends when wshd says that its
//! process ended: what its pipes hold at that moment is stored, its end is written, wshd may forget it, the clients are
//! told, in this order. When wshd is dead, every job that is left ends so, and then iomux.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use warden_init::build::{Init, SetupError};
use warden_init::message as inside;
use warden_init::note::note;
use warden_linux::epoll::{Epoll, Interest};
use warden_linux::process;
use warden_linux::socket::{PacketListener, PacketSocket};

use crate::client::Client;
use crate::copy::Inside;
use crate::failpoint;
use crate::job::{self, CHUNK, Job, Scratch};
use crate::layout::Layout;
use crate::message::{Event, MAX_PACKET, Request, Step, VERSIONS};
use ended::Ended;
use init::InitLink;
use token::Token;

mod adoption;
mod copies;
mod ended;
mod furnish;
mod init;
mod jobs;
mod token;

/// Clients at a time.
const MAX_CLIENTS: usize = 64;

/// Replies of wshd taken in a row.
const REPLIES_PER_TURN: usize = 64;

/// Requests of a client that died that are done before another is answered: more than a socket holds.
const REQUESTS_AT_ONCE: usize = 65_536;

/// How long the last events wait for clients that do not read.
const FAREWELL: Duration = Duration::from_secs(10);

/// The supervisor of one container.
pub(crate) struct Supervisor {
    epoll: Epoll,
    layout: Layout,
    listener: PacketListener,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    init: Option<InitLink>,
    /// The container's mounts. Whoever lets go of them last waits until the kernel has undone them: this process, when it
    /// ends, and not the init, whose end is waited for.
    mounts: Option<File>,
    jobs: BTreeMap<u32, Job>,
    ended: Ended,
    inside: Inside,
    copies: BTreeMap<u32, copies::Asked>,
    next_copy: u32,
    /// The clients that wait for Idle, in the order in which they asked.
    idle_askers: VecDeque<u64>,
    /// wshd has yet to tell what an iomux that died has left.
    adopting: bool,
    scratch: Scratch,
    gone: bool,
}

impl Supervisor {
    /// Prepares; `control` is a client from the start.
    pub(crate) fn new(
        layout: Layout,
        inside: Inside,
        listener: PacketListener,
        control: Option<PacketSocket>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&listener, Token::Listener.into(), Interest::Read)?;
        let mut supervisor = Self {
            epoll,
            layout,
            listener,
            clients: BTreeMap::new(),
            next_client: 0,
            init: None,
            mounts: None,
            jobs: BTreeMap::new(),
            ended: Ended::default(),
            inside,
            copies: BTreeMap::new(),
            next_copy: 0,
            idle_askers: VecDeque::new(),
            adopting: false,
            scratch: Scratch::new(CHUNK),
            gone: false,
        };
        if let Some(control) = control {
            supervisor.add_client(control)?.greet();
        }
        Ok(supervisor)
    }

    /// Takes the container's init and a connection to it.
    pub(crate) fn take_init(&mut self, init: &Init, socket: PacketSocket) -> io::Result<()> {
        self.hold_mounts(init);
        self.init = Some(InitLink::new(init, socket, &self.epoll)?);
        Ok(())
    }

    /// Tells the clients, at once, that the init has its namespaces: they need not wait for the rest to connect it.
    pub(crate) fn announce(&mut self, init_pid: i32) {
        self.tell(&Event::Born { init_pid });
        self.flush();
    }

    /// Keeps the init's mount namespace. Without it the container's end takes longer, and nothing else.
    fn hold_mounts(&mut self, init: &Init) {
        self.mounts = File::open(format!("/proc/{}/ns/mnt", init.pid)).ok();
    }

    /// Tells the clients that there will be no container.
    pub(crate) fn report_setup_failure(&mut self, error: &SetupError) {
        self.tell(&Event::SetupFailed {
            step: error.step.as_str().into(),
            object: error.object.clone(),
            errno: error.errno,
        });
        self.say_farewell();
    }

    /// Supervises until the container is gone; fails only when waiting itself fails.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.gone {
            self.flush();
            for ready in self.epoll.wait(None)? {
                self.handle(ready.token.into());
            }
        }
        self.say_farewell();
        Ok(())
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Listener => self.accept(),
            Token::Init => self.hear_init(),
            Token::InitEnded => self.bury_init(),
            Token::Client(client) => self.hear(client),
            Token::Copy(copy, side) => self.hear_copy(copy, side),
            Token::Stream(job, channel) => self.advance(job, channel),
        }
    }

    // Clients

    fn accept(&mut self) {
        let Ok(socket) = self.listener.accept() else { return };
        if self.clients.len() < MAX_CLIENTS
            && let Err(error) = self.add_client(socket)
        {
            note(format_args!("iomux: take a client: {error}"));
        }
    }

    fn add_client(&mut self, socket: PacketSocket) -> io::Result<&mut Client> {
        let number = self.next_client;
        let client = Client::new(socket, &self.epoll, Token::Client(number).into())?;
        self.next_client += 1;
        Ok(self.clients.entry(number).or_insert(client))
    }

    fn hear(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        match client.connection.receive::<Request>(MAX_PACKET) {
            Ok(None) => {}
            Ok(Some((Request::Hello { version }, _))) if !client.greeted => self.greet(number, version),
            Ok(Some((request, fds))) if client.greeted => self.obey(number, request, fds),
            Ok(Some(_)) | Err(_) => client.lost = true,
        }
    }

    fn greet(&mut self, number: u64, version: u32) {
        self.settle(number);
        self.introduce(number, version);
    }

    /// Does what other clients have asked for already: a daemon that follows one that died must be told of it.
    fn settle(&mut self, newcomer: u64) {
        let others: Vec<u64> = self.clients.keys().copied().filter(|number| *number != newcomer).collect();
        for number in others {
            for _ in 0..REQUESTS_AT_ONCE {
                let Some(client) = self.clients.get_mut(&number).filter(|client| !client.lost) else { break };
                match client.connection.receive::<Request>(MAX_PACKET) {
                    Ok(None) => break,
                    Ok(Some((Request::Hello { version }, _))) if !client.greeted => {
                        self.introduce(number, version);
                    }
                    Ok(Some((request, fds))) if client.greeted => self.obey(number, request, fds),
                    Ok(Some(_)) | Err(_) => client.lost = true,
                }
            }
        }
    }

    /// Answers a Hello and tells what there is.
    fn introduce(&mut self, number: u64, version: u32) {
        self.ended.forget_removed(&self.layout);
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.greeted = true;
        // The control client listens from the start and has missed nothing.
        let informed = client.listening;
        if !informed {
            client.greet();
        }
        if !VERSIONS.contains(&version) {
            client.lost = true;
            client.listening = false;
        }
        if informed || client.lost {
            return;
        }
        for (job, exit) in self.ended.iter() {
            client.tell(&Event::Ended { job, exit });
        }
        for (job, state) in self.jobs.iter().filter(|(_, state)| state.spawned) {
            let (stdout, stderr) = state.lengths();
            client.tell(&Event::Output { job: *job, stdout, stderr });
        }
        if let Some(init_pid) = self.init.as_ref().and_then(InitLink::ready_pid) {
            client.tell(&Event::Ready { init_pid });
        }
    }

    fn obey(&mut self, client: u64, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Hello { .. } => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.lost = true;
                }
            }
            Request::Spawn { job, process, output } => {
                if let Err((step, errno)) = self.spawn(job, process, &output, fds) {
                    self.tell(&Event::SpawnFailed { job, step, errno });
                }
            }
            Request::SignalAll { signal } => {
                self.idle_askers.push_back(client);
                self.ask_init(&inside::Request::SignalAll { signal }, Vec::new());
            }
            Request::Furnish => self.furnish(),
            Request::Copy(order) => self.start_copy(client, &order),
            Request::CancelCopy { copy } => self.cancel_copy(client, copy),
            Request::Kill => self.kill_init(),
        }
    }

    fn tell(&mut self, event: &Event) {
        for client in self.clients.values_mut() {
            client.tell(event);
        }
    }

    fn flush_init(&mut self) {
        if let Some(init) = &mut self.init
            && init.flush(&self.epoll).is_err()
        {
            self.kill_init();
        }
    }

    fn flush(&mut self) {
        self.flush_init();
        let (epoll, jobs) = (&self.epoll, &self.jobs);
        let lengths = |job| jobs.get(&job).map(Job::lengths);
        let before = self.clients.len();
        self.clients.retain(|_, client| client.flush(epoll, lengths).is_ok() && !client.lost);
        if self.clients.len() < before {
            self.cancel_copies_of_nobody();
        }
    }

    /// Waits a while until every client has taken its last events.
    fn say_farewell(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        loop {
            // Unread requests would make the kernel tell the client of a broken connection.
            self.clients.values_mut().for_each(Client::ignore);
            self.flush();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.clients.values().all(|client| client.connection.is_flushed()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    // The init

    fn ask_init(&mut self, request: &inside::Request, fds: Vec<OwnedFd>) {
        let Some(init) = &mut self.init else { return };
        if init.send(request, fds).is_err() {
            self.kill_init();
        }
    }

    /// Kills wshd and, by that, every process inside; its end is told by the pidfd.
    fn kill_init(&mut self) {
        if let Some(init) = &self.init
            && let Err(error) = process::kill_by_pidfd(init.pidfd())
        {
            note(format_args!("iomux: kill the container's init: {error}"));
        }
    }

    fn hear_init(&mut self) {
        for _ in 0..REPLIES_PER_TURN {
            let Some(init) = &mut self.init else { return };
            match init.receive() {
                Ok(None) => return,
                Ok(Some((reply, fds))) => self.learn(reply, fds),
                Err(error) => {
                    // Its end is the ordinary one. Without this connection no job's end would ever be known.
                    if error.kind() != io::ErrorKind::UnexpectedEof {
                        note(format_args!("iomux: hear the container's init: {error}"));
                    }
                    init.hang_up();
                    self.kill_init();
                    return;
                }
            }
        }
    }

    fn learn(&mut self, reply: inside::Reply, fds: Vec<OwnedFd>) {
        match reply {
            inside::Reply::Hello { version } => {
                if !inside::VERSIONS.contains(&version) {
                    note(format_args!("iomux: the container's init speaks version {version}"));
                    self.kill_init();
                } else if !self.adopting {
                    self.become_ready();
                }
            }
            inside::Reply::Told => self.finish_adoption(),
            inside::Reply::Spawned { job, .. } => {
                failpoint::reach("spawned");
                self.begin(job, fds);
            }
            inside::Reply::SpawnFailed { job, step, errno } => {
                if self.jobs.remove(&job).is_some() {
                    job::remove(&self.layout, job);
                    self.tell(&Event::SpawnFailed { job, step: Step::Inside(step), errno });
                }
            }
            inside::Reply::Exited { job, status } => {
                failpoint::reach("exited");
                self.end(job, Some(status));
            }
            inside::Reply::Idle => {
                let asker = self.idle_askers.pop_front();
                if let Some(client) = asker.and_then(|asker| self.clients.get_mut(&asker)) {
                    client.tell(&Event::Idle);
                }
            }
        }
    }

    /// The init has ended, and with it every process inside.
    fn bury_init(&mut self) {
        let Some(init) = self.init.take() else { return };
        while let Ok(Some((reply, fds))) = init.receive() {
            self.learn(reply, fds);
        }
        self.end_copies();
        // Not our child where it was taken over.
        let ending = process::wait(init.pidfd());
        if init.ready_pid().is_none() && !self.adopting {
            note(format_args!("iomux: the container's init ended before it served: {ending:?}"));
            let object = match ending {
                Ok(process::Ending::Code(code)) => format!("the init, which ended with status {code}"),
                Ok(process::Ending::Signal(signal)) => format!("the init, which signal {signal} killed"),
                Err(_) => "the init".to_owned(),
            };
            self.tell(&Event::SetupFailed {
                step: "run".into(),
                object: object.as_str().into(),
                errno: ECHILD,
            });
        }
        self.end_all();
    }

    fn become_ready(&mut self) {
        if let Some(init) = &mut self.init {
            let init_pid = init.become_ready();
            self.tell(&Event::Ready { init_pid });
        }
    }

    /// Ends every job, and the container.
    fn end_all(&mut self) {
        let numbers: Vec<u32> = self.jobs.keys().copied().collect();
        for number in numbers {
            if self.jobs.get(&number).is_some_and(|job| job.spawned) {
                self.end(number, None);
            } else {
                self.jobs.remove(&number);
                job::remove(&self.layout, number);
                self.tell(&Event::SpawnFailed { job: number, step: Step::Init, errno: ESRCH });
            }
        }
        self.tell(&Event::Gone);
        self.gone = true;
    }
}

const ESRCH: i32 = 3;
const ECHILD: i32 = 10;
