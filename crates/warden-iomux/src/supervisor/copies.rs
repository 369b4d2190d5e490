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

/// A copy, and who has asked for it: it is nobody else's concern, and ends with its client.
pub(super) struct Asked {
    client: u64,
    /// The client's own number of it.
    number: u32,
    copying: Copying,
}

impl Supervisor {
    pub(super) fn start_copy(&mut self, client: u64, order: &CopyOrder) {
        if let Err(errno) = self.try_start_copy(client, order) {
            let failure = CopyFailure { side: Side::Outside, step: None, path: order.source.clone(), errno };
            self.tell_end_of_copy(client, order.copy, Totals::default(), Some(failure));
        }
    }

    fn try_start_copy(&mut self, client: u64, order: &CopyOrder) -> Result<(), i32> {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(EIO);
        if self.copies.values().any(|asked| asked.is(client, order.copy)) {
            return Err(EEXIST);
        }
        let init = self.init.as_ref().map(InitLink::pidfd).ok_or(ESRCH)?;
        let copying = Copying::start(order, &self.inside, init).map_err(errno)?;
        let copy = self.next_copy;
        self.next_copy = copy.wrapping_add(1);
        for side in [Side::Inside, Side::Outside] {
            let token = Token::Copy(copy, side).into();
            self.epoll.add(copying.reports(side), token, Interest::Read).map_err(errno)?;
        }
        self.copies.insert(copy, Asked { client, number: order.copy, copying });
        Ok(())
    }

    pub(super) fn cancel_copy(&mut self, client: u64, number: u32) {
        if let Some(asked) = self.copies.values().find(|asked| asked.is(client, number)) {
            asked.copying.cancel();
        }
    }

    /// Ends what clients that are gone have asked for; their helpers are buried as they end.
    pub(super) fn cancel_copies_of_nobody(&self) {
        for asked in self.copies.values().filter(|asked| !self.clients.contains_key(&asked.client)) {
            asked.copying.cancel();
        }
    }

    pub(super) fn hear_copy(&mut self, copy: u32, side: Side) {
        let Some(asked) = self.copies.get_mut(&copy) else { return };
        let (client, number) = (asked.client, asked.number);
        match asked.copying.hear(side) {
            Heard::Nothing => {}
            Heard::Progress(totals) => self.tell_one(client, &Event::CopyProgress { copy: number, totals }),
            Heard::Ended(totals, failure) => {
                self.copies.remove(&copy);
                self.tell_end_of_copy(client, number, totals, failure);
            }
        }
    }

    /// Ends all copies, for the container is dead.
    pub(super) fn end_copies(&mut self) {
        for Asked { client, number, copying } in std::mem::take(&mut self.copies).into_values() {
            copying.cancel();
            let failure =
                CopyFailure { side: Side::Inside, step: None, path: ByteString::default(), errno: ECANCELED };
            self.tell_end_of_copy(client, number, copying.totals(), Some(failure));
        }
    }

    fn tell_end_of_copy(&mut self, client: u64, copy: u32, totals: Totals, failure: Option<CopyFailure>) {
        self.tell_one(client, &Event::CopyEnded { copy, totals, failure });
    }

    fn tell_one(&mut self, client: u64, event: &Event) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.tell(event);
        }
    }
}

impl Asked {
    fn is(&self, client: u64, number: u32) -> bool {
        (self.client, self.number) == (client, number)
    }
}
