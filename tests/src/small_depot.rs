//! A depot on a small file system of its own.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{major, minor};
use rustix::mount::UnmountFlags;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Daemon, files, programs};

/// A small ext4 in the place of a daemon's depot, until this is dropped.
#[derive(Debug)]
pub struct SmallDepot {
    depot: PathBuf,
    _image: TempDir,
}

impl SmallDepot {
    /// Starts the daemon anew with it.
    pub fn below(daemon: &mut Daemon) -> Self {
        daemon.signal(Signal::TERM);
        assert!(daemon.wait().success());
        let (depot, directory) = (daemon.depot(""), files::directory());
        let image = directory.path().join("image");
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        programs::host("mkfs.ext4", &["-qF", "-m0", image.to_str().unwrap()]);
        programs::host("mount", &["-o", "loop", image.to_str().unwrap(), depot.to_str().unwrap()]);
        daemon.restart();
        Self { depot, _image: directory }
    }

    /// How often its device was made to write what it held back, so far.
    pub fn flushes(&self) -> u64 {
        let device = fs::metadata(&self.depot).unwrap().dev();
        let statistics = format!("/sys/dev/block/{}:{}/stat", major(device), minor(device));
        let statistics = fs::read_to_string(statistics).unwrap();
        // The kernel's Documentation/block/stat.rst: "flush I/Os".
        statistics.split_whitespace().nth(15).unwrap().parse().unwrap()
    }
}

impl Drop for SmallDepot {
    fn drop(&mut self) {
        // Also of a test that has failed, whose containers are still there.
        let _ = rustix::mount::unmount(&self.depot, UnmountFlags::DETACH);
    }
}
