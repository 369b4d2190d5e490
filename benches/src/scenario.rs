//! What is measured.

mod copies;
mod density;
mod idle;
mod lifecycle;
mod lives;
mod output;
mod rate;
mod restart;
mod variants;

use anyhow::Result;

use crate::bench::Bench;

/// A scenario adds its rows to the benchmark's report.
type Measure = fn(&mut Bench) -> Result<()>;

/// Every scenario with its name, in the order in which they are measured.
pub(crate) const ALL: [(&str, Measure); 9] = [
    ("lifecycle", lifecycle::measure),
    ("rate", rate::measure),
    ("lives", lives::measure),
    ("output", output::measure),
    ("copies", copies::measure),
    ("idle", idle::measure),
    ("density", density::measure),
    ("variants", variants::measure),
    ("restart", restart::measure),
];
