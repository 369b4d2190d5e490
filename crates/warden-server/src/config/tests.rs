use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use warden_init::confinement::Confinement;
use warden_init::message::Resource;

use super::*;

fn config(text: &str) -> Config {
    Config::parse(text).unwrap().0
}

fn refusal(text: &str) -> String {
    Config::parse(text).map(|(config, _)| config).expect_err(text).to_string()
}

fn warnings(text: &str) -> Vec<String> {
    Config::parse(text).unwrap().1.warnings
}

/// A document of one key, given as `section.key` or deeper.
fn document(path: &str, value: &str) -> String {
    let parts: Vec<_> = path.split('.').collect();
    let last = parts.len() - 1;
    let line = |(depth, part): (usize, &&str)| {
        let value = if depth == last { format!(" {value}") } else { String::new() };
        format!("{}{part}:{value}\n", "  ".repeat(depth))
    };
    parts.iter().enumerate().map(line).collect()
}

#[test]
fn an_empty_document_has_the_original_defaults() {
    for text in ["", "# only a comment\n", "---\n", "server:\nnetwork:\n", "{}"] {
        let config = config(text);
        assert_eq!(config.server.unix_domain_path, PathBuf::from("/tmp/warden.sock"));
        assert_eq!(config.server.unix_domain_permissions, 0o755);
        assert_eq!(config.server.grace_time, Some(Duration::from_secs(300)));
        assert_eq!(config.server.job_output_limit, 10_485_760);
        assert_eq!(config.server.rootfs, None);
        assert!(config.server.disk_quota_enabled && !config.server.allow_nested_warden);
        assert_eq!(config.health_check_port, 2345);
        assert_eq!(config.logging, Logging { level: Level::Debug2, file: None, format: Format::Json });
        assert_eq!(config.network.pool.to_string(), "10.254.0.0/24");
        assert_eq!(config.network.release_delay, Duration::from_secs(5));
        assert_eq!((config.network.mtu, config.network.allow_host_access), (1500, false));
        assert_eq!(config.ports, Ports { start: None, size: None });
        assert_eq!(config.users, Users { start: 10_000, size: 64 });
    }
}

/// A file in the shape of those that operators of the original have.
const OPERATORS_FILE: &str = "---
server:
  container_klass: Warden::Container::Linux
  container_grace_time: 120
  unix_domain_permissions: 0770
  container_rootfs_path: /srv/images/base
  container_depot_path: /srv/containers
  container_rlimits:
    as: 2147483648
    nofile: 4096
    nproc: 256
  job_output_limit: 1_048_576
  quota:
    disk_quota_enabled: on
  allow_nested_warden: no

health_check_server:
  port: 2346

logging:
  level: debug1
  file: /var/log/warden.log

network:
  pool_start_address: 10.20.0.0
  pool_size: 200
  mtu: 1400
  allow_networks: [192.0.2.7, 198.51.100.0/24, 10.0.0.0/255.0.0.0]
  dns_servers:
    - 192.0.2.53
    - 2001:db8::53

port:
  pool_start_port: 61001
  pool_size: 4000

user:
  pool_start_uid: 20000
  pool_size: 256
";

#[test]
fn a_file_of_the_original_is_read_whole() {
    let (config, notes) = Config::parse(OPERATORS_FILE).unwrap();
    assert_eq!(notes.warnings, Vec::<String>::new());
    assert_eq!(config.server.grace_time, Some(Duration::from_secs(120)));
    assert_eq!(config.server.unix_domain_permissions, 0o770);
    assert_eq!(config.server.rootfs, Some(PathBuf::from("/srv/images/base")));
    assert_eq!(config.server.depot, PathBuf::from("/srv/containers"));
    let limits =
        BTreeMap::from([(Resource::As, 2_147_483_648), (Resource::Nofile, 4096), (Resource::Nproc, 256)]);
    assert_eq!(config.server.rlimits, limits);
    assert_eq!(config.server.job_output_limit, 1_048_576);
    assert!(config.server.disk_quota_enabled && !config.server.allow_nested_warden);
    assert_eq!(config.health_check_port, 2346);
    assert_eq!(config.logging.level, Level::Debug1);
    assert_eq!(config.logging.file, Some(PathBuf::from("/var/log/warden.log")));
    assert_eq!(config.network.pool.to_string(), "10.20.0.0/22");
    let allowed: Vec<_> = config.network.allow_networks.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["192.0.2.7/32", "198.51.100.0/24", "10.0.0.0/8"]);
    assert_eq!(config.network.dns_servers.len(), 2);
    assert_eq!(config.ports, Ports { start: Some(61001), size: Some(4000) });
    assert_eq!(config.users, Users { start: 20_000, size: 256 });
}

#[test]
fn a_pool_of_ipv6_has_room_beside_that_of_ipv4() {
    let text = "{network: {pool_network: 10.0.0.0/19, pool_network_v6: 'fd00:1::5/115', allow_networks: ['fd00:2::/32', '::1']}}";
    let (config, _) = Config::parse(text).unwrap();
    assert_eq!(config.network.pool_v6.unwrap().to_string(), "fd00:1::/115");
    let allowed: Vec<_> = config.network.allow_networks.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["fd00:2::/32", "::1/128"]);
    let (config, _) = Config::parse("{}").unwrap();
    assert_eq!(config.network.pool_v6, None);
    let refused =
        Config::parse("{network: {pool_network_v6: 'fd00:1::/64', mtu: 1279}}").unwrap_err().to_string();
    assert_eq!(
        refused,
        "network.mtu is 1279: expected at least 1280, the least of IPv6, with network.pool_network_v6"
    );
}

#[test]
fn the_built_in_file_holds_two_thousand_containers() {
    let (config, notes) = Config::parse(BUILT_IN).unwrap();
    assert_eq!(notes.warnings, Vec::<String>::new());
    assert!(1 << (30 - config.network.pool.prefix_len()) >= 2000);
    assert!(config.users.size >= 2000);
    assert!(config.server.host_ids.count / 65536 >= 2000);
}

/// The keys of the built-in file, in comments or not, each with the default that its comment names.
fn documented() -> BTreeMap<String, Option<String>> {
    let mut path: Vec<String> = Vec::new();
    let mut default = None;
    let mut keys = BTreeMap::new();
    for line in BUILT_IN.lines() {
        let text = line.trim_start();
        let depth = (line.len() - text.len()) / 2;
        let text = text.trim_start_matches("# ");
        if let Some(value) = text.strip_prefix("Default: ") {
            default = Some(value.to_owned());
            continue;
        }
        let Some((key, value)) = text.split_once(':') else { continue };
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_key || !(value.is_empty() || value.starts_with(' ')) {
            continue;
        }
        path.truncate(depth);
        path.push(key.to_owned());
        let inherited = keys.get(&path[..path.len() - 1].join(".")).cloned().flatten();
        keys.insert(path.join("."), default.take().or(inherited));
    }
    keys
}

#[test]
fn the_built_in_file_documents_every_key_and_no_other() {
    let documented = documented();
    let known: BTreeSet<_> = Config::parse("").unwrap().1.known.into_iter().collect();
    let inner = |key: &&String| known.iter().any(|other| other.starts_with(&format!("{key}.")));
    let keys: BTreeSet<_> = documented.keys().filter(|key| !inner(key)).cloned().collect();
    assert_eq!(keys, known);
}

#[test]
fn the_built_in_file_names_the_defaults_of_the_code() {
    let documented = documented();
    for key in Config::parse("").unwrap().1.known {
        let default =
            documented.get(&key).cloned().flatten().unwrap_or_else(|| panic!("{key} names no default"));
        if default != "none" {
            assert_eq!(config(&document(&key, &default)), config(""), "{key}: {default}");
        }
    }
}

#[test]
fn a_value_of_the_wrong_type_names_key_value_and_what_was_expected() {
    // Values that no key of the kind can have.
    let numbers: &[&str] = &["text", "'7'", "7.5", "true", "[7]", "{a: 7}", "-1", "99999999999999999999"];
    let flags: &[&str] = &["text", "'true'", "1", "0", "[]", "{a: 1}", "null"];
    let texts: &[&str] = &["7", "true", "[a]", "{a: b}", "''"];
    let lists: &[&str] = &["7", "true", "10.0.0.0/8", "{a: b}", "null", "[7]", "[null]", "[nonsense]"];
    let accounts: &[&str] =
        &["7", "true", "root", "{a: b}", "null", "[true]", "[-1]", "[4294967295]", "['']"];
    let kinds: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("server.allow_nested_warden", flags),
        ("server.quota.disk_quota_enabled", flags),
        ("server.user_namespace", flags),
        ("server.confinement.capabilities", flags),
        ("server.confinement.no_new_privileges", flags),
        ("server.confinement.system_calls", flags),
        ("server.confinement.masked_paths", flags),
        ("server.confinement.read_only_paths", flags),
        ("server.confinement.keyring", flags),
        ("server.confinement.devices", flags),
        ("network.allow_host_access", flags),
        ("network.dns_forwarder", flags),
        ("server.unix_domain_path", texts),
        ("server.container_klass", texts),
        ("server.container_rootfs_path", texts),
        ("server.container_depot_path", texts),
        ("server.pidfile", texts),
        ("server.syslog_socket", texts),
        ("server.helpers_path", texts),
        ("server.depot_image.path", texts),
        ("server.cgroup_parent", texts),
        ("logging.level", &["7", "true", "[info]", "''", "verbose", "null"]),
        ("logging.file", texts),
        ("logging.syslog", texts),
        ("logging.format", texts),
        ("network.pool_network", texts),
        ("network.pool_network_v6", texts),
        ("network.pool_start_address", texts),
        ("network.table", texts),
        ("server.access.users", accounts),
        ("server.access.groups", accounts),
        ("network.allow_networks", lists),
        ("network.dns_servers", lists),
    ]);
    for key in Config::parse("").unwrap().1.known {
        for value in kinds.get(key.as_str()).copied().unwrap_or(numbers) {
            let message = refusal(&document(&key, value));
            assert!(
                message.starts_with(&key) && message.contains(": expected "),
                "{key}: {value} -> {message}"
            );
            assert!(!message.contains('\n'), "{message:?}");
        }
    }
}

#[test]
fn a_section_that_is_no_map_is_refused() {
    for section in ["server", "health_check_server", "logging", "network", "port", "user"] {
        for (value, shown) in [("7", "7"), ("text", "\"text\""), ("[]", "a list"), ("false", "false")] {
            let message = refusal(&document(section, value));
            assert_eq!(message, format!("{section} is {shown}: expected a map"));
        }
    }

    for section in [
        "server.quota",
        "server.container_rlimits",
        "server.host_ids",
        "server.access",
        "server.confinement",
        "server.memory_pressure",
        "server.depot_image",
    ] {
        assert_eq!(refusal(&document(section, "yes")), format!("{section} is true: expected a map"));
    }
    assert_eq!(refusal("[]"), "the document is a list: expected a map of sections");
}

#[test]
fn an_impossible_value_names_what_is_possible() {
    let long = format!("/{}", "s".repeat(107));
    for (key, value, message) in [
        (
            "server.unix_domain_permissions",
            "rwx",
            "\"rwx\": expected file permissions from 0 to 0777, in octal with a leading 0",
        ),
        (
            "server.unix_domain_permissions",
            "01000",
            "512: expected file permissions from 0 to 0777, in octal with a leading 0",
        ),
        (
            "server.unix_domain_permissions",
            "0789",
            "789.0: expected file permissions from 0 to 0777, in octal with a leading 0",
        ),
        ("server.unix_domain_path", "/", "\"/\": expected a path of at most 107 bytes that names a file"),
        ("server.unix_domain_path", &long, "expected a path of at most 107 bytes that names a file"),
        (
            "server.container_grace_time",
            "-1",
            "-1: expected a whole number of seconds from 0 to 4294967295, or empty for ever",
        ),
        ("server.container_grace_time", "1.5", "1.5: expected a whole number of seconds"),
        (
            "server.container_klass",
            "Warden::Container::Insecure",
            "\"Warden::Container::Insecure\": expected Warden::Container::Linux, the only class",
        ),
        ("server.cgroup_parent", "/warden", "\"/warden\": expected a relative path"),
        ("server.cgroup_parent", "a/../b", "\"a/../b\": expected a relative path"),
        ("server.cgroup_parent", "a//b", "\"a//b\": expected a relative path"),
        (
            "server.container_rlimits.nofile",
            "-1",
            "-1: expected a whole number from 0 to 18446744073709551615",
        ),
        ("server.max_clients", "0", "0: expected a whole number from 1 to 1048576"),
        ("server.reconcile_interval", "0", "0: expected a whole number from 1 to 31536000"),
        ("server.copy_stall_timeout", "0", "0: expected a whole number from 1 to 86400"),
        ("server.max_running_jobs", "0", "0: expected a whole number from 1 to 1048576"),
        ("server.io_limits.read_bps", "0", "0: expected a whole number from 1 to 9223372036854775807"),
        (
            "server.io_limits.write_iops",
            "4294967296",
            "4294967296: expected a whole number from 1 to 4294967295",
        ),
        ("server.max_tasks", "15", "15: expected a whole number from 16 to 4194304"),
        ("server.warm_pool_size", "1025", "1025: expected a whole number from 0 to 1024"),
        ("server.max_request_bytes", "1023", "1023: expected a whole number from 1024 to 2147483647"),
        ("server.host_ids.start", "0", "0: expected a whole number from 65536 to 4294901759"),
        ("server.host_ids.count", "65535", "65535: expected a whole number from 65536 to 4294967295"),
        ("server.host_ids.count", "4294443009", "4294443009: expected at most 4294443007"),
        ("health_check_server.port", "65536", "65536: expected a whole number from 0 to 65535"),
        (
            "logging.level",
            "loud",
            "\"loud\": expected off, fatal, error, warn, info, debug, debug1, debug2 or all",
        ),
        ("logging.format", "xml", "\"xml\": expected json or text"),
        ("network.pool_network", "10.254.0.0/31", "with a prefix from 8 to 30"),
        ("network.pool_network", "10.254.0.0", "with a prefix from 8 to 30"),
        ("network.pool_network", "10.254.0.256/24", "expected an IPv4 network"),
        ("network.pool_size", "0", "0: expected a whole number from 1 to 4194304"),
        ("network.pool_start_address", "10.254.0", "\"10.254.0\": expected an IPv4 address"),
        ("network.mtu", "67", "67: expected a whole number from 68 to 65535"),
        (
            "network.allow_networks",
            "[10.0.0.0/8, example.org]",
            "expected an IPv4 network such as 10.0.0.0/8, or an IPv6 network",
        ),
        (
            "network.allow_networks",
            "[10.0.0.0/255.0.255.0]",
            "expected an IPv4 network such as 10.0.0.0/8, or an IPv6 network",
        ),
        ("network.pool_network_v6", "10.0.0.0/8", "expected an IPv6 network such as fd00:7761:7264::/64"),
        ("network.pool_network_v6", "\"fd00::\"", "expected an IPv6 network"),
        (
            "network.pool_network_v6",
            "\"fd00::/121\"",
            "a prefix of at most 120, so that it has room beside 10.254.0.0/24",
        ),
        ("network.pool_network_v6", "\"fe80::/64\"", "of fc00::/7 or 2000::/3"),
        ("network.pool_network_v6", "\"::/0\"", "of fc00::/7 or 2000::/3"),
        ("network.allow_networks", "[\"fd00::/129\"]", "or an IPv6 network"),
        ("network.allow_networks", "[\"fd00::/255.0.0.0\"]", "or an IPv6 network"),
        ("network.dns_servers", "[localhost]", "\"localhost\": expected an IP address"),
        ("port.pool_start_port", "0", "0: expected a whole number from 1 to 65535"),
        ("user.pool_start_uid", "0", "0: expected a whole number from 1 to 65533"),
        (
            "user.pool_size",
            "55535",
            "55535: expected at most 55534: the first id is 10000, the last one 65533",
        ),
    ] {
        let refused = refusal(&document(key, value));
        assert!(refused.starts_with(key) && refused.contains(message), "{key}: {value} -> {refused}");
        assert!(!refused.contains('\n') && refused.len() < 300, "{refused}");
    }
    let index = refusal(&document("network.dns_servers", "[192.0.2.53, null]"));
    assert_eq!(index, "network.dns_servers[1] is empty: expected an IP address");
    let ports = refusal("port: {pool_start_port: 65000, pool_size: 537}");
    assert!(ports.starts_with("port.pool_size is 537: expected at most 536"), "{ports}");
}

#[test]
fn the_greatest_values_are_possible() {
    assert_eq!(config("user: {pool_size: 55534}").users.size, 55_534);
    assert_eq!(config("port: {pool_start_port: 65000, pool_size: 536}").ports.size, Some(536));
    assert_eq!(config("server: {host_ids: {count: 4294443007}}").server.host_ids.count, 4_294_443_007);
    assert_eq!(config("server: {unix_domain_permissions: 0}").server.unix_domain_permissions, 0);
    assert_eq!(
        config("server: {container_rlimits: {as: 18446744073709551615}}").server.rlimits[&Resource::As],
        u64::MAX
    );
    let without = config("server: {user_namespace: false}\nuser: {pool_start_uid: 70000, pool_size: 70000}");
    assert_eq!(without.users, Users { start: 70_000, size: 70_000 });
}

#[test]
fn yaml_1_1_spellings_mean_what_ruby_read() {
    for (text, mode) in [("0777", 0o777), ("0o777", 0o777), ("511", 511), ("0x1ff", 511), ("0700", 0o700)] {
        assert_eq!(
            config(&document("server.unix_domain_permissions", text)).server.unix_domain_permissions,
            mode
        );
    }
    for (text, flag) in
        [("yes", true), ("on", true), ("True", true), ("no", false), ("off", false), ("FALSE", false)]
    {
        assert_eq!(config(&document("server.allow_nested_warden", text)).server.allow_nested_warden, flag);
    }
    for text in ["off", "'off'"] {
        assert_eq!(config(&document("logging.level", text)).logging.level, Level::Off);
    }
}

#[test]
fn an_empty_key_is_an_absent_one_where_the_original_allowed_it() {
    assert_eq!(config("server: {container_grace_time: null}").server.grace_time, None);
    assert_eq!(config("server: {container_grace_time: 0}").server.grace_time, Some(Duration::ZERO));
    let empty = "server: {pidfile: , syslog_socket: , container_rootfs_path: , container_depot_path: }\nlogging: {file: , syslog: }";
    assert_eq!(config(empty), config(""));
    assert_eq!(config("server: {container_rootfs_path: host}"), config(""));
}

#[test]
fn an_image_of_the_depot_has_a_path_and_a_size() {
    let image = config("server: {depot_image: {path: /images/depot, size: 268435456}}").server.depot_image;
    assert_eq!(image, Some(DepotImage { path: "/images/depot".into(), size: 256 << 20 }));
    for none in
        ["", "server: {depot_image: }", "server: {depot_image: {}}", "server: {depot_image: {path: }}"]
    {
        assert_eq!(config(none).server.depot_image, None, "{none}");
    }
    for (text, message) in [
        ("{path: /image}", "server.depot_image has a path, but no size"),
        ("{size: 268435456}", "server.depot_image has a size, but no path"),
        ("{path: /image, size: 268435455}", "server.depot_image.size is 268435455: expected a whole number"),
        ("{path: /image, size: 268435456, type: xfs}", "server.depot_image.type is unknown"),
    ] {
        let refused = refusal(&format!("server: {{depot_image: {text}}}"));
        assert!(refused.starts_with(message), "{text}: {refused}");
    }
}

#[test]
fn quota_is_a_shallow_merge() {
    for (text, enabled) in [
        ("server: {}", true),
        ("server: {quota: {}}", false),
        ("server: {quota: {disk_quota_enabled: true}}", true),
        ("server: {quota: {disk_quota_enabled: false}}", false),
    ] {
        assert_eq!(config(text).server.disk_quota_enabled, enabled, "{text}");
    }
}

#[test]
fn a_pool_by_address_and_size_is_rounded_up_to_a_power_of_two() {
    for (size, prefix) in
        [(1, 30), (2, 29), (3, 28), (4, 28), (200, 22), (256, 22), (257, 21), (4_194_304, 8)]
    {
        let text = format!(
            "network: {{pool_network: 10.9.0.0/24, pool_start_address: 10.0.0.0, pool_size: {size}}}"
        );
        assert_eq!(config(&text).network.pool.to_string(), format!("10.0.0.0/{prefix}"), "{size}");
    }
    let partial = "network: {pool_network: 10.9.0.7/24, pool_size: 256}";
    assert_eq!(config(partial).network.pool.to_string(), "10.9.0.0/24");
    assert_eq!(warnings(partial), ["network.pool_size has no effect without network.pool_start_address"]);
    let other = "network: {pool_start_address: 10.0.0.0}";
    assert_eq!(config(other).network.pool.to_string(), "10.254.0.0/24");
    assert_eq!(warnings(other), ["network.pool_start_address has no effect without network.pool_size"]);
}

#[test]
fn an_unknown_key_is_a_warning_and_in_our_own_map_an_error() {
    let text = "server: {colour: red, quota: {files: 7}, container_rlimits: {threads: 1}}\nnetwork: {v6: 1}\nextra: 7";
    let mut seen = warnings(text);
    seen.sort();
    let unknown = |key| format!("{key} is unknown and has no effect");
    assert_eq!(
        seen,
        ["extra", "network.v6", "server.colour", "server.container_rlimits.threads", "server.quota.files"]
            .map(unknown)
    );
    assert_eq!(refusal("server: {host_ids: {begin: 7}}"), "server.host_ids.begin is unknown");
    assert_eq!(refusal("server: {confinement: {seccomp: no}}"), "server.confinement.seccomp is unknown");
    assert_eq!(warnings("logging: {syslog: warden}").len(), 1);
}

#[test]
fn a_pool_that_holds_a_user_of_the_host_is_refused_without_user_namespaces() {
    let passwd =
        "root:x:0:0::/root:/bin/sh\nbroken\nann:x:10063:10063::/:/bin/sh\nbob:x:10064:1::/:/bin/sh\n";
    let users = Users { start: 10_000, size: 64 };
    users.check_host(true, passwd).unwrap();
    let refused = users.check_host(false, passwd).unwrap_err().to_string();
    assert!(refused.contains("UID in user pool overlaps with user in /etc/passwd: 10063"), "{refused}");
    Users { start: 10_000, size: 63 }.check_host(false, passwd).unwrap();
    Users { start: 10_065, size: 9 }.check_host(false, passwd).unwrap();
}

#[test]
fn what_is_no_yaml_is_one_line() {
    for text in ["server: [", "server:\n - a\n b", "a: 1\na: 2", "!!binary x: ]", "a: &a [*a]\nb: *c"] {
        let message = refusal(text);
        assert!(message.starts_with("not a YAML document: "), "{text:?} -> {message}");
        assert!(!message.contains('\n'));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_configuration_error() {
    let failure = Config::load(Some(Path::new("/nonexistent/wardend.yml"))).unwrap_err();
    assert!(matches!(failure, Failure::Config(_)));
    assert_eq!(
        failure.to_string(),
        "reading /nonexistent/wardend.yml: No such file or directory (os error 2)"
    );
}

#[test]
fn an_error_names_its_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "network: {mtu: big}").unwrap();
    let failure = Config::load(Some(file.path())).unwrap_err().to_string();
    let expected = "network.mtu is \"big\": expected a whole number from 68 to 65535";
    assert_eq!(failure, format!("{}: {expected}", file.path().display()));
}

#[test]
fn every_restriction_is_on_until_it_is_turned_off() {
    let full = Restrictions { confinement: Confinement::FULL, devices: true };
    assert_eq!(config("").server.restrictions, full);
    let loose = config("server: {confinement: {system_calls: off, devices: no}}").server.restrictions;
    assert_eq!(loose.confinement, Confinement { system_calls: false, ..Confinement::FULL });
    assert!(!loose.devices);
    let none = Restrictions { confinement: Confinement::NONE, devices: false };
    assert_eq!((full.with_nested_warden(true), loose.with_nested_warden(false)), (none, loose));
}
