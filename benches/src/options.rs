//! What a run of the benchmark measures, and how long.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// How the benchmark is called.
pub(crate) const USAGE: &str = "\
usage: bench [--quick] [--no-peers] [--only SCENARIO]... [--set SECTION.KEY=VALUE]... [--output DIRECTORY]
scenarios: lifecycle rate lives output copies idle density variants restart";

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Whether to be done in less than a minute.
    pub(crate) quick: bool,
    /// Whether peers that are installed are measured.
    pub(crate) peers: bool,
    /// The scenarios; all when empty.
    pub(crate) only: Vec<String>,
    /// Configuration of the daemon beyond the benchmark's own.
    pub(crate) settings: Vec<(String, String)>,
    /// Where results and drawings go.
    pub(crate) output: PathBuf,
}

impl Options {
    /// Reads the words of a command line.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            quick: false,
            peers: true,
            only: Vec::new(),
            settings: Vec::new(),
            output: PathBuf::new(),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value\n{USAGE}"));
            match word.as_str() {
                "--quick" => options.quick = true,
                "--no-peers" => options.peers = false,
                "--only" => options.only.push(value()?),
                "--set" => {
                    let value = value()?;
                    let (key, value) = value.split_once('=').with_context(|| USAGE.to_owned())?;
                    options.settings.push((key.to_owned(), value.to_owned()));
                }
                "--output" => options.output = value()?.into(),
                _ => bail!("{word} is not understood\n{USAGE}"),
            }
        }
        if options.output.as_os_str().is_empty() {
            // What is published comes from whole runs only.
            let whole = !options.quick && options.only.is_empty() && options.settings.is_empty();
            options.output = if whole { "docs/benchmarks" } else { "target/bench" }.into();
        }
        Ok(options)
    }

    /// Whether a scenario is wanted.
    pub(crate) fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == scenario)
    }

    /// One of two numbers: that of a whole run, or that of a quick one.
    pub(crate) fn pick<T>(&self, whole: T, quick: T) -> T {
        if self.quick { quick } else { whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_whole_run_publishes_and_others_do_not() {
        assert_eq!(parse("").unwrap().output, PathBuf::from("docs/benchmarks"));
        for line in ["--quick", "--only idle", "--set server.user_namespace=false"] {
            assert_eq!(parse(line).unwrap().output, PathBuf::from("target/bench"), "{line}");
        }
        assert_eq!(parse("--quick --output /x").unwrap().output, PathBuf::from("/x"));
    }

    #[test]
    fn scenarios_and_settings() {
        let options = parse("--only idle --only lives --set a.b=c=d --no-peers").unwrap();
        assert!(options.wants("idle") && !options.wants("output") && !options.peers);
        assert_eq!(options.settings, [("a.b".to_owned(), "c=d".to_owned())]);
        assert!(parse("").unwrap().wants("output"));
        assert_eq!((options.pick(2, 1), parse("--quick").unwrap().pick(2, 1)), (2, 1));
    }

    #[test]
    fn mistakes_show_the_usage() {
        for line in ["--fast", "--only", "--set novalue"] {
            assert!(format!("{:#}", parse(line).unwrap_err()).contains("usage: bench"), "{line}");
        }
    }
}
