//! The task that owns one container: commands, what iomux says, and timers go in; nothing in here waits for a job, a
//! stop or a destruction. The states are drawn in [`crate::state`]; how it is stopped
//! is in [`crate::stopping`], how it ends in [`crate::ending`].

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use warden_copy::Totals;
use warden_init::byte_string::ByteString;
use warden_init::message::{Process as Program, SpawnStep};
use warden_iomux::message::{CopyOrder, Event, Exit, ExitCause, Output, Request, Step, Syslog};

use crate::admission::Operation;
use crate::cgroup::oom::{Alarm, Watch};
use crate::copies::Copies;
use crate::ending::Ending;
use crate::error::{Context, Error};
use crate::image::SHELL;
use crate::job::Job;
use crate::link::{Link, Lost};
use crate::machine::KILL_TIME;
use crate::out_of_memory;
use crate::plan::USER;
use crate::process::Process;
use crate::recovery::Adoption;
use crate::request::{Run, Stop};
use crate::rlimits::{Lowered, lowered};
use crate::shared::Shared;
use crate::state::State;
use crate::stopping::Stopping;
use crate::supervisor::Supervisor;
use crate::take_over::TakeOver;

/// How often a job is asked for.
const MAX_ASKED: u32 = 4;

/// How many iomuxes of one container may say what is not understood before it is ended.
const MAX_MISUNDERSTOOD: u32 = 3;

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
    misunderstood: u32,
    starting: HashMap<u32, Starting>,
    pub(crate) copies: Copies,
    /// Its memory, from the first limit of it to its end.
    pub(crate) alarm: Option<Alarm>,
    pub(crate) stopping: Option<Stopping>,
    /// Nothing runs inside but wshd, or not even that; no job is started any more.
    pub(crate) idle: bool,
    pub(crate) ending: Option<Ending>,
    pub(crate) finished: bool,
}

/// A job that iomux was asked for.
#[derive(Debug)]
struct Starting {
    user: &'static str,
    reply: Reply<Arc<Job>>,
    /// What to ask again, should iomux die before it has done it.
    request: Request,
    stdin: OwnedFd,
    /// How often it was asked.
    asked: u32,
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
            starting: HashMap::new(),
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

    fn spawn(&mut self, run: Run, stdin: OwnedFd, reply: Reply<Arc<Job>>) {
        let user = if run.privileged { "root" } else { USER };
        match self.ask_for_job(run, user, stdin) {
            Ok((job, request, stdin)) => {
                self.starting.insert(job, Starting { user, reply, request, stdin, asked: 1 });
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn ask_for_job(
        &mut self,
        run: Run,
        user: &str,
        stdin: OwnedFd,
    ) -> Result<(u32, Request, OwnedFd), Error> {
        self.shared.admit(Operation::Spawn)?;
        let machine = &self.shared.machine;
        let limit = machine.settings.max_running_jobs;
        if self.starting.len() + self.shared.jobs.running().len() >= limit {
            return Err(Error::TooManyJobs(limit));
        }
        let action = || format!("starting {SHELL} as {user}");
        let link = self.link.as_mut().ok_or(io::ErrorKind::BrokenPipe).context(action)?;
        let job = machine.next_job();
        let settings = &machine.settings;
        let mut rlimits = settings.rlimits.clone();
        rlimits.extend(run.rlimits);
        for Lowered { resource, asked, given } in lowered(rlimits.clone(), settings.ids.is_some()) {
            tracing::warn!(container = %self.shared.id, job, ?resource, asked, given, "a limit of a job cannot be raised so far");
        }
        let process = Program {
            program: SHELL.into(),
            arguments: Vec::new(),
            user: user.into(),
            lang: settings.lang.as_str().into(),
            rlimits: rlimits.into_iter().collect(),
        };
        let log = run
            .log_tag
            .map(|tag| Syslog { tag: ByteString(tag), socket: settings.syslog_socket.as_path().into() });
        let output = Output { limit: settings.job_output_limit, discard: run.discard_output, log };
        let request = Request::Spawn { job, process, output };
        let copy = stdin.try_clone().context(action)?;
        link.send(&request, Some(stdin)).context(action)?;
        Ok((job, request, copy))
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

    fn job_started(&mut self, id: u32) {
        let Some(starting) = self.starting.remove(&id) else {
            // The daemon before asked for it, or it is told once more by an iomux that took over.
            tracing::debug!(container = %self.shared.id, job = id, "iomux tells of a job");
            return;
        };
        tracing::debug!(container = %self.shared.id, job = id, user = starting.user, "job started");
        // Who asked may be gone; the job goes on.
        drop(starting.reply.send(Ok(self.shared.jobs.add(id))));
    }

    /// An iomux that took over knows a job of which the one before could not say that it had started.
    fn job_is_known(&mut self, id: u32) {
        if self.starting.contains_key(&id) {
            self.job_started(id);
        }
    }

    /// Asks again for jobs that an iomux which has died was asked for, and that the next does not know: they were never
    /// started. One that each iomux dies of is given up.
    pub(crate) fn start_again(&mut self) {
        for (job, mut starting) in std::mem::take(&mut self.starting) {
            starting.asked += 1;
            let stdin = starting.stdin.try_clone();
            let sent = match (&mut self.link, stdin) {
                _ if starting.asked > MAX_ASKED => Err(io::Error::other("its supervisor has died each time")),
                (Some(link), Ok(stdin)) => link.send(&starting.request, Some(stdin)),
                (None, _) => Err(io::ErrorKind::BrokenPipe.into()),
                (_, Err(error)) => Err(error),
            };
            match sent {
                Ok(()) => drop(self.starting.insert(job, starting)),
                Err(source) => {
                    let action = format!("starting {SHELL} as {}", starting.user);
                    drop(starting.reply.send(Err(Error::Failed { action, source })));
                }
            }
        }
    }

    fn job_refused(&mut self, id: u32, step: Step, errno: i32) {
        let Some(starting) = self.starting.remove(&id) else {
            // The daemon before asked for it: its directory was there, and is gone.
            self.shared.jobs.end(id, Exit { cause: ExitCause::InitDied, stdout: 0, stderr: 0 });
            self.shared.jobs.forget(id);
            return;
        };
        let failed = || {
            let action = format!("starting {SHELL} as {}: {}", starting.user, words(step));
            Error::Failed { action, source: io::Error::from_raw_os_error(errno) }
        };
        // An init that was killed meanwhile is no fault of the machine.
        let error = if step == Step::Init { self.ended_instead() } else { None };
        drop(starting.reply.send(Err(error.unwrap_or_else(failed))));
    }

    fn job_ended(&mut self, id: u32, exit: Exit) {
        let Some(job) = self.shared.jobs.get(id) else {
            // It was delivered, and its files are being removed.
            tracing::debug!(container = %self.shared.id, job = id, "iomux ended a job that nobody knows");
            return;
        };
        let ended_before = job.now().end.is_some();
        drop(job);
        if ended_before {
            return;
        }
        if exit.cause == ExitCause::OutputLimit {
            self.shared.account_excess(id);
            self.save_later();
        }
        if let ExitCause::OutputFailed(errno) = exit.cause {
            let error = io::Error::from_raw_os_error(errno);
            tracing::error!(container = %self.shared.id, job = id, %error, "the output of a job could not be stored");
        }
        tracing::debug!(container = %self.shared.id, job = id, cause = ?exit.cause, "job ended");
        self.shared.jobs.end(id, exit);
    }

    fn init_died(&mut self) {
        self.link = None;
        self.idle = true;
        self.end_jobs();
        self.end_copies();
        if self.ending.is_none() {
            self.died("init died");
            self.shared.set_state(State::Stopped);
            self.save_later();
        }
        self.stop_ended(Ok(()));
        self.end_after_gone();
    }

    /// Goes on without iomux: nothing that happens inside can be known any more, so nothing may run inside.
    pub(crate) fn lose(&mut self, lost: &Lost) {
        self.link = None;
        self.shared.jobs.measure();
        self.end_jobs();
        self.end_copies();
        if self.ending.is_none() {
            tracing::error!(container = %self.shared.id, error = %lost, "lost iomux");
            self.died("supervisor died");
            self.shared.set_state(State::Stopped);
            self.save_later();
            if let Some(process) = &self.process {
                process.kill();
            }
            self.kill_processes();
        }
        let error = self.no_supervisor("stopping");
        self.stop_ended(Err(error));
        self.end_after_loss();
    }

    fn died(&mut self, event: &str) {
        tracing::error!(container = %self.shared.id, event, "the container has ended by itself");
        self.shared.add_event(event);
    }

    fn end_jobs(&mut self) {
        self.shared.jobs.end_all();
        for starting in std::mem::take(&mut self.starting).into_values() {
            let lost = || self.no_supervisor(&format!("starting {SHELL} as {} in", starting.user));
            drop(starting.reply.send(Err(self.ended_instead().unwrap_or_else(lost))));
        }
    }

    /// Why no job starts in a container that is stopped or destroyed since it was asked for.
    fn ended_instead(&self) -> Option<Error> {
        self.shared.admit(Operation::Spawn).err()
    }

    pub(crate) fn no_supervisor(&self, action: &str) -> Error {
        Error::Failed {
            action: format!("{action} container {}", self.shared.id),
            source: io::Error::other("it has ended"),
        }
    }

    /// Kills what runs inside, off the async threads; a destruction looks for survivors itself.
    fn kill_processes(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = shared.machine.cgroups.kill(shared.id, Instant::now() + KILL_TIME) {
                tracing::error!(container = %shared.id, %error, "processes of a lost container still run");
            }
        });
    }

    /// The link has ended: with iomux, if nothing was wrong before. One that is not understood is ended: what it holds
    /// wshd holds too.
    fn hear_no_more(&mut self, lost: &Lost) {
        if !matches!(lost, Lost::Closed) {
            self.misunderstood += 1;
        }
        if self.can_be_replaced() && self.misunderstood <= MAX_MISUNDERSTOOD {
            self.replace_supervisor(lost);
        } else {
            self.lose(lost);
        }
    }

    fn supervisor_exited(&mut self) {
        self.process = None;
        // What it said before is still to be heard; its socket may be held open by somebody else.
        while let Some(event) = self.link.as_mut().and_then(Link::next_now) {
            match event {
                Ok(event) => self.hear(event),
                Err(lost) => self.hear_no_more(&lost),
            }
        }
        if self.link.is_some() {
            self.hear_no_more(&Lost::Closed);
        }
        self.end_after_exit();
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

/// What was being done when a job could not be started, for people.
fn words(step: Step) -> &'static str {
    match step {
        Step::Files => "making its files",
        Step::Init => "asking init",
        Step::Inside(step) => match step {
            SpawnStep::Request => "handing it to init",
            SpawnStep::User => "looking the user up in /etc/passwd",
            SpawnStep::Pipe => "making its pipes",
            SpawnStep::Fork => "making its process",
            SpawnStep::Rlimit => "setting its resource limits",
            SpawnStep::Credentials => "setting its user and groups",
            SpawnStep::Directory => "entering the home directory",
            SpawnStep::Exec => "executing it",
        },
    }
}

#[cfg(test)]
mod tests;
