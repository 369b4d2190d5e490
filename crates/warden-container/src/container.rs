//! One container, as its clients' requests see it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use warden_copy::Totals;
use warden_init::byte_string::ByteString;
use warden_iomux::message::CopyOrder;

use crate::actor::{Actor, Command};
use crate::admission::{Operation, admit};
use crate::copies::CancelOnDrop;
use crate::disk;
use crate::error::{Context, Error, blocking};
use crate::id::Id;
use crate::info::Info;
use crate::job::Job;
use crate::limits;
use crate::network::PortMapping;
use crate::owner;
use crate::recovery::Adoption;
use crate::request::{self, Bandwidth, Copy, Cpu, Direction, NetIn, NetOut, Run, Stop};
use crate::shared::Shared;
use crate::stdin;
use crate::supervisor::Supervisor;

/// How long starting a job may take.
const SPAWN_TIME: Duration = Duration::from_secs(30);
/// Requests that wait for the actor; further ones wait with their clients.
const INBOX: usize = 64;

/// A container; the requests on it are answered by its actor.
#[derive(Debug)]
pub struct Container {
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Command>,
}

impl Container {
    /// Gives a container that stands to its actor: it is active.
    pub(crate) fn launch(shared: Arc<Shared>, supervisor: Supervisor) -> Arc<Self> {
        let (inbox, commands) = mpsc::channel(INBOX);
        tokio::spawn(Actor::new(Arc::clone(&shared), supervisor, commands).run());
        Arc::new(Self { shared, inbox })
    }

    /// Gives a container that an earlier daemon has made to an actor.
    pub(crate) fn adopt(shared: Arc<Shared>, adoption: Adoption) -> Arc<Self> {
        let (inbox, commands) = mpsc::channel(INBOX);
        tokio::spawn(Actor::adopt(Arc::clone(&shared), adoption, commands).run());
        Arc::new(Self { shared, inbox })
    }

    /// Gives a container that an earlier daemon could not destroy to an actor, which tries again.
    pub(crate) fn quarantined(shared: Arc<Shared>) -> Arc<Self> {
        let (inbox, commands) = mpsc::channel(INBOX);
        tokio::spawn(Actor::quarantined(Arc::clone(&shared), commands).run());
        Arc::new(Self { shared, inbox })
    }

    /// Has its actor panic.
    #[cfg(test)]
    pub(crate) async fn panic(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Panic { reply }, answer).await?
    }

    /// A container whose actor a fault has ended.
    #[cfg(test)]
    pub(crate) fn without_actor(shared: Arc<Shared>) -> Self {
        Self { shared, inbox: mpsc::channel(1).0 }
    }

    /// Its id.
    pub fn id(&self) -> Id {
        self.shared.id
    }

    /// Its place in the order in which containers were handed out.
    pub(crate) fn birth(&self) -> u64 {
        self.shared.birth
    }

    /// Its handle.
    pub fn handle(&self) -> &[u8] {
        &self.shared.handle
    }

    /// Tells its state (active or stopped containers only).
    pub async fn info(&self) -> Result<Info, Error> {
        admit(self.shared.state(), Operation::Info)?;
        let info = self.look().await;
        self.shared.settle().await;
        Ok(info)
    }

    /// Tells its state whatever it is: the last one known when it is gone, or going.
    pub async fn last_info(&self) -> Info {
        let obituary = self.shared.obituary();
        let info = match obituary {
            Some(info) => info,
            None => self.look().await,
        };
        self.shared.settle().await;
        info
    }

    /// Looks at all of it; the kernel may let who asks for its limits of bandwidth wait.
    async fn look(&self) -> Info {
        let mut info = self.shared.look();
        if self.shared.limits.requested().bandwidth.is_some() {
            let shared = Arc::clone(&self.shared);
            match blocking(move || shared.look_at_bandwidth()).await {
                Ok(stat) => info.bandwidth = stat,
                Err(error) => {
                    tracing::warn!(container = %self.shared.id, %error, "the limits of bandwidth are not known");
                }
            }
        }
        info
    }

    /// Starts a job.
    pub async fn spawn(&self, run: Run) -> Result<Arc<Job>, Error> {
        self.shared.admit(Operation::Spawn)?;
        let _busy = self.shared.machine.activity.begin();
        let (run, stdin) = prepare_stdin(run).await?;
        let (reply, answer) = oneshot::channel();
        let asked = self.ask(Command::Spawn { run, stdin, reply }, answer);
        match tokio::time::timeout(SPAWN_TIME, asked).await {
            Ok(answer) => answer?,
            Err(_) => Err(Error::TimedOut {
                action: format!("starting a job in container {}", self.shared.id),
                seconds: SPAWN_TIME.as_secs(),
            }),
        }
    }

    /// Finds a job, or refuses with "no such job".
    pub async fn job(&self, id: u32) -> Result<Arc<Job>, Error> {
        admit(self.shared.state(), Operation::Link)?;
        self.shared.jobs.get(id).ok_or(Error::NoSuchJob)
    }

    /// Copies files in or out, and tells how much; one that is waited for no more is cancelled.
    pub async fn copy(&self, copy: Copy) -> Result<Totals, Error> {
        let operation = match copy.direction {
            Direction::In => Operation::CopyIn,
            Direction::Out => Operation::CopyOut,
        };
        self.shared.admit(operation)?;
        let owner = match copy.owner {
            None => None,
            Some(text) => Some(owner::find(text).await?),
        };
        let number = self.shared.next_copy();
        let order = CopyOrder {
            copy: number,
            direction: copy.direction,
            source: ByteString(copy.source),
            target: ByteString(copy.target),
            owner,
        };
        let _cancel = CancelOnDrop { number, inbox: self.inbox.clone() };
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Copy { order, reply }, answer).await?
    }

    /// Limits its memory and swap together, or only reads the limit; gives it as the kernel keeps it, bytes.
    pub async fn limit_memory(&self, bytes: Option<u64>) -> Result<u64, Error> {
        self.shared.admit(Operation::Limit)?;
        limits::memory(Arc::clone(&self.shared), self.inbox.clone(), bytes).await
    }

    /// Limits its processor time, or only reads the limits; gives them as the kernel keeps them.
    pub async fn limit_cpu(&self, asked: Cpu) -> Result<Cpu, Error> {
        self.shared.admit(Operation::Limit)?;
        limits::cpu(Arc::clone(&self.shared), asked).await
    }

    /// Limits what it stores, or only reads the limits; gives them as the kernel keeps them, or nothing where none are.
    pub async fn limit_disk(&self, asked: request::Disk) -> Result<Option<disk::Limits>, Error> {
        self.shared.admit(Operation::Limit)?;
        limits::disk(Arc::clone(&self.shared), asked).await
    }

    /// Limits its bandwidth in both directions.
    pub async fn limit_bandwidth(&self, asked: Bandwidth) -> Result<(), Error> {
        self.shared.admit(Operation::Limit)?;
        limits::bandwidth(Arc::clone(&self.shared), asked).await
    }

    /// Forwards a port of the host to it; answers the host's port and its own.
    pub async fn net_in(&self, request: NetIn) -> Result<(u16, u16), Error> {
        self.shared.admit(Operation::NetIn)?;
        let (shared, protocol) = (Arc::clone(&self.shared), request.protocol);
        blocking(move || {
            let (network, id) = (&shared.machine.network, shared.id);
            shared.change(
                || network.net_in(id, request),
                |&(host_port, container_port)| {
                    network.withdraw_port(id, PortMapping { protocol, host_port, container_port })
                },
            )
        })
        .await
    }

    /// Lets it reach something more.
    pub async fn net_out(&self, request: NetOut) -> Result<(), Error> {
        self.shared.admit(Operation::NetOut)?;
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let (network, id) = (&shared.machine.network, shared.id);
            shared.change(|| network.net_out(id, &request), |()| network.withdraw_rule(id, &request))
        })
        .await
    }

    /// Ends all its jobs; answers when none runs any more, or at once when that is asked for.
    pub async fn stop(&self, stop: Stop) -> Result<(), Error> {
        self.shared.admit(Operation::Stop)?;
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Stop { stop, reply }, answer).await?
    }

    /// Ends it and all it owns; whoever asks meanwhile gets the same answer.
    pub async fn destroy(&self) -> Result<(), Error> {
        self.shared.machine.check_open()?;
        let _busy = self.shared.machine.activity.begin();
        let (reply, answer) = oneshot::channel();
        match self.ask(Command::Destroy { reply }, answer).await {
            Ok(outcome) => outcome,
            Err(_) => self.clear_without_actor().await,
        }
    }

    /// Asks the actor and waits for its answer.
    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<T, Error>>,
    ) -> Result<Result<T, Error>, Error> {
        // What cannot be sent is dropped, with its reply: the answer says so.
        let _ = self.inbox.send(command).await;
        answer.await.map_err(|_| self.why_no_answer())
    }

    /// An actor without an answer has ended with its container, or was ended by a fault of ours.
    fn why_no_answer(&self) -> Error {
        match admit(self.shared.state(), Operation::Info) {
            Err(refusal) => refusal,
            Ok(()) => Error::Failed {
                action: format!("asking container {}", self.shared.id),
                source: io::Error::from(io::ErrorKind::BrokenPipe),
            },
        }
    }

    /// Destroys what is left of a container whose actor is no more.
    async fn clear_without_actor(&self) -> Result<(), Error> {
        let _alone = self.shared.clearing.lock().await;
        if self.shared.is_gone() {
            return Ok(());
        }
        self.shared.write_obituary();
        self.shared.jobs.keep_files_of_held();
        self.shared.jobs.measure();
        self.shared.jobs.end_all();
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.machine.clear(shared.id)).await?;
        self.shared.gone();
        Ok(())
    }
}

/// Turns the script into a descriptor; a large one off the async threads.
async fn prepare_stdin(mut run: Run) -> Result<(Run, std::os::fd::OwnedFd), Error> {
    let script = std::mem::take(&mut run.script);
    let action = || "storing the script".to_owned();
    let stdin = if script.len() <= stdin::PIPE_CAPACITY {
        stdin::of(&script).context(action)?
    } else {
        blocking(move || stdin::of(&script).context(action)).await?
    };
    Ok((run, stdin))
}
