//! wsh's loop: what wshd says, what signals tell, and what is to be relayed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use warden_linux::epoll::{Epoll, Interest, Ready};
use warden_linux::signal::Signals;
use warden_linux::socket::PacketSocket;
use warden_linux::terminal::{self, RawMode};
use warden_linux::{file, process};

use super::failure::Failure;
use super::pump::{Direction, Flow, Pump};
use super::stdio::Stdio;
use super::{NO_STATUS, SIGCONT, SIGWINCH};
use crate::connection::Connection;
use crate::message::{MAX_PACKET, Process, Reply, Request, SpawnStep, VERSION, VERSIONS, WaitStatus};

/// Requests that wait for wshd.
const MAX_QUEUE: usize = 16;

/// Job numbers below are the daemon's.
const FIRST_JOB: u32 = 1 << 31;

const EEXIST: i32 = 17;

const INIT: u64 = 0;
const SIGNAL: u64 = 1;
const FIRST_PUMP: u64 = 2;

/// What the loop is woken by.
enum Event {
    Init,
    Signal,
    Pump(usize),
}

impl From<Ready> for Event {
    fn from(ready: Ready) -> Self {
        match ready.token {
            INIT => Self::Init,
            SIGNAL => Self::Signal,
            pump => Self::Pump((pump - FIRST_PUMP) as usize),
        }
    }
}

/// The operator's terminal and the one in the container.
struct Window {
    /// Restores the operator's when it is dropped.
    raw: RawMode,
    operator: OwnedFd,
    master: OwnedFd,
}

impl Window {
    /// Passes the operator's size on.
    fn resize(&self) {
        // A terminal that is gone is told by its pump.
        let _ = terminal::size(&self.operator).and_then(|size| terminal::set_size(&self.master, size));
    }
}

/// A conversation with wshd.
pub(super) struct Session {
    epoll: Epoll,
    signals: Signals,
    init: Connection,
    pumps: Vec<Option<Pump>>,
    window: Option<Window>,
}

impl Session {
    /// Greets the wshd that listens at a path.
    pub(super) fn open(path: &Path, signals: Signals) -> Result<Self, Failure> {
        let socket = PacketSocket::connect(path).map_err(Failure::connect(path))?;
        let prepare = || -> io::Result<Self> {
            let epoll = Epoll::new()?;
            epoll.add(&signals, SIGNAL, Interest::Read)?;
            let mut init = Connection::new(socket, &epoll, INIT, MAX_QUEUE)?;
            init.send(&Request::Hello { version: VERSION }, Vec::new())?;
            Ok(Self { epoll, signals, init, pumps: Vec::new(), window: None })
        };
        let mut session = prepare().map_err(Failure::io("prepare to talk to wshd"))?;
        match session.wait_for_reply()? {
            (Reply::Hello { version }, _) if VERSIONS.contains(&version) => Ok(session),
            (Reply::Hello { version }, _) => Err(Failure::Version(version)),
            _ => Err(Failure::Lost),
        }
    }

    /// Runs a process to its end and gives its exit status.
    pub(super) fn run(mut self, process: &Process, stdio: Stdio) -> Result<u8, Failure> {
        let job = match stdio {
            Stdio::Terminal => self.start_in_terminal(process)?,
            Stdio::Given { inside, pumps } => {
                let (job, _) = self.start(process, None, &inside)?;
                drop(inside);
                forget_stdio().map_err(Failure::io("let go of standard input and output"))?;
                self.pumps = pumps.into_iter().map(Some).collect();
                job
            }
        };
        self.watch_pumps().map_err(Failure::io("wait for the terminal"))?;
        let status = self.relay(job)?;
        self.pumps.iter_mut().flatten().for_each(Pump::finish);
        // Where this is not taken, the end of the connection says the same.
        let _ = self.init.send(&Request::Release { job }, Vec::new());
        let _ = self.init.flush(&self.epoll);
        Ok(match status {
            WaitStatus::Code(code) => code,
            WaitStatus::Signal(_) => NO_STATUS,
        })
    }

    // The start

    fn start_in_terminal(&mut self, process: &Process) -> Result<u32, Failure> {
        let failed = || Failure::io("use the terminal");
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let wanted = super::terminal(terminal::size(&stdin).map_err(failed())?);
        let (job, fds) = self.start(process, Some(wanted), &[])?;
        let [master] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Failure::Lost)?;
        let open = || -> io::Result<()> {
            file::set_nonblocking(&master)?;
            let operator = stdin.as_fd().try_clone_to_owned()?;
            let raw = RawMode::enter(operator.try_clone()?)?;
            self.pumps = vec![
                Some(Pump::new(operator.try_clone()?, master.try_clone()?, Direction::Inward)),
                Some(Pump::new(
                    master.try_clone()?,
                    stdout.as_fd().try_clone_to_owned()?,
                    Direction::Outward,
                )),
            ];
            let window = self.window.insert(Window { raw, operator, master });
            // It may have changed since it was asked.
            window.resize();
            Ok(())
        };
        open().map_err(failed())?;
        Ok(job)
    }

    /// Has a process started; gives its job's number and the descriptors that came with the answer.
    fn start(
        &mut self,
        process: &Process,
        terminal: Option<crate::message::Terminal>,
        inside: &[OwnedFd],
    ) -> Result<(u32, Vec<OwnedFd>), Failure> {
        loop {
            let job = random_job().map_err(Failure::io("read /dev/urandom"))?;
            let (process, terminal) = (process.clone(), terminal.clone());
            let failed = || Failure::io("ask wshd");
            let fds = inside.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>().map_err(failed())?;
            let (user, program) = (process.user.clone(), process.program.clone());
            let request = Request::SpawnAttached { job, process, terminal };
            self.init.send(&request, fds).map_err(failed())?;
            match self.wait_for_reply()? {
                (Reply::Spawned { .. }, fds) => return Ok((job, fds)),
                (Reply::SpawnFailed { step: SpawnStep::Request, errno: EEXIST, .. }, _) => {}
                (Reply::SpawnFailed { step, errno, .. }, _) => {
                    return Err(Failure::Start { step, user, program, errno });
                }
                _ => return Err(Failure::Lost),
            }
        }
    }

    /// The answer to what was asked. What wshd says of other jobs is none of ours.
    fn wait_for_reply(&mut self) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        loop {
            self.init.flush(&self.epoll).map_err(lost)?;
            for ready in self.epoll.wait(None).map_err(Failure::io("wait for wshd"))? {
                match ready.into() {
                    Event::Init => match self.init.receive::<Reply>(MAX_PACKET).map_err(lost)? {
                        Some((Reply::Spawned { job, .. } | Reply::Exited { job, .. }, _))
                            if job < FIRST_JOB => {}
                        Some((Reply::Told, _)) => {}
                        Some((reply, fds)) => return Ok((reply, fds)),
                        None => {}
                    },
                    Event::Signal | Event::Pump(_) => self.obey_signals()?,
                }
            }
        }
    }

    // The relay

    fn watch_pumps(&self) -> io::Result<()> {
        for (token, pump) in (FIRST_PUMP..).zip(&self.pumps) {
            pump.as_ref().map_or(Ok(()), |pump| pump.watch(&self.epoll, token))?;
        }
        Ok(())
    }

    /// Relays until the job has ended.
    fn relay(&mut self, job: u32) -> Result<WaitStatus, Failure> {
        loop {
            for ready in self.epoll.wait(None).map_err(Failure::io("wait"))? {
                match ready.into() {
                    Event::Init => match self.init.receive::<Reply>(MAX_PACKET).map_err(lost)? {
                        Some((Reply::Exited { job: ended, status }, _)) if ended == job => return Ok(status),
                        Some(_) | None => {}
                    },
                    Event::Signal => self.obey_signals()?,
                    Event::Pump(number) => self.advance(number)?,
                }
            }
        }
    }

    fn obey_signals(&self) -> Result<(), Failure> {
        while let Some(signal) = self.signals.next() {
            match (signal, &self.window) {
                (SIGWINCH, Some(window)) => window.resize(),
                (SIGCONT, Some(window)) => {
                    window.raw.enter_again().map_err(Failure::io("use the terminal"))?;
                    window.resize();
                }
                (SIGWINCH | SIGCONT, None) => {}
                (signal, _) => return Err(Failure::Interrupted(signal)),
            }
        }
        Ok(())
    }

    fn advance(&mut self, number: usize) -> Result<(), Failure> {
        let Some(Some(pump)) = self.pumps.get_mut(number) else { return Ok(()) };
        let failed = || Failure::io("relay the terminal");
        let flow = pump.advance(&self.epoll, FIRST_PUMP + number as u64).map_err(failed())?;
        // In raw mode no key ends the input; in a pipe's place its end is the job's end of file.
        let hung_up =
            flow == Flow::OperatorEnded && (self.window.is_some() || pump.direction() == Direction::Outward);
        match flow {
            Flow::Going => Ok(()),
            _ if hung_up => Err(Failure::HungUp),
            Flow::OperatorEnded | Flow::JobEnded => {
                pump.unwatch(&self.epoll).map_err(failed())?;
                self.pumps[number] = None;
                Ok(())
            }
        }
    }
}

/// The connection failed: wshd is gone, and the container with it.
fn lost(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            Failure::Lost
        }
        _ => Failure::io("talk to wshd")(error),
    }
}

/// Lets go of stdin and stdout, which are the job's now: when it closes them, their other ends shall see that.
fn forget_stdio() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    process::place(null.as_fd(), 0)?;
    process::place(null.as_fd(), 1)
}

/// A number that neither the daemon nor, in all likelihood, another wsh uses.
fn random_job() -> io::Result<u32> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u32::from_ne_bytes(bytes) | FIRST_JOB)
}
