//! The jobs of one container, until they are forgotten.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use warden_iomux::message::{Exit, ExitCause};

use crate::job::Job;
use crate::pool::lock;
use crate::recovery::jobs::Found;

/// The jobs of one container. Its actor adds and ends them; those who have answered a client forget them.
#[derive(Debug)]
pub(crate) struct Jobs {
    /// The directory that holds one directory per job.
    directory: PathBuf,
    limits: Limits,
    known: Mutex<Known>,
    itself: Weak<Self>,
}

/// How much of finished jobs that nobody holds is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Jobs.
    pub(crate) count: usize,
    /// Bytes of their output.
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
struct Known {
    jobs: BTreeMap<u32, Arc<Job>>,
    /// Those that have ended, in the order of their ends.
    ended: VecDeque<u32>,
}

impl Jobs {
    /// Makes an empty list.
    pub(crate) fn new(directory: PathBuf, limits: Limits) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self { directory, limits, known: Mutex::default(), itself: itself.clone() })
    }

    /// Adds a job that has started.
    pub(crate) fn add(&self, id: u32) -> Arc<Job> {
        let job = Arc::new(Job::new(id, self.directory.join(id.to_string()), self.itself.clone()));
        lock(&self.known).jobs.insert(id, Arc::clone(&job));
        job
    }

    /// Whether there are any: here, or, though they are forgotten, with a client that is still being answered.
    pub(crate) fn exist(&self) -> bool {
        // Each of them knows this list.
        self.itself.weak_count() > 1
    }

    /// Adds a job of an earlier daemon.
    pub(crate) fn recover(&self, id: u32, found: &Found) {
        let job = self.add(id);
        match *found {
            Found::Running { stdout, stderr } => job.grow(stdout, stderr),
            Found::Ended(exit) => {
                drop(job);
                self.end(id, exit);
            }
        }
    }

    /// What is known of their ends, for the next daemon: a status for each that has ended.
    pub(crate) fn ends(&self) -> BTreeMap<u32, Option<u32>> {
        let known = lock(&self.known);
        known.jobs.values().map(|job| (job.id(), job.now().end.map(ExitCause::status))).collect()
    }

    /// Reads how long the files of those that run are: nobody tells it any more.
    pub(crate) fn measure(&self) {
        for job in self.running().into_iter().filter_map(|id| self.get(id)) {
            let [stdout, stderr] = job.lengths_on_disk();
            job.grow(stdout, stderr);
        }
    }

    /// Finds a job.
    pub(crate) fn get(&self, id: u32) -> Option<Arc<Job>> {
        lock(&self.known).jobs.get(&id).cloned()
    }

    /// Lists those that run.
    pub(crate) fn running(&self) -> Vec<u32> {
        let known = lock(&self.known);
        known.jobs.values().filter(|job| job.now().end.is_none()).map(|job| job.id()).collect()
    }

    /// Notes the end of a job, then forgets the oldest of those that nobody holds beyond the limits.
    pub(crate) fn end(&self, id: u32, exit: Exit) {
        let mut known = lock(&self.known);
        let Some(job) = known.jobs.get(&id).filter(|job| job.now().end.is_none()) else { return };
        job.end(exit);
        known.ended.push_back(id);
        let forgotten = known.beyond(self.limits);
        let jobs: Vec<_> = forgotten.into_iter().filter_map(|id| known.forget(id)).collect();
        // Their files go without the lock.
        drop(known);
        drop(jobs);
    }

    /// Ends all that run: nobody will tell any more how they ended.
    pub(crate) fn end_all(&self) {
        for job in self.running().into_iter().filter_map(|id| self.get(id)) {
            let now = job.now();
            let id = job.id();
            drop(job);
            self.end(id, Exit { cause: ExitCause::InitDied, stdout: now.stdout, stderr: now.stderr });
        }
    }

    /// Forgets a job that has ended.
    pub(crate) fn forget(&self, id: u32) {
        let job = lock(&self.known).forget(id);
        drop(job);
    }

    /// Lets the holders of jobs read on when the directory is gone.
    pub(crate) fn keep_files_of_held(&self) {
        let known = lock(&self.known);
        for job in known.jobs.values().filter(|job| Arc::strong_count(job) > 1) {
            job.keep_files();
        }
    }
}

impl Known {
    fn forget(&mut self, id: u32) -> Option<Arc<Job>> {
        self.jobs.get(&id)?.now().end?;
        self.ended.retain(|&ended| ended != id);
        let job = self.jobs.remove(&id)?;
        // The client that has its answer is still about to let go of it.
        job.mark_forgotten(Arc::strong_count(&job) > 2);
        Some(job)
    }

    /// The oldest ended jobs that must go so that the rest keeps the limits; what somebody holds does not count.
    fn beyond(&self, limits: Limits) -> Vec<u32> {
        let (mut count, mut bytes) = (0, 0_u64);
        let mut beyond = Vec::new();
        for job in self.ended.iter().rev().filter_map(|id| self.jobs.get(id)) {
            if Arc::strong_count(job) > 1 {
                continue;
            }
            let now = job.now();
            count += 1;
            bytes = bytes.saturating_add(now.stdout).saturating_add(now.stderr);
            if count > limits.count || bytes > limits.bytes {
                beyond.push(job.id());
            }
        }
        beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(count: usize, bytes: u64) -> Arc<Jobs> {
        Jobs::new("/nowhere".into(), Limits { count, bytes })
    }

    fn exit(stdout: u64) -> Exit {
        Exit { cause: ExitCause::Code(0), stdout, stderr: 0 }
    }

    fn known(jobs: &Jobs) -> Vec<u32> {
        lock(&jobs.known).jobs.keys().copied().collect()
    }

    #[test]
    fn running_jobs_are_listed_until_they_end() {
        let jobs = jobs(10, 10);
        jobs.add(1);
        jobs.add(2);
        assert_eq!(jobs.running(), [1, 2]);
        jobs.end(1, exit(0));
        jobs.end(3, exit(0));
        assert_eq!((jobs.running(), known(&jobs)), (vec![2], vec![1, 2]));
    }

    #[test]
    fn an_answered_job_is_forgotten_and_a_running_one_is_not() {
        let jobs = jobs(10, 10);
        let job = jobs.add(1);
        job.answered();
        assert!(jobs.get(1).is_some());
        jobs.end(1, exit(0));
        job.answered();
        job.answered();
        assert!(jobs.get(1).is_none());
        assert_eq!(job.now().end, Some(ExitCause::Code(0)), "who holds it still has it");
    }

    #[test]
    fn who_waits_for_a_job_that_another_was_answered_has_its_output_when_the_container_is_gone() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("1");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("stdout"), "out").unwrap();
        let jobs = Jobs::new(top.path().into(), Limits { count: 10, bytes: 10 });
        let [first, second] = [jobs.add(1), jobs.get(1).unwrap()];
        jobs.end(1, exit(3));
        first.answered();
        drop(first);
        jobs.keep_files_of_held();
        std::fs::remove_dir_all(&directory).unwrap();
        let output = std::io::read_to_string(second.open(crate::job::Stream::Stdout).unwrap()).unwrap();
        assert_eq!(output, "out");
    }

    #[test]
    fn a_job_exists_as_long_as_somebody_holds_it() {
        let jobs = jobs(10, 10);
        assert!(!jobs.exist());
        let held = jobs.add(1);
        jobs.end(1, exit(0));
        jobs.forget(1);
        assert!(jobs.exist());
        drop(held);
        assert!(!jobs.exist());
    }

    #[test]
    fn finished_jobs_are_bounded_in_number_oldest_end_first() {
        let jobs = jobs(2, u64::MAX);
        for id in 1..=4 {
            jobs.add(id);
        }
        for id in [4, 1, 3] {
            jobs.end(id, exit(0));
        }
        assert_eq!(known(&jobs), [1, 2, 3]);
        jobs.end(2, exit(0));
        assert_eq!(known(&jobs), [2, 3]);
    }

    #[test]
    fn finished_jobs_are_bounded_in_bytes() {
        let jobs = jobs(10, 100);
        for (id, bytes) in [(1, 60), (2, 40), (3, 1), (4, 200)] {
            jobs.add(id);
            jobs.end(id, exit(bytes));
            match id {
                2 => assert_eq!(known(&jobs), [1, 2]),
                3 => assert_eq!(known(&jobs), [2, 3]),
                _ => {}
            }
        }
        assert!(known(&jobs).is_empty(), "one that is too large alone goes too");
    }

    #[test]
    fn held_and_running_jobs_do_not_count() {
        let jobs = jobs(1, u64::MAX);
        let _running = jobs.add(1);
        let _held = jobs.add(2);
        jobs.end(2, exit(5));
        jobs.add(3);
        jobs.end(3, exit(5));
        assert_eq!(known(&jobs), [1, 2, 3]);
        jobs.add(4);
        jobs.end(4, exit(5));
        assert_eq!(known(&jobs), [1, 2, 4]);
    }

    #[test]
    fn all_end_when_init_dies() {
        let jobs = jobs(10, 10);
        let job = jobs.add(1);
        job.grow(3, 0);
        jobs.add(2);
        jobs.end(2, exit(1));
        jobs.end_all();
        assert!(jobs.running().is_empty());
        assert_eq!((job.now().stdout, job.now().end), (3, Some(ExitCause::InitDied)));
        assert_eq!(jobs.get(2).unwrap().now().end, Some(ExitCause::Code(0)));
    }
}
