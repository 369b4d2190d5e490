//! What containers cost in which nothing happens.

use std::time::Duration;

use anyhow::{Context, Result};
use warden_tests::kernel;

use crate::bench::Bench;
use crate::crowd;
use crate::memory::{self, Machine, Sleeps};
use crate::report::Unit;
use crate::warden::Warden;

/// Measures the memory of idle containers and of their daemon, and whether it sleeps.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let (count, seconds, rest) = bench.options.pick((100, 20, 12), (20, 2, 2));
    let mut warden = Warden::start(&bench.options, &[])?;
    // What comes once, with the first container, belongs to none.
    let first = warden.create()?.0;
    let (before, descriptors) =
        (Machine::at_rest(patience(bench))?, memory::descriptors(warden.daemon.pid())?);
    let handles = crowd::create(&warden, count)?;
    // The threads that helped to make them end when they have been of no use for ten seconds.
    std::thread::sleep(Duration::from_secs(rest));
    containers(bench, &warden, before, handles.len())?;
    let pid = warden.daemon.pid();
    let more = memory::descriptors(pid)?.saturating_sub(descriptors);
    let report = &mut bench.report;
    report.figure("wardend: descriptors per idle container", Unit::Count, more as f64 / count as f64);
    let resident = memory::resident(pid).context("wardend has ended")?;
    report.figure(
        &format!("wardend: memory with {count} idle containers"),
        Unit::Megabytes,
        resident / 1024.0,
    );
    let peak = kernel::peak_memory(pid) as f64 / 1024.0;
    report.figure(&format!("wardend: peak memory with {count} idle containers"), Unit::Megabytes, peak);
    let asleep = Sleeps::of(pid)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let woken = Sleeps::of(pid)?.woken_since(&asleep);
    report.figure(
        &format!("wardend: wake-ups in {seconds} s with {count} idle containers"),
        Unit::Count,
        woken,
    );
    crowd::destroy(&warden, handles)?;
    warden.destroy(&first).map(drop)
}

/// How often it is waited for memory.
pub(crate) fn patience(bench: &Bench) -> u32 {
    bench.options.pick(20, 1)
}

/// The memory of each of `count` containers that were made since `before`.
pub(crate) fn containers(bench: &mut Bench, warden: &Warden, before: Machine, count: usize) -> Result<()> {
    let now = Machine::at_rest(patience(bench))?;
    let report = &mut bench.report;
    let each = |kilobytes: f64| kilobytes / count as f64;
    let mut figure = |what: &str, kilobytes: f64| {
        report.figure(&format!("{what}, each of {count} containers"), Unit::Kilobytes, each(kilobytes));
    };
    figure("user memory of iomux and wshd (PSS)", memory::of_containers(&warden.daemon));
    figure("kernel slab", now.slab - before.slab);
    figure("page tables and kernel stacks", now.tasks - before.tasks);
    figure("all memory (MemAvailable)", before.available - now.available);
    Ok(())
}
