//! Whether what a container costs depends on how many there are.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::bench::Bench;
use crate::crowd;
use crate::floor::Floor;
use crate::memory::Machine;
use crate::quiet;
use crate::report::{FLOOR, Report, Unit, WARDEN};
use crate::scenario::idle;
use crate::svg::{Curve, lines};
use crate::warden::{WARM_POOL, Warden, timed};

/// What the kernel does by and by for those that were just made or removed is no part of what one more costs.
const SETTLING: Duration = Duration::from_secs(3);
/// Rows of some: what disturbs the machine for a tenth of a second disturbs one of them.
const ROWS: usize = 4;
/// Times that each of a row is asked: whether client and daemon share a processor makes it twice as fast, and changes by itself.
const QUESTIONS: usize = 20;
const IN_A_ROW: &str = "";
const IDLE: &str = ", one on an idle machine";

/// Measures creation, use and removal of some more beside ever more containers.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let (sizes, rounds) = bench.options.pick((&[10, 100, 1000, 2000][..], 30), (&[10, 100][..], 6));
    let mut warden = Warden::start(&bench.options, &[])?;
    let mut ahead = Warden::start(&bench.options, &[(WARM_POOL, "4")])?;
    let before = Machine::at_rest(idle::patience(bench))?;
    let (mut handles, mut spent) = (vec![warden.create()?.0], 0.0);
    let mut floor = Floor::start(&warden.directory_of(&handles[0])?.join("spec.json"));
    for &size in sizes {
        let (more, took) = timed(|| crowd::create(&warden, size - handles.len()))?;
        handles.extend(more);
        spent += took;
        for row in 0..=ROWS {
            // The first time, the machine takes memory that it has never used.
            let report = if row == 0 { &mut Report::default() } else { &mut bench.report };
            in_a_row(report, &mut warden, size, rounds / 2)?;
            sleep(bench.options.pick(SETTLING, Duration::ZERO));
        }
        for _ in 0..rounds {
            quiet::wait();
            own_turn(&mut bench.report, &mut warden, size)?;
            quiet::wait();
            warm_turn(&mut bench.report, &mut ahead, size)?;
            quiet::wait();
            floor_turn(&mut bench.report, &mut floor, size);
        }
    }
    let size = handles.len();
    bench.report.figure(&format!("{size} containers made by 4 clients"), Unit::Milliseconds, spent);
    idle::containers(bench, &warden, before, size)?;
    let ((), took) = timed(|| crowd::destroy(&warden, handles))?;
    bench.report.figure(&format!("{size} containers destroyed by 4 clients"), Unit::Milliseconds, took);
    draw(bench, sizes)
}

/// Some are made one after another, then used, then destroyed.
fn in_a_row(report: &mut Report, warden: &mut Warden, size: usize, count: usize) -> Result<()> {
    let mut record = |what, took| report.figure(&scenario(what, size, IN_A_ROW), Unit::Milliseconds, took);
    let mut handles = Vec::new();
    for _ in 0..count {
        let (handle, took) = warden.create()?;
        record("create", took);
        handles.push(handle);
    }
    for handle in &handles {
        record("run true", warden.run(handle, "true")?);
    }
    for _ in 0..QUESTIONS {
        for handle in &handles {
            record("info", warden.info(handle)?);
        }
    }
    for handle in &handles {
        record("destroy", warden.destroy(handle)?);
    }
    Ok(())
}

/// One is made, used and destroyed while nothing else happens: nothing that it needs is in the processor's caches.
fn own_turn(report: &mut Report, warden: &mut Warden, size: usize) -> Result<()> {
    let (handle, created) = warden.create()?;
    let ran = warden.run(&handle, "true")?;
    let destroyed = warden.destroy(&handle)?;
    for (what, took) in [("create", created), ("run true", ran), ("destroy", destroyed)] {
        report.record(&scenario(what, size, IDLE), WARDEN, Unit::Milliseconds, Ok(took));
    }
    Ok(())
}

/// One that another daemon has made ahead.
fn warm_turn(report: &mut Report, ahead: &mut Warden, size: usize) -> Result<()> {
    let (handle, created) = ahead.create()?;
    report.figure(&scenario("create, warm,", size, IDLE), Unit::Milliseconds, created);
    ahead.destroy(&handle).map(drop)
}

/// What the kernel itself takes longer for beside others.
fn floor_turn(report: &mut Report, floor: &mut Result<Floor>, size: usize) {
    for (what, order) in [("create", "create"), ("run true", "run"), ("destroy", "destroy")] {
        let took = match floor {
            Ok(floor) => floor.measure(order),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        report.record(&scenario(what, size, IDLE), FLOOR, Unit::Milliseconds, took);
    }
}

fn scenario(what: &str, size: usize, how: &str) -> String {
    format!("{what} beside {size} containers{how}")
}

fn draw(bench: &mut Bench, sizes: &[usize]) -> Result<()> {
    let curve = |what: &str| Curve {
        name: what.to_owned(),
        points: sizes
            .iter()
            .filter_map(|&size| Some((size as f64, bench.report.median(&scenario(what, size, IN_A_ROW))?)))
            .collect(),
    };
    let curves = ["create", "run true", "info", "destroy"].map(curve);
    let drawing = lines("Latency beside other live containers (medians)", "live containers", &curves);
    bench.write("density.svg", &drawing)
}
