//! The jobs that a container's directory tells of.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use warden_iomux::file::{self, End};
use warden_iomux::layout::Layout;
use warden_iomux::message::{Exit, ExitCause};

/// All jobs of one container.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Those that have ended in the order of their ends, then those that run.
    pub(crate) jobs: Vec<FoundJob>,
    /// The highest number that was given out and left a trace.
    pub(crate) highest: u32,
}

/// One job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FoundJob {
    pub(crate) number: u32,
    pub(crate) found: Found,
}

impl FoundJob {
    /// Whether it was killed for its output.
    pub(crate) fn exceeded_its_limit(&self) -> bool {
        matches!(self.found, Found::Ended(Exit { cause: ExitCause::OutputLimit, .. }))
    }
}

/// What is known of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its end is not written; its files are this long.
    Running { stdout: u64, stderr: u64 },
    /// It has ended.
    Ended(Exit),
}

/// Reads the directories of all jobs; removes those that were delivered.
pub(crate) fn scan(container: &Path) -> io::Result<Scan> {
    let layout = Layout::new(container);
    let mut scan = Scan::default();
    let mut ended = Vec::new();
    for entry in fs::read_dir(layout.jobs())? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            // Its removal had begun.
            let _ = fs::remove_dir_all(entry.path());
        }
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        scan.highest = scan.highest.max(number);
        if layout.delivered(number).exists() {
            // What cannot be removed now goes with the container.
            let _ = fs::remove_dir_all(layout.job(number));
            continue;
        }
        match look(&layout, number) {
            found @ Found::Running { .. } => scan.jobs.push(FoundJob { number, found }),
            found @ Found::Ended(_) => ended.push((moment(&layout, number), FoundJob { number, found })),
        }
    }
    ended.sort_by_key(|(moment, job)| (*moment, job.number));
    scan.jobs.sort_by_key(|job| job.number);
    scan.jobs = ended.into_iter().map(|(_, job)| job).chain(scan.jobs).collect();
    Ok(scan)
}

fn look(layout: &Layout, number: u32) -> Found {
    let length = |path| fs::metadata(path).map_or(0, |found| found.len());
    let [stdout, stderr] = [layout.stdout(number), layout.stderr(number)].map(length);
    match file::read::<End>(&layout.exit(number)) {
        Ok(None) => Found::Running { stdout, stderr },
        // A length that the file does not have would be waited for in vain.
        Ok(Some(exit)) => {
            Found::Ended(Exit { stdout: exit.stdout.min(stdout), stderr: exit.stderr.min(stderr), ..exit })
        }
        Err(error) => {
            tracing::error!(job = number, %error, "the end of a job cannot be read");
            Found::Ended(Exit { cause: ExitCause::InitDied, stdout, stderr })
        }
    }
}

/// When a job has ended.
fn moment(layout: &Layout, number: u32) -> Option<SystemTime> {
    fs::metadata(layout.exit(number)).and_then(|found| found.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        fs::create_dir(layout.jobs()).unwrap();
        (directory, layout)
    }

    fn job(layout: &Layout, number: u32, stdout: &str, exit: Option<Exit>) {
        fs::create_dir(layout.job(number)).unwrap();
        fs::write(layout.stdout(number), stdout).unwrap();
        fs::write(layout.stderr(number), "").unwrap();
        if let Some(exit) = exit {
            file::write(&layout.exit(number), &exit).unwrap();
        }
    }

    #[test]
    fn jobs_are_found_as_they_are_in_the_order_of_their_ends() {
        let (directory, layout) = container();
        let exit = Exit { cause: ExitCause::Code(3), stdout: 2, stderr: 0 };
        job(&layout, 9, "ab", Some(exit));
        job(&layout, 4, "abc", None);
        job(&layout, 2, "a", Some(exit));
        job(&layout, 11, "", Some(exit));
        fs::write(layout.delivered(11), "").unwrap();
        let late = SystemTime::now() + std::time::Duration::from_secs(60);
        fs::File::open(layout.exit(9)).unwrap().set_modified(late).unwrap();
        fs::create_dir(layout.jobs().join("no number")).unwrap();
        let scan = scan(directory.path()).unwrap();
        let short = Found::Ended(Exit { stdout: 1, ..exit });
        let expected = [(2, short), (9, Found::Ended(exit)), (4, Found::Running { stdout: 3, stderr: 0 })];
        assert_eq!(scan.jobs, expected.map(|(number, found)| FoundJob { number, found }));
        assert_eq!(scan.highest, 11);
        assert!(!layout.job(11).exists(), "it was delivered");
    }

    #[test]
    fn what_cannot_be_read_is_an_end_all_the_same() {
        let (directory, layout) = container();
        job(&layout, 1, "abc", None);
        fs::write(layout.exit(1), "{\"version\":7}").unwrap();
        let end = Found::Ended(Exit { cause: ExitCause::InitDied, stdout: 3, stderr: 0 });
        assert_eq!(scan(directory.path()).unwrap().jobs[0].found, end);
        assert!(scan(&directory.path().join("none")).is_err());
    }
}
