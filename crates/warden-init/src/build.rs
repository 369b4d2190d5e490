//! Builds a container from its spec and starts its init in it.
//!
//! A short-lived builder process leaves the host's mount namespace, joins the container's cgroups and stages, as the
//! host's root, everything that the container will see. It then enters the container's user namespace and makes the
//! init in the other namespaces: that copy of the staged mounts locks their flags, so that the container's root
//! cannot make them writable. The init puts its root file system together out of what was staged and serves, as [`crate::wshd`].
//! What is to be done is a [`plan::Plan`], plain data; `outside` and `inside` carry it out.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};
use warden_linux::process::{self, ForkOptions, Namespaces};

use crate::byte_string::ByteString;
use crate::confinement::Confinement;
use crate::spec::{Cgroup, Spec};
use crate::wshd::Wshd;
pub use furnish::furnish;
use plan::Plan;

mod furnish;
mod generated;
mod inside;
mod lock;
mod outside;
pub mod plan;
mod user_namespace;

/// The init of a container that stands.
#[derive(Debug)]
pub struct Init {
    /// Its process id on the host; it is a child of this process.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// A container that could not be built; nothing of it is left running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step} {}: {}", .object.as_path().display(), io::Error::from_raw_os_error(*.errno))]
pub struct SetupError {
    /// What was being done, in a few words.
    pub step: String,
    /// What it was done to.
    pub object: ByteString,
    /// The kernel's answer.
    pub errno: i32,
}

impl SetupError {
    fn new(step: &str, object: impl Into<ByteString>, error: &io::Error) -> Self {
        // An error that the standard library made itself has no number.
        let errno = error.raw_os_error().unwrap_or(EINVAL);
        Self { step: step.to_owned(), object: object.into(), errno }
    }
}

const EINVAL: i32 = 22;
const ECHILD: i32 = 10;

/// What the builder and the init tell the process that waits for them, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    /// The init exists.
    Init(i32),
    /// Something failed; the process that says so ends.
    Failed(SetupError),
}

/// Builds the container that lives in `directory` and starts its init, which serves `listener`.
///
/// The calling process must have one thread. `born` hears of the init's process id as soon as it is in its namespaces; the
/// function returns once the container stands.
pub fn build(
    spec: &Spec,
    directory: &Path,
    listener: BorrowedFd<'_>,
    born: impl FnOnce(i32),
) -> Result<Init, SetupError> {
    let plan = Plan::new(spec, directory);
    let ids = spec.ids.map(user_namespace::create).transpose()?;
    let cgroup = unified_cgroup(spec)?;
    let pipe = |error: &io::Error| SetupError::new("make a pipe for", "the builder", error);
    let (reports, reporter) = warden_linux::file::pipe().map_err(|error| pipe(&error))?;
    let (mut reports, reporter) = (File::from(reports), File::from(reporter));
    let builder = Builder { plan, confinement: spec.confinement, ids, listener, reporter: &reporter };
    let options = ForkOptions {
        namespaces: Namespaces::NEWNS,
        sibling: false,
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
    };
    let child = process::fork(options, || builder.run())
        .map_err(|error| SetupError::new("start the builder of", spec.id.as_str(), &error))?;
    drop(reporter);
    let mut text = Vec::new();
    // The end of the file is the moment at which the init has all it needs: it lets go of the pipe then.
    let read = read_reports(&mut reports, &mut text, born);
    let waited = process::wait(child.pidfd.as_fd());
    read.and(waited).map_err(|error| SetupError::new("wait for the builder of", spec.id.as_str(), &error))?;
    outcome(spec, &text)
}

/// Reads all reports, and tells of the init when it is first reported.
fn read_reports(reports: &mut File, text: &mut Vec<u8>, born: impl FnOnce(i32)) -> io::Result<()> {
    let mut born = Some(born);
    let mut chunk = [0; 1024];
    loop {
        match reports.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => text.extend(chunk.iter().take(length)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if let Some(pid) = init_in(text)
            && let Some(born) = born.take()
        {
            born(pid);
        }
    }
}

/// The init's process id, once its whole line is there.
fn init_in(text: &[u8]) -> Option<i32> {
    text.split_inclusive(|byte| *byte == b'\n').find_map(|line| match serde_json::from_slice(line) {
        Ok(Report::Init(pid)) if line.ends_with(b"\n") => Some(pid),
        _ => None,
    })
}

/// Opens the directory of the version 2 cgroup that the builder, and so the init, is born in.
fn unified_cgroup(spec: &Spec) -> Result<Option<OwnedFd>, SetupError> {
    let path = spec.cgroups.iter().find_map(|cgroup| match cgroup {
        Cgroup::V2(path) => Some(path),
        Cgroup::V1(_) => None,
    });
    let open = |path: &ByteString| {
        File::open(path.as_path())
            .map(OwnedFd::from)
            .map_err(|error| SetupError::new("open the cgroup", path.clone(), &error))
    };
    path.map(open).transpose()
}

/// Reads what the builder and the init reported.
fn outcome(spec: &Spec, reports: &[u8]) -> Result<Init, SetupError> {
    let (mut init, mut failure) = (None, None);
    for line in reports.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Report::Init(pid)) => init = Some(pid),
            Ok(Report::Failed(error)) => failure = failure.or(Some(error)),
            Err(_) => {}
        }
    }
    let silent = || SetupError { step: "build".into(), object: spec.id.as_str().into(), errno: ECHILD };
    let Some(pid) = init else { return Err(failure.unwrap_or_else(silent)) };
    let pidfd =
        process::open_pidfd(pid).map_err(|error| SetupError::new("open a pidfd of", "the init", &error))?;
    match failure {
        None => Ok(Init { pid, pidfd }),
        Some(failure) => {
            // The init ends by itself after its report; reaping it is all that is left to do.
            let _ = process::kill_by_pidfd(pidfd.as_fd()).and_then(|()| process::wait(pidfd.as_fd()));
            Err(failure)
        }
    }
}

/// What the builder's process holds, and then the init.
struct Builder<'a> {
    plan: Plan,
    confinement: Confinement,
    ids: Option<OwnedFd>,
    listener: BorrowedFd<'a>,
    reporter: &'a File,
}

impl Builder<'_> {
    /// The builder's whole life; gives its exit status.
    fn run(self) -> u8 {
        let reporter = self.reporter;
        report(reporter, &self.make_init().map_or_else(Report::Failed, Report::Init))
    }

    fn make_init(self) -> Result<i32, SetupError> {
        process::set_umask(0o022);
        crate::score::deny_less_than_zero()
            .map_err(|error| SetupError::new("set", "/proc/self/oom_score_adj", &error))?;
        let ids = self.ids.as_ref().map(AsFd::as_fd);
        for step in &self.plan.outside {
            outside::carry_out(step, ids)
                .map_err(|error| SetupError::new(step.words(), step.object(), &error))?;
        }
        if let Some(ids) = ids {
            warden_linux::namespace::join_user(ids)
                .map_err(|error| SetupError::new("enter", "the user namespace", &error))?;
        }
        let namespaces = Namespaces::NEWNS
            | Namespaces::NEWPID
            | Namespaces::NEWNET
            | Namespaces::NEWIPC
            | Namespaces::NEWUTS
            | Namespaces::NEWCGROUP;
        let options = ForkOptions { namespaces, sibling: true, cgroup: None };
        let init = process::fork(options, || self.become_init())
            .map_err(|error| SetupError::new("make", "the init", &error))?;
        Ok(init.pid)
    }

    /// The init's life, should it end by itself; gives its exit status.
    fn become_init(self) -> u8 {
        let reporter = self.reporter;
        match self.make_container() {
            Ok(wshd) => wshd.serve(),
            Err(error) => {
                report(reporter, &Report::Failed(error));
                1
            }
        }
    }

    /// What is needed no more is dropped: wshd stays for long.
    fn make_container(self) -> Result<Wshd, SetupError> {
        let score = crate::score::open()
            .map_err(|error| SetupError::new("open", "/proc/self/oom_score_adj", &error))?;
        inside::carry_out(&self.plan.inside)?;
        Wshd::confine(self.listener, score, &self.confinement)
            .map_err(|error| SetupError::new("confine", "the init", &error))
    }
}

/// Gives the exit status.
fn report(mut reporter: &File, report: &Report) -> u8 {
    let Ok(mut line) = serde_json::to_vec(report) else { return 1 };
    line.push(b'\n');
    u8::from(reporter.write_all(&line).is_err())
}
