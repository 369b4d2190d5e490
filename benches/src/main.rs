//! The benchmark: a real wardend beside the kernel's floor and its peers, in one run, in turns.
//!
//! docs/benchmarks explains what is measured and how. The programs are those of `$WARDEN_DIST`, and `floor` beside this
//! one; `make bench` builds and sets all that.

mod bench;
mod crowd;
mod floor;
mod json;
mod memory;
mod options;
mod peer;
mod peers;
mod quiet;
mod report;
mod scenario;
mod statistics;
mod svg;
mod table;
mod view;
mod warden;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let options = options::Options::parse(std::env::args().skip(1))?;
    view::enter_own()?;
    bench::Bench::new(options)?.run()
}
