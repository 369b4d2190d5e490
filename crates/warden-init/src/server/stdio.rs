//! What a process reads from and writes to: descriptors of its client, pipes, or a terminal of the container's own.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use warden_linux::terminal::{self, Size};
use warden_linux::{file, terminal::Pair};

use super::launch::{EBADF, EIO, ENXIO, Failure};
use crate::accounts::Identity;
use crate::message::{SpawnStep, Terminal};

/// What a client wants it to be.
pub(super) enum Wish {
    /// The client's own stdin, stdout and stderr.
    Given,
    /// The client's stdin, and two pipes.
    Pipes,
    /// A terminal.
    Terminal(Terminal),
}

/// Descriptors for a process, and the other ends of what was made for it.
pub(super) struct Stdio {
    /// Its stdin, stdout and stderr.
    pub(super) inside: [OwnedFd; 3],
    /// The read ends of its pipes.
    pub(super) readers: Vec<OwnedFd>,
    /// Copies of these, for the client: made before the process runs, since root inside may then leave no room for them.
    pub(super) copies: Vec<OwnedFd>,
    /// The inode numbers of its pipes.
    pub(super) pipes: Vec<u64>,
    /// Its terminal.
    pub(super) terminal: Option<Pair>,
}

impl Stdio {
    /// Takes what the client sent and makes the rest, the user's own; `terminals` is the container's devpts.
    pub(super) fn new(
        wish: &Wish,
        fds: Vec<OwnedFd>,
        owner: Identity,
        terminals: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Failure> {
        match wish {
            Wish::Given => taken(fds).map(Self::of),
            Wish::Pipes => {
                let [stdin] = taken(fds)?;
                made(Self::with_pipes(stdin, owner))
            }
            Wish::Terminal(wanted) => {
                let [] = taken(fds)?;
                let terminals = terminals.ok_or((SpawnStep::Pipe, ENXIO))?;
                made(Self::in_terminal(wanted, owner, terminals))
            }
        }
    }

    fn of(inside: [OwnedFd; 3]) -> Self {
        Self { inside, readers: Vec::new(), copies: Vec::new(), pipes: Vec::new(), terminal: None }
    }

    /// Two new pipes, the user's own, so that it may open /dev/stdout; only the read ends never wait, for a program
    /// expects a stdout that does.
    fn with_pipes(stdin: OwnedFd, owner: Identity) -> io::Result<Self> {
        let (stdout, stdout_writer) = file::pipe()?;
        let (stderr, stderr_writer) = file::pipe()?;
        for reader in [&stdout, &stderr] {
            file::set_nonblocking(reader)?;
            file::give(reader, owner.user, owner.group)?;
        }
        let pipes = vec![file::inode(&stdout)?, file::inode(&stderr)?];
        let inside = [stdin, stdout_writer, stderr_writer];
        let copies = vec![stdout.try_clone()?, stderr.try_clone()?];
        Ok(Self { readers: vec![stdout, stderr], copies, pipes, ..Self::of(inside) })
    }

    fn in_terminal(wanted: &Terminal, owner: Identity, terminals: BorrowedFd<'_>) -> io::Result<Self> {
        let pair = terminal::open_pair(terminals)?;
        terminal::give(&pair.slave, owner.user)?;
        terminal::set_size(&pair.master, Size { rows: wanted.rows, columns: wanted.columns })?;
        let inside = [pair.slave.try_clone()?, pair.slave.try_clone()?, pair.slave.try_clone()?];
        Ok(Self { terminal: Some(pair), ..Self::of(inside) })
    }
}

/// Exactly so many descriptors as are needed.
fn taken<const COUNT: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; COUNT], Failure> {
    <[OwnedFd; COUNT]>::try_from(fds).map_err(|_| (SpawnStep::Request, EBADF))
}

fn made(stdio: io::Result<Stdio>) -> Result<Stdio, Failure> {
    stdio.map_err(|error| (SpawnStep::Pipe, error.raw_os_error().unwrap_or(EIO)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Identity = Identity { user: 0, group: 0 };

    fn null(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect()
    }

    #[test]
    fn each_wish_takes_its_number_of_descriptors() {
        let terminal = Terminal { kind: "dumb".into(), rows: 1, columns: 2 };
        for (wish, right) in [(Wish::Given, 3), (Wish::Pipes, 1), (Wish::Terminal(terminal), 0)] {
            for count in (0..5).filter(|count| *count != right) {
                let refused = Stdio::new(&wish, null(count), ROOT, None).err();
                assert_eq!(refused, Some((SpawnStep::Request, EBADF)));
            }
        }
    }

    #[test]
    fn a_terminal_is_made_to_measure_or_not_at_all() {
        let wish = Wish::Terminal(Terminal { kind: "dumb".into(), rows: 12, columns: 34 });
        assert_eq!(Stdio::new(&wish, null(0), ROOT, None).err(), Some((SpawnStep::Pipe, ENXIO)));
        let devpts = file::open_directory(std::path::Path::new("/dev/pts")).unwrap();
        let stdio = Stdio::new(&wish, null(0), ROOT, Some(std::os::fd::AsFd::as_fd(&devpts))).unwrap();
        assert_eq!(terminal::size(&stdio.inside[1]).unwrap(), Size { rows: 12, columns: 34 });
        assert!(stdio.readers.is_empty() && stdio.terminal.is_some());
    }
}
