//! A file system of XFS, of a test's own.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::{files, programs};

/// A file with XFS in it, mounted through a loop device until this is dropped.
#[derive(Debug)]
pub struct Xfs(TempDir);

impl Xfs {
    /// Makes and mounts one. mkfs.xfs makes none that is smaller.
    pub fn mount(options: &str) -> Self {
        let made = Self(files::directory());
        let (image, at) =
            (made.0.path().join("image").display().to_string(), made.path("").display().to_string());
        programs::host("truncate", &["-s", "300M", &image]);
        programs::host("mkfs.xfs", &["-q", &image]);
        files::make_directory(&made.path(""), 0o755);
        programs::host("mount", &["-t", "xfs", "-o", &format!("loop,{options}"), &image, &at]);
        made
    }

    /// A path on it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("mounted").join(name)
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(""), rustix::mount::UnmountFlags::DETACH);
    }
}
