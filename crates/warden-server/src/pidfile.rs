//! The pidfile: `<pid>\n`, locked while the daemon lives, removed at its end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{FlockOperation, flock};

use crate::failure::Failure;

/// A locked pidfile; dropping it removes the file.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    file: File,
}

impl Pidfile {
    /// Locks the file without writing to it; refuses while another process holds the lock.
    ///
    /// The lock alone decides: a process id that a crashed daemon left may belong to anybody by now.
    pub fn lock(path: &Path) -> Result<Self, Failure> {
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            let file = file.map_err(|source| Failure::file("opening pidfile", path, source))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(held(file, path)),
                Err(errno) => return Err(Failure::file("locking pidfile", path, errno)),
            }
            // A daemon that ended between open and flock removed the file that is locked now: try the new one.
            if is_file_at(&file, path).map_err(|source| Failure::file("examining pidfile", path, source))? {
                return Ok(Self { path: path.to_owned(), file });
            }
        }
    }

    /// Writes the process's id.
    pub fn write(&mut self) -> Result<(), Failure> {
        let write = |file: &mut File| {
            file.set_len(0)?;
            writeln!(file, "{}", process::id())
        };
        write(&mut self.file).map_err(|source| Failure::file("writing pidfile", &self.path, source))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Still locked here, so nobody else's file is removed.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "removing pidfile");
        }
    }
}

/// Whether the path still names the open file.
fn is_file_at(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Names the process that holds the lock, as far as the file tells.
fn held(file: File, path: &Path) -> Failure {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    let pid = match read.ok().and(text.trim().parse::<u32>().ok()) {
        Some(pid) => pid.to_string(),
        None => "starting".to_owned(),
    };
    Failure::AlreadyRunning { pid, path: path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_pid_while_it_lives_and_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("warden.pid");
        let mut pidfile = Pidfile::lock(&path).unwrap();
        pidfile.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        let refused = Pidfile::lock(&path).unwrap_err().to_string();
        let expected =
            format!("Process (wardend - {}) is already running: it holds {}", process::id(), path.display());
        assert_eq!(refused, expected);
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_crashed_daemon_left_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("warden.pid");
        fs::write(&path, "1\nand more").unwrap();
        Pidfile::lock(&path).unwrap().write().unwrap();
        fs::write(&path, "12345678901\n").unwrap();
        let mut pidfile = Pidfile::lock(&path).unwrap();
        pidfile.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let refused = Pidfile::lock(Path::new("/nonexistent/warden.pid")).unwrap_err().to_string();
        assert!(refused.starts_with("opening pidfile /nonexistent/warden.pid: "), "{refused}");
    }
}
