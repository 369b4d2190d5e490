//! What the kernel and the log tell: of one container's network, and of the machine as a whole.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use warden_tests::{Daemon, programs};

use crate::promise::Port;

/// Where a daemon's containers are.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Enters its network.
    enter: Vec<OsString>,
    log: PathBuf,
    depot: PathBuf,
}

impl Host {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        let command = daemon.in_its_network("true");
        let enter = std::iter::once(command.get_program()).chain(command.get_args().take(1));
        Self {
            enter: enter.map(OsString::from).collect(),
            log: daemon.directory().join("wardend.log"),
            depot: daemon.depot(""),
        }
    }

    /// What a program prints in its network.
    fn told(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.enter[0]);
        let output = programs::output(command.args(&self.enter[1..]).arg(program).args(arguments));
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ports of the host that lead to an address, and networks that a container may reach.
    pub(crate) fn opened(&self, address: &str) -> (BTreeSet<Port>, BTreeSet<String>) {
        let ruleset: Value = serde_json::from_str(&self.told("nft", &["-j", "list", "ruleset"])).unwrap();
        (ports(&ruleset, address), networks(&ruleset, address))
    }

    /// Whether a daemon has said that it removed a container because its init was dead.
    pub(crate) fn buried(&self, id: &str) -> bool {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().any(|line| line.contains(id) && line.contains("its init is dead"))
    }

    /// All that a daemon without containers leaves in its network and its depot, in the same order always.
    pub(crate) fn look(&self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        let mut add = |kind: &str, text: &str| {
            lines.extend(text.lines().map(|line| format!("{kind} {}", line.trim())));
        };
        // Without numbers that grow, and names of namespaces that are others each time.
        add("link", &self.told("ip", &["-br", "link"]));
        add("address", &self.told("ip", &["-br", "address"]));
        for family in ["-4", "-6"] {
            add("route", &self.told("ip", &[family, "route", "show", "table", "all"]));
            add("rule", &self.told("ip", &[family, "rule"]));
            add("neighbour", &self.told("ip", &[family, "neighbour", "show", "nud", "all"]));
        }
        add("nft", &without_chains_made_ahead(&self.told("nft", &["list", "ruleset"])));
        let entries =
            |directory: &str| fs::read_dir(self.depot.join(directory)).into_iter().flatten().flatten();
        for directory in ["", ".trash"] {
            let names = entries(directory).map(|entry| entry.file_name().display().to_string());
            lines.extend(names.map(|name| format!("depot {directory}/{name}")));
        }
        // Each daemon has one of its own.
        lines.insert(format!("depot .images: {}", entries(".images").count()));
        lines
    }
}

/// A ruleset without the chains of addresses, which are made for many at a time and stay; what is in them stays in the text.
fn without_chains_made_ahead(ruleset: &str) -> String {
    let is_made_ahead = |line: &str| line.contains("chain out-") || line.contains(": jump out-");
    ruleset.lines().filter(|line| !is_made_ahead(line)).map(|line| format!("{line}\n")).collect()
}

/// Everything of a kind in what nft lists.
fn objects<'a>(ruleset: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    ruleset["nftables"].as_array().into_iter().flatten().filter_map(move |object| object.get(kind))
}

/// The forwarded ports of a ruleset that lead to an address.
fn ports(ruleset: &Value, address: &str) -> BTreeSet<Port> {
    let elements = objects(ruleset, "map")
        .filter(|map| map["name"].as_str().is_some_and(|name| name.starts_with("forwards")))
        .flat_map(|map| map["elem"].as_array().into_iter().flatten());
    elements
        .map(|element| port(element).unwrap_or_else(|| panic!("an element of forwards: {element}")))
        .filter_map(|(to, port)| (to == address).then_some(port))
        .collect()
}

/// The port of one element, and the address that it leads to.
fn port(element: &Value) -> Option<(&str, Port)> {
    let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
    let (key, value) = (&element[0]["concat"], &element[1]["concat"]);
    Some((value[0].as_str()?, Port { host: number(&key[1])?, inside: number(&value[1])? }))
}

/// The networks that the rules of a container's chain open, by its address.
fn networks(ruleset: &Value, address: &str) -> BTreeSet<String> {
    let chain = format!("out-{address}");
    let rules = objects(ruleset, "rule").filter(|rule| rule["chain"] == chain.as_str());
    let range = |rule: &Value| {
        let expressions = rule["expr"].as_array()?;
        let right = expressions.iter().map(|expression| &expression["match"]["right"]);
        let mut ranges = right.filter_map(|right| right["range"].as_array());
        let range = ranges.next()?;
        Some(format!("{}-{}", range[0].as_str()?, range[1].as_str()?))
    };
    rules.filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_are_made_ahead_are_nothing_that_is_left_but_their_rules_are() {
        let text = "table inet t {\n\tset outgoing {\n\t\telements = { 10.254.0.2 : jump out-10.254.0.2,\n\t\t\t\
                    10.254.0.6 : jump out-10.254.0.6 }\n\t}\n\tchain out-10.254.0.2 {\n\t\taccept\n\t}\n}\n";
        let left = without_chains_made_ahead(text);
        assert_eq!(left, "table inet t {\n\tset outgoing {\n\t}\n\t\taccept\n\t}\n}\n");
    }

    #[test]
    fn ports_and_networks_are_read_from_what_nft_lists() {
        let text = r#"{"nftables":[{"metainfo":{}},{"table":{"name":"t"}},
            {"map":{"name":"forwards","elem":[[{"concat":["tcp",61001]},{"concat":["10.254.0.2",80]}]]}},
            {"map":{"name":"forwards6"}},
            {"rule":{"chain":"out-1","expr":[{"match":{"right":"ip"}},
                {"match":{"right":{"range":["192.0.2.7","192.0.2.7"]}}},{"accept":null}]}},
            {"rule":{"chain":"out-1","expr":[{"goto":{"target":"common"}}]}},
            {"rule":{"chain":"out-2","expr":[{"match":{"right":{"range":["0.0.0.0","1.1.1.1"]}}}]}}]}"#;
        let ruleset = serde_json::from_str(text).unwrap();
        assert_eq!(ports(&ruleset, "10.254.0.2"), BTreeSet::from([Port { host: 61_001, inside: 80 }]));
        assert_eq!(ports(&ruleset, "10.254.0.6"), BTreeSet::new());
        assert_eq!(networks(&ruleset, "1"), BTreeSet::from(["192.0.2.7-192.0.2.7".to_owned()]));
    }
}
