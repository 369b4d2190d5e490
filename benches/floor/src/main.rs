//! The least that a container costs on this kernel: made, used and ended by nothing but the system calls that it takes.
//!
//! It has what a container of wardend has (namespaces, id map, layers, mounts, devices, cgroups, interfaces, a resident
//! init), and no daemon, supervisor, protocol, file of state, log or recovery. Of the product's code it has the wrappers of
//! `warden-linux` and the confinement (capabilities and the filter of system calls), so that both are the same. One single-threaded static process, as small as can be,
//! obeys a command a line on its standard input and answers each with a line: `ok NANOSECONDS`, or `failed REASON`.

mod container;
mod inside;
mod network;
mod resident;
mod setup;

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::container::Container;
use crate::setup::Setup;

fn main() -> ExitCode {
    match obey() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the description of the container up to `ready`, then commands up to the end.
fn obey() -> Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let mut text = String::new();
    loop {
        let line = lines.next().context("the description ended before 'ready'")??;
        if line == "ready" {
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    let setup = Setup::parse(&text)?;
    warden_init::confinement::prepare();
    let mut state = State { setup, made: 0, container: None };
    for line in lines {
        let answer = match state.obey(&line?) {
            Ok(took) => format!("ok {}", took.as_nanos()),
            Err(error) => format!("failed {error:#}").replace('\n', " "),
        };
        writeln!(std::io::stdout(), "{answer}")?;
    }
    state.end()
}

struct State {
    setup: Setup,
    /// How many were made.
    made: u32,
    container: Option<Container>,
}

impl State {
    /// Does one command and tells how long its container took.
    fn obey(&mut self, command: &str) -> Result<Duration> {
        match command {
            "create" => {
                self.end()?;
                self.made += 1;
                let (container, took) = container::create(&self.setup, self.made)?;
                self.container = Some(container);
                Ok(took)
            }
            "run" => self.container.as_ref().context("there is no container")?.run(b"true"),
            "destroy" => {
                let container = self.container.take().context("there is no container")?;
                container.destroy(&self.setup)
            }
            other => bail!("unknown command {other}"),
        }
    }

    fn end(&mut self) -> Result<()> {
        match self.container.take() {
            Some(container) => container.destroy(&self.setup).map(drop),
            None => Ok(()),
        }
    }
}
