//! One running job: its files, its pipes and how much of them is kept.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use warden_init::message::WaitStatus;
use warden_init::note::note;

use crate::failpoint;
use crate::file;
use crate::layout::Layout;
use crate::message::{Exit, ExitCause, Output};
pub(crate) use scratch::Scratch;
use stream::{Store, Stream};
use syslog::LineLog;

mod scratch;
mod stream;
mod syslog;

/// Priorities of the log's lines (RFC 3164): facility user; info for stdout, error for stderr.
const PRIORITIES: [u8; 2] = [14, 11];

/// Bytes moved at a time.
pub(crate) const CHUNK: usize = 64 * 1024;

/// The two streams of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout = 0,
    Stderr = 1,
}

impl Channel {
    pub(crate) const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];
}

/// What came of moving some output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Nothing was there.
    Nothing,
    /// Some bytes, of which there may be more.
    Some,
    /// The pipe has ended: it is to be taken away.
    Closed,
    /// The job is to be killed and its pipes taken away: its output passed the limit or cannot be stored.
    Fatal,
}

/// A job that has not ended.
pub(crate) struct Job {
    streams: [Stream; 2],
    /// The file that its end is written to, made while it starts.
    end: Option<file::New>,
    /// How many bytes more may be stored; none when the limit does not count.
    allowance: Option<u64>,
    /// Why the job is being killed.
    fatal: Option<ExitCause>,
    /// Whether wshd said that it runs.
    pub(crate) spawned: bool,
}

impl Job {
    /// Makes a job's directory and what another iomux, which may have to go on with the job, has to know; nothing is left
    /// when that fails.
    pub(crate) fn prepare(layout: &Layout, number: u32, output: &Output) -> io::Result<()> {
        fs::create_dir(layout.job(number))?;
        failpoint::reach("job");
        let written = file::encode(output).and_then(|text| fs::write(layout.order(number), text));
        written.inspect_err(|_| remove(layout, number))
    }

    /// Makes the files of a job that may run already.
    pub(crate) fn create(layout: &Layout, number: u32, output: &Output) -> io::Result<Self> {
        let mut job = Self::open(layout, number, output, true)?;
        job.end = Some(file::begin(&layout.exit(number))?);
        Ok(job)
    }

    /// A job whose files could not be made: it is killed when it writes something.
    pub(crate) fn without_files(output: &Output, error: &io::Error) -> Self {
        let stream = || Stream::new(Store::Broken(error.raw_os_error().unwrap_or(0)), 0, None);
        Self::of([stream(), stream()], output)
    }

    /// Goes on with a job of an iomux that has ended: what is stored stays, what its pipes hold comes behind it.
    pub(crate) fn reopen(layout: &Layout, number: u32) -> io::Result<Self> {
        let order: file::Order = file::read(&layout.order(number))?.ok_or(io::ErrorKind::NotFound)?;
        let mut job = Self::open(layout, number, &order, false)?;
        let (stdout, stderr) = job.lengths();
        if let Some(allowance) = &mut job.allowance {
            *allowance = allowance.saturating_sub(stdout.saturating_add(stderr));
        }
        Ok(job)
    }

    fn open(layout: &Layout, number: u32, output: &Output, new: bool) -> io::Result<Self> {
        let stream = |path: &Path, priority| -> io::Result<Stream> {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .create_new(new)
                .open(path)?;
            let stored = if new { 0 } else { file.metadata()?.len() };
            let store = if output.discard { Store::Nowhere } else { Store::File(file) };
            let log = output.log.as_ref().map(|log| LineLog::new(log, priority)).transpose()?;
            Ok(Stream::new(store, stored, log))
        };
        let streams =
            [stream(&layout.stdout(number), PRIORITIES[0])?, stream(&layout.stderr(number), PRIORITIES[1])?];
        Ok(Self::of(streams, output))
    }

    fn of(streams: [Stream; 2], output: &Output) -> Self {
        Self {
            streams,
            end: None,
            allowance: (!output.discard).then_some(output.limit),
            fatal: None,
            spawned: false,
        }
    }

    /// Takes the file that its end is written to, if it was made ahead.
    pub(crate) fn take_end(&mut self) -> Option<file::New> {
        self.end.take()
    }

    /// Takes the read ends of its pipes.
    pub(crate) fn connect(&mut self, pipes: [OwnedFd; 2]) {
        for (stream, pipe) in self.streams.iter_mut().zip(pipes) {
            stream.pipe = Some(pipe.into());
        }
    }

    /// The pipe of a stream, while it is read.
    pub(crate) fn pipe(&self, channel: Channel) -> Option<&File> {
        self.streams[channel as usize].pipe.as_ref()
    }

    /// Takes a pipe away: it is read no more.
    pub(crate) fn take_pipe(&mut self, channel: Channel) -> Option<File> {
        self.streams[channel as usize].pipe.take()
    }

    /// The stored lengths of stdout and stderr.
    pub(crate) fn lengths(&self) -> (u64, u64) {
        (self.streams[0].stored, self.streams[1].stored)
    }

    /// Moves some of what a pipe holds.
    pub(crate) fn advance(&mut self, channel: Channel, scratch: &mut Scratch) -> Moved {
        self.advance_by(stream::WIDE, channel, scratch)
    }

    fn advance_by(&mut self, most: usize, channel: Channel, scratch: &mut Scratch) -> Moved {
        let moved = self.streams[channel as usize].advance(most, scratch, &mut self.allowance);
        failpoint::reach("moved");
        match moved {
            Ok(Moved::Fatal) => self.give_up(ExitCause::OutputLimit),
            Ok(moved) => moved,
            Err(error) => self.give_up(ExitCause::OutputFailed(error.raw_os_error().unwrap_or(0))),
        }
    }

    fn give_up(&mut self, cause: ExitCause) -> Moved {
        self.fatal.get_or_insert(cause);
        Moved::Fatal
    }

    /// Moves what the pipes hold at this moment, and no more: other processes may keep writing to them. Says whether
    /// the job's processes have to be killed.
    pub(crate) fn drain(&mut self, scratch: &mut Scratch) -> bool {
        for channel in Channel::BOTH {
            let Some(pipe) = self.pipe(channel) else { continue };
            let mut left = warden_linux::file::readable_bytes(pipe).unwrap_or(0);
            while left > 0 {
                let size = usize::try_from(left).map_or(scratch.size(), |left| left.min(scratch.size()));
                let before = self.allowance;
                match self.advance_by(size, channel, scratch) {
                    Moved::Some => {
                        let moved = before.zip(self.allowance).map_or(size as u64, |(was, is)| was - is);
                        left = left.saturating_sub(moved);
                    }
                    Moved::Nothing | Moved::Closed => break,
                    Moved::Fatal => return true,
                }
            }
        }
        false
    }

    /// Ends the job: its log is complete. Its own cause of death comes before what wshd saw of it.
    pub(crate) fn finish(mut self, status: Option<WaitStatus>) -> Exit {
        for stream in &mut self.streams {
            stream.finish();
        }
        let cause = self.fatal.unwrap_or(match status {
            Some(WaitStatus::Code(code)) => ExitCause::Code(code),
            Some(WaitStatus::Signal(signal)) => ExitCause::Signal(signal),
            None => ExitCause::InitDied,
        });
        let (stdout, stderr) = self.lengths();
        Exit { cause, stdout, stderr }
    }
}

/// Removes a job's directory, of a job that never ran.
pub(crate) fn remove(layout: &Layout, number: u32) {
    if let Err(error) = fs::remove_dir_all(layout.job(number)) {
        note(format_args!("iomux: remove {}: {error}", layout.job(number).display()));
    }
}

/// Whether output is read from pipes at all.
pub(crate) fn piped(output: &Output) -> bool {
    !output.discard || output.log.is_some()
}

/// Writes a job's end to its directory, whole or not at all.
pub(crate) fn write_exit(
    layout: &Layout,
    number: u32,
    exit: &Exit,
    new: Option<file::New>,
) -> io::Result<()> {
    let path = layout.exit(number);
    new.map_or_else(|| file::begin(&path), Ok)?.finish(&path, exit)
}

#[cfg(test)]
mod tests;
