//! The jobs that wshd has started and no client has released.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;

use crate::message::WaitStatus;

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    /// Its process, which leads a session of the same number.
    pub(super) pid: i32,
    /// How it ended, once it has.
    pub(super) status: Option<WaitStatus>,
    /// The read ends of its pipes, unless its client gave it files.
    pub(super) outputs: Vec<OwnedFd>,
    /// The inode numbers of its pipes.
    pub(super) pipes: Vec<u64>,
    /// The terminal that it runs in. Without this copy it would look hung up whenever the job had closed all of its own.
    pub(super) _terminal: Option<OwnedFd>,
    /// The client that it belongs to, if it is one's alone.
    pub(super) owner: Option<u64>,
}

impl Job {
    /// New descriptors of the read ends, to be sent to a client.
    pub(super) fn copy_outputs(&self) -> io::Result<Vec<OwnedFd>> {
        self.outputs.iter().map(OwnedFd::try_clone).collect()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    by_number: BTreeMap<u32, Job>,
    /// The running ones.
    by_pid: HashMap<i32, u32>,
}

impl Jobs {
    pub(super) fn contains(&self, number: u32) -> bool {
        self.by_number.contains_key(&number)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Job> {
        self.by_number.get(&number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Job)> {
        self.by_number.iter().map(|(number, job)| (*number, job))
    }

    pub(super) fn insert(&mut self, number: u32, job: Job) {
        self.by_pid.insert(job.pid, number);
        self.by_number.insert(number, job);
    }

    /// Notes that a process was reaped; gives the number of its job, if it was one.
    pub(super) fn end(&mut self, pid: i32, status: WaitStatus) -> Option<u32> {
        let number = self.by_pid.remove(&pid)?;
        self.by_number.get_mut(&number)?.status = Some(status);
        Some(number)
    }

    /// Forgets a job that has ended.
    pub(super) fn release(&mut self, number: u32) {
        if self.by_number.get(&number).is_some_and(|job| job.status.is_some()) {
            self.by_number.remove(&number);
        }
    }

    /// Forgets a job whatever it does: its process is reaped like an orphan.
    pub(super) fn abandon(&mut self, number: u32) {
        if let Some(job) = self.by_number.remove(&number)
            && self.by_pid.get(&job.pid) == Some(&number)
        {
            self.by_pid.remove(&job.pid);
        }
    }

    /// The jobs that are a client's alone.
    pub(super) fn owned_by(&self, client: u64) -> Vec<u32> {
        self.iter().filter(|(_, job)| job.owner == Some(client)).map(|(number, _)| number).collect()
    }

    /// Whether the session of the job's number is still its own: after its end a later job may have got the number.
    pub(super) fn owns_session(&self, number: u32) -> bool {
        let Some(job) = self.by_number.get(&number) else { return false };
        self.by_pid.get(&job.pid).is_none_or(|owner| *owner == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(pid: i32) -> Job {
        Job { pid, status: None, outputs: Vec::new(), pipes: Vec::new(), _terminal: None, owner: None }
    }

    #[test]
    fn a_job_is_kept_until_it_ended_and_was_released() {
        let mut jobs = Jobs::default();
        jobs.insert(1, job(10));
        jobs.release(1);
        assert!(jobs.contains(1));
        assert_eq!(jobs.end(11, WaitStatus::Code(0)), None);
        assert_eq!(jobs.end(10, WaitStatus::Signal(9)), Some(1));
        assert_eq!(jobs.end(10, WaitStatus::Code(0)), None);
        assert_eq!(jobs.get(1).unwrap().status, Some(WaitStatus::Signal(9)));
        jobs.release(1);
        assert!(!jobs.contains(1));
    }

    #[test]
    fn owned_jobs_are_found_by_their_client() {
        let mut jobs = Jobs::default();
        jobs.insert(1, job(10));
        jobs.insert(2, Job { owner: Some(7), ..job(11) });
        jobs.insert(3, Job { owner: Some(8), ..job(12) });
        assert_eq!((jobs.owned_by(7), jobs.owned_by(9)), (vec![2], vec![]));
    }

    #[test]
    fn a_session_number_may_go_to_a_later_job() {
        let mut jobs = Jobs::default();
        jobs.insert(1, job(10));
        assert!(jobs.owns_session(1));
        jobs.end(10, WaitStatus::Code(0));
        assert!(jobs.owns_session(1));
        jobs.insert(2, job(10));
        assert!(!jobs.owns_session(1) && jobs.owns_session(2));
        jobs.abandon(2);
        assert!(jobs.owns_session(1) && !jobs.owns_session(2));
        jobs.insert(3, job(10));
        jobs.abandon(1);
        assert_eq!(jobs.end(10, WaitStatus::Code(0)), Some(3));
    }
}
