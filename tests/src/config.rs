//! The configuration of a daemon of a test's own.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;

/// The setting that takes away what a privileged job may not do: for tests of what stands behind it.
pub const ALL_PRIVILEGES: (&str, &str) = (
    "server.confinement",
    "{capabilities: false, system_calls: false, no_new_privileges: false, masked_paths: false, read_only_paths: false}",
);

/// The setting that makes no container ahead: for tests that count what there is.
pub const NOTHING_AHEAD: (&str, &str) = ("server.warm_pool_size", "0");

/// Keys with their values, both as text of YAML.
#[derive(Clone, Debug, Default)]
pub struct Config(BTreeMap<String, BTreeMap<String, String>>);

impl Config {
    /// What every daemon of a test is told: its own directory, cgroup, and pools that no test exhausts by accident.
    pub fn new(directory: &Path, cgroup_parent: &str) -> Self {
        let mut config = Self::default();
        let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
        for (key, value) in [
            ("server.unix_domain_path", path("warden.sock")),
            ("server.unix_domain_permissions", "0700".to_owned()),
            ("server.container_depot_path", path("depot")),
            ("server.cgroup_parent", cgroup_parent.to_owned()),
            ("logging.level", "debug".to_owned()),
            ("logging.file", path("wardend.log")),
            ("network.pool_network", "10.254.0.0/22".to_owned()),
            ("network.release_delay", "0".to_owned()),
            ("user.pool_size", "256".to_owned()),
            // Most tests count what is there, or look for what must not be: containers that nobody asked for would be in it.
            ("server.warm_pool_size", env::var("WARDEN_TEST_WARM").unwrap_or_else(|_| "0".to_owned())),
        ] {
            config.set(key, &value);
        }
        config
    }

    /// Sets `section.key` to a value, which is written into the file as it is.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        let (section, key) = key.split_once('.').expect("a key is SECTION.NAME");
        self.0.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let section = |(name, keys): (&String, &BTreeMap<String, String>)| {
            let keys: String = keys.iter().map(|(key, value)| format!("  {key}: {value}\n")).collect();
            format!("{name}:\n{keys}")
        };
        self.0.iter().map(section).collect()
    }
}
