//! Creation at a steady rate with as many destructions, and what is left a second later.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::mpsc;
use warden_client::Client;
use warden_tests::kernel;

use crate::bench::Bench;
use crate::report::Unit;
use crate::warden::{WARM_POOL, Warden, knows};

/// Creations in a second.
const RATES: [u32; 2] = [50, 100];
/// Containers that live at a time.
const ALIVE: usize = 10;

/// Measures each rate.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let seconds = bench.options.pick(10, 1);
    let pool = if knows(WARM_POOL)? { vec![(WARM_POOL, "4")] } else { Vec::new() };
    for rate in RATES {
        let mut warden = Warden::start(&bench.options, &pool)?;
        let (created, destroyed) = warden.wait_for(exchange(&warden, rate, rate * seconds))?;
        std::thread::sleep(Duration::from_secs(1));
        for took in created {
            bench.report.figure(&format!("create at {rate} per second"), Unit::Milliseconds, took);
        }
        for took in destroyed {
            bench.report.figure(&format!("destroy at {rate} per second"), Unit::Milliseconds, took);
        }
        let left = leftovers(&mut warden)?;
        bench.report.figure(
            &format!("kernel objects left 1 s after {rate} per second"),
            Unit::Count,
            left as f64,
        );
    }
    Ok(())
}

/// One client makes a container at each tick, another one removes the oldest.
async fn exchange(warden: &Warden, rate: u32, count: u32) -> Result<(Vec<f64>, Vec<f64>)> {
    let socket = warden.daemon.socket();
    let (mut maker, mut remover) = (Client::connect(socket).await?, Client::connect(socket).await?);
    let (sender, mut handles) = mpsc::unbounded_channel();
    let start = Instant::now();
    let make = async {
        let mut times = Vec::new();
        for number in 0..count {
            let due = start + Duration::from_secs(1) * number / rate;
            tokio::time::sleep_until(due.into()).await;
            // From the tick on: a request that comes late because the one before took long has waited too.
            let handle = maker.create().await?;
            times.push(due.elapsed().as_secs_f64() * 1e3);
            sender.send(handle)?;
        }
        drop(sender);
        anyhow::Ok(times)
    };
    let remove = async {
        let (mut alive, mut times) = (std::collections::VecDeque::new(), Vec::new());
        loop {
            let next = handles.recv().await;
            let ended = next.is_none();
            alive.extend(next);
            while alive.len() > if ended { 0 } else { ALIVE } {
                let Some(handle) = alive.pop_front() else { break };
                let begun = Instant::now();
                remover.destroy(handle).await?;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            if ended {
                return anyhow::Ok(times);
            }
        }
    };
    tokio::try_join!(make, remove)
}

/// Cgroups and interfaces of containers that are no more: those that are made ahead are in the depot.
fn leftovers(warden: &mut Warden) -> Result<usize> {
    let entries = std::fs::read_dir(warden.daemon.depot(""))?.flatten();
    let ahead: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    let is_gone = |name: &str| !ahead.iter().any(|id| name.contains(id.as_str()));
    let cgroups = kernel::cgroups_of(warden.daemon.mark());
    let names = cgroups.iter().map(|path| path.to_string_lossy());
    let cgroups = names.filter(|name| name.contains("instance-") && is_gone(name)).count();
    let links = warden.daemon.in_its_network("ip").args(["-o", "link"]).output()?;
    let links = String::from_utf8_lossy(&links.stdout);
    Ok(cgroups + links.lines().filter(|line| line.contains(": w-") && is_gone(line)).count())
}
