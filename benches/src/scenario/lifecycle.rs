//! Every step of a container's life, beside the floor and the peers: one of each in turn, in another order each time.

use anyhow::{Result, anyhow};

use crate::bench::Bench;
use crate::floor::Floor;
use crate::peer::{BESIDE, Peer, RUNNING, execute};
use crate::quiet;
use crate::report::{FLOOR, Report, Unit, WARDEN};
use crate::warden::{WARM_POOL, Warden, knows, timed};

const WARM: &str = "create, warm";
const COLD: &str = "create, cold";
const RUN: &str = "run true";
const DESTROY: &str = "destroy";
const LIFE: &str = "whole life of true";

/// Rounds before the measured ones: files are read and programs mapped for the first time.
const WARMING: usize = 3;

/// Measures them all.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let rounds = bench.options.pick(100, 12);
    let mut cold = Warden::start(&bench.options, &[])?;
    let mut warm =
        if knows(WARM_POOL)? { Some(Warden::start(&bench.options, &[(WARM_POOL, "8")])?) } else { None };
    if warm.is_none() {
        let reason = Err(anyhow!("this wardend has no {WARM_POOL}"));
        bench.report.record(WARM, WARDEN, Unit::Milliseconds, reason);
    }
    let sample = cold.create()?.0;
    let mut floor = Floor::start(&cold.directory_of(&sample)?.join("spec.json"));
    let peers = &bench.peers;
    let started: Vec<bool> = peers.present.iter().map(|peer| start(&mut bench.report, peer)).collect();
    let mut rehearsal = Report::default();
    for round in 0..WARMING + rounds {
        let report = if round < WARMING { &mut rehearsal } else { &mut bench.report };
        let competitors = 3 + peers.present.len();
        for turn in 0..competitors {
            quiet::wait();
            match (round + turn) % competitors {
                0 => own_turn(report, &mut cold)?,
                1 => warm_turn(report, warm.as_mut())?,
                2 => floor_turn(report, &mut floor),
                other => {
                    let number = other - 3;
                    let peer = &peers.present[number];
                    if round.is_multiple_of(peer.every) {
                        peer_turn(report, peer, started[number], warm.is_some());
                    }
                }
            }
        }
    }
    for peer in &peers.present {
        peer.running.iter().flat_map(|running| &running.end).for_each(|line| drop(execute(line)));
    }
    for peer in &peers.absent {
        bench.report.record(LIFE, peer.name, Unit::Milliseconds, Err(anyhow!("not installed")));
    }
    drop(floor);
    cold.destroy(&sample).map(drop)
}

/// What the pool does afterwards is nobody's turn.
fn warm_turn(report: &mut Report, warm: Option<&mut Warden>) -> Result<()> {
    let Some(warm) = warm else { return Ok(()) };
    let (handle, created) = warm.create()?;
    report.figure(WARM, Unit::Milliseconds, created);
    warm.destroy(&handle).map(drop)
}

fn own_turn(report: &mut Report, cold: &mut Warden) -> Result<()> {
    let mut record = |scenario: &str, took: f64| report.figure(scenario, Unit::Milliseconds, took);
    let (handle, created) = cold.create()?;
    record(COLD, created);
    let ran = cold.run(&handle, "true")?;
    record(RUN, ran);
    let (job, spawned) = cold.spawn(&handle, "true")?;
    cold.link(&handle, job)?;
    record("spawn true", spawned);
    record("info", cold.info(&handle)?);
    record("net_in", cold.net_in(&handle)?);
    record("net_out", cold.net_out(&handle)?);
    let destroyed = cold.destroy(&handle)?;
    record(DESTROY, destroyed);
    record(LIFE, created + ran + destroyed);
    Ok(())
}

fn floor_turn(report: &mut Report, floor: &mut Result<Floor>) {
    let mut order = |order: &str| match floor {
        Ok(floor) => floor.measure(order),
        Err(error) => Err(anyhow!("{error:#}")),
    };
    let steps = [(COLD, order("create")), (RUN, order("run")), (DESTROY, order("destroy"))];
    let sum = steps.iter().map(|(_, took)| took.as_ref().ok().copied()).sum::<Option<f64>>();
    for (scenario, took) in steps {
        report.record(scenario, FLOOR, Unit::Milliseconds, took);
    }
    let whole = sum.ok_or_else(|| anyhow!("a step failed"));
    report.record(LIFE, FLOOR, Unit::Milliseconds, whole);
}

/// Starts a peer's long-running container; tells whether it runs.
fn start(report: &mut Report, peer: &Peer) -> bool {
    let Some(running) = &peer.running else { return false };
    let started = running.start.iter().try_for_each(|line| execute(line));
    if let Err(error) = started {
        report.record(RUN, peer.name, Unit::Milliseconds, Err(error));
        running.end.iter().for_each(|line| drop(execute(line)));
        return false;
    }
    true
}

fn peer_turn(report: &mut Report, peer: &Peer, runs: bool, warm: bool) {
    let took = |line: &[String]| timed(|| execute(line)).map(|((), took)| took);
    if !report.is_hopeless(LIFE, peer.name) {
        report.record(LIFE, peer.name, Unit::Milliseconds, took(&peer.life));
    }
    let Some(running) = peer.running.as_ref().filter(|_| runs) else { return };
    report.record(RUN, peer.name, Unit::Milliseconds, took(&running.exec));
    // Another one beside it, of another name.
    let other = |line: &Vec<String>| -> Vec<String> {
        line.iter().map(|word| word.replace(RUNNING, BESIDE)).collect()
    };
    let all = |lines: &[Vec<String>]| lines.iter().map(|line| took(&other(line))).sum::<Result<f64>>();
    let (created, ended) = (all(&running.start), all(&running.end));
    if let (true, Ok(created)) = (warm, &created) {
        report.record(WARM, peer.name, Unit::Milliseconds, Ok(*created));
    }
    report.record(COLD, peer.name, Unit::Milliseconds, created);
    report.record(DESTROY, peer.name, Unit::Milliseconds, ended);
}
