//! Moves output through `run` and `stream` beside eight other jobs, checks every byte, and tells speed and memory.
//!
//! `output-rounds [ROUNDS [MEGABYTES]]`: 20 rounds of 100 MB by default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]

use warden_tests::transfer::{self, Way};
use warden_tests::{Daemon, kernel};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<usize>().expect("a number"));
    let rounds = arguments.next().unwrap_or(20);
    let length = arguments.next().unwrap_or(100) * 1_000_000;
    let limit = (2 * length).to_string();
    let daemon = Daemon::with(&[("server.job_output_limit", &limit), ("logging.level", "info")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let (speeds, jobs) = transfer::beside_eight_jobs(&daemon, &handle, || {
        [Way::Run, Way::Stream].map(|way| measure(&mut client, &handle, way, rounds, length))
    });
    println!(
        "{rounds} rounds of {} MB, beside {jobs} other jobs; every SHA-256 was right",
        length / 1_000_000
    );
    println!("{:8} {:>12} {:>12}", "", "median MB/s", "lowest MB/s");
    for (name, speeds) in ["run", "stream"].iter().zip(speeds) {
        println!("{name:8} {:>12.0} {:>12.0}", speeds[speeds.len() / 2], speeds[0]);
    }
    println!("peak memory of wardend: {:.1} MB", kernel::peak_memory(daemon.pid()) as f64 / 1024.0);
}

/// The speed of each round in MB/s, lowest first.
fn measure(
    client: &mut warden_tests::Connection,
    handle: &[u8],
    way: Way,
    rounds: usize,
    length: usize,
) -> Vec<f64> {
    let one = |_| {
        let expected = transfer::prepare(client, handle, length);
        let transfer = transfer::receive(client, handle, way);
        assert_eq!((transfer.length, transfer.hash), (length, expected), "{way:?}");
        length as f64 / 1e6 / transfer.time.as_secs_f64()
    };
    let mut speeds: Vec<f64> = (0..rounds).map(one).collect();
    speeds.sort_by(f64::total_cmp);
    speeds
}
