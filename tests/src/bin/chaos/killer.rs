//! What kills.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use warden_tests::{Daemon, Random, kernel};

use crate::Shared;

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
    "withdraw snapshot",
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

/// Kills, and counts what.
pub(crate) struct Killer<'a> {
    daemon: &'a mut Daemon,
    shared: Arc<Shared>,
    random: Random,
    kills: BTreeMap<String, u64>,
}

impl<'a> Killer<'a> {
    pub(crate) fn new(daemon: &'a mut Daemon, shared: Arc<Shared>, random: Random) -> Self {
        Self { daemon, shared, random, kills: BTreeMap::new() }
    }

    /// How often what was killed.
    pub(crate) fn into_table(self) -> BTreeMap<String, u64> {
        self.kills
    }

    fn count(&mut self, what: &str) {
        *self.kills.entry(what.to_owned()).or_default() += 1;
    }

    /// How many kills there were.
    pub(crate) fn total(&self) -> u64 {
        self.kills.values().sum()
    }

    /// Kills something after a while.
    pub(crate) fn step(&mut self) {
        thread::sleep(Duration::from_millis(10 + self.random.below(250) as u64));
        match self.random.below(25) {
            0..=3 => self.kill_daemon(&[]),
            4 | 5 => self.kill_daemon(&["iomux"]),
            6 => self.kill_daemon(&["wshd"]),
            7 => self.kill_daemon(&["wshd", "iomux"]),
            8..=12 => self.fail_daemon(),
            13..=15 => self.fail_iomux(),
            16 => self.kill_helpers(&["iomux"], ""),
            17 => self.kill_helpers(&["wshd"], ""),
            18 => self.kill_helpers(&["wshd", "iomux"], ""),
            19 => self.kill_fork_server(),
            _ => self.kill_job(),
        }
    }

    /// Kills wardend, then, while none runs, these helpers of one container, and starts it again.
    pub(crate) fn kill_daemon(&mut self, helpers: &[&str]) {
        self.end_daemon();
        self.kill_helpers(helpers, ", while no wardend runs");
        self.restart();
    }

    fn end_daemon(&mut self) {
        self.daemon.signal(Signal::KILL);
        self.daemon.wait();
        self.count("wardend");
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
        self.end_daemon();
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
        self.end_daemon();
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

    /// Kills helpers of one container, one right after the other.
    fn kill_helpers(&mut self, helpers: &[&str], when: &str) {
        let Some((id, handle)) = self.container() else { return };
        for helper in helpers {
            let Some(pid) = self.helper(&id, helper) else { continue };
            if *helper == "wshd" {
                self.shared.broken.lock().unwrap().insert(handle.clone());
            }
            kill(pid);
            self.count(&format!("{helper}{when}"));
        }
    }

    /// The process of a container's helper: the number of one that is dead may be that of another container's by now.
    fn helper(&self, id: &str, helper: &str) -> Option<i32> {
        let file = self.daemon.depot(id).join("run").join(format!("{helper}.pid"));
        let pid = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        // wshd is in the container's cgroups; iomux is not, and shows its spec.
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        (line.contains(helper) && (line.contains(id) || cgroups.contains(id))).then_some(pid)
    }

    fn kill_fork_server(&mut self) {
        if let Some(server) = self.daemon.find_fork_server() {
            kill(server);
            self.count("fork server");
        }
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
