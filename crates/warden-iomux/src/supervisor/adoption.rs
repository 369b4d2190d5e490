//! Taking over from an iomux that has died: wshd still holds the read ends of its jobs' pipes and the statuses that nobody
//! has taken, and the jobs' directories hold the rest.
//!
//! wshd tells all it knows of and then [`Told`](warden_init::message::Reply::Told). Until then a job that it starts to tell
//! of is opened where its files end; after it, a directory without an end belongs to a job that was never started.

use std::fs;
use std::path::PathBuf;

use warden_init::build::Init;
use warden_init::message as inside;
use warden_init::note::note;
use warden_linux::socket::PacketSocket;

use super::Supervisor;
use super::init::InitLink;
use crate::file::{self, End};
use crate::job::{self, Job};
use crate::message::{Event, Exit, ExitCause, Step};

const ESRCH: i32 = 3;
const EIO: i32 = 5;

impl Supervisor {
    /// Takes over a container's init and the jobs that it holds.
    pub(crate) fn adopt_init(&mut self, init: &Init, socket: PacketSocket) -> std::io::Result<()> {
        self.adopting = true;
        self.tell_ends();
        self.hold_mounts(init);
        self.init = Some(InitLink::new(init, socket, &self.epoll)?);
        Ok(())
    }

    /// Ends a container whose init has died with its iomux: its jobs' output is whole up to what the pipes still held.
    pub(crate) fn bury_container(&mut self) {
        self.adopting = true;
        self.tell_ends();
        for number in self.unfinished() {
            self.reopen(number);
            if let Some(job) = self.jobs.get_mut(&number) {
                job.spawned = true;
            }
        }
        self.end_all();
    }

    /// Opens the files of a job again; one that cannot be opened is of no use, and must not go on unseen.
    pub(super) fn reopen(&mut self, number: u32) {
        match Job::reopen(&self.layout, number) {
            Ok(_) if self.layout.exit(number).exists() => self.release(number),
            Ok(job) => drop(self.jobs.insert(number, job)),
            // Its end was delivered, and its directory removed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.release(number),
            Err(error) => {
                note(format_args!("iomux: go on with job {number}: {error}"));
                self.ask_init(&inside::Request::KillJob { job: number }, Vec::new());
                let cause = ExitCause::OutputFailed(error.raw_os_error().unwrap_or(EIO));
                let length = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
                let (stdout, stderr) =
                    (length(self.layout.stdout(number)), length(self.layout.stderr(number)));
                self.write_end(number, Exit { cause, stdout, stderr }, None);
            }
        }
    }

    /// Lets wshd forget a job whose end is written; it does so once the job has ended.
    pub(super) fn release(&mut self, number: u32) {
        self.ask_init(&inside::Request::Release { job: number }, Vec::new());
    }

    /// Everything was told.
    pub(super) fn finish_adoption(&mut self) {
        if !self.adopting {
            return;
        }
        for number in self.unfinished() {
            if !self.jobs.contains_key(&number) {
                job::remove(&self.layout, number);
                self.tell(&Event::SpawnFailed { job: number, step: Step::Init, errno: ESRCH });
            }
        }
        self.adopting = false;
        self.become_ready();
    }

    /// Tells and remembers the ends that are written.
    fn tell_ends(&mut self) {
        for number in self.numbers() {
            match file::read::<End>(&self.layout.exit(number)) {
                Ok(None) => {}
                Ok(Some(exit)) => {
                    self.tell(&Event::Ended { job: number, exit });
                    self.ended.remember(number, exit, &self.layout);
                }
                Err(error) => {
                    note(format_args!("iomux: read {}: {error}", self.layout.exit(number).display()))
                }
            }
        }
    }

    /// The jobs whose ends are not written.
    fn unfinished(&self) -> Vec<u32> {
        let mut numbers = self.numbers();
        numbers.retain(|number| !self.layout.exit(*number).exists());
        numbers
    }

    /// The jobs that have a directory.
    fn numbers(&self) -> Vec<u32> {
        let entries = fs::read_dir(self.layout.jobs()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}
