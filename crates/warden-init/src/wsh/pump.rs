//! Moves bytes between a terminal and what the job has in its place.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use warden_linux::epoll::{Epoll, Interest};
use warden_linux::file;

/// Bytes moved at a time.
const CHUNK: usize = 16 * 1024;

/// Bytes that are still moved when the job has ended, at most: another process may write for ever.
const REST: usize = 1 << 20;

/// How long that may take where the sink does not wait by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the operator to the job; its sink never waits.
    Inward,
    /// From the job to the operator.
    Outward,
}

/// What came of moving some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// There may be more.
    Going,
    /// The operator's side is gone, or has ended its input.
    OperatorEnded,
    /// The job's side is closed.
    JobEnded,
}

/// One direction of a relay. It waits for its source, or, while it holds what the sink does not take, for its sink.
pub(super) struct Pump {
    source: File,
    sink: File,
    direction: Direction,
    pending: Vec<u8>,
}

impl Pump {
    pub(super) fn new(source: OwnedFd, sink: OwnedFd, direction: Direction) -> Self {
        Self { source: source.into(), sink: sink.into(), direction, pending: Vec::new() }
    }

    /// Waits for it in an epoll, under a token.
    pub(super) fn watch(&self, epoll: &Epoll, token: u64) -> io::Result<()> {
        epoll.add(&self.source, token, Interest::Read)
    }

    /// Waits for it no more.
    pub(super) fn unwatch(&self, epoll: &Epoll) -> io::Result<()> {
        epoll.remove(if self.pending.is_empty() { &self.source } else { &self.sink })
    }

    /// Moves what is there, and waits for what keeps it from going on.
    pub(super) fn advance(&mut self, epoll: &Epoll, token: u64) -> io::Result<Flow> {
        let waited_for_sink = !self.pending.is_empty();
        if !waited_for_sink {
            let mut buffer = vec![0; CHUNK];
            match self.source.read(&mut buffer) {
                Ok(0) => return Ok(self.source_ended()),
                Ok(got) => buffer.truncate(got),
                Err(error) if is_passing(&error) => return Ok(Flow::Going),
                // A terminal that was hung up; it is readable for ever.
                Err(_) => return Ok(self.source_ended()),
            }
            self.pending = buffer;
        }
        let delivered = self.deliver();
        match (waited_for_sink, self.pending.is_empty()) {
            (false, false) => {
                epoll.remove(&self.source)?;
                epoll.add(&self.sink, token, Interest::ReadWrite)?;
            }
            (true, true) => {
                epoll.remove(&self.sink)?;
                epoll.add(&self.source, token, Interest::Read)?;
            }
            (true, false) | (false, true) => {}
        }
        Ok(if delivered.is_ok() { Flow::Going } else { self.sink_failed() })
    }

    /// Writes what it holds, as far as the sink takes it.
    fn deliver(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match self.sink.write(&self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Moves what a job that has ended left behind.
    pub(super) fn finish(&mut self) {
        if self.direction == Direction::Inward || file::set_nonblocking(&self.source).is_err() {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut left = REST;
        while self.deliver_all(deadline).is_ok() && left > 0 {
            let mut buffer = vec![0; CHUNK];
            let Ok(got @ 1..) = self.source.read(&mut buffer) else { return };
            buffer.truncate(got);
            self.pending = buffer;
            left = left.saturating_sub(got);
        }
    }

    /// Writes all that it holds, also where another program has the operator's terminal never wait.
    fn deliver_all(&mut self, deadline: Instant) -> io::Result<()> {
        loop {
            self.deliver()?;
            if self.pending.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn source_ended(&self) -> Flow {
        match self.direction {
            Direction::Inward => Flow::OperatorEnded,
            Direction::Outward => Flow::JobEnded,
        }
    }

    fn sink_failed(&self) -> Flow {
        match self.direction {
            Direction::Inward => Flow::JobEnded,
            Direction::Outward => Flow::OperatorEnded,
        }
    }

    /// Where its bytes go.
    pub(super) fn direction(&self) -> Direction {
        self.direction
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_takes_nothing_holds_up_the_source_and_loses_nothing() {
        let epoll = Epoll::new().unwrap();
        let (source, feed) = file::pipe().unwrap();
        let (far, sink) = file::pipe().unwrap();
        file::set_nonblocking(&sink).unwrap();
        let mut pump = Pump::new(source, sink, Direction::Inward);
        pump.watch(&epoll, 7).unwrap();
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let feeder = std::thread::spawn({
            let sent = sent.clone();
            move || File::from(feed).write_all(&sent).unwrap()
        });
        let (mut far, mut got, mut buffer) = (File::from(far), Vec::new(), vec![0; 5000]);
        file::set_nonblocking(&far).unwrap();
        let mut flow = Flow::Going;
        while flow == Flow::Going {
            // While nothing moves, the sink is full, and room is made; or the feeder has not come that far.
            if epoll.wait(Some(std::time::Duration::from_millis(20))).unwrap().is_empty() {
                match far.read(&mut buffer) {
                    Ok(count) => got.extend_from_slice(&buffer[..count]),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            } else {
                flow = pump.advance(&epoll, 7).unwrap();
            }
        }
        feeder.join().unwrap();
        assert_eq!(flow, Flow::OperatorEnded);
        drop(pump);
        far.read_to_end(&mut got).unwrap();
        assert!(got == sent);
    }

    #[test]
    fn what_is_left_at_the_end_is_bounded() {
        let (source, feed) = file::pipe().unwrap();
        let out = tempfile::tempfile().unwrap();
        let mut pump = Pump::new(source, out.try_clone().unwrap().into(), Direction::Outward);
        let mut feed = File::from(feed);
        feed.write_all(b"the rest").unwrap();
        pump.pending = b"before ".to_vec();
        pump.finish();
        assert_eq!(out.metadata().unwrap().len(), 15);
        let (endless, null) = (File::open("/dev/zero").unwrap(), out.try_clone().unwrap());
        Pump::new(endless.into(), null.into(), Direction::Outward).finish();
        assert_eq!(out.metadata().unwrap().len(), 15 + REST as u64);
    }
}
