//! A daemon whose containers' disks can be limited, on whatever this machine has.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::{Daemon, files, programs};

/// Bytes of an image.
const IMAGE: u64 = 512 << 20;

/// A daemon of the test's own with disk limits: by the file system of temporary directories, or by an image in one.
#[derive(Debug)]
pub struct Limited {
    /// The daemon; it ends before its image goes.
    pub daemon: Daemon,
    image: TempDir,
}

impl Limited {
    /// Starts it with further configuration; with an image only where nothing else would do.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        if temporary_files_have_quotas() {
            return Self { daemon: Daemon::with(settings), image: files::directory() };
        }
        Self::with_image(settings)
    }

    /// Starts it with an image.
    pub fn with_image(settings: &[(&str, &str)]) -> Self {
        let image = files::directory();
        let value = format!("{{path: {}, size: {IMAGE}}}", image.path().join("depot.img").display());
        let settings = [settings, &[("server.depot_image", value.as_str())]].concat();
        Self { daemon: Daemon::with(&settings), image }
    }

    /// The image's path.
    pub fn image(&self) -> PathBuf {
        self.image.path().join("depot.img")
    }

    /// The type of the depot's file system.
    pub fn file_system(&self) -> String {
        let depot = self.daemon.depot("");
        programs::host("stat", &["-f", "-c", "%T", depot.to_str().unwrap()]).trim().to_owned()
    }

    /// Whether the depot's file system counts files; all that have quotas but btrfs do.
    pub fn counts_files(&self) -> bool {
        self.file_system() != "btrfs"
    }
}

/// Whether the file system of temporary directories enforces project quotas.
pub fn temporary_files_have_quotas() -> bool {
    let directory = std::env::temp_dir();
    let options = programs::host("findmnt", &["-no", "OPTIONS", "-T", directory.to_str().unwrap()]);
    options.trim().split(',').any(|option| option == "prjquota")
}
