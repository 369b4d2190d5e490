//! The price of each part of the confinement: the same daemon without it, in turns with one that has it.

use anyhow::{Result, anyhow};

use crate::bench::Bench;
use crate::report::{Unit, WARDEN};
use crate::warden::{Warden, knows};

/// Parts, each with the key and the value that turn it off.
const PARTS: [(&str, &str, &str); 4] = [
    ("without a user namespace", "server.user_namespace", "false"),
    ("without seccomp", "server.confinement", "{system_calls: false}"),
    ("without masks", "server.confinement", "{masked_paths: false, read_only_paths: false}"),
    ("without a disk quota", "server.quota", "{disk_quota_enabled: false}"),
];

const CREATE: &str = "create, by what is left out";
const RUN: &str = "run true, by what is left out";

/// Measures creation and run with everything, and without each part.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let rounds = bench.options.pick(60, 6);
    let mut competitors = vec![(WARDEN, Warden::start(&bench.options, &[])?)];
    let mut absent = Vec::new();
    for (name, key, value) in PARTS {
        if knows(key)? {
            competitors.push((name, Warden::start(&bench.options, &[(key, value)])?));
        } else {
            absent.push((name, key));
        }
    }
    for round in 0..rounds {
        let count = competitors.len();
        for turn in 0..count {
            // In this order the product's row stays the first of its scenario.
            let (name, warden) = &mut competitors[(round + turn) % count];
            let (handle, created) = warden.create()?;
            let ran = warden.run(&handle, "true")?;
            warden.destroy(&handle)?;
            bench.report.record(CREATE, name, Unit::Milliseconds, Ok(created));
            bench.report.record(RUN, name, Unit::Milliseconds, Ok(ran));
        }
    }
    for (name, key) in absent {
        let reason = || Err(anyhow!("this wardend has no {key}"));
        bench.report.record(CREATE, name, Unit::Milliseconds, reason());
        bench.report.record(RUN, name, Unit::Milliseconds, reason());
    }
    Ok(())
}
