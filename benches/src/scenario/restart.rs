//! A daemon that is killed and started again beside live containers.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow};
use rustix::process::Signal;

use crate::bench::Bench;
use crate::crowd;
use crate::report::Unit;
use crate::warden::{Warden, timed};

/// Measures how long the socket does not answer, and how many containers are there afterwards.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let count = bench.options.pick(500, 50);
    let mut warden = Warden::start(&bench.options, &[])?;
    crowd::create(&warden, count)?;
    warden.daemon.signal(Signal::KILL);
    warden.daemon.wait();
    // The harness fails by panicking, where the socket does not answer in time.
    let restarted = catch_unwind(AssertUnwindSafe(|| {
        timed(|| {
            warden.daemon.restart();
            warden.reconnect()?;
            warden.list()
        })
    }));
    let restarted = restarted.unwrap_or_else(|_| Err(anyhow!("the socket did not answer")));
    let scenario = format!("restart beside {count} containers, until list is answered");
    match restarted {
        Ok((handles, took)) => {
            bench.report.figure(&scenario, Unit::Milliseconds, took);
            let adopted = format!("containers of {count} that are there after a restart");
            bench.report.figure(&adopted, Unit::Count, handles.len() as f64);
            crowd::destroy(&warden, handles)
        }
        Err(error) => {
            bench.report.record(&scenario, crate::report::WARDEN, Unit::Milliseconds, Err(error));
            Ok(())
        }
    }
}
