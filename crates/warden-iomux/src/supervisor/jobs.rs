//! The life of a job, from its request to its end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use warden_init::message as inside;
use warden_init::note::note;
use warden_linux::epoll::{Epoll, Interest};

use super::Supervisor;
use super::token::Token;
use crate::file::New;
use crate::job::{self, Channel, Job, Moved};
use crate::message::{Event, Exit, Output, Step};

const EIO: i32 = 5;
const EBADF: i32 = 9;

impl Supervisor {
    /// Makes a job and asks wshd to start it.
    pub(super) fn spawn(
        &mut self,
        number: u32,
        process: inside::Process,
        output: &Output,
        fds: Vec<OwnedFd>,
    ) -> Result<(), (Step, i32)> {
        let Ok([stdin]) = <[OwnedFd; 1]>::try_from(fds) else {
            return Err((Step::Inside(inside::SpawnStep::Request), EBADF));
        };
        Job::prepare(&self.layout, number, output)
            .map_err(|error| (Step::Files, error.raw_os_error().unwrap_or(EIO)))?;
        let outputs_given = !job::piped(output);
        let given = if outputs_given { nowhere() } else { Ok(Vec::new()) };
        let given = given.map_err(|error| {
            job::remove(&self.layout, number);
            (Step::Files, error.raw_os_error().unwrap_or(EIO))
        })?;
        self.ended.forget(number);
        let fds = std::iter::once(stdin).chain(given).collect();
        self.ask_init(&inside::Request::Spawn { job: number, process, outputs_given }, fds);
        // wshd starts it while its files are made here.
        self.flush_init();
        let job = Job::create(&self.layout, number, output).unwrap_or_else(|error| {
            note(format_args!("iomux: make the files of job {number}: {error}"));
            Job::without_files(output, &error)
        });
        self.jobs.insert(number, job);
        Ok(())
    }

    /// The job runs.
    pub(super) fn begin(&mut self, number: u32, fds: Vec<OwnedFd>) {
        if self.adopting && !self.jobs.contains_key(&number) {
            self.reopen(number);
        }
        // An operator's shell is not ours.
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.spawned = true;
        if let Ok(pipes) = <[OwnedFd; 2]>::try_from(fds) {
            job.connect(pipes);
            for channel in Channel::BOTH {
                let added = job
                    .pipe(channel)
                    .map(|pipe| self.epoll.add(pipe, Token::Stream(number, channel).into(), Interest::Read));
                if let Some(Err(error)) = added {
                    note(format_args!("iomux: wait for the output of job {number}: {error}"));
                }
            }
        }
        self.tell(&Event::Spawned { job: number });
    }

    /// Moves some of a job's output.
    pub(super) fn advance(&mut self, number: u32, channel: Channel) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        match job.advance(channel, &mut self.scratch) {
            Moved::Nothing => {}
            Moved::Closed => unwatch(&self.epoll, job, channel),
            Moved::Some => self.clients.values_mut().for_each(|client| client.note_growth(number)),
            Moved::Fatal => {
                Channel::BOTH.iter().for_each(|channel| unwatch(&self.epoll, job, *channel));
                self.clients.values_mut().for_each(|client| client.note_growth(number));
                self.ask_init(&inside::Request::KillJob { job: number }, Vec::new());
            }
        }
    }

    /// The job's process has ended, or, without a status, everything has.
    pub(super) fn end(&mut self, number: u32, status: Option<inside::WaitStatus>) {
        let Some(mut job) = self.jobs.remove(&number) else { return };
        if job.drain(&mut self.scratch) {
            self.ask_init(&inside::Request::KillJob { job: number }, Vec::new());
        }
        Channel::BOTH.iter().for_each(|channel| unwatch(&self.epoll, &mut job, *channel));
        let new = job.take_end();
        let exit = job.finish(status);
        self.write_end(number, exit, new);
    }

    /// Writes a job's end down, lets wshd forget it, and tells the clients, in this order.
    pub(super) fn write_end(&mut self, number: u32, exit: Exit, new: Option<New>) {
        if let Err(error) = job::write_exit(&self.layout, number, &exit, new) {
            note(format_args!("iomux: write {}: {error}", self.layout.exit(number).display()));
        }
        self.release(number);
        self.tell_end(number, exit);
    }

    fn tell_end(&mut self, number: u32, exit: Exit) {
        for client in self.clients.values_mut() {
            client.forget_growth(number);
            client.tell(&Event::Ended { job: number, exit });
        }
        self.ended.remember(number, exit, &self.layout);
    }
}

/// Closes a pipe. The epoll must be told: it watches an open file as long as anyone has it open, and wshd does.
fn unwatch(epoll: &Epoll, job: &mut Job, channel: Channel) {
    if let Some(pipe) = job.take_pipe(channel)
        && let Err(error) = epoll.remove(&pipe)
    {
        note(format_args!("iomux: stop reading a job's output: {error}"));
    }
}

/// A stdout and a stderr that keep nothing.
fn nowhere() -> io::Result<Vec<OwnedFd>> {
    let null = OwnedFd::from(File::options().write(true).open("/dev/null")?);
    Ok(vec![null.as_fd().try_clone_to_owned()?, null])
}
