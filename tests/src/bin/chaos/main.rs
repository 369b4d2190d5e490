//! Kills wardend, iomux, wshd and jobs at random, and the first two at fail points, while clients work; then looks whether what
//! they were told holds.
//!
//! `CHAOS_KILLS` (60) kills, `CHAOS_CLIENTS` (4) clients, the random sequence of `CHAOS_SEED` (of the clock). The programs
//! are those of `WARDEN_DIST`, whose wardend and iomux are best builds with the feature `failpoints`: `make chaos`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod killer;
mod worker;

use std::collections::{HashMap, HashSet};
use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use warden_tests::{Daemon, Random, programs};

use crate::killer::Killer;
use crate::worker::Worker;

/// How long a client tries to get an answer.
const PATIENCE: Duration = Duration::from_secs(60);

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

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
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
    let worker = Worker::new(socket, Arc::clone(shared), Random::new(seed + number as u64), number);
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
    let mut killer = Killer::new(&mut daemon, Arc::clone(&shared), Random::new(seed));
    while killer.total() < kills {
        killer.step();
    }
    // Once more without a place to end at.
    killer.kill_daemon();
    let table = killer.into_table();
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
