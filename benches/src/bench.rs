//! One run: the scenarios, then the table, the JSON and the drawings of what they gave.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use warden_tests::programs::host;

use crate::options::{Options, USAGE};
use crate::peers::Peers;
use crate::report::Report;
use crate::scenario::ALL;
use crate::{json, svg, table};

/// What all scenarios share.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) peers: Peers,
    pub(crate) report: Report,
}

impl Bench {
    /// Looks for the peers.
    pub(crate) fn new(options: Options) -> Result<Self> {
        if let Some(name) = options.only.iter().find(|name| ALL.iter().all(|(known, _)| known != name)) {
            bail!("there is no scenario {name}\n{USAGE}");
        }
        let peers = Peers::find(&options)?;
        Ok(Self { options, peers, report: Report::default() })
    }

    /// Measures every scenario that is wanted and shows the results; fails in the end where one has failed.
    pub(crate) fn run(&mut self) -> Result<()> {
        let machine = self.machine();
        println!("{}", machine_text(&machine));
        let mut failures = Vec::new();
        for (name, measure) in ALL {
            if !self.options.wants(name) {
                continue;
            }
            eprintln!("measuring: {name}");
            // The harness of the daemon fails by panicking; the other scenarios go on.
            let measured = catch_unwind(AssertUnwindSafe(|| measure(self)));
            if let Err(error) = measured.unwrap_or_else(|_| Err(anyhow!("panicked, as said above"))) {
                failures.push(format!("{name}: {error:#}"));
            }
            // A run that is broken off leaves what it has.
            self.publish(&machine)?;
        }
        println!("{}\nwritten to {}", table::text(&self.report), self.options.output.display());
        if failures.is_empty() { Ok(()) } else { bail!("failed: {}", failures.join("; ")) }
    }

    /// Writes all results so far.
    fn publish(&self, machine: &Value) -> Result<()> {
        let document = json::document(&self.report, machine);
        self.write("results.json", &format!("{document:#}\n"))?;
        self.write("results.txt", &format!("{}\n\n{}", machine_text(machine), table::text(&self.report)))?;
        self.write("ratios.svg", &svg::bars(&self.report))
    }

    /// Writes one file of the results.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::create_dir_all(&self.options.output)?;
        let path = self.options.output.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// What the figures depend on.
    fn machine(&self) -> Value {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = crate::memory::field(&memory, "MemTotal").unwrap_or_default() / 1e6;
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let peers: Vec<String> =
            self.peers.versions().iter().map(|(name, version)| format!("{name}: {version}")).collect();
        json!({
            "kernel": host("uname", &["-sr"]).trim(),
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "memory_gb": memory.round(),
            "load_before": load.split(' ').next().unwrap_or_default(),
            "quick": self.options.quick,
            "settings": self.options.settings.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
            "peers": peers,
        })
    }
}

fn machine_text(machine: &Value) -> String {
    let text = |key: &str| machine[key].as_str().map_or_else(|| machine[key].to_string(), str::to_owned);
    let mut lines = vec![format!(
        "{}, {} processors, {} GB, load {} before the run",
        text("kernel"),
        text("processors"),
        text("memory_gb"),
        text("load_before")
    )];
    let peers = machine["peers"].as_array().into_iter().flatten();
    lines.extend(peers.filter_map(|peer| peer.as_str().map(str::to_owned)));
    lines.join("\n")
}
