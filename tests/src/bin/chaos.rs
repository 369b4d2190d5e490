//! Kills wardend, iomux, wshd and jobs at random, and wardend at fail points, while clients work; then looks whether what
//! they were told holds.
//!
//! `CHAOS_KILLS` (60) kills, `CHAOS_CLIENTS` (4) clients, the random sequence of `CHAOS_SEED` (of the clock). The programs
//! are those of `WARDEN_DIST`, whose wardend is best a build with the feature `failpoints`: `make chaos`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use warden_client::protocol::Command as Asked;
use warden_client::protocol::messages::*;
use warden_client::{Client, Error};
use warden_tests::{Daemon, Random, kernel, programs};

/// Where a test build of wardend ends.
const FAILPOINTS: &[&str] = &[
    "make Leases",
    "make Directory",
    "make Cgroups",
    "make Spec",
    "make Processes",
    "made Processes",
    "make Network",
    "made Network",
    "make Snapshot",
    "made Snapshot",
    "rename snapshot",
    "discard",
    "discarded",
    "undo Snapshot",
    "undo Network",
    "undo Processes",
    "undo Cgroups",
    "undo Directory",
    "undo Leases",
];

/// Where one of iomux ends.
const IOMUX_FAILPOINTS: &[&str] = &["job", "spawned", "moved", "exited", "rename", "renamed"];

/// How many times a fail point is passed at most before it is taken.
const PASSES: usize = 3;
/// How long a fail point is waited for.
const FAILPOINT_TIME: Duration = Duration::from_secs(1);
/// How long a client tries to get an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Containers of one client.
const CONTAINERS: usize = 3;

/// What the clients and the killer tell each other.
#[derive(Debug, Default)]
struct Shared {
    ending: AtomicBool,
    /// Containers that clients were told about, by id.
    known: Mutex<HashMap<String, Vec<u8>>>,
    /// Handles of containers whose init was killed.
    broken: Mutex<HashSet<Vec<u8>>>,
    /// How many processes of a container were killed, by handle.
    hurt: Mutex<HashMap<Vec<u8>, u64>>,
    created: AtomicU64,
    destroyed: AtomicU64,
    jobs: AtomicU64,
    cut: AtomicU64,
    bytes: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Shared {
    fn is_broken(&self, handle: &[u8]) -> bool {
        self.broken.lock().unwrap().contains(handle)
    }

    fn hurt(&self, handle: &[u8]) -> u64 {
        self.hurt.lock().unwrap().get(handle).copied().unwrap_or_default()
    }

    fn complain(&self, text: String) {
        eprintln!("chaos: {text}");
        self.wrong.lock().unwrap().push(text);
    }
}

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

struct Worker {
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

    async fn work(mut self) {
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

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Kills, and counts what.
struct Killer<'a> {
    daemon: &'a mut Daemon,
    shared: Arc<Shared>,
    random: Random,
    kills: BTreeMap<String, u64>,
}

impl Killer<'_> {
    fn count(&mut self, what: &str) {
        *self.kills.entry(what.to_owned()).or_default() += 1;
    }

    fn total(&self) -> u64 {
        self.kills.values().sum()
    }

    fn step(&mut self) {
        thread::sleep(Duration::from_millis(10 + self.random.below(250) as u64));
        match self.random.below(20) {
            0..=4 => self.kill_daemon(),
            5..=9 => self.fail_daemon(),
            10..=12 => self.fail_iomux(),
            13 => self.kill_helper("iomux"),
            14 => self.kill_helper("wshd"),
            _ => self.kill_job(),
        }
    }

    fn kill_daemon(&mut self) {
        self.daemon.signal(Signal::KILL);
        self.daemon.wait();
        self.count("wardend");
        self.restart();
    }

    fn restart(&mut self) {
        assert!(self.daemon.try_restart(None), "wardend does not start:\n{}", self.last_words());
    }

    fn last_words(&self) -> String {
        let log = self.daemon.log();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Has the daemon end at a place of its own, wherever that is reached.
    fn fail_daemon(&mut self) {
        self.daemon.signal(Signal::KILL);
        self.daemon.wait();
        self.count("wardend");
        let point = FAILPOINTS[self.random.below(FAILPOINTS.len())];
        let times = 1 + self.random.below(PASSES);
        if self.daemon.try_restart(Some(("WARDEN_FAILPOINT", &format!("{point}:{times}")))) {
            let deadline = Instant::now() + FAILPOINT_TIME;
            while !self.daemon.has_ended() {
                if Instant::now() > deadline {
                    // Nobody came by.
                    return;
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        self.count(&format!("wardend at {point}"));
        self.restart();
    }

    /// Has one iomux end at a place of its own; another takes over.
    fn fail_iomux(&mut self) {
        self.daemon.signal(Signal::KILL);
        self.daemon.wait();
        self.count("wardend");
        let point = IOMUX_FAILPOINTS[self.random.below(IOMUX_FAILPOINTS.len())];
        let times = 1 + self.random.below(PASSES);
        let token = self.daemon.directory().join("failpoint");
        fs::write(&token, "").unwrap();
        let value = format!("{point}:{times}:{}", token.display());
        // Those that it starts from now on.
        assert!(self.daemon.try_restart(Some(("WARDEN_IOMUX_FAILPOINT", &value))), "{}", self.last_words());
        let deadline = Instant::now() + FAILPOINT_TIME;
        while token.exists() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        if fs::remove_file(&token).is_err() {
            self.count(&format!("iomux at {point}"));
        }
    }

    /// A container that some client knows.
    fn container(&mut self) -> Option<(String, Vec<u8>)> {
        let known = self.shared.known.lock().unwrap();
        let mut there: Vec<_> = known.iter().filter(|(id, _)| self.daemon.depot(id).exists()).collect();
        there.sort();
        if there.is_empty() {
            return None;
        }
        let (id, handle) = there[self.random.below(there.len())];
        Some((id.clone(), handle.clone()))
    }

    fn kill_helper(&mut self, helper: &str) {
        let Some((id, handle)) = self.container() else { return };
        let file = self.daemon.depot(&id).join("run").join(format!("{helper}.pid"));
        let Some(pid) = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) else {
            return;
        };
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !String::from_utf8_lossy(&line).contains(helper) {
            return;
        }
        if helper == "wshd" {
            self.shared.broken.lock().unwrap().insert(handle);
        }
        kill(pid);
        self.count(helper);
    }

    fn kill_job(&mut self) {
        let Some((id, handle)) = self.container() else { return };
        let processes = kernel::processes_in_cgroup(&id);
        let init = fs::read_to_string(self.daemon.depot(&id).join("run/wshd.pid")).unwrap_or_default();
        let jobs: Vec<i32> = processes
            .iter()
            .map(|process| process.pid)
            .filter(|pid| pid.to_string() != init.trim() && !init.trim().is_empty())
            .collect();
        if jobs.is_empty() {
            return;
        }
        *self.shared.hurt.lock().unwrap().entry(handle).or_default() += 1;
        kill(jobs[self.random.below(jobs.len())]);
        self.count("job");
    }
}

fn kill(pid: i32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

/// What is left over by the doctor's and the kernel's view, once all containers are destroyed.
fn left_over(daemon: &Daemon) -> Vec<String> {
    let config = daemon.directory().join("wardend.yml");
    let wardend = programs::find("wardend");
    let told = |mut command: Command| {
        let output = programs::output(&mut command);
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut doctor = daemon.in_its_network(wardend.to_str().unwrap());
    doctor.arg("doctor").arg("--config").arg(config);
    let mut left = told(doctor);
    let mut links = daemon.in_its_network("ip");
    links.args(["-o", "link", "show"]);
    left.extend(told(links).into_iter().filter(|line| line.contains(": w-")));
    left
}

fn client(socket: &Path, shared: &Arc<Shared>, seed: u64, number: usize) -> thread::JoinHandle<()> {
    let worker = Worker {
        socket: socket.to_owned(),
        shared: Arc::clone(shared),
        random: Random::new(seed + number as u64),
        number,
        count: 0,
        containers: Vec::new(),
        gone: Vec::new(),
    };
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(worker.work());
    })
}

fn main() {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let seed = number("CHAOS_SEED", clock);
    let kills = number("CHAOS_KILLS", 60);
    let clients = usize::try_from(number("CHAOS_CLIENTS", 4)).unwrap();
    println!("CHAOS_SEED={seed} CHAOS_KILLS={kills} CHAOS_CLIENTS={clients}");
    let start = Instant::now();
    let mut daemon = Daemon::with(&[("logging.level", "info"), ("server.container_grace_time", "3600")]);
    let shared = Arc::new(Shared::default());
    let workers: Vec<_> =
        (1..=clients).map(|number| client(daemon.socket(), &shared, seed, number)).collect();
    let mut killer = Killer {
        daemon: &mut daemon,
        shared: Arc::clone(&shared),
        random: Random::new(seed),
        kills: BTreeMap::new(),
    };
    while killer.total() < kills {
        killer.step();
    }
    // Once more without a place to end at.
    killer.kill_daemon();
    let table = std::mem::take(&mut killer.kills);
    shared.ending.store(true, Ordering::Relaxed);
    let fallen = workers.into_iter().map(thread::JoinHandle::join).filter(Result::is_err).count();

    let mut last = daemon.connect();
    let survivors = last.list();
    for handle in &survivors {
        last.destroy(handle);
    }
    drop(last);
    let deadline = Instant::now() + PATIENCE;
    let mut left = left_over(&daemon);
    while !left.is_empty() && Instant::now() < deadline {
        left = left_over(&daemon);
    }
    for (what, count) in &table {
        println!("{count:>8}  killed: {what}");
    }
    let told = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!("{:>8}  kills in {:.0} s", table.values().sum::<u64>(), start.elapsed().as_secs_f64());
    println!("{:>8}  containers created", told(&shared.created));
    println!("{:>8}  containers destroyed on request", told(&shared.destroyed));
    println!("{:>8}  containers whose init was killed", shared.broken.lock().unwrap().len());
    println!("{:>8}  survivors", survivors.len());
    println!("{:>8}  jobs", told(&shared.jobs));
    println!("{:>8}  of them killed, or delivered to nobody", told(&shared.cut));
    println!("{:>8}  bytes of output checked", told(&shared.bytes));
    println!("{:>8}  objects left", left.len());
    let wrong = shared.wrong.lock().unwrap().clone();
    println!("{:>8}  promises broken", wrong.len() + fallen);
    for line in left.iter().chain(&wrong) {
        println!("  {line}");
    }
    if !left.is_empty() || !wrong.is_empty() || fallen > 0 {
        println!(
            "{}",
            daemon.log().lines().filter(|line| line.contains("error")).collect::<Vec<_>>().join("\n")
        );
    }
    // The daemon's drop looks at processes, mounts, cgroups and the depot.
    drop(daemon);
    assert!(left.is_empty() && wrong.is_empty() && fallen == 0, "CHAOS_SEED={seed}");
}
