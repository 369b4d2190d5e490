//! The supervisor's copies between the host and the container.

use std::io;

use warden_copy::Totals;
use warden_init::byte_string::ByteString;
use warden_linux::epoll::Interest;

use super::Supervisor;
use super::init::InitLink;
use super::token::Token;
use crate::copy::{Copying, Heard};
use crate::message::{CopyFailure, CopyOrder, Event, Side};

const ECANCELED: i32 = 125;
const EEXIST: i32 = 17;
const EIO: i32 = 5;
const ESRCH: i32 = 3;

impl Supervisor {
    pub(super) fn start_copy(&mut self, order: &CopyOrder) {
        if let Err(errno) = self.try_start_copy(order) {
            let failure = CopyFailure { side: Side::Outside, step: None, path: order.source.clone(), errno };
            self.tell(&Event::CopyEnded {
                copy: order.copy,
                totals: Totals::default(),
                failure: Some(failure),
            });
        }
    }

    fn try_start_copy(&mut self, order: &CopyOrder) -> Result<(), i32> {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(EIO);
        if self.copies.contains_key(&order.copy) {
            return Err(EEXIST);
        }
        let init = self.init.as_ref().map(InitLink::pidfd).ok_or(ESRCH)?;
        let copying = Copying::start(order, &self.inside, init).map_err(errno)?;
        for side in [Side::Inside, Side::Outside] {
            let token = Token::Copy(order.copy, side).into();
            self.epoll.add(copying.reports(side), token, Interest::Read).map_err(errno)?;
        }
        self.copies.insert(order.copy, copying);
        Ok(())
    }

    pub(super) fn cancel_copy(&mut self, copy: u32) {
        if let Some(copying) = self.copies.get(&copy) {
            copying.cancel();
        }
    }

    pub(super) fn hear_copy(&mut self, copy: u32, side: Side) {
        let Some(copying) = self.copies.get_mut(&copy) else { return };
        match copying.hear(side) {
            Heard::Nothing => {}
            Heard::Progress(totals) => self.tell(&Event::CopyProgress { copy, totals }),
            Heard::Ended(totals, failure) => {
                self.copies.remove(&copy);
                self.tell(&Event::CopyEnded { copy, totals, failure });
            }
        }
    }

    /// Ends all copies, for the container is dead.
    pub(super) fn end_copies(&mut self) {
        for (copy, copying) in std::mem::take(&mut self.copies) {
            copying.cancel();
            let failure =
                CopyFailure { side: Side::Inside, step: None, path: ByteString::default(), errno: ECANCELED };
            self.tell(&Event::CopyEnded { copy, totals: copying.totals(), failure: Some(failure) });
        }
    }
}
