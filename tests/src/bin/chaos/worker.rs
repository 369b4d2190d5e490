//! A client that works on containers of its own, and remembers what it was told.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use warden_client::protocol::Command as Asked;
use warden_client::protocol::messages::*;
use warden_client::{Client, Error};
use warden_tests::Random;

use crate::{PATIENCE, Shared, shown};

/// Containers of one client.
const CONTAINERS: usize = 3;

/// What a client knows of a container.
#[derive(Clone, Debug)]
struct Known {
    handle: Vec<u8>,
    /// It was told that the container is there; else it does not know.
    told: bool,
    /// It has asked to destroy it, and does not know what became of that.
    doomed: bool,
    /// It has asked to stop it.
    stopped: bool,
    memory: Option<u64>,
}

/// A client.
pub(crate) struct Worker {
    socket: PathBuf,
    shared: Arc<Shared>,
    random: Random,
    number: usize,
    count: usize,
    containers: Vec<Known>,
    gone: Vec<Vec<u8>>,
}

/// How a request ended.
enum Answer<T> {
    Done(T),
    Refused(String),
    /// The daemon died meanwhile.
    Lost,
}

impl Worker {
    pub(crate) fn new(socket: &Path, shared: Arc<Shared>, random: Random, number: usize) -> Self {
        let (containers, gone) = Default::default();
        Self { socket: socket.to_owned(), shared, random, number, count: 0, containers, gone }
    }

    fn answer<T>(outcome: Result<T, Error>) -> Answer<T> {
        match outcome {
            Ok(value) => Answer::Done(value),
            Err(Error::Server { message }) => Answer::Refused(shown(&message)),
            Err(_) => Answer::Lost,
        }
    }

    async fn connect(&self) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Client::connect(&self.socket).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "no daemon for {PATIENCE:?}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks once.
    async fn once<C: Asked>(&self, request: C) -> Answer<C::Response> {
        Self::answer(self.connect().await.request(request).await)
    }

    /// Asks again whenever the daemon dies: for what can be asked twice.
    async fn surely<C: Asked + Clone>(&self, request: C) -> Result<C::Response, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.once(request.clone()).await {
                Answer::Done(response) => return Ok(response),
                Answer::Refused(text) if text != "the server is shutting down" => return Err(text),
                _ => assert!(Instant::now() < deadline, "no answer for {PATIENCE:?}"),
            }
        }
    }

    /// Works until it shall end, and then looks whether all is as it was told.
    pub(crate) async fn work(mut self) {
        while !self.shared.ending.load(Ordering::Relaxed) {
            self.step().await;
        }
        self.finish().await;
    }

    async fn step(&mut self) {
        if self.containers.is_empty() || self.containers.len() < CONTAINERS && self.random.below(4) == 0 {
            return self.create().await;
        }
        let which = self.random.below(self.containers.len());
        match self.random.below(10) {
            0 | 1 => self.destroy(which).await,
            2 => self.limit(which).await,
            3 => self.open(which).await,
            4 => self.stop(which).await,
            5 => self.look(which).await,
            _ => self.job(which).await,
        }
    }

    async fn create(&mut self) {
        self.count += 1;
        let handle = format!("chaos-{}-{}", self.number, self.count).into_bytes();
        let request = CreateRequest { handle: Some(handle.clone()), ..CreateRequest::default() };
        let mut known = Known { handle, told: false, doomed: false, stopped: false, memory: None };
        match self.once(request).await {
            Answer::Done(_) => {
                self.shared.created.fetch_add(1, Ordering::Relaxed);
                known.told = true;
                let info = InfoRequest { handle: Some(known.handle.clone()) };
                if let Ok(info) = self.surely(info).await {
                    let path = String::from_utf8(info.container_path.unwrap()).unwrap();
                    let id = path.rsplit('/').next().unwrap().to_owned();
                    self.shared.known.lock().unwrap().insert(id, known.handle.clone());
                } else {
                    self.shared.complain(format!("{} is not there", shown(&known.handle)));
                }
                self.containers.push(known);
            }
            Answer::Lost => self.containers.push(known),
            Answer::Refused(text) if text == "the server is shutting down" => {}
            Answer::Refused(text) => self.shared.complain(format!("create: {text}")),
        }
    }

    /// Whether a refusal is one that the client has to expect.
    fn is_expected(&self, known: &Known, text: &str) -> bool {
        let excused = !known.told || known.doomed || self.shared.is_broken(&known.handle);
        text == "the server is shutting down"
            || excused && (text == "unknown handle" || text.starts_with("Container state must be"))
            || known.stopped && text.starts_with("Container state must be")
            || excused && text.contains("it has ended")
    }

    fn judge(&mut self, which: usize, action: &str, text: &str) {
        let known = &self.containers[which];
        if !self.is_expected(known, text) {
            self.shared.complain(format!("{action} of {}: {text}", shown(&known.handle)));
        }
        if text == "unknown handle" {
            self.containers.remove(which);
        }
    }

    async fn destroy(&mut self, which: usize) {
        let handle = self.containers[which].handle.clone();
        match self.once(DestroyRequest { handle: Some(handle.clone()) }).await {
            Answer::Done(_) => {
                self.shared.destroyed.fetch_add(1, Ordering::Relaxed);
                self.containers.remove(which);
                self.gone.push(handle);
            }
            Answer::Lost => self.containers[which].doomed = true,
            Answer::Refused(text) => self.judge(which, "destroy", &text),
        }
    }

    async fn limit(&mut self, which: usize) {
        let handle = Some(self.containers[which].handle.clone());
        let bytes = (64 + self.random.below(64) as u64) << 20;
        let request = LimitMemoryRequest { handle, limit_in_bytes: Some(bytes) };
        match self.once(request).await {
            Answer::Done(_) => self.containers[which].memory = Some(bytes),
            // Which of both it is, it does not know.
            Answer::Lost => self.containers[which].memory = None,
            Answer::Refused(text) => self.judge(which, "limit_memory", &text),
        }
    }

    async fn open(&mut self, which: usize) {
        let handle = Some(self.containers[which].handle.clone());
        let inward = self.random.below(2) == 0;
        let refused = if inward {
            Self::refusal(self.once(NetInRequest { handle, ..NetInRequest::default() }).await)
        } else {
            let network = Some(b"192.0.2.0/24".to_vec());
            Self::refusal(self.once(NetOutRequest { handle, network, ..NetOutRequest::default() }).await)
        };
        if let Some(text) = refused {
            self.judge(which, "net", &text);
        }
    }

    fn refusal<T>(answer: Answer<T>) -> Option<String> {
        match answer {
            Answer::Refused(text) => Some(text),
            _ => None,
        }
    }

    async fn stop(&mut self, which: usize) {
        if self.random.below(3) != 0 {
            return;
        }
        let handle = Some(self.containers[which].handle.clone());
        self.containers[which].stopped = true;
        let request = StopRequest { handle, kill: Some(true), ..StopRequest::default() };
        if let Some(text) = Self::refusal(self.once(request).await) {
            self.judge(which, "stop", &text);
        }
    }

    async fn look(&mut self, which: usize) {
        let known = self.containers[which].clone();
        let info = self.surely(InfoRequest { handle: Some(known.handle.clone()) }).await;
        if let Err(text) = info {
            return self.judge(which, "info", &text);
        }
        let limit = LimitMemoryRequest { handle: Some(known.handle.clone()), limit_in_bytes: None };
        match self.surely(limit).await {
            Ok(limit) => {
                if known.memory.is_some_and(|bytes| limit.limit_in_bytes != Some(bytes)) {
                    let found = limit.limit_in_bytes;
                    self.shared.complain(format!("limit of {}: {found:?}, {known:?}", shown(&known.handle)));
                }
            }
            Err(text) => self.judge(which, "limit_memory", &text),
        }
    }

    async fn job(&mut self, which: usize) {
        let known = self.containers[which].clone();
        let before = self.shared.hurt(&known.handle);
        let (tag, lines) = (self.random.below(1 << 30), self.random.below(40_000));
        let pause = ["", "sleep 0.2;", "sleep 1;"][self.random.below(3)];
        let script = format!("{pause} seq -f 'x{tag}-%.0f' {lines}");
        let spawn = SpawnRequest {
            handle: Some(known.handle.clone()),
            script: Some(script.into_bytes()),
            ..SpawnRequest::default()
        };
        let job = match self.once(spawn).await {
            Answer::Done(spawned) => spawned.job_id,
            Answer::Lost => return,
            Answer::Refused(text) => return self.judge(which, "spawn", &text),
        };
        self.shared.jobs.fetch_add(1, Ordering::Relaxed);
        let link = LinkRequest { handle: Some(known.handle.clone()), job_id: job };
        let linked = match self.surely(link).await {
            Ok(linked) => linked,
            // What was delivered to a connection that died with the daemon is delivered.
            Err(text) if text == "no such job" => {
                self.shared.cut.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(text) => return self.judge(which, "link", &text),
        };
        let expected: String = (1..=lines).map(|line| format!("x{tag}-{line}\n")).collect();
        let found = linked.stdout.unwrap_or_default();
        let status = linked.exit_status;
        let killed = self.shared.hurt(&known.handle) != before
            || self.shared.is_broken(&known.handle)
            || known.stopped;
        let whole = found == expected.as_bytes() && status == Some(0);
        let part = killed && status != Some(0) && expected.as_bytes().starts_with(&found);
        if !whole && !part {
            let length = found.len();
            self.shared.complain(format!(
                "job {job:?} of {}: {length} of {} bytes, status {status:?}",
                shown(&known.handle),
                expected.len()
            ));
        }
        if part {
            self.shared.cut.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.bytes.fetch_add(found.len() as u64, Ordering::Relaxed);
    }

    /// Looks whether everything is as it was told, once nobody is killed any more.
    async fn finish(&mut self) {
        let listed: HashSet<Vec<u8>> =
            self.surely(ListRequest {}).await.unwrap().handles.into_iter().collect();
        for handle in &self.gone {
            if listed.contains(handle) {
                self.shared.complain(format!("{} was destroyed, and is there", shown(handle)));
            }
        }
        for known in self.containers.clone() {
            let info = self.surely(InfoRequest { handle: Some(known.handle.clone()) }).await;
            match info {
                Ok(info) => {
                    let stopped = info.state.as_deref() == Some(b"stopped");
                    let excused = known.stopped || known.doomed || self.shared.is_broken(&known.handle);
                    if stopped && !excused {
                        let events = info.events.iter().map(|event| shown(event)).collect::<Vec<_>>();
                        self.shared.complain(format!("{} is stopped: {events:?}", shown(&known.handle)));
                    }
                }
                Err(text) if self.is_expected(&known, &text) => {}
                Err(text) => self.shared.complain(format!("{}: {text}", shown(&known.handle))),
            }
        }
    }
}
