//! spawn, run, link and stream.
//!
//! Output goes from the job's files to the socket. A job is forgotten only when a complete final answer was written.

use std::fs::File;

use tokio::sync::watch;
use warden_container::container::Container;
use warden_container::job::{Job, Progress, Stream};
use warden_iomux::message::ExitCause;
use warden_protocol::Response;
use warden_protocol::messages::{
    LinkRequest, RunRequest, SpawnRequest, SpawnResponse, StreamRequest, StreamResponse,
};
use warden_protocol::output::{Kind, RunLike, stream_chunk};

use super::{Refusal, Session};
use crate::convert;
use crate::writer::Part;

/// The most bytes of output in one response of `stream`.
const CHUNK: u64 = 256 * 1024;

impl Session<'_> {
    pub(super) async fn spawn(&self, request: SpawnRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        let job = container.spawn(convert::spawn(request)).await?;
        Ok(Response::Spawn(SpawnResponse { job_id: Some(job.id()) }))
    }

    pub(super) async fn run(&self, request: RunRequest) -> Result<(), Refusal> {
        let container = self.container(request.handle.as_deref())?;
        let job = container.spawn(convert::run(request)).await?;
        self.answer_whole(Kind::Run, &container, &job).await
    }

    pub(super) async fn link(&self, request: LinkRequest) -> Result<(), Refusal> {
        let container = self.container(request.handle.as_deref())?;
        let job = container.job(request.job_id.unwrap_or_default()).await?;
        self.answer_whole(Kind::Link, &container, &job).await
    }

    pub(super) async fn stream(&self, request: StreamRequest) -> Result<(), Refusal> {
        let container = self.container(request.handle.as_deref())?;
        let job = container.job(request.job_id.unwrap_or_default()).await?;
        let exit_status = self.send_chunks(&job).await?;
        let info = Some(convert::info(container.last_info().await));
        let last = StreamResponse { exit_status: Some(exit_status), info, ..StreamResponse::default() };
        self.writer.response(&Response::Stream(last)).await.map_err(Refusal::Socket)?;
        job.answered();
        Ok(())
    }

    /// Waits for the job's end and sends everything in one response.
    async fn answer_whole(&self, kind: Kind, container: &Container, job: &Job) -> Result<(), Refusal> {
        let progress = end(&mut job.progress()).await;
        let info = Some(convert::info(container.last_info().await));
        let (stdout_len, stderr_len) = (progress.stdout, progress.stderr);
        let frame =
            RunLike { kind, exit_status: status(&progress), stdout_len, stderr_len, info }.encode()?;
        let stdout = open(job, Stream::Stdout, stdout_len)?;
        let stderr = open(job, Stream::Stderr, stderr_len)?;
        let parts = [
            Part::Bytes(&frame.head),
            range(stdout.as_ref(), 0, stdout_len),
            Part::Bytes(&frame.between),
            range(stderr.as_ref(), 0, stderr_len),
            Part::Bytes(&frame.tail),
        ];
        self.writer.parts(&parts).await.map_err(Refusal::Socket)?;
        job.answered();
        Ok(())
    }

    /// Sends the output as it comes, from the first byte on, and returns the exit status.
    async fn send_chunks(&self, job: &Job) -> Result<u32, Refusal> {
        let mut progress = job.progress();
        let mut readers = [Reader::new(Stream::Stdout), Reader::new(Stream::Stderr)];
        loop {
            let seen = *progress.borrow_and_update();
            let mut sent = false;
            for reader in &mut readers {
                sent |= self.send_chunk(job, reader, seen).await?;
            }
            if sent {
                continue;
            }
            // An error means that the container's actor is gone, and nothing more will be known.
            if seen.end.is_some() || progress.changed().await.is_err() {
                return Ok(status(&seen));
            }
        }
    }

    /// Sends the next bytes of one stream; false when there are none by now.
    async fn send_chunk(&self, job: &Job, reader: &mut Reader, seen: Progress) -> Result<bool, Refusal> {
        let count = reader.next(&seen);
        if count == 0 {
            return Ok(false);
        }
        if reader.file.is_none() {
            reader.file = open(job, reader.stream, count)?;
        }
        let (head, tail) = stream_chunk(name(reader.stream), count);
        let parts =
            [Part::Bytes(&head), range(reader.file.as_ref(), reader.offset, count), Part::Bytes(&tail)];
        self.writer.parts(&parts).await.map_err(Refusal::Socket)?;
        reader.offset += count;
        Ok(true)
    }
}

/// A range of a stream's file; there is none without bytes.
fn range(file: Option<&File>, offset: u64, count: u64) -> Part<'_> {
    file.map_or(Part::Bytes(&[]), |file| Part::Range(file, offset, count))
}

/// How far one stream of a job was sent.
#[derive(Debug)]
struct Reader {
    stream: Stream,
    offset: u64,
    file: Option<File>,
}

impl Reader {
    fn new(stream: Stream) -> Self {
        Self { stream, offset: 0, file: None }
    }

    /// The length of the next chunk, 0 when all that is there was sent.
    fn next(&self, seen: &Progress) -> u64 {
        let length = match self.stream {
            Stream::Stdout => seen.stdout,
            Stream::Stderr => seen.stderr,
        };
        length.saturating_sub(self.offset).min(CHUNK)
    }
}

/// Waits for the job's end; a container whose actor is gone tells no more than what is known.
async fn end(progress: &mut watch::Receiver<Progress>) -> Progress {
    if let Ok(ended) = progress.wait_for(|progress| progress.end.is_some()).await {
        return *ended;
    }
    *progress.borrow()
}

/// The exit status that a client sees; an end that is not known is that of a dead container.
fn status(progress: &Progress) -> u32 {
    progress.end.unwrap_or(ExitCause::InitDied).status()
}

/// Opens a stream's file; one without bytes may not exist.
fn open(job: &Job, stream: Stream, length: u64) -> Result<Option<File>, Refusal> {
    if length == 0 {
        return Ok(None);
    }
    let opened = job.open(stream).map(Some);
    opened.map_err(|source| Refusal::Output { job: job.id(), stream: name(stream), source })
}

/// The protocol's name of a stream.
fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_follow_each_other_and_are_bounded() {
        let mut reader = Reader::new(Stream::Stderr);
        let seen = Progress { stdout: 9, stderr: 2 * CHUNK + 1, end: None };
        for expected in [CHUNK, CHUNK, 1, 0] {
            assert_eq!(reader.next(&seen), expected);
            reader.offset += expected;
        }
        assert_eq!(Reader::new(Stream::Stdout).next(&seen), 9);
        assert_eq!(reader.next(&Progress::default()), 0);
    }

    #[test]
    fn the_exit_status_is_the_code_or_255() {
        let status_of = |end| status(&Progress { end, ..Progress::default() });
        assert_eq!(status_of(Some(ExitCause::Code(7))), 7);
        assert_eq!(status_of(Some(ExitCause::Signal(9))), 255);
        assert_eq!(status_of(Some(ExitCause::OutputLimit)), 255);
        assert_eq!(status_of(None), 255);
    }

    #[tokio::test]
    async fn the_end_is_waited_for_until_it_comes_or_cannot_come() {
        let (sender, mut receiver) = watch::channel(Progress::default());
        let waiting = tokio::spawn(async move { end(&mut receiver).await });
        let last = Progress { stdout: 3, stderr: 0, end: Some(ExitCause::Code(0)) };
        sender.send(Progress { stdout: 2, ..Progress::default() }).unwrap();
        sender.send(last).unwrap();
        assert_eq!(waiting.await.unwrap(), last);
        let (sender, mut receiver) = watch::channel(Progress { stdout: 5, ..Progress::default() });
        drop(sender);
        assert_eq!(end(&mut receiver).await.stdout, 5);
    }
}
