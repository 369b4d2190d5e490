//! wshd: the init of a container that stands. The process that has put the container together goes on as it.
//!
//! It is a copy of a copy of iomux, without a program of its own: docs/adr/0008 says what that spares, and why a tenant gets
//! nothing by it.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use warden_linux::process::{self, Arguments};
use warden_linux::{limit, signal};

use crate::confinement::{Confinement, Privileges};
use crate::score::Score;
use crate::server::Server;

/// The name in the container's process list.
const NAME: &std::ffi::CStr = c"wshd";

/// An init that is confined and has not begun to serve.
#[derive(Debug)]
pub(crate) struct Wshd {
    listener: OwnedFd,
    score: File,
    privileges: Privileges,
}

impl Wshd {
    /// Confines this process, the first of its container.
    pub(crate) fn confine(
        listener: BorrowedFd<'_>,
        score: File,
        confinement: &Confinement,
    ) -> io::Result<Self> {
        // Nothing that a tenant sends may act on this process: signals are only read, and of these only SIGCHLD.
        signal::block_for_good()?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        for number in 0..=2 {
            process::place(null.as_fd(), number)?;
        }
        process::set_name(NAME)?;
        Arguments::find()?.replace(&[NAME.to_bytes()])?;
        limit::raise_open_files()?;
        let wshd =
            Self { listener: listener.try_clone_to_owned()?, score, privileges: confinement.privileges() };
        confinement.enter()?;
        wshd.privileges.bound()?;
        process::deny_tracing()?;
        Ok(wshd)
    }

    /// Lets go of whatever else this process has open, and serves for ever; gives the exit status where that fails.
    pub(crate) fn serve(self) -> u8 {
        // There is nobody to tell why: iomux sees the end.
        let Err(_) = self.try_to_serve();
        1
    }

    fn try_to_serve(self) -> io::Result<Infallible> {
        let Self { listener, score, privileges } = self;
        process::keep_standard_and(&[listener.as_fd(), score.as_fd()])?;
        let mut server = Server::new(listener, privileges, Score::adopt(score)?)?;
        process::trim_heap();
        server.run()
    }
}
