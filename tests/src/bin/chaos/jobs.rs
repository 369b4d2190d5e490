//! The jobs of a client: started, and followed to their end, over however many daemons.

use std::sync::atomic::Ordering;
use std::time::Instant;

use warden_client::protocol::messages::*;

use crate::PATIENCE;
use crate::output::{Extent, Fate, Got, Script};
use crate::worker::{Answer, CLOSING, Worker};

/// A job that was started, and not followed yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    job: Option<u32>,
    script: Script,
    /// How many processes of its container were killed before it.
    hurt: u64,
}

impl Worker {
    /// Starts a job, and follows it at once, or some other time.
    pub(crate) async fn start(&mut self, which: usize) {
        let known = &self.containers[which];
        let hurt = self.shared.hurt(&known.handle);
        let mut pause = || ["", "sleep 0.2;", "sleep 1;"][self.random.below(3)];
        let pauses = [pause(), pause()];
        let lines = [self.random.below(40_000), self.random.below(10_000)];
        let script = Script { tag: self.random.below(1 << 30), lines, pauses };
        let spawn = SpawnRequest {
            handle: known.handle(),
            script: Some(script.text().into_bytes()),
            ..SpawnRequest::default()
        };
        match self.once(spawn).await {
            Answer::Done(spawned) => {
                self.shared.jobs.fetch_add(1, Ordering::Relaxed);
                self.containers[which].jobs.push(Started { job: spawned.job_id, script, hurt });
                if self.random.below(2) == 0 {
                    self.job(which).await;
                }
            }
            Answer::Lost => {}
            Answer::Refused(text) => self.judge(which, "spawn", &text).await,
        }
    }

    /// Follows the last job that was started and not followed, if there is one.
    pub(crate) async fn job(&mut self, which: usize) {
        let Some(Started { job, script, hurt }) = self.containers[which].jobs.pop() else { return };
        let streamed = self.random.below(2) == 0;
        let got = match self.follow(self.containers[which].handle(), job, streamed).await {
            Ok(got) => got,
            // What was delivered to a connection that died with the daemon is delivered.
            Err((text, true)) if text == "no such job" => {
                self.shared.undelivered.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err((text, _)) => return self.judge(which, "link", &text).await,
        };
        let known = &self.containers[which];
        let fate = if self.shared.is_broken(&known.handle) {
            Fate::InitKilled
        } else if self.shared.hurt(&known.handle) != hurt || known.told.stop_asked || known.told.doomed {
            Fate::Hurt
        } else {
            Fate::Undisturbed
        };
        match script.judge(fate, &got) {
            Ok(extent) => {
                let count = if extent == Extent::Whole { &self.shared.whole } else { &self.shared.cut };
                count.fetch_add(1, Ordering::Relaxed);
                let bytes: usize = got.output.iter().map(Vec::len).sum();
                self.shared.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(text) => self.complain(known, &format!("job {job:?}"), &text),
        }
    }

    /// Follows a job to its end, again from the first byte whenever the daemon dies; a refusal comes with whether that
    /// has happened.
    async fn follow(
        &self,
        handle: Option<Vec<u8>>,
        job: Option<u32>,
        streamed: bool,
    ) -> Result<Got, (String, bool)> {
        let deadline = Instant::now() + PATIENCE;
        let mut died = false;
        loop {
            let answer = if streamed {
                self.stream(StreamRequest { handle: handle.clone(), job_id: job }).await
            } else {
                match self.once(LinkRequest { handle: handle.clone(), job_id: job }).await {
                    Answer::Done(LinkResponse { stdout, stderr, exit_status, .. }) => Answer::Done(Got {
                        output: [stdout, stderr].map(Option::unwrap_or_default),
                        status: exit_status,
                    }),
                    Answer::Refused(text) => Answer::Refused(text),
                    Answer::Lost => Answer::Lost,
                }
            };
            match answer {
                Answer::Done(got) => return Ok(got),
                Answer::Refused(text) if text != CLOSING => return Err((text, died)),
                Answer::Lost => died = true,
                Answer::Refused(_) => {}
            }
            assert!(Instant::now() < deadline, "no answer for {PATIENCE:?}");
        }
    }

    async fn stream(&self, request: StreamRequest) -> Answer<Got> {
        let mut client = self.connect().await;
        let mut got = Got { output: Default::default(), status: None };
        let outcome = async {
            let mut stream = client.stream(request).await?;
            while let Some(piece) = stream.next().await? {
                let index = usize::from(piece.name.as_deref() == Some(b"stderr"));
                got.output[index].extend(piece.data.unwrap_or_default());
                got.status = piece.exit_status.or(got.status);
            }
            Ok(())
        };
        match Answer::from(outcome.await) {
            Answer::Done(()) => Answer::Done(got),
            Answer::Refused(text) => Answer::Refused(text),
            Answer::Lost => Answer::Lost,
        }
    }
}
