//! What the job gets as its stdin, stdout and stderr.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use warden_linux::{file, terminal};

use super::failure::Failure;
use super::pump::{Direction, Pump};

const NAMES: [&str; 3] = ["input", "output", "error"];

/// What the job gets, and what this process has to relay.
pub(super) enum Stdio {
    /// A terminal of the container's own: all three are terminals.
    Terminal,
    /// These descriptors; the pumps move what passes through pipes.
    Given { inside: [OwnedFd; 3], pumps: Vec<Pump> },
}

impl Stdio {
    /// Decides it by this process's own.
    pub(super) fn of_this_process() -> Result<Self, Failure> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        Self::new([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
    }

    fn new(outside: [BorrowedFd<'_>; 3]) -> Result<Self, Failure> {
        if outside.iter().all(terminal::is_terminal) {
            return Ok(Self::Terminal);
        }
        let mut pumps = Vec::new();
        let mut inside = |number| handed(outside[number], number, &mut pumps);
        let inside = [inside(0)?, inside(1)?, inside(2)?];
        Ok(Self::Given { inside, pumps })
    }
}

/// What the job gets for one of them; a terminal adds a pump.
fn handed(fd: BorrowedFd<'_>, number: usize, pumps: &mut Vec<Pump>) -> Result<OwnedFd, Failure> {
    let failed = |error| Failure::io("pass standard input, output and error")(error);
    // By a directory's "..", which no root directory bounds, the whole host could be reached.
    if file::is_directory(fd).map_err(failed)? {
        return Err(Failure::Directory(NAMES[number]));
    }
    let own = fd.try_clone_to_owned().map_err(failed)?;
    if !terminal::is_terminal(fd) {
        return Ok(own);
    }
    let (reader, writer) = file::pipe().map_err(failed)?;
    if number == 0 {
        // Who does not read must not keep this process from all else.
        file::set_nonblocking(&writer).map_err(failed)?;
        pumps.push(Pump::new(own, writer, Direction::Inward));
        Ok(reader)
    } else {
        pumps.push(Pump::new(reader, own, Direction::Outward));
        Ok(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn no_terminal_is_handed_inside() {
        let devpts = File::open("/dev/pts").unwrap();
        let pair = terminal::open_pair(devpts.as_fd()).unwrap();
        let (tty, null) = (pair.slave.as_fd(), File::open("/dev/null").unwrap());
        assert!(matches!(Stdio::new([tty, tty, tty]).unwrap(), Stdio::Terminal));
        for terminals in 0..7 {
            let outside = [0, 1, 2].map(|n| if terminals & (1 << n) == 0 { null.as_fd() } else { tty });
            let Stdio::Given { inside, pumps } = Stdio::new(outside).unwrap() else { panic!("{terminals}") };
            assert!(!inside.iter().any(terminal::is_terminal), "{terminals}");
            assert_eq!(pumps.len(), u32::count_ones(terminals) as usize);
        }
    }

    #[test]
    fn a_directory_is_refused() {
        let (null, root) = (File::open("/dev/null").unwrap(), File::open("/").unwrap());
        let refused = Stdio::new([root.as_fd(), null.as_fd(), null.as_fd()]).err().unwrap();
        assert_eq!(refused.to_string(), "standard input is a directory, which is not handed to a container");
    }
}
