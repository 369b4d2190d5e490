//! A listener of iomux.
//!
//! It listens in a thread of its own, so that an operator who stops reading the output never keeps iomux waiting, which
//! gives its clients some time to take their last events before it ends.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use warden_init::connection::Connection;
use warden_linux::epoll::Epoll;
use warden_linux::socket::PacketSocket;

use super::Failure;
use crate::layout::Layout;
use crate::message::{Event, Exit, MAX_PACKET, Request, VERSION, VERSIONS};

/// What iomux tells of the job.
#[derive(Debug)]
pub(super) enum Told {
    /// It may have written more.
    More,
    /// It has ended.
    Ended(Exit),
    /// It could not be started.
    NotStarted,
    /// iomux is gone.
    Gone,
}

/// What was told and not heard yet; it takes the same room however much that is.
#[derive(Debug, Default)]
struct News {
    more: bool,
    last: Option<Result<Told, Failure>>,
}

/// What the two threads share.
#[derive(Debug, Default)]
struct Board {
    news: Mutex<News>,
    changed: Condvar,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }
}

/// A connection over which iomux tells what happens to a job.
pub(super) struct Follower(Arc<Board>);

impl Follower {
    /// Connects; everything that happens to the job from now on is told. None: there is no iomux.
    pub(super) fn connect(layout: &Layout, job: u32) -> Result<Option<Self>, Failure> {
        let path = layout.iomux_socket();
        let socket = match PacketSocket::connect(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            other => other.map_err(Failure::io("connect to", &path))?,
        };
        let mut ear = Ear::new(socket).map_err(Failure::io("talk to", &path))?;
        match ear.next()? {
            Some(Event::Hello { version }) if VERSIONS.contains(&version) => {}
            Some(Event::Hello { version }) => return Err(Failure::Version(version)),
            Some(_) | None => return Ok(None),
        }
        let board = Arc::<Board>::default();
        let follower = Self(Arc::clone(&board));
        thread::Builder::new()
            .spawn(move || ear.listen(job, &board))
            .map_err(Failure::io("listen to", &path))?;
        Ok(Some(follower))
    }

    /// Waits for the next thing that is told.
    pub(super) fn next(&mut self) -> Result<Told, Failure> {
        let mut news = self.0.lock();
        loop {
            if std::mem::take(&mut news.more) {
                return Ok(Told::More);
            }
            if let Some(last) = news.last.take() {
                return last;
            }
            news = self.0.changed.wait(news).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The end of the connection that the thread has.
struct Ear {
    epoll: Epoll,
    connection: Connection,
}

impl Ear {
    fn new(socket: PacketSocket) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut connection = Connection::new(socket, &epoll, 0, 1)?;
        connection.send(&Request::Hello { version: VERSION }, Vec::new())?;
        Ok(Self { epoll, connection })
    }

    /// Writes down what concerns the job, up to the last that there is.
    fn listen(mut self, job: u32, board: &Board) {
        let last = loop {
            match self.next() {
                Ok(Some(Event::Output { job: grown, .. })) if grown == job => {
                    board.write(|news| news.more = true)
                }
                Ok(Some(Event::Ended { job: ended, exit })) if ended == job => break Ok(Told::Ended(exit)),
                Ok(Some(Event::SpawnFailed { job: failed, .. })) if failed == job => {
                    break Ok(Told::NotStarted);
                }
                Ok(Some(_)) => {}
                Ok(None) => break Ok(Told::Gone),
                Err(error) => break Err(error),
            }
        };
        board.write(|news| news.last = Some(last));
    }

    /// The next thing that happens; none once iomux is gone.
    fn next(&mut self) -> Result<Option<Event>, Failure> {
        match self.receive() {
            Ok(event) => Ok(Some(event)),
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(None),
                _ => Err(Failure::io("listen to", "iomux".as_ref())(error)),
            },
        }
    }

    fn receive(&mut self) -> io::Result<Event> {
        loop {
            self.connection.flush(&self.epoll)?;
            if let Some((event, _)) = self.connection.receive(MAX_PACKET)? {
                return Ok(event);
            }
            self.epoll.wait(None)?;
        }
    }
}
