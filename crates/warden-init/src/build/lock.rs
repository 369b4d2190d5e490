//! Locks mounts that the init has made itself, so that no program inside can take them away.
//!
//! The kernel locks mounts when it copies them into a mount namespace of another user namespace. A short-lived process in
//! such namespaces has this copy; it takes the wanted part out of it, locks included, and hands it back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::note::note;

use warden_linux::process::{self, ForkOptions, Namespaces};
use warden_linux::socket::PacketSocket;
use warden_linux::{file, mount};

/// Replaces what is mounted at each path, and below it, by a copy in which all below it is locked.
///
/// Some machines let nobody but their own root make user namespaces. There the mounts stay as they are, and it is said.
pub(super) fn lock(paths: &[&Path]) -> io::Result<()> {
    let locked = match copies(paths) {
        Err(error) if is_refusal(&error) => {
            note(format_args!("wshd: lock what covers parts of /proc and /sys: {error}"));
            return Ok(());
        }
        other => other?,
    };
    for (path, tree) in paths.iter().zip(&locked) {
        mount::detach(path)?;
        mount::attach(tree.as_fd(), file::open_directory_place(path)?.as_fd())?;
    }
    Ok(())
}

fn copies(paths: &[&Path]) -> io::Result<Vec<OwnedFd>> {
    let (ours, theirs) = PacketSocket::pair()?;
    let namespaces = Namespaces::NEWUSER | Namespaces::NEWNS;
    let options = ForkOptions { namespaces, ..ForkOptions::default() };
    let child = process::fork(options, || match hand_over(paths, &theirs) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().and_then(|errno| u8::try_from(errno).ok()).unwrap_or(u8::MAX),
    })?;
    match process::wait(child.pidfd.as_fd())? {
        // What it has sent is there, although it is not.
        process::Ending::Code(0) => Ok(ours.receive(1)?.fds),
        process::Ending::Code(errno) => Err(io::Error::from_raw_os_error(errno.into())),
        process::Ending::Signal(_) => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// The process's whole life.
fn hand_over(paths: &[&Path], to: &PacketSocket) -> io::Result<()> {
    let trees = paths.iter().map(|path| mount::copy(path, true)).collect::<io::Result<Vec<_>>>()?;
    let trees: Vec<BorrowedFd<'_>> = trees.iter().map(AsFd::as_fd).collect();
    to.send(b"=", &trees)
}

fn is_refusal(error: &io::Error) -> bool {
    const EPERM: i32 = 1;
    const EACCES: i32 = 13;
    const ENOSPC: i32 = 28;
    matches!(error.raw_os_error(), Some(EPERM | EACCES | ENOSPC))
}
