//! The bound on a job's output.

use std::fs;

use warden_tests::{Connection, Daemon, eventually, kernel, within};

const LIMIT: usize = 100_000;
const EVENT: &[u8] = b"command exceeded maximum output";

fn daemon() -> Daemon {
    Daemon::with(&[("server.job_output_limit", "100000")])
}

/// Waits until nothing runs inside but wshd.
fn await_quiet(client: &mut Connection, handle: &[u8]) {
    let id = client.id(handle);
    eventually("the job's processes are gone", 5, || kernel::processes_in_cgroup(&id).len() == 1);
}

#[test]
fn a_job_over_its_limit_ends_with_partial_output_and_an_event() {
    let daemon = daemon();
    let mut client = daemon.connect();
    let handle = client.create();
    let (output, _) = within(10.0, "a run of yes", || client.run(&handle, "echo start; yes"));
    assert_eq!(output.status, 255);
    assert!(output.stdout.starts_with(b"start\ny\ny\n"));
    assert!((1..=LIMIT + 65_536).contains(&output.stdout.len()), "{} bytes", output.stdout.len());
    let info = output.info.unwrap();
    assert_eq!(info.events, [EVENT]);
    assert_eq!(info.state.unwrap(), b"active");
    await_quiet(&mut client, &handle);
    assert_eq!(client.text(&handle, "echo next"), "next\n");
    assert_eq!(client.info(&handle).events, [EVENT]);
}

#[test]
fn the_limit_counts_both_streams_and_exactly_its_bytes_are_allowed() {
    let daemon = daemon();
    let mut client = daemon.connect();
    let handle = client.create();
    let script =
        |stderr: usize| format!("head -c {} /dev/zero; head -c {stderr} /dev/zero >&2; exit 5", LIMIT / 2);
    let output = client.run(&handle, script(LIMIT / 2));
    assert_eq!((output.status, output.stdout.len() + output.stderr.len()), (5, LIMIT));
    assert!(output.info.unwrap().events.is_empty());
    let output = client.run(&handle, script(LIMIT / 2 + 1) + "; sleep 100");
    assert_eq!(output.status, 255);
    assert_eq!(output.info.unwrap().events, [EVENT]);
}

#[test]
fn all_processes_of_a_job_over_its_limit_are_killed() {
    let daemon = daemon();
    let mut client = daemon.connect();
    let handle = client.create();
    let script = "sleep 1001 & setsid sleep 1002 & (trap '' TERM HUP PIPE; while :; do echo x; done) & yes";
    assert_eq!(client.run(&handle, script).status, 255);
    await_quiet(&mut client, &handle);
}

#[test]
fn a_job_over_its_limit_does_not_end_other_jobs() {
    let daemon = daemon();
    let mut client = daemon.connect();
    let handle = client.create();
    let other = client.spawn(&handle, "sleep 1.5; echo fine; exit 6");
    assert_eq!(client.run(&handle, "yes").status, 255);
    let output = client.link(&handle, other);
    assert_eq!((output.status, output.text().as_str()), (6, "fine\n"));
}

#[test]
fn a_stream_over_the_limit_tells_the_same() {
    let daemon = daemon();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, "yes");
    let streamed = client.stream(&handle, job);
    assert_eq!(streamed.status, 255);
    assert!((1..=LIMIT + 65_536).contains(&streamed.stdout.len()));
    assert_eq!(streamed.info.unwrap().events, [EVENT]);
}

#[test]
fn a_limit_of_zero_allows_silence_only() {
    let daemon = Daemon::with(&[("server.job_output_limit", "0")]);
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(client.run(&handle, "exit 3").status, 3);
    assert_eq!(client.run(&handle, "echo x; sleep 100").status, 255);
}

#[test]
fn a_flood_costs_no_more_of_the_depot_than_the_limit() {
    let daemon = daemon();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, "yes & yes >&2 & yes");
    eventually("the job has ended", 10, || client.info(&handle).job_ids.is_empty());
    let id = client.id(&handle);
    let jobs = daemon.depot(&id).join("jobs").join(job.to_string());
    let stored: u64 =
        ["stdout", "stderr"].iter().map(|name| fs::metadata(jobs.join(name)).unwrap().len()).sum();
    assert!(stored <= 165_536, "{stored} bytes");
    client.link(&handle, job);
    eventually("the forgotten job's files are removed", 5, || !jobs.exists());
}
