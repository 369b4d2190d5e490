//! Adds bind mounts to a container that stands, and writes its files anew: for one that was made before anybody asked for
//! it. Nothing but its init may have run in it yet.
//!
//! A short-lived helper stages the mounts in a mount namespace of its own, as the builder does, enters the container's
//! user namespace, and leaves for a copy of its mounts that belongs to that one: the copy locks their flags. What it
//! takes out of the copy it attaches in the container.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use warden_linux::process::{self, ForkOptions, Namespaces};
use warden_linux::{file, namespace};

use super::inside::{self, Progress};
use super::plan::Furnishing;
use super::{ECHILD, Init, SetupError, outside};
use crate::spec::Spec;

/// Gives the container that lives in `directory` the bind mounts of its spec, which it has none of yet, and its files.
///
/// The calling process must have one thread. Returns once all is done.
pub fn furnish(spec: &Spec, directory: &Path, init: &Init) -> Result<(), SetupError> {
    // Both while the host's root asks: who is in the container's user namespace may not look at its init.
    let ids = spec.ids.map(|_| namespace_of(init, "user")).transpose()?;
    let mounts = namespace_of(init, "mnt")?;
    let helper = Helper { plan: Furnishing::new(spec, directory), ids, mounts, maker: process::id() };
    let wrong = |error: &io::Error| SetupError::new("start a helper for", spec.id.as_str(), error);
    let (reports, reporter) = file::pipe().map_err(|error| wrong(&error))?;
    let (mut reports, reporter) = (File::from(reports), File::from(reporter));
    let options = ForkOptions { namespaces: Namespaces::NEWNS, ..ForkOptions::default() };
    let child = process::fork(options, || helper.run(&reporter)).map_err(|error| wrong(&error))?;
    drop(reporter);
    let mut text = Vec::new();
    let read = reports.read_to_end(&mut text);
    let waited = process::wait(child.pidfd.as_fd());
    let ending = read.and(waited).map_err(|error| wrong(&error))?;
    if ending == process::Ending::Code(0) {
        return Ok(());
    }
    let silent = || SetupError { step: "furnish".into(), object: spec.id.as_str().into(), errno: ECHILD };
    Err(serde_json::from_slice(&text).unwrap_or_else(|_| silent()))
}

/// The init is a child of this process that is not reaped: its number is its own.
fn namespace_of(init: &Init, kind: &str) -> Result<OwnedFd, SetupError> {
    let path = format!("/proc/{}/ns/{kind}", init.pid);
    let opened = File::open(&path).map(OwnedFd::from);
    opened.map_err(|error| SetupError::new("open", path.as_str(), &error))
}

struct Helper {
    plan: Furnishing,
    ids: Option<OwnedFd>,
    mounts: OwnedFd,
    /// iomux.
    maker: i32,
}

impl Helper {
    /// The helper's whole life; gives its exit status.
    fn run(&self, reporter: &File) -> u8 {
        let Err(error) = self.furnish() else { return 0 };
        // Who reads it finds out by the status where it cannot be written.
        let _ = serde_json::to_writer(reporter, &error);
        1
    }

    fn furnish(&self) -> Result<(), SetupError> {
        let enter = |what: &'static str| move |error: io::Error| SetupError::new("enter", what, &error);
        process::set_umask(0o022);
        process::die_with(self.maker).map_err(enter("the helper"))?;
        let ids = self.ids.as_ref().map(AsFd::as_fd);
        for step in &self.plan.outside {
            outside::carry_out(step, ids)
                .map_err(|error| SetupError::new(step.words(), step.object(), &error))?;
        }
        if let Some(ids) = ids {
            namespace::join_user(ids).map_err(enter("the user namespace"))?;
        }
        namespace::leave_mounts().map_err(enter("a copy of the mounts"))?;
        let mut progress = Progress::default();
        inside::go_on(&self.plan.taken, &mut progress)?;
        namespace::join_mounts(self.mounts.as_fd()).map_err(enter("the container's mounts"))?;
        process::set_ids(0, 0).map_err(|error| SetupError::new("become", "the container's root", &error))?;
        inside::go_on(&self.plan.inside, &mut progress)
    }
}
