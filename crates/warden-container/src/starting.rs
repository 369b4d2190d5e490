//! How a container's jobs are started: iomux is asked, and asked again when it dies meanwhile, until the job runs, is
//! refused, or has nowhere to run any more; and how the actor hears of their end.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use warden_init::byte_string::ByteString;
use warden_init::message::{Process as Program, SpawnStep};
use warden_iomux::message::{Exit, ExitCause, Output, Request, Step, Syslog};

use crate::actor::{Actor, Reply};
use crate::admission::Operation;
use crate::error::{Context, Error};
use crate::image::SHELL;
use crate::job::Job;
use crate::plan::USER;
use crate::request::Run;
use crate::rlimits::{Lowered, lowered};

/// How often a job is asked for.
const MAX_ASKED: u32 = 4;

/// The jobs that iomux was asked for, and that have not started.
#[derive(Debug, Default)]
pub(crate) struct Starts(HashMap<u32, Starting>);

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

impl Actor {
    pub(crate) fn spawn(&mut self, run: Run, stdin: OwnedFd, reply: Reply<Arc<Job>>) {
        let user = if run.privileged { "root" } else { USER };
        match self.ask_for_job(run, user, stdin) {
            Ok((job, request, stdin)) => {
                self.starting.0.insert(job, Starting { user, reply, request, stdin, asked: 1 });
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
        if self.starting.0.len() + self.shared.jobs.running().len() >= limit {
            return Err(Error::TooManyJobs(limit));
        }
        let action = || starting_as(user);
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

    pub(crate) fn job_started(&mut self, id: u32) {
        let Some(starting) = self.starting.0.remove(&id) else {
            // The daemon before asked for it, or it is told once more by an iomux that took over.
            tracing::debug!(container = %self.shared.id, job = id, "iomux tells of a job");
            return;
        };
        tracing::debug!(container = %self.shared.id, job = id, user = starting.user, "job started");
        // Who asked may be gone; the job goes on.
        drop(starting.reply.send(Ok(self.shared.jobs.add(id))));
    }

    /// An iomux that took over knows a job of which the one before could not say that it had started.
    pub(crate) fn job_is_known(&mut self, id: u32) {
        if self.starting.0.contains_key(&id) {
            self.job_started(id);
        }
    }

    /// Asks again for jobs that an iomux which has died was asked for, and that the next does not know: they were never
    /// started. One that each iomux dies of is given up.
    pub(crate) fn start_again(&mut self) {
        for (job, mut starting) in std::mem::take(&mut self.starting.0) {
            starting.asked += 1;
            let stdin = starting.stdin.try_clone();
            let sent = match (&mut self.link, stdin) {
                _ if starting.asked > MAX_ASKED => Err(io::Error::other("its supervisor has died each time")),
                (Some(link), Ok(stdin)) => link.send(&starting.request, Some(stdin)),
                (None, _) => Err(io::ErrorKind::BrokenPipe.into()),
                (_, Err(error)) => Err(error),
            };
            match sent {
                Ok(()) => drop(self.starting.0.insert(job, starting)),
                Err(source) => {
                    let action = starting_as(starting.user);
                    drop(starting.reply.send(Err(Error::Failed { action, source })));
                }
            }
        }
    }

    pub(crate) fn job_refused(&mut self, id: u32, step: Step, errno: i32) {
        let Some(starting) = self.starting.0.remove(&id) else {
            // The daemon before asked for it: its directory was there, and is gone.
            self.shared.jobs.end(id, Exit { cause: ExitCause::InitDied, stdout: 0, stderr: 0 });
            self.shared.jobs.forget(id);
            return;
        };
        let failed = || {
            let action = format!("{}: {}", starting_as(starting.user), words(step));
            Error::Failed { action, source: io::Error::from_raw_os_error(errno) }
        };
        // An init that was killed meanwhile is no fault of the machine.
        let error = if step == Step::Init { self.ended_instead() } else { None };
        drop(starting.reply.send(Err(error.unwrap_or_else(failed))));
    }

    pub(crate) fn job_ended(&mut self, id: u32, exit: Exit) {
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

    /// Ends all jobs, and refuses those that have not started: nothing runs inside any more, or nothing of it can be known.
    pub(crate) fn end_jobs(&mut self) {
        self.shared.jobs.end_all();
        for starting in std::mem::take(&mut self.starting.0).into_values() {
            let lost = || self.no_supervisor(&format!("{} in", starting_as(starting.user)));
            drop(starting.reply.send(Err(self.ended_instead().unwrap_or_else(lost))));
        }
    }

    /// Why no job starts in a container that is stopped or destroyed since it was asked for.
    fn ended_instead(&self) -> Option<Error> {
        self.shared.admit(Operation::Spawn).err()
    }
}

/// What is done for a job of this user, for people.
fn starting_as(user: &str) -> String {
    format!("starting {SHELL} as {user}")
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
