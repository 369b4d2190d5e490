//! iomux dies, and another takes over: jobs, output and ends are whole. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod support;

use std::fs;

use support::{Container, bash, stored, wait_until};
use warden_iomux::message::{Event, ExitCause, Output, Request};

/// A job that writes this many numbered lines to both streams.
fn counting(lines: u32) -> String {
    format!("seq {lines}; seq {lines} >&2; echo done")
}

fn counted(lines: u32) -> String {
    (1..=lines).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_flood_goes_on_through_many_deaths_without_a_byte_lost_or_doubled() {
    let mut container = Container::new();
    const LINES: u32 = 2_000_000;
    let job = container.spawn(&counting(LINES));
    let length =
        |container: &Container| fs::metadata(container.layout.stdout(job)).map_or(0, |found| found.len());
    for round in 1..8 {
        let enough = round * 1_000_000;
        wait_until(|| length(&container) > enough || container.layout.exit(job).exists());
        container.kill_supervisor();
        container.take_over();
    }
    let outcome = container.finish(job);
    assert_eq!(outcome.cause, ExitCause::Code(0));
    assert!(outcome.stdout == counted(LINES) + "done\n", "stdout is not what was written");
    assert!(outcome.stderr == counted(LINES), "stderr is not what was written");
    assert_eq!(container.run("echo well").stdout, "well\n");
    container.kill();
}

#[test]
fn ends_that_nobody_has_taken_are_told_to_the_next() {
    let mut container = Container::new();
    let ended = container.spawn("echo one; exit 3");
    assert_eq!(container.client.end(ended).cause, ExitCause::Code(3));
    let later = container.spawn("while [ ! -e go ]; do sleep 0.01; done; echo two; exit 4");
    let killed = container.spawn("kill -9 $$");
    container.client.end(killed);
    container.kill_supervisor();
    container.release();
    container.wait_for_processes(1);
    let told = container.take_over();
    let end = |job| {
        let exit = told.iter().find_map(|event| match event {
            Event::Ended { job: of, exit } if *of == job => Some(*exit),
            _ => None,
        });
        exit.unwrap_or_else(|| panic!("{job}: {told:?}")).cause
    };
    assert_eq!(end(ended), ExitCause::Code(3));
    assert_eq!(end(later), ExitCause::Code(4));
    assert_eq!(end(killed), ExitCause::Signal(9));
    assert_eq!(fs::read_to_string(container.layout.stdout(later)).unwrap(), "two\n");
    // It has been released: a third one hears of it from the files alone.
    container.kill_supervisor();
    let told = container.take_over();
    assert!(!told.contains(&Event::Spawned { job: later }), "{told:?}");
}

#[test]
fn what_was_asked_of_the_dead_one_is_done_or_told_as_not_done() {
    let mut container = Container::new();
    for round in 0..20 {
        let first = round * 100 + 1;
        for job in first..first + 30 {
            container.client.spawn(job, bash("vcap"), stored(1000), "echo ran");
        }
        container.kill_supervisor();
        container.take_over();
        // No process without a directory, no directory without a process.
        container.wait_for_processes(1);
        wait_until(|| {
            (first..first + 30)
                .all(|job| !container.layout.job(job).exists() || container.layout.exit(job).exists())
        });
        for job in (first..first + 30).filter(|job| container.layout.job(*job).exists()) {
            assert_eq!(fs::read_to_string(container.layout.stdout(job)).unwrap(), "ran\n");
        }
    }
}

#[test]
fn the_limit_of_output_counts_what_was_stored_before() {
    let mut container = Container::new();
    let script =
        "head -c 600 /dev/zero; while [ ! -e go ]; do sleep 0.01; done; head -c 600 /dev/zero; sleep 100";
    let job = container.spawn_as("vcap", script, stored(1000));
    wait_until(|| fs::metadata(container.layout.stdout(job)).is_ok_and(|found| found.len() == 600));
    container.kill_supervisor();
    container.release();
    container.take_over();
    let outcome = container.finish(job);
    assert_eq!((outcome.cause, outcome.stdout.len()), (ExitCause::OutputLimit, 1000));
    let discarded = container.spawn_as("vcap", "yes", Output { limit: 1, discard: true, log: None });
    container.client.until(|event| (event == Event::Spawned { job: discarded }).then_some(()));
    container.kill_supervisor();
    container.take_over();
    container.client.ask(&Request::SignalAll { signal: 9 });
    assert_eq!(container.finish(discarded).cause, ExitCause::Signal(9));
}

#[test]
fn a_dead_init_is_told_with_the_ends_of_its_jobs() {
    let mut container = Container::new();
    let ended = container.run("echo well").stdout;
    let job = container.spawn("echo so far; sleep 1000");
    wait_until(|| fs::metadata(container.layout.stdout(job)).is_ok_and(|found| found.len() == 7));
    let init = container.init;
    container.kill_supervisor();
    warden_linux::process::kill(init, 9).unwrap();
    wait_until(|| !std::path::Path::new(&format!("/proc/{init}/ns/pid")).exists() || is_dead(init));
    let told = container.take_over();
    assert_eq!((ended.as_str(), told.last()), ("well\n", Some(&Event::Gone)));
    let ends = told.iter().filter(|event| matches!(event, Event::Ended { .. }));
    assert_eq!(ends.count(), 2, "{told:?}");
    let exit = fs::read(container.layout.exit(job)).unwrap();
    let exit: warden_iomux::file::End = warden_iomux::file::decode(&exit).unwrap();
    assert_eq!((exit.cause, exit.stdout), (ExitCause::InitDied, 7));
    assert!(container.wait());
}

fn is_dead(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.contains("\nState:\tZ")
}

#[test]
fn a_depot_that_moves_is_no_concern_of_its_jobs() {
    let mut container = Container::new();
    let job = container.spawn("while [ ! -e go ]; do sleep 0.01; done; echo moved; exit 5");
    let here = container.layout.directory().to_owned();
    let there = here.with_file_name("elsewhere000");
    fs::rename(&here, &there).unwrap();
    container.layout = warden_iomux::layout::Layout::new(&there);
    container.release();
    let outcome = container.finish(job);
    assert_eq!((outcome.cause, outcome.stdout.as_str()), (ExitCause::Code(5), "moved\n"));
    assert_eq!(container.run("echo after").stdout, "after\n");
    container.kill_supervisor();
    container.take_over();
    assert_eq!(container.run("echo again").stdout, "again\n");
}
