//! A client that works on containers of its own, and remembers what it was told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use warden_client::protocol::Command as Asked;
use warden_client::protocol::messages::*;
use warden_client::{Client, Error};
use warden_tests::Random;

use crate::jobs::Started;
use crate::promise::{self, Limits, OneOf, Port, Seen, Sight, Told};
use crate::{PATIENCE, Shared, shown};

/// Containers of one client.
const CONTAINERS: usize = 3;
/// What a daemon that ends answers.
pub(crate) const CLOSING: &str = "the server is shutting down";
/// The rate and burst of a network without a limit.
const UNLIMITED: u64 = u32::MAX as u64;

/// A container, and what its client knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) handle: Vec<u8>,
    /// Known to who was told that it is there.
    id: Option<String>,
    pub(crate) told: Told,
    /// Followed later, over however many daemons.
    pub(crate) jobs: Vec<Started>,
}

impl Known {
    pub(crate) fn handle(&self) -> Option<Vec<u8>> {
        Some(self.handle.clone())
    }
}

/// A client.
pub(crate) struct Worker {
    socket: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) random: Random,
    number: usize,
    count: usize,
    pub(crate) containers: Vec<Known>,
    destroyed: Vec<Known>,
}

/// How a request ended.
pub(crate) enum Answer<T> {
    Done(T),
    Refused(String),
    /// The daemon died meanwhile.
    Lost,
}

impl<T> From<Result<T, Error>> for Answer<T> {
    fn from(outcome: Result<T, Error>) -> Self {
        match outcome {
            Ok(value) => Self::Done(value),
            Err(Error::Server { message }) => Self::Refused(shown(&message)),
            Err(_) => Self::Lost,
        }
    }
}

impl Worker {
    pub(crate) fn new(socket: &Path, shared: Arc<Shared>, random: Random, number: usize) -> Self {
        let (containers, destroyed) = Default::default();
        Self { socket: socket.to_owned(), shared, random, number, count: 0, containers, destroyed }
    }

    pub(crate) async fn connect(&self) -> Client {
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
    pub(crate) async fn once<C: Asked>(&self, request: C) -> Answer<C::Response> {
        self.connect().await.request(request).await.into()
    }

    /// Asks again whenever the daemon dies: for what can be asked twice.
    async fn surely<C: Asked + Clone>(&self, request: C) -> Result<C::Response, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.once(request.clone()).await {
                Answer::Done(response) => return Ok(response),
                Answer::Refused(text) if text != CLOSING => return Err(text),
                _ => assert!(Instant::now() < deadline, "no answer for {PATIENCE:?}"),
            }
        }
    }

    /// Works until it shall end, and then looks whether all is as it was told; gives the handles that may be there.
    pub(crate) async fn work(mut self) -> Vec<Vec<u8>> {
        while !self.shared.ending.load(Ordering::Relaxed) {
            self.step().await;
        }
        self.finish().await;
        self.containers.into_iter().map(|known| known.handle).collect()
    }

    async fn step(&mut self) {
        if self.containers.is_empty() || self.containers.len() < CONTAINERS && self.random.below(4) == 0 {
            return self.create().await;
        }
        let which = self.random.below(self.containers.len());
        match self.random.below(12) {
            0 | 1 => self.destroy(which).await,
            2 | 3 => self.limit(which).await,
            4 => self.open(which).await,
            5 => self.stop(which).await,
            6 => self.look(which).await,
            7 | 8 => self.job(which).await,
            _ => self.start(which).await,
        }
    }

    async fn create(&mut self) {
        self.count += 1;
        let handle = format!("chaos-{}-{}", self.number, self.count).into_bytes();
        let mut known = Known { handle, id: None, told: Told::default(), jobs: Vec::new() };
        match self.once(CreateRequest { handle: known.handle(), ..CreateRequest::default() }).await {
            Answer::Done(_) => {
                self.shared.created.fetch_add(1, Ordering::Relaxed);
                known.told.created = true;
                self.meet(&mut known).await;
                self.containers.push(known);
            }
            Answer::Lost => self.containers.push(known),
            Answer::Refused(text) if text == CLOSING => {}
            Answer::Refused(text) => self.shared.complain(format!("create: {text}")),
        }
    }

    /// Asks what a new container has, before anybody can have hurt it: the killer does not know it yet.
    async fn meet(&self, known: &mut Known) {
        match self.see(known).await {
            Ok((id, Sight { addresses, limits, .. })) => {
                known.told.addresses = Some(addresses);
                known.told.limits = Some(Limits {
                    memory: OneOf::told(limits.memory),
                    shares: OneOf::told(limits.shares),
                    bandwidth: OneOf::told(limits.bandwidth[0]),
                });
                self.shared.known.lock().unwrap().insert(id.clone(), known.handle.clone());
                known.id = Some(id);
            }
            Err(text) => self.complain(known, "look", &text),
        }
    }

    pub(crate) fn complain(&self, known: &Known, action: &str, text: &str) {
        let id = known.id.as_deref().unwrap_or("?");
        self.shared.complain(format!("{action} of {} ({id}): {text}", shown(&known.handle)));
    }

    /// What the daemon and the kernel tell of a container, with its id; or the daemon's refusal.
    async fn see(&self, known: &Known) -> Result<(String, Sight), String> {
        let handle = known.handle();
        let info = self.surely(InfoRequest { handle: handle.clone() }).await?;
        let memory = self.surely(LimitMemoryRequest { handle: handle.clone(), limit_in_bytes: None }).await?;
        let cpu = self.surely(LimitCpuRequest { handle, ..LimitCpuRequest::default() }).await?;
        let text = |value: &Option<Vec<u8>>| shown(value.as_deref().unwrap_or_default());
        let id = text(&info.container_path).rsplit('/').next().unwrap().to_owned();
        let stat = info.bandwidth_stat.clone().unwrap_or_default();
        let inward = (stat.in_rate.unwrap_or(UNLIMITED), stat.in_burst.unwrap_or(UNLIMITED));
        let outward = (stat.out_rate.unwrap_or(UNLIMITED), stat.out_burst.unwrap_or(UNLIMITED));
        let (ports, networks) = self.shared.host.opened(&text(&info.container_ip));
        let sight = Sight {
            state: text(&info.state),
            events: info.events.iter().map(|event| shown(event)).collect(),
            addresses: (text(&info.host_ip), text(&info.container_ip)),
            limits: Limits {
                memory: memory.limit_in_bytes.unwrap_or_default(),
                shares: cpu.limit_in_shares.unwrap_or_default(),
                bandwidth: [inward, outward],
            },
            ports,
            networks,
        };
        Ok((id, sight))
    }

    /// Looks at a container, and compares all of it with what was told; whether it is there.
    async fn compare(&mut self, which: usize) -> bool {
        let mut told = self.containers[which].told.clone();
        told.init_killed = self.shared.is_broken(&self.containers[which].handle);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known = &self.containers[which];
            let seen = match self.see(known).await {
                Ok((_, sight)) => Seen::There(sight),
                Err(text) if text == "unknown handle" => {
                    let buried = known.id.as_deref().is_some_and(|id| self.shared.host.buried(id));
                    Seen::Absent { buried }
                }
                // It is being destroyed, as it was asked.
                Err(text) if told.doomed && text.starts_with("Container state must be") => return true,
                Err(text) => {
                    self.complain(known, "look", &text);
                    return true;
                }
            };
            told.init_maybe_killed = self.shared.is_broken(&known.handle);
            // The kernel takes its time to end all processes of a dead init.
            let unnoticed =
                matches!(&seen, Seen::There(sight) if told.init_killed && sight.state == "active");
            if unnoticed && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let broken = promise::broken(&told, &seen);
            broken.iter().for_each(|text| self.complain(known, "look", text));
            self.shared.looks.fetch_add(1, Ordering::Relaxed);
            return matches!(seen, Seen::There(_));
        }
    }

    async fn look(&mut self, which: usize) {
        if !self.compare(which).await {
            self.containers.remove(which);
        }
    }

    /// Judges a refusal: one that is explained by what is known of the container is none.
    pub(crate) async fn judge(&mut self, which: usize, action: &str, text: &str) {
        if text == CLOSING {
            return;
        }
        if text == "unknown handle" {
            return self.look(which).await;
        }
        let known = &self.containers[which];
        let (told, killed) = (&known.told, self.shared.is_broken(&known.handle));
        let not_active = text.starts_with("Container state must be");
        let expected = not_active && (told.stop_asked || told.doomed || killed)
            // Its interface went with its namespaces.
            || killed && (text.contains("it has ended") || text.contains("No such device"));
        if !expected {
            self.complain(known, action, text);
        }
    }

    async fn destroy(&mut self, which: usize) {
        match self.once(DestroyRequest { handle: self.containers[which].handle() }).await {
            Answer::Done(_) => {
                self.shared.destroyed.fetch_add(1, Ordering::Relaxed);
                let mut known = self.containers.remove(which);
                known.told.destroyed = true;
                self.destroyed.push(known);
            }
            Answer::Lost => self.containers[which].told.doomed = true,
            Answer::Refused(text) => self.judge(which, "destroy", &text).await,
        }
    }

    async fn limit(&mut self, which: usize) {
        let handle = self.containers[which].handle();
        let kind = self.random.below(3);
        let (bytes, shares) =
            ((64 + self.random.below(64) as u64) << 20, 2 + self.random.below(2_000) as u64);
        let (rate, burst) = (100_000_000 + self.random.below(1_000) as u64, 1_000_000);
        let memory = LimitMemoryRequest { handle: handle.clone(), limit_in_bytes: Some(bytes) };
        let cpu = LimitCpuRequest {
            handle: handle.clone(),
            limit_in_shares: Some(shares),
            ..LimitCpuRequest::default()
        };
        let bandwidth = LimitBandwidthRequest { handle, rate: Some(rate), burst: Some(burst) };
        // What the kernel keeps may be another number than was asked for: which, its answer tells.
        let answer = match kind {
            0 => self.answered(memory, |answer| answer.limit_in_bytes.unwrap_or_default()).await,
            1 => self.answered(cpu, |answer| answer.limit_in_shares.unwrap_or_default()).await,
            _ => self.answered(bandwidth, |_| rate).await,
        };
        let limits = self.containers[which].told.limits.as_mut();
        match answer {
            Answer::Refused(text) => return self.judge(which, "limit", &text).await,
            Answer::Done(value) => {
                if let Some(limits) = limits {
                    match kind {
                        0 => limits.memory = OneOf::told(value),
                        1 => limits.shares = OneOf::told(value),
                        _ => limits.bandwidth = OneOf::told((value, burst)),
                    }
                }
            }
            Answer::Lost => {
                if let Some(limits) = limits {
                    match kind {
                        0 => limits.memory.ask(bytes),
                        1 => limits.shares.ask(shares),
                        _ => limits.bandwidth.ask((rate, burst)),
                    }
                }
            }
        }
    }

    async fn answered<C: Asked>(&self, request: C, value: impl FnOnce(C::Response) -> u64) -> Answer<u64> {
        match self.once(request).await {
            Answer::Done(response) => Answer::Done(value(response)),
            Answer::Refused(text) => Answer::Refused(text),
            Answer::Lost => Answer::Lost,
        }
    }

    async fn open(&mut self, which: usize) {
        let handle = self.containers[which].handle();
        if self.random.below(2) == 0 {
            let port = 1 + u32::try_from(self.random.below(60_000)).unwrap();
            let request = NetInRequest { handle, container_port: Some(port), ..NetInRequest::default() };
            match self.once(request).await {
                Answer::Done(answer) => {
                    let told = &mut self.containers[which].told;
                    let number = |port: Option<u32>| u16::try_from(port.unwrap()).unwrap();
                    let (host, inside) = (number(answer.host_port), number(answer.container_port));
                    told.ports.insert(Port { host, inside });
                }
                Answer::Lost => self.containers[which].told.ports_asked += 1,
                Answer::Refused(text) => self.judge(which, "net_in", &text).await,
            }
            return;
        }
        let address = format!("192.0.2.{}", self.random.below(256));
        let (network, range) = (Some(address.clone().into_bytes()), format!("{address}-{address}"));
        match self.once(NetOutRequest { handle, network, ..NetOutRequest::default() }).await {
            Answer::Done(_) => drop(self.containers[which].told.networks.insert(range)),
            Answer::Lost => drop(self.containers[which].told.networks_asked.insert(range)),
            Answer::Refused(text) => self.judge(which, "net_out", &text).await,
        }
    }

    async fn stop(&mut self, which: usize) {
        if self.random.below(3) != 0 {
            return;
        }
        self.containers[which].told.stop_asked = true;
        let handle = self.containers[which].handle();
        match self.once(StopRequest { handle, kill: Some(true), ..StopRequest::default() }).await {
            Answer::Done(_) => self.containers[which].told.stopped = true,
            Answer::Lost => {}
            Answer::Refused(text) => self.judge(which, "stop", &text).await,
        }
    }

    /// Looks whether everything is as it was told, once nobody is killed any more.
    async fn finish(&mut self) {
        for known in std::mem::take(&mut self.destroyed) {
            // A handle is given once.
            self.containers.push(known);
        }
        let mut which = 0;
        while which < self.containers.len() {
            if !self.compare(which).await {
                self.containers.remove(which);
                continue;
            }
            let handle = self.containers[which].handle();
            // One that is being destroyed may go meanwhile.
            while self
                .containers
                .get(which)
                .is_some_and(|known| known.handle() == handle && !known.jobs.is_empty())
            {
                self.job(which).await;
            }
            which += usize::from(self.containers.get(which).is_some_and(|known| known.handle() == handle));
        }
    }
}
