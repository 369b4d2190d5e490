//! Terminals: their size and modes, and new pairs of them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::termios::{OptionalActions, Termios, Winsize};

/// A terminal's size, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Its lines.
    pub rows: u16,
    /// The characters of a line.
    pub columns: u16,
}

/// A new terminal: what is written to one end is read from the other.
#[derive(Debug)]
pub struct Pair {
    /// The end of who shows the terminal; its close hangs the terminal up.
    pub master: OwnedFd,
    /// The end of the programs in it.
    pub slave: OwnedFd,
}

/// Whether an open file is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}

/// A terminal's size.
pub fn size(fd: impl AsFd) -> io::Result<Size> {
    let size = rustix::termios::tcgetwinsize(fd)?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Changes a terminal's size; the programs in it are told by SIGWINCH.
pub fn set_size(fd: impl AsFd, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(fd, size)?)
}

/// Makes a terminal in an open directory of a devpts file system, in which nothing else may be mounted over `ptmx`
/// (`EXDEV`). Neither end becomes this process's controlling terminal; both are close-on-exec.
pub fn open_pair(devpts: BorrowedFd<'_>) -> io::Result<Pair> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let master = rustix::fs::openat2(devpts, Path::new("ptmx"), flags, Mode::empty(), resolve)?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads the integer, which lives through the call; TIOCGPTPEER takes its flags by value and gives
    // a new descriptor.
    let slave = unsafe {
        if libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) == -1 {
            return Err(io::Error::last_os_error());
        }
        // By its name the slave could be another one: whoever mounts over the directory chooses.
        match libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) {
            -1 => return Err(io::Error::last_os_error()),
            slave => OwnedFd::from_raw_fd(slave),
        }
    };
    Ok(Pair { master, slave })
}

/// Makes an open terminal a user's; its group, which the file system gave it, stays.
pub fn give(slave: impl AsFd, user: u32) -> io::Result<()> {
    Ok(rustix::fs::fchown(slave, Some(rustix::fs::Uid::from_raw(user)), None)?)
}

/// Keeps a terminal in raw mode, in which each byte passes as it is, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it restores the terminal"]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Sets raw mode.
    pub fn enter(terminal: OwnedFd) -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(&terminal)?;
        let raw = Self { terminal, before };
        raw.enter_again()?;
        Ok(raw)
    }

    /// Sets raw mode once more: a shell that stopped this process has had its own modes since.
    pub fn enter_again(&self) -> io::Result<()> {
        let mut modes = self.before.clone();
        modes.make_raw();
        Ok(rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &modes)?)
    }

    /// Whether the terminal is another process group's at the moment, which would be disturbed, and this one stopped.
    fn is_in_background(&self) -> bool {
        let foreground = rustix::termios::tcgetpgrp(&self.terminal);
        foreground.is_ok_and(|group| group != rustix::process::getpgrp())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if !self.is_in_background() {
            // A terminal that has gone away needs no modes.
            let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    fn pair() -> Pair {
        open_pair(File::open("/dev/pts").unwrap().as_fd()).unwrap()
    }

    #[test]
    fn a_pair_passes_bytes_and_its_size() {
        let Pair { master, slave } = pair();
        assert!(is_terminal(&master) && is_terminal(&slave));
        assert!(!is_terminal(File::open("/dev/null").unwrap()));
        let wanted = Size { rows: 33, columns: 111 };
        set_size(&master, wanted).unwrap();
        assert_eq!(size(&slave).unwrap(), wanted);
        let mut master = File::from(master);
        master.write_all(b"line\r").unwrap();
        let mut line = [0; 5];
        File::from(slave).read_exact(&mut line).unwrap();
        assert_eq!(&line, b"line\n");
    }

    #[test]
    fn raw_mode_ends_with_its_value() {
        let Pair { master, slave } = pair();
        let mut slave = File::from(slave);
        let raw = RawMode::enter(slave.try_clone().unwrap().into()).unwrap();
        let mut master = File::from(master);
        master.write_all(b"\x03\r").unwrap();
        let mut bytes = [0; 2];
        slave.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"\x03\r");
        drop(raw);
        master.write_all(b"a\r").unwrap();
        slave.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"a\n");
    }

    #[test]
    fn only_a_devpts_has_terminals() {
        let directory = tempfile::tempdir().unwrap();
        let directory = File::open(directory.path()).unwrap();
        assert_eq!(open_pair(directory.as_fd()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
