//! One job: its output so far, and its end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, Weak};

use tokio::sync::watch;
use warden_iomux::message::{Exit, ExitCause};

use crate::jobs::Jobs;

/// The file that says, in a job's directory, that it was delivered.
pub(crate) const DELIVERED: &str = "delivered";

/// A job that a client can link to. Its files stay until the last holder is gone.
#[derive(Debug)]
pub struct Job {
    id: u32,
    directory: PathBuf,
    progress: watch::Sender<Progress>,
    /// Where it is found until it is forgotten.
    jobs: Weak<Jobs>,
    forgotten: AtomicBool,
    /// Its stdout and stderr, open, once its directory is about to be removed.
    kept: OnceLock<[io::Result<File>; 2]>,
}

/// One of a job's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes in its stdout file.
    pub stdout: u64,
    /// Bytes in its stderr file.
    pub stderr: u64,
    /// Its end; the two lengths are final then.
    pub end: Option<ExitCause>,
}

impl Job {
    /// Makes a job that runs and has not written anything.
    pub(crate) fn new(id: u32, directory: PathBuf, jobs: Weak<Jobs>) -> Self {
        let (progress, _) = watch::channel(Progress::default());
        Self { id, directory, progress, jobs, forgotten: AtomicBool::new(false), kept: OnceLock::new() }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its progress, now and as it changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Opens one of its output files for reading, from the start.
    pub fn open(&self, stream: Stream) -> io::Result<File> {
        if let Some(kept) = self.reopen_kept(stream) {
            return kept;
        }
        match File::open(self.path(stream)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.open_missing(stream, error),
            opened => opened,
        }
    }

    /// Says that a client has its complete final answer: the job is forgotten.
    pub fn answered(&self) {
        if let Some(jobs) = self.jobs.upgrade() {
            jobs.forget(self.id);
        }
    }

    /// What is known of it now.
    pub(crate) fn now(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Notes how long its files are; they never shrink, and what has ended does not change.
    pub(crate) fn grow(&self, stdout: u64, stderr: u64) {
        self.progress.send_if_modified(|progress| {
            let grown = Progress {
                stdout: progress.stdout.max(stdout),
                stderr: progress.stderr.max(stderr),
                end: None,
            };
            let changed = progress.end.is_none() && grown != *progress;
            if changed {
                *progress = grown;
            }
            changed
        });
    }

    /// Notes its end.
    pub(crate) fn end(&self, exit: Exit) {
        self.grow(exit.stdout, exit.stderr);
        self.progress.send_if_modified(|progress| {
            let first = progress.end.is_none();
            progress.end = progress.end.or(Some(exit.cause));
            first
        });
    }

    /// Lets its files go when the last holder does.
    pub(crate) fn mark_forgotten(&self, held_for_long: bool) {
        self.forgotten.store(true, Ordering::Relaxed);
        // A daemon that follows must not take it for a job that a client may ask for.
        if !held_for_long && fs::rename(&self.directory, hidden(&self.directory)).is_ok() {
            return;
        }
        // Nobody finds it any more who would do so when the container goes.
        self.keep_files();
        match File::create(self.directory.join(DELIVERED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(directory = %self.directory.display(), %error, "a delivered job was not marked");
            }
            _ => {}
        }
    }

    /// How long its files are.
    pub(crate) fn lengths_on_disk(&self) -> [u64; 2] {
        [Stream::Stdout, Stream::Stderr]
            .map(|stream| fs::metadata(self.path(stream)).map_or(0, |found| found.len()))
    }

    /// Opens its files for the holders that read on when the directory is gone.
    pub(crate) fn keep_files(&self) {
        self.kept
            .get_or_init(|| [Stream::Stdout, Stream::Stderr].map(|stream| File::open(self.path(stream))));
    }

    fn path(&self, stream: Stream) -> PathBuf {
        self.directory.join(match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }

    /// Opens a kept file anew: every reader has an offset of its own.
    fn reopen_kept(&self, stream: Stream) -> Option<io::Result<File>> {
        use std::os::fd::AsRawFd;

        let kept = self.kept.get()?[stream as usize].as_ref().ok()?;
        Some(File::open(Path::new("/proc/self/fd").join(kept.as_raw_fd().to_string())))
    }

    /// Opens a file that is not there: it was kept just now, or never written.
    fn open_missing(&self, stream: Stream, error: io::Error) -> io::Result<File> {
        if let Some(kept) = self.reopen_kept(stream) {
            return kept;
        }
        let now = self.now();
        let length = if stream == Stream::Stdout { now.stdout } else { now.stderr };
        if length == 0 { File::open("/dev/null") } else { Err(error) }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.forgotten.load(Ordering::Relaxed) {
            return;
        }
        let directory = std::mem::take(&mut self.directory);
        let remove = move || match remove_files(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(directory = %directory.display(), %error, "the files of a job were not removed");
            }
            _ => {}
        };
        // Large files take their time.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Where the directory of a job that was delivered waits to be removed: what has no number is no job.
fn hidden(directory: &Path) -> PathBuf {
    let number = directory.file_name().and_then(OsStr::to_str).unwrap_or_default();
    directory.with_file_name(format!(".{number}"))
}

/// Removes the directory of a job that was delivered.
fn remove_files(directory: &Path) -> io::Result<()> {
    let hidden = hidden(directory);
    match fs::rename(directory, &hidden) {
        // It has been already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed?,
    }
    for name in ["stdout", "stderr", "job.json", "exit.json"] {
        // What is not removed so is found below.
        let _ = fs::remove_file(hidden.join(name));
    }
    match fs::remove_dir(&hidden) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&hidden),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn job(directory: &Path) -> Job {
        Job::new(7, directory.to_owned(), Weak::new())
    }

    fn exit(cause: ExitCause, stdout: u64, stderr: u64) -> Exit {
        Exit { cause, stdout, stderr }
    }

    #[test]
    fn lengths_grow_and_an_end_is_final() {
        let job = job(Path::new("/nowhere"));
        let mut progress = job.progress();
        job.grow(3, 1);
        job.grow(2, 2);
        assert_eq!(*progress.borrow_and_update(), Progress { stdout: 3, stderr: 2, end: None });
        job.grow(1, 1);
        assert!(!progress.has_changed().unwrap(), "nothing new is not told");
        job.end(exit(ExitCause::Code(4), 5, 2));
        job.end(exit(ExitCause::InitDied, 9, 9));
        job.grow(9, 9);
        assert_eq!(job.now(), Progress { stdout: 5, stderr: 2, end: Some(ExitCause::Code(4)) });
    }

    #[test]
    fn an_end_without_output_is_told() {
        let job = job(Path::new("/nowhere"));
        let progress = job.progress();
        job.end(exit(ExitCause::Code(0), 0, 0));
        assert!(progress.has_changed().unwrap());
    }

    #[test]
    fn files_are_read_by_several_also_after_the_directory_is_gone() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("7");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("stdout"), "out").unwrap();
        let job = job(&directory);
        job.grow(3, 0);
        job.keep_files();
        fs::remove_dir_all(&directory).unwrap();
        for _ in 0..2 {
            let mut text = String::new();
            job.open(Stream::Stdout).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "out");
        }
        let mut text = String::new();
        job.open(Stream::Stderr).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "", "what was never written is empty");
    }

    #[test]
    fn lost_output_is_an_error() {
        let job = job(Path::new("/nowhere"));
        job.grow(0, 1);
        assert!(job.open(Stream::Stderr).is_err());
        assert!(job.open(Stream::Stdout).is_ok());
    }

    #[test]
    fn the_files_go_with_the_last_holder_of_a_forgotten_job() {
        let top = tempfile::tempdir().unwrap();
        for (forgotten, exists) in [(false, true), (true, false)] {
            let directory = top.path().join(forgotten.to_string());
            fs::create_dir(&directory).unwrap();
            let job = job(&directory);
            if forgotten {
                job.mark_forgotten(true);
            }
            drop(job);
            assert_eq!(directory.exists(), exists);
        }
    }
}
