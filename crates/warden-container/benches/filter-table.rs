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
    println!("microseconds of one change of the packet filter's table: median / mean / longest");
    print!("{:>10}", "beside");
    for name in ["container added", "its first rule", "its second rule", "container removed"] {
        print!(" {name:>20}");
    }
    println!();
    for count in [10, 2_000, 10, 2_000] {
        let measured = std::thread::spawn(move || measure(count)).join().unwrap();
        print!("{count:>10}");
        for times in measured {
            print!(" {:>20}", summary(times));
        }
        println!();
    }
}

/// In a network namespace of this thread's own.
fn measure(count: u16) -> [Vec<Duration>; 4] {
    warden_linux::namespace::leave_network().unwrap();
    let table = FilterTable::of(count).unwrap();
    let mut measured: [Vec<_>; 4] = Default::default();
    for turn in 0..TURNS {
        for (times, took) in measured.iter_mut().zip(table.live(turn).unwrap()) {
            times.push(took);
        }
    }
    measured
}

fn summary(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    let sum: Duration = times.iter().sum();
    let mean = microseconds(sum) / times.len() as f64;
    format!(
        "{:.0} / {mean:.0} / {:.0}",
        microseconds(times[times.len() / 2]),
        microseconds(times[times.len() - 1])
    )
}
