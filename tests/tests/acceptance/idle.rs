//! What containers cost in which nothing happens: descriptors are counted, pages, and what wakes a process.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use warden_tests::{Daemon, eventually, kernel};

const CONTAINERS: usize = 50;
/// How long nothing may happen, to show that nothing does by itself.
const SECONDS: u64 = 2;

/// How often each thread of a daemon and of its helpers has begun to wait.
fn waits(daemon: &Daemon) -> BTreeMap<String, u64> {
    let helpers = kernel::processes_of(daemon.mark()).into_iter().map(|process| process.pid);
    let mut counts = BTreeMap::new();
    for pid in helpers.chain([daemon.pid()]) {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let name = status.lines().next().unwrap_or_default();
            counts.extend(
                count.map(|count| {
                    (format!("{} {name}", thread.path().display()), count.trim().parse().unwrap())
                }),
            );
        }
    }
    counts
}

#[test]
fn an_idle_container_is_at_most_four_descriptors_and_wakes_nobody() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let open = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    client.create();
    let before = open();
    let handles: Vec<_> = (0..CONTAINERS).map(|_| client.create()).collect();
    // A job that was run and delivered leaves nothing open.
    assert_eq!(client.run(&handles[0], "exit 3").status, 3);
    eventually("no more than four descriptors for each", 30, || open() - before <= 4 * CONTAINERS);
    let helpers = 2 * (CONTAINERS + 1);
    assert!(waits(&daemon).len() > helpers, "the daemon's threads, and each iomux and wshd");
    // Threads that were needed a moment ago end by themselves.
    eventually("nothing wakes up", 120, || {
        let earlier = waits(&daemon);
        thread::sleep(Duration::from_secs(SECONDS));
        let later = waits(&daemon);
        earlier.iter().all(|(thread, count)| later.get(thread).is_none_or(|now| now == count))
    });
}

#[test]
fn an_idle_container_has_some_twenty_pages_of_its_own() {
    let daemon = Daemon::own();
    daemon.connect().create();
    let of_containers = |process: &kernel::Process| process.pid != daemon.fork_server();
    let processes: Vec<_> = daemon.helpers().into_iter().filter(of_containers).collect();
    assert_eq!(processes.len(), 2, "iomux and wshd: {processes:?}");
    // 76 KiB; heaps that keep what is free would add 28.
    let private: u64 = processes.iter().map(|process| kernel::private_memory(process.pid)).sum();
    assert!((4..=88).contains(&private), "{private} KiB");
}
