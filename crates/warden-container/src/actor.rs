//! The task that owns one container: commands, what iomux says, and timers go in; nothing in here waits for a job, a
//! stop or a destruction. The states are drawn in [`crate::state`]; how jobs are started is in [`crate::starting`], how they
//! are stopped in [`crate::stopping`], how the container ends in [`crate::ending`]; what is done when iomux or the init ends
//! by itself is in [`crate::loss`].

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use warden_copy::Totals;
use warden_iomux::message::{CopyOrder, Event, Request};

use crate::cgroup::oom::{Alarm, Watch};
use crate::copies::Copies;
use crate::ending::Ending;
use crate::error::{Context, Error};
use crate::job::Job;
use crate::link::{Link, Lost};
use crate::out_of_memory;
use crate::process::Process;
use crate::recovery::Adoption;
use crate::request::{Run, Stop};
use crate::shared::Shared;
use crate::starting::Starts;
use crate::state::State;
use crate::stopping::Stopping;
use crate::supervisor::Supervisor;
use crate::take_over::TakeOver;

/// Answers one request.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A request that the actor answers.
#[derive(Debug)]
pub(crate) enum Command {
    Spawn {
        run: Run,
        stdin: OwnedFd,
        reply: Reply<Arc<Job>>,
    },
    Stop {
        stop: Stop,
        reply: Reply<()>,
    },
    Destroy {
        reply: Reply<()>,
    },
    Copy {
        order: CopyOrder,
        reply: Reply<Totals>,
    },
    CancelCopy {
        number: u32,
    },
    Watch {
        watch: Watch,
    },
    /// A fault of ours.
    #[cfg(test)]
    Panic {
        reply: Reply<()>,
    },
}

/// The owner of one container.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) shared: Arc<Shared>,
    inbox: mpsc::Receiver<Command>,
    /// iomux, as long as it can be heard.
    pub(crate) link: Option<Link>,
    /// iomux, until it is reaped.
    pub(crate) process: Option<Process>,
    /// The container's init; 0 where there is none.
    pub(crate) init: i32,
    /// Another iomux, in the place of one that has died.
    pub(crate) take_over: Option<TakeOver>,
    /// How many iomuxes were not understood.
    pub(crate) misunderstood: u32,
    pub(crate) starting: Starts,
    pub(crate) copies: Copies,
    /// Its memory, from the first limit of it to its end.
    pub(crate) alarm: Option<Alarm>,
    pub(crate) stopping: Option<Stopping>,
    /// Nothing runs inside but wshd, or not even that; no job is started any more.
    pub(crate) idle: bool,
    pub(crate) ending: Option<Ending>,
    pub(crate) finished: bool,
}

/// What the actor reacts to.
enum Occurrence {
    /// A request; none when nobody can ask any more.
    Command(Option<Command>),
    Event(Result<Event, Lost>),
    /// iomux has ended.
    Exited,
    /// Another iomux is there, or none.
    TakenOver(Result<Supervisor, Error>),
    /// The memory has run out, or cannot be watched any more.
    OutOfMemory(io::Result<()>),
    /// All the container owned is removed, or not.
    Cleared(Result<(), Error>),
    Deadline,
}

impl Actor {
    /// Takes over a container that stands.
    pub(crate) fn new(shared: Arc<Shared>, supervisor: Supervisor, inbox: mpsc::Receiver<Command>) -> Self {
        let Supervisor { link, process, init, .. } = supervisor;
        Self { link: Some(link), process: Some(process), init, ..Self::without_supervisor(shared, inbox) }
    }

    /// Takes over a container that cannot be destroyed.
    pub(crate) fn quarantined(shared: Arc<Shared>, inbox: mpsc::Receiver<Command>) -> Self {
        let mut actor = Self::without_supervisor(shared, inbox);
        actor.go_on_ending();
        actor
    }

    fn without_supervisor(shared: Arc<Shared>, inbox: mpsc::Receiver<Command>) -> Self {
        Self {
            shared,
            inbox,
            link: None,
            process: None,
            init: 0,
            take_over: None,
            misunderstood: 0,
            starting: Starts::default(),
            copies: Copies::default(),
            alarm: None,
            stopping: None,
            idle: false,
            ending: None,
            finished: false,
        }
    }

    /// Takes over a container that an earlier daemon has made, and goes on with what that had begun.
    pub(crate) fn adopt(shared: Arc<Shared>, adoption: Adoption, inbox: mpsc::Receiver<Command>) -> Self {
        let Adoption { supervisor, watch, ran_out_of_memory } = adoption;
        let gone = supervisor.told.contains(&Event::Gone);
        let mut actor = Self::new(shared, supervisor, inbox);
        if let Some(watch) = watch {
            actor.watch(watch);
        }
        if gone {
            actor.init_died();
        } else if ran_out_of_memory {
            actor.ran_out_of_memory(Ok(()));
        } else if actor.shared.stopping.load(Ordering::SeqCst) {
            actor.begin_stop(false, None);
        } else {
            actor.idle = actor.shared.state() == State::Stopped;
        }
        actor
    }

    /// Runs until the container is gone, or until nobody can ask for it any more.
    pub(crate) async fn run(mut self) {
        while !self.finished {
            match self.next().await {
                Occurrence::Command(None) => return,
                Occurrence::Command(Some(command)) => self.obey(command),
                Occurrence::Event(Ok(event)) => self.hear(event),
                Occurrence::Event(Err(lost)) => self.hear_no_more(&lost),
                Occurrence::Exited => self.supervisor_exited(),
                Occurrence::TakenOver(outcome) => self.taken_over(outcome),
                Occurrence::OutOfMemory(outcome) => self.ran_out_of_memory(outcome),
                Occurrence::Cleared(outcome) => self.cleared(outcome),
                Occurrence::Deadline => self.deadline_passed(Instant::now()),
            }
        }
    }

    async fn next(&mut self) -> Occurrence {
        let deadline = self.next_deadline();
        let clearing = self.ending.as_mut().and_then(Ending::clearing);
        tokio::select! {
            command = self.inbox.recv(), if self.take_over.is_none() => Occurrence::Command(command),
            event = next_event(self.link.as_mut()) => Occurrence::Event(event),
            () = exit(self.process.as_ref()) => Occurrence::Exited,
            outcome = taken_over(self.take_over.as_mut()) => Occurrence::TakenOver(outcome),
            outcome = out_of_memory::next(self.alarm.as_mut()) => Occurrence::OutOfMemory(outcome),
            outcome = outcome(clearing) => Occurrence::Cleared(outcome),
            () = passing(deadline) => Occurrence::Deadline,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stop = self.stopping.as_ref().map(Stopping::deadline);
        let end = self.ending.as_ref().and_then(Ending::deadline);
        let copy = self.copies.deadline(self.shared.machine.settings.copy_stall_time);
        [stop, end, copy].into_iter().flatten().min()
    }

    fn deadline_passed(&mut self, now: Instant) {
        self.stop_further(now);
        self.end_further(now);
        self.give_up_stalled_copies(now);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Spawn { run, stdin, reply } => self.spawn(run, stdin, reply),
            Command::Stop { stop, reply } => self.stop(stop, reply),
            Command::Destroy { reply } => self.destroy(reply),
            Command::Copy { order, reply } => self.copy(order, reply),
            Command::Watch { watch } => self.watch(watch),
            #[cfg(test)]
            Command::Panic { reply } => panic!("as a test wants it, with {reply:?}"),
            Command::CancelCopy { number } => self.cancel_copy(number),
        }
    }

    /// Sends a request that has no descriptor; a socket that is gone is noticed where it is read.
    pub(crate) fn send(&mut self, request: &Request) {
        if let Some(link) = &mut self.link
            && let Err(error) = link.send(request, None)
        {
            tracing::warn!(container = %self.shared.id, %error, "a request to iomux was dropped");
        }
    }

    pub(crate) fn hear(&mut self, event: Event) {
        match event {
            Event::Spawned { job } => self.job_started(job),
            Event::SpawnFailed { job, step, errno } => self.job_refused(job, step, errno),
            Event::Output { job, stdout, stderr } => {
                self.job_is_known(job);
                if let Some(job) = self.shared.jobs.get(job) {
                    job.grow(stdout, stderr);
                }
            }
            Event::Ended { job, exit } => {
                self.job_is_known(job);
                self.job_ended(job, exit);
            }
            Event::CopyProgress { copy, totals } => self.copy_progressed(copy, totals),
            Event::CopyEnded { copy, totals, failure } => self.copy_ended(copy, totals, failure),
            Event::Idle => self.became_idle(),
            Event::Gone => self.init_died(),
            Event::Hello { .. }
            | Event::Born { .. }
            | Event::Ready { .. }
            | Event::SetupFailed { .. }
            | Event::Furnished
            | Event::NotFurnished { .. } => {
                self.hear_no_more(&Lost::Garbage(format!("{event:?} twice")));
            }
        }
    }
}

async fn next_event(link: Option<&mut Link>) -> Result<Event, Lost> {
    match link {
        Some(link) => link.next().await,
        None => pending().await,
    }
}

async fn exit(process: Option<&Process>) {
    match process {
        Some(process) => process.end().await,
        None => pending().await,
    }
}

async fn taken_over(take_over: Option<&mut TakeOver>) -> Result<Supervisor, Error> {
    match take_over {
        Some(task) => task.await.map_err(io::Error::other).context(|| "replacing iomux".to_owned())?,
        None => pending().await,
    }
}

async fn outcome(clearing: Option<&mut tokio::task::JoinHandle<Result<(), Error>>>) -> Result<(), Error> {
    match clearing {
        Some(task) => task.await.map_err(io::Error::other).context(|| "removing a container".to_owned())?,
        None => pending().await,
    }
}

async fn passing(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
