//! `wardend --check`: looks at the configuration and the machine, changes nothing, and says what is missing.

mod cgroups;
mod device;
mod disk;
mod machine;
mod network;
mod paths;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::Config;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    what: String,
    verdict: Verdict,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// As it should be; with what was seen.
    Ok(String),
    /// Not there; with what is done without it.
    Missing(String),
    /// Not there, and nothing can be served without it.
    Needed(String),
}

impl Item {
    fn ok(what: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Ok(seen.into()) }
    }

    fn missing(what: impl Into<String>, without: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Missing(without.into()) }
    }

    fn needed(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Needed(why.into()) }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match &self.verdict {
            Verdict::Ok(text) => ("ok", text),
            Verdict::Missing(text) => ("missing", text),
            Verdict::Needed(text) => ("failed", text),
        };
        write!(f, "{word:<8} {}: {text}", self.what)
    }
}

/// Prints one line per item; success when containers could be served.
pub fn run(config: &Config, warnings: &[String]) -> ExitCode {
    let mut items = configuration(warnings);
    items.extend(machine::items(config));
    items.extend(cgroups::items());
    items.extend(device::items(config));
    items.extend(network::items(config));
    items.extend(paths::items(config));
    let text: String = items.iter().map(|item| format!("{item}\n")).collect();
    // A reader that has seen enough is no failure of the check.
    let _ = io::stdout().write_all(text.as_bytes());
    exit_code(&items)
}

fn configuration(warnings: &[String]) -> Vec<Item> {
    if warnings.is_empty() {
        return vec![Item::ok("configuration", "every key is known and has a possible value")];
    }
    warnings.iter().map(|warning| Item::missing("configuration", warning)).collect()
}

fn exit_code(items: &[Item]) -> ExitCode {
    if items.iter().any(|item| matches!(item.verdict, Verdict::Needed(_))) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_verdict_thing_and_text() {
        assert_eq!(Item::ok("kernel", "6.1").to_string(), "ok       kernel: 6.1");
        assert_eq!(Item::missing("a", "b").to_string(), "missing  a: b");
        assert_eq!(Item::needed("a", "b").to_string(), "failed   a: b");
    }

    #[test]
    fn only_what_is_needed_fails_the_check() {
        let code = |items: &[Item]| format!("{:?}", exit_code(items));
        assert_eq!(code(&[Item::ok("a", ""), Item::missing("b", "")]), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(&[Item::ok("a", ""), Item::needed("b", "")]), format!("{:?}", ExitCode::FAILURE));
    }
}
