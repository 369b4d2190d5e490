//! Configuration files: what is accepted, what is refused and how, and `--check`.

use std::fs;
use std::process::{Command, Output};

use warden_tests::{Daemon, files, programs};

fn wardend(arguments: &[&str], config: &str) -> (Output, tempfile::TempDir) {
    let directory = files::directory();
    let path = files::write(&directory.path().join("wardend.yml"), config, 0o644);
    let mut command = Command::new("timeout");
    command.arg("20").arg(programs::find("wardend")).arg("--config").arg(path).args(arguments);
    (programs::output(&mut command), directory)
}

#[test]
fn a_wrong_value_is_one_line_that_names_key_and_value_and_status_78() {
    let cases = [
        ("server:\n  unix_domain_permissions: invalid\n", "server.unix_domain_permissions", "invalid"),
        ("server:\n  unix_domain_permissions: 01777\n", "server.unix_domain_permissions", ""),
        ("server:\n  unix_domain_path: 7\n", "server.unix_domain_path", "7"),
        ("server:\n  unix_domain_path: [a]\n", "server.unix_domain_path", ""),
        ("server:\n  container_klass: Warden::Container::Insecure\n", "server.container_klass", "Insecure"),
        ("server:\n  container_grace_time: soon\n", "server.container_grace_time", "soon"),
        ("server:\n  container_grace_time: 1.5\n", "server.container_grace_time", "1.5"),
        ("server:\n  container_grace_time: -1\n", "server.container_grace_time", "-1"),
        ("server:\n  job_output_limit: lots\n", "server.job_output_limit", "lots"),
        ("server:\n  job_output_limit: -5\n", "server.job_output_limit", "-5"),
        ("server:\n  quota:\n    disk_quota_enabled: maybe\n", "disk_quota_enabled", "maybe"),
        ("server:\n  allow_nested_warden: 3\n", "server.allow_nested_warden", "3"),
        ("server:\n  container_rlimits:\n    nofile: many\n", "nofile", "many"),
        ("server:\n  container_rootfs_path: [1]\n", "server.container_rootfs_path", ""),
        ("server:\n  container_depot_path: {a: b}\n", "server.container_depot_path", ""),
        ("server:\n  pidfile: {a: b}\n", "server.pidfile", ""),
        ("server:\n  user_namespace: perhaps\n", "server.user_namespace", "perhaps"),
        ("server:\n  host_ids: {start: 10, count: 5}\n", "server.host_ids", ""),
        ("server:\n  cgroup_parent: ../up\n", "server.cgroup_parent", "../up"),
        ("server:\n  max_request_bytes: none\n", "server.max_request_bytes", "none"),
        ("server: text\n", "server", "text"),
        ("health_check_server:\n  port: 70000\n", "health_check_server.port", "70000"),
        ("logging:\n  level: loud\n", "logging.level", "loud"),
        ("logging:\n  format: xml\n", "logging.format", "xml"),
        ("network:\n  pool_network: nowhere\n", "network.pool_network", "nowhere"),
        ("network:\n  pool_start_address: here\n  pool_size: 4\n", "network.pool_start_address", "here"),
        ("network:\n  mtu: big\n", "network.mtu", "big"),
        ("network:\n  allow_networks: text\n", "network.allow_networks", "text"),
        ("network:\n  allow_networks: [10.0.0.0/8, ~]\n", "network.allow_networks", ""),
        ("network:\n  dns_servers: [dns]\n", "network.dns_servers", "dns"),
        ("network:\n  release_delay: never\n", "network.release_delay", "never"),
        ("port:\n  pool_start_port: first\n", "port.pool_start_port", "first"),
        ("user:\n  pool_start_uid: vcap\n", "user.pool_start_uid", "vcap"),
        ("user:\n  pool_size: 0\n", "user.pool_size", "0"),
        ("user:\n  pool_start_uid: 65000\n  pool_size: 1000\n", "user.pool_size", "1000"),
        ("server: [\n", "", ""),
        ("- 1\n- 2\n", "", ""),
    ];
    for (config, key, value) in cases {
        for arguments in [&[][..], &["--check"]] {
            let (output, _directory) = wardend(arguments, config);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(78), "{config}{arguments:?}: {stderr}");
            assert_eq!(stderr.trim_end().lines().count(), 1, "{config}: {stderr}");
            assert!(stderr.contains(key) && stderr.contains(value), "{config}: {stderr}");
        }
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let mut command = Command::new("timeout");
    command.arg("20").arg(programs::find("wardend")).args(["--config", "/nonexistent/wardend.yml"]);
    let output = programs::output(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && stderr.contains("/nonexistent/wardend.yml"), "{stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
}

#[test]
fn without_user_namespaces_a_pool_with_a_user_of_the_host_is_refused() {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let taken = passwd
        .lines()
        .filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok())
        .find(|&uid| uid > 0)
        .unwrap();
    let config =
        format!("server:\n  user_namespace: false\nuser:\n  pool_start_uid: {taken}\n  pool_size: 2\n");
    let (output, _directory) = wardend(&[], &config);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("UID in user pool overlaps with user in /etc/passwd"), "{stderr}");
}

#[test]
fn a_file_as_the_original_s_operators_have_it_is_accepted() {
    let daemon = Daemon::with(&[
        ("server.container_klass", "Warden::Container::Linux"),
        ("server.container_grace_time", "300"),
        ("server.unix_domain_permissions", "0777"),
        ("server.container_rlimits", "{as: 4294967296, nofile: 8192, nproc: 512}"),
        ("server.quota", "{disk_quota_enabled: true}"),
        ("server.allow_nested_warden", "false"),
        ("server.job_output_limit", "10485760"),
        ("server.some_future_key", "ignored"),
        ("health_check_server.port", "2345"),
        ("logging.level", "debug2"),
        ("network.pool_start_address", "10.254.0.0"),
        ("network.pool_size", "256"),
        ("network.mtu", "1500"),
        ("network.deny_networks", "[]"),
        ("network.allow_networks", "[]"),
        ("user.pool_start_uid", "10000"),
        ("user.pool_size", "256"),
    ]);
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(client.text(&handle, "id -u; ulimit -n"), "10000\n8192\n");
    let log = daemon.log();
    assert!(log.contains("some_future_key"), "an unknown key is a warning: {log}");
}

#[test]
fn check_names_what_it_examined_and_leaves_nothing() {
    let directory = files::directory();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let config = format!(
        "server:\n  unix_domain_path: {}\n  container_depot_path: {}\n  cgroup_parent: warden-check\nhealth_check_server:\n  port: 0\n",
        path("warden.sock"),
        path("depot")
    );
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let (output, _config) = wardend(&["--check"], &config);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    for item in ["kernel", "user", "overlay", "cgroup", "network of a container", "limits of bandwidth"] {
        assert!(stdout.contains(&format!("ok       {item}")), "{item}: {stdout}");
    }
    let ports = "port:\n  pool_start_port: 64500\n";
    let (output, _config) = wardend(&["--check"], &format!("{config}{ports}"));
    let refused = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && refused.contains("failed   settings: "), "{refused}");
    assert!(!directory.path().join("warden.sock").exists());
    assert!(warden_tests::kernel::cgroups_of("warden-check").is_empty());
    let after = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !after.contains(directory.path().to_str().unwrap())
            && after.lines().count() <= mounts.lines().count() + 1
    );
}

#[test]
fn version_and_help_are_told() {
    for flag in ["--version", "--help"] {
        let output = programs::output(Command::new(programs::find("wardend")).arg(flag));
        assert!(
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("wardend"),
            "{flag}"
        );
    }
}
