//! What a container costs in the packet filter's table beside few and beside many others: the kernel's work alone, without
//! interface, process or file.
//!
//! `cargo bench -p warden-container --features benchmark`: beside 10 and 2,000 containers, in network namespaces of its own.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::time::Duration;

use warden_container::benchmark::FilterTable;

/// Containers that come and go in one measurement: chains are made for 64 at a time, which four of them pay for.
const TURNS: u16 = 256;

fn main() {
    println!("microseconds for a container's part of the packet filter's table: median, mean, longest");
    println!("{:>10} {:>26} {:>26}", "beside", "added", "removed");
    for count in [10, 2_000, 10, 2_000] {
        let measured = std::thread::spawn(move || measure(count)).join().unwrap();
        let [added, removed] = measured.map(|times| summary(&times));
        println!("{count:>10} {added:>26} {removed:>26}");
    }
}

/// In a network namespace of this thread's own.
fn measure(count: u16) -> [Vec<Duration>; 2] {
    warden_linux::namespace::leave_network().unwrap();
    let table = FilterTable::of(count).unwrap();
    let turns = (0..TURNS).map(|turn| table.add_and_remove(turn).unwrap());
    let (mut added, mut removed): (Vec<_>, Vec<_>) = turns.map(|[added, removed]| (added, removed)).unzip();
    added.sort_unstable();
    removed.sort_unstable();
    [added, removed]
}

fn summary(sorted: &[Duration]) -> String {
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    let sum: Duration = sorted.iter().sum();
    let mean = microseconds(sum) / sorted.len() as f64;
    format!(
        "{:.0} / {mean:.0} / {:.0}",
        microseconds(sorted[sorted.len() / 2]),
        microseconds(sorted[sorted.len() - 1])
    )
}
