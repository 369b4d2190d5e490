//! Resource limits of jobs: the table, the configuration, the request, and that none leaks.

use std::collections::BTreeMap;

use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon};

fn limits(
    client: &mut Connection,
    handle: &[u8],
    rlimits: Option<ResourceLimits>,
) -> BTreeMap<String, String> {
    let request = RunRequest {
        handle: Some(handle.to_vec()),
        script: Some(b"cat /proc/self/limits".to_vec()),
        rlimits,
        ..RunRequest::default()
    };
    let output = client.run_with(request);
    assert_eq!(output.status, 0, "{}", output.errors());
    let field = |line: &str| {
        let words: Vec<&str> = line[26..].split_whitespace().collect();
        (line[..26].trim().to_owned(), format!("{} {}", words[0], words[1]))
    };
    output.text().lines().skip(1).map(field).collect()
}

#[test]
fn the_default_table_is_the_original_s() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let found = limits(&mut client, &handle, None);
    for (name, expected) in [
        ("Max core file size", "0 0"),
        ("Max locked memory", "65536 65536"),
        ("Max msgqueue size", "819200 819200"),
        ("Max nice priority", "0 0"),
        ("Max open files", "1024 1024"),
        ("Max processes", "1024 1024"),
        ("Max realtime priority", "0 0"),
        ("Max pending signals", "1024 1024"),
        ("Max stack size", "8388608 8388608"),
        ("Max cpu time", "unlimited unlimited"),
        ("Max file size", "unlimited unlimited"),
        ("Max data size", "unlimited unlimited"),
        ("Max resident set", "unlimited unlimited"),
        ("Max address space", "unlimited unlimited"),
        ("Max file locks", "unlimited unlimited"),
    ] {
        assert_eq!(found[name], expected, "{name}");
    }
}

#[test]
fn a_request_s_limits_go_before_the_configured_ones_and_hold_for_that_job_alone() {
    let daemon = Daemon::with(&[("server.container_rlimits", "{nofile: 512, as: 4294967296, core: 100}")]);
    let mut client = daemon.connect();
    let (handle, other) = (client.create(), client.create());
    let configured = limits(&mut client, &handle, None);
    assert_eq!(configured["Max open files"], "512 512");
    assert_eq!(configured["Max address space"], "4294967296 4294967296");
    let asked =
        ResourceLimits { nofile: Some(100), nproc: Some(77), core: Some(0), ..ResourceLimits::default() };
    let with_request = limits(&mut client, &handle, Some(asked));
    assert_eq!(with_request["Max open files"], "100 100");
    assert_eq!(with_request["Max processes"], "77 77");
    assert_eq!(with_request["Max core file size"], "0 0");
    assert_eq!(with_request["Max address space"], "4294967296 4294967296");
    assert_eq!(limits(&mut client, &handle, None), configured);
    assert_eq!(limits(&mut client, &other, None), configured);
}

#[test]
fn every_limit_can_be_asked_for() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let asked = ResourceLimits {
        r#as: Some(1 << 31),
        core: Some(0),
        cpu: Some(100),
        data: Some(1 << 30),
        fsize: Some(1 << 20),
        locks: Some(10),
        memlock: Some(4096),
        msgqueue: Some(4096),
        nice: Some(0),
        nofile: Some(64),
        nproc: Some(50),
        rss: Some(1 << 30),
        rtprio: Some(0),
        sigpending: Some(20),
        stack: Some(1 << 20),
    };
    let found = limits(&mut client, &handle, Some(asked));
    for (name, value) in [
        ("Max address space", 1_u64 << 31),
        ("Max core file size", 0),
        ("Max cpu time", 100),
        ("Max data size", 1 << 30),
        ("Max file size", 1 << 20),
        ("Max file locks", 10),
        ("Max locked memory", 4096),
        ("Max msgqueue size", 4096),
        ("Max nice priority", 0),
        ("Max open files", 64),
        ("Max processes", 50),
        ("Max resident set", 1 << 30),
        ("Max realtime priority", 0),
        ("Max pending signals", 20),
        ("Max stack size", 1 << 20),
    ] {
        assert_eq!(found[name], format!("{value} {value}"), "{name}");
    }
}

#[test]
fn limits_are_enforced() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let request = |script: &str, rlimits: ResourceLimits| RunRequest {
        handle: Some(handle.clone()),
        script: Some(script.as_bytes().to_vec()),
        rlimits: Some(rlimits),
        ..RunRequest::default()
    };
    let files = ResourceLimits { fsize: Some(1000), ..ResourceLimits::default() };
    client.run_with(request("head -c 100000 /dev/zero > file", files));
    assert_eq!(client.text(&handle, "stat -c %s file"), "1000\n");
    let cpu = ResourceLimits { cpu: Some(1), ..ResourceLimits::default() };
    assert_eq!(client.run_with(request("while :; do :; done", cpu)).status, 255);
    let processes = ResourceLimits { nproc: Some(5), ..ResourceLimits::default() };
    let output = client.run_with(request("for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done", processes));
    assert!(output.errors().contains("Resource temporarily unavailable"), "{}", output.errors());
}

#[test]
fn a_limit_that_cannot_be_raised_does_not_fail_the_job() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let asked = ResourceLimits {
        nofile: Some(1 << 40),
        nproc: Some(u64::MAX),
        memlock: Some(u64::MAX),
        ..ResourceLimits::default()
    };
    let found = limits(&mut client, &handle, Some(asked));
    let files: u64 = found["Max open files"].split(' ').next().unwrap().parse().unwrap();
    assert!(files >= 1024, "the nearest possible value, not {files}");
    // The highest that the daemon itself has, and could pass on.
    let own = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let ceiling = own.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(ceiling.split_whitespace().nth(1), Some(files.to_string().as_str()));
    let told = |line: &str| {
        line.contains("a limit of a job cannot be raised so far")
            && line.contains("\"Nofile\"")
            && line.contains(&(1_u64 << 40).to_string())
            && line.contains(&format!(":{files},"))
    };
    assert!(daemon.log().lines().any(told), "{}", daemon.log());
}
