//! A daemon that is killed and started again beside live containers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::bench::Bench;
use crate::crowd;
use crate::report::{Unit, WARDEN};
use crate::warden::{Handle, Warden, timed};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures how long the socket does not answer, and how many containers are there afterwards.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let count = bench.options.pick(500, 20);
    let mut warden = Warden::start(&bench.options, &[])?;
    crowd::create(&warden, count)?;
    warden.daemon.signal(Signal::KILL);
    warden.daemon.wait();
    let scenario = format!("restart beside {count} containers, until list is answered");
    match timed(|| restart(&mut warden)) {
        Ok((handles, took)) => {
            bench.report.figure(&scenario, Unit::Milliseconds, took);
            let adopted = format!("containers of {count} that are there after a restart");
            bench.report.figure(&adopted, Unit::Count, handles.len() as f64);
            crowd::destroy(&warden, handles)
        }
        Err(error) => {
            bench.report.record(&scenario, WARDEN, Unit::Milliseconds, Err(error));
            Ok(())
        }
    }
}

/// Starts the daemon again and asks which containers there are.
fn restart(warden: &mut Warden) -> Result<Vec<Handle>> {
    let deadline = Instant::now() + PATIENCE;
    // The harness gives up by panicking where a test has waited long enough; the daemon goes on.
    let started = catch_unwind(AssertUnwindSafe(|| warden.daemon.restart()));
    if started.is_err() {
        while warden.reconnect().is_err() {
            ensure!(Instant::now() < deadline, "the socket does not answer after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    warden.reconnect()?;
    warden.list()
}
