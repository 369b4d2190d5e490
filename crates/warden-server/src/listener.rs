//! The socket of the clients: nobody reaches it before it has its permissions.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use crate::failure::Failure;

/// Connections that wait to be accepted: a burst of clients is not refused.
const BACKLOG: i32 = 1024;

/// A listening socket; dropping it removes its file, unless it was left behind on purpose.
#[derive(Debug)]
pub struct Listener {
    /// Where connections come from.
    pub socket: UnixListener,
    /// The socket's file.
    pub file: SocketFile,
}

/// The file of a socket; dropping it removes the file if it is still this socket's.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    stays: bool,
}

impl Listener {
    /// Listens on `path`, in place of a socket that nobody serves any more; needs a tokio runtime.
    ///
    /// Errors name the path: a live server, a file that is no socket, or what the kernel refused.
    pub fn bind(path: &Path, permissions: u32) -> Result<Self, Failure> {
        refuse_live(path)?;
        bind_at(path, permissions).map_err(|source| Failure::file("listening on", path, source))
    }
}

impl SocketFile {
    /// Leaves the file where it is.
    pub fn leave(mut self) {
        self.stays = true;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another daemon may have put its own socket there meanwhile.
        if !self.stays && identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses a path where a server answers, or that holds anything but a socket.
pub fn refuse_live(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::file("examining", path, error)),
        Ok(found) if !found.file_type().is_socket() => return Err(Failure::NotSocket(path.to_owned())),
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(Failure::SocketInUse(path.to_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        Err(error) => Err(Failure::file("connecting to", path, error)),
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the socket under another name in the same directory, and renames it when it is ready.
fn bind_at(path: &Path, permissions: u32) -> io::Result<Listener> {
    // Through the directory's descriptor, because the other name may be longer than an address can hold.
    let directory =
        rustix::fs::open(directory(path), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let temporary =
        PathBuf::from(format!("/proc/self/fd/{}/.wardend.{}", directory.as_raw_fd(), process::id()));
    let _ = fs::remove_file(&temporary);
    let made = listen_at(&temporary, permissions).and_then(|socket| {
        let identity = identity(&temporary)?;
        fs::rename(&temporary, path)?;
        Ok(Listener { socket, file: SocketFile { path: path.to_owned(), identity, stays: false } })
    });
    if made.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    made
}

/// Makes a listening socket at a path that does not exist.
fn listen_at(path: &Path, permissions: u32) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(permissions))?;
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_has_its_permissions_and_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("warden.sock");
        let listener = Listener::bind(&path, 0o750).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o750);
        StdUnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_longest_possible_path_works() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s".repeat(107 - directory.path().as_os_str().len() - 1));
        let _listener = Listener::bind(&path, 0o700).unwrap();
        StdUnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_live_server_is_refused_and_a_stale_socket_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("warden.sock");
        let first = Listener::bind(&path, 0o700).unwrap();
        let refused = Listener::bind(&path, 0o700).unwrap_err().to_string();
        assert_eq!(refused, format!("a server answers at {} already", path.display()));
        first.file.leave();
        drop(first.socket);
        assert!(path.exists());
        let second = Listener::bind(&path, 0o700).unwrap();
        StdUnixStream::connect(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn another_s_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("warden.sock");
        let first = Listener::bind(&path, 0o700).unwrap();
        drop(first.socket);
        let second = Listener::bind(&path, 0o700).unwrap();
        drop(first.file);
        StdUnixStream::connect(&path).unwrap();
        drop(second);
    }

    #[tokio::test]
    async fn a_file_is_neither_replaced_nor_removed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Listener::bind(file.path(), 0o700).unwrap_err().to_string();
        assert_eq!(refused, format!("{} exists and is not a socket", file.path().display()));
        assert!(file.path().exists());
        let missing = Listener::bind(Path::new("/nonexistent/warden.sock"), 0o700).unwrap_err().to_string();
        assert!(missing.starts_with("listening on /nonexistent/warden.sock: "), "{missing}");
    }
}
