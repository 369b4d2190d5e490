//! Kills wardend, iomux, wshd and jobs at random, and the first two at fail points, while clients work; looks meanwhile and
//! then whether what they were told holds.
//!
//! What holds of a container is in [`promise`], what of a job's output in [`output`]; what the machine has before and after is
//! compared line by line.
//!
//! `CHAOS_KILLS` (60) kills, `CHAOS_CLIENTS` (4) clients, the random sequence of `CHAOS_SEED` (of the clock). The programs
//! are those of `WARDEN_DIST`, whose wardend and iomux are best builds with the feature `failpoints`: `make chaos`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod host;
mod jobs;
mod killer;
mod output;
mod promise;
mod worker;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use warden_tests::{Daemon, Random, programs};

use crate::host::Host;
use crate::killer::Killer;
use crate::worker::Worker;

/// How long a client tries to get an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the clients and the killer tell each other.
#[derive(Debug)]
struct Shared {
    host: Host,
    ending: AtomicBool,
    /// Containers that clients were told about, by id.
    known: Mutex<HashMap<String, Vec<u8>>>,
    /// Handles of containers whose init was killed.
    broken: Mutex<HashSet<Vec<u8>>>,
    /// How many processes of a container were killed, by handle.
    hurt: Mutex<HashMap<Vec<u8>, u64>>,
    created: AtomicU64,
    destroyed: AtomicU64,
    /// How often a container was compared with what was told of it.
    looks: AtomicU64,
    jobs: AtomicU64,
    whole: AtomicU64,
    cut: AtomicU64,
    undelivered: AtomicU64,
    bytes: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Shared {
    fn new(host: Host) -> Self {
        Self {
            host,
            ending: AtomicBool::default(),
            known: Mutex::default(),
            broken: Mutex::default(),
            hurt: Mutex::default(),
            created: AtomicU64::default(),
            destroyed: AtomicU64::default(),
            looks: AtomicU64::default(),
            jobs: AtomicU64::default(),
            whole: AtomicU64::default(),
            cut: AtomicU64::default(),
            undelivered: AtomicU64::default(),
            bytes: AtomicU64::default(),
            wrong: Mutex::default(),
        }
    }

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

/// What is left over once all containers are destroyed: by the doctor's view, and by the machine's, compared with before.
fn left_over(daemon: &Daemon, host: &Host, before: &BTreeSet<String>) -> Vec<String> {
    let config = daemon.directory().join("wardend.yml");
    let wardend = programs::find("wardend");
    let mut doctor = daemon.in_its_network(wardend.to_str().unwrap());
    let output = programs::output(doctor.arg("doctor").arg("--config").arg(config));
    let mut left: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    if !output.status.success() && left.is_empty() {
        left.push(format!("doctor: {}", String::from_utf8_lossy(&output.stderr)));
    }
    left.extend(differences(before, &host.look()));
    left
}

fn differences(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let more = after.difference(before).map(|line| format!("more: {line}"));
    more.chain(before.difference(after).map(|line| format!("less: {line}"))).collect()
}

type Client = thread::JoinHandle<Vec<Vec<u8>>>;

/// Whether a line of what the machine has is there as long as a daemon runs, and no longer.
fn is_of_a_daemon(line: &str) -> bool {
    line.starts_with("nft ") || line.contains(" w-")
}

fn client(socket: &Path, shared: &Arc<Shared>, seed: u64, number: usize) -> Client {
    let worker = Worker::new(socket, Arc::clone(shared), Random::new(seed + number as u64), number);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(worker.work())
    })
}

fn main() {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let seed = number("CHAOS_SEED", clock);
    let kills = number("CHAOS_KILLS", 60);
    let clients = usize::try_from(number("CHAOS_CLIENTS", 4)).unwrap();
    println!("CHAOS_SEED={seed} CHAOS_KILLS={kills} CHAOS_CLIENTS={clients}");
    let start = Instant::now();
    let settings = [
        ("logging.level", "info"),
        ("server.container_grace_time", "3600"),
        ("server.reconcile_interval", "5"),
    ];
    let mut daemon = Daemon::with(&settings);
    let host = Host::of(&daemon);
    let before = host.look();
    let shared = Arc::new(Shared::new(host.clone()));
    let workers: Vec<_> =
        (1..=clients).map(|number| client(daemon.socket(), &shared, seed, number)).collect();
    let mut killer = Killer::new(&mut daemon, Arc::clone(&shared), Random::new(seed));
    while killer.total() < kills {
        killer.step();
    }
    // Once more without a place to end at: what the clients look at then has survived it.
    killer.kill_daemon(&[]);
    let table = killer.into_table();
    shared.ending.store(true, Ordering::Relaxed);
    let mut fallen = 0;
    let mut known = HashSet::new();
    for worker in workers {
        match worker.join() {
            Ok(handles) => known.extend(handles),
            Err(_) => fallen += 1,
        }
    }

    let mut last = daemon.connect();
    let survivors = last.list();
    for handle in &survivors {
        if fallen == 0 && !known.contains(handle) {
            shared.complain(format!("{} is there, and nobody has asked for it", shown(handle)));
        }
        last.destroy(handle);
    }
    drop(last);
    let deadline = Instant::now() + PATIENCE;
    let mut left = left_over(&daemon, &host, &before);
    while !left.is_empty() && Instant::now() < deadline {
        left = left_over(&daemon, &host, &before);
    }
    // The last one takes with it what a daemon without containers has.
    daemon.signal(Signal::TERM);
    let status = daemon.wait();
    if !status.success() {
        shared.complain(format!("wardend ended with {status} after SIGTERM"));
    }
    let network: Vec<_> = host.look().into_iter().filter(|line| is_of_a_daemon(line)).collect();
    left.extend(network);
    for (what, count) in &table {
        println!("{count:>8}  killed: {what}");
    }
    let told = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!("{:>8}  kills in {:.0} s", table.values().sum::<u64>(), start.elapsed().as_secs_f64());
    println!("{:>8}  containers created", told(&shared.created));
    println!("{:>8}  containers destroyed on request", told(&shared.destroyed));
    println!("{:>8}  containers whose init was killed", shared.broken.lock().unwrap().len());
    println!("{:>8}  survivors", survivors.len());
    println!("{:>8}  times a container was compared with what was told of it", told(&shared.looks));
    println!("{:>8}  jobs", told(&shared.jobs));
    println!("{:>8}  of them whole by SHA-256", told(&shared.whole));
    println!("{:>8}  killed, and whole up to then by SHA-256", told(&shared.cut));
    println!("{:>8}  delivered to a connection that died", told(&shared.undelivered));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has_more_and_less_than_before_is_told() {
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<BTreeSet<_>>();
        let (before, after) = (lines(&["link lo", "nft x"]), lines(&["link lo", "link w-1-0"]));
        assert_eq!(differences(&before, &after), ["more: link w-1-0", "less: nft x"]);
        assert!(differences(&before, &before).is_empty());
        assert!(is_of_a_daemon("nft table inet warden {") && is_of_a_daemon("link w-1-0 UP"));
        assert!(!is_of_a_daemon("link lo UNKNOWN") && !is_of_a_daemon("depot /.images"));
    }
}
