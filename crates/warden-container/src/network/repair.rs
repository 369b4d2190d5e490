//! Puts the table back when somebody else has changed it: a flush of all rules must not open the containers for long.
//!
//! The kernel tells of each change by another program; nothing wakes up otherwise.

use std::io::{self, PipeReader, PipeWriter};
use std::sync::{Mutex, Weak};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec};
use warden_linux::netlink::nftables::Watch;

use super::state::State;
use crate::error::{Context, Error};
use crate::pool::lock;

/// The shortest time between two repairs, lest two programs that want different tables take the whole machine.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// When what could not be repaired is tried again.
const RETRY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Keeps the repairs going until it is dropped.
#[derive(Debug)]
pub(super) struct Repairs {
    _running: PipeWriter,
}

impl Repairs {
    /// Begins with what is heard from now on.
    pub(super) fn start(watch: Watch, state: Weak<Mutex<State>>) -> Result<Self, Error> {
        let (ended, running) = io::pipe().context(|| "making a pipe".to_owned())?;
        thread::Builder::new()
            .name("table".to_owned())
            .spawn(move || {
                if let Err(error) = keep(&watch, &ended, &state) {
                    tracing::error!(%error, "changes of the packet filter by other programs are not noticed any more");
                }
            })
            .context(|| "starting the repairer of the packet filter's table".to_owned())?;
        Ok(Self { _running: running })
    }
}

fn keep(watch: &Watch, ended: &PipeReader, state: &Weak<Mutex<State>>) -> io::Result<()> {
    let mut again = false;
    loop {
        let wait = again.then_some(&RETRY);
        let mut events = [PollFd::new(ended, PollFlags::IN), PollFd::new(watch, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut events, wait))?;
        if !events[0].revents().is_empty() {
            return Ok(());
        }
        let Some(state) = state.upgrade() else { return Ok(()) };
        let mut state = lock(&state);
        if state.closed {
            return Ok(());
        }
        if !watch.has_changed(&state.firewall.table)? && !again {
            continue;
        }
        let repaired = state.write_all();
        let table = &state.firewall.table;
        match &repaired {
            Ok(()) => {
                tracing::warn!(table, "another program changed the packet filter's table: it was repaired")
            }
            Err(error) => tracing::error!(table, %error, "the packet filter's table could not be repaired"),
        }
        again = repaired.is_err();
        drop(state);
        let mut end = [PollFd::new(ended, PollFlags::IN)];
        if rustix::event::poll(&mut end, Some(&PAUSE))? > 0 {
            return Ok(());
        }
    }
}
