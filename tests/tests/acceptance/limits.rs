//! Limits that clients change while a container runs: memory with its end, processors, tasks, devices.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon, NOTHING_AHEAD, eventually, kernel};

const MIB: u64 = 1 << 20;
/// What the original answers where nobody has set a limit.
const UNLIMITED: u64 = 9_223_372_036_854_771_712;

fn memory(client: &mut Connection, handle: &[u8], limit: Option<u64>) -> Result<u64, String> {
    let request = LimitMemoryRequest { handle: Some(handle.to_vec()), limit_in_bytes: limit };
    client.ask(request).map(|answer| answer.limit_in_bytes.unwrap())
}

fn cpu(
    client: &mut Connection,
    handle: &[u8],
    shares: Option<u64>,
    quota: Option<u64>,
) -> Result<(u64, Option<u64>), String> {
    let request = LimitCpuRequest { handle: Some(handle.to_vec()), limit_in_shares: shares, quota_us: quota };
    client.ask(request).map(|answer| (answer.limit_in_shares.unwrap(), answer.quota_us))
}

fn id_of(client: &mut Connection, handle: &[u8]) -> String {
    let path = client.info(handle).container_path.unwrap();
    String::from_utf8(path).unwrap().rsplit('/').next().unwrap().to_owned()
}

/// One file of a container's cgroups, wherever it is.
fn kept(id: &str, file: &str) -> Option<String> {
    let parents = kernel::cgroup_roots();
    let found = parents
        .iter()
        .flat_map(|root| instances(root.clone(), id))
        .find(|group| group.join(file).exists())?;
    Some(fs::read_to_string(found.join(file)).unwrap().trim().to_owned())
}

fn instances(root: PathBuf, id: &str) -> Vec<PathBuf> {
    let children = fs::read_dir(root).into_iter().flatten().flatten();
    children.map(|entry| entry.path().join(format!("instance-{id}"))).filter(|path| path.exists()).collect()
}

#[test]
fn a_limit_of_memory_is_set_read_raised_lowered_and_lifted() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(memory(&mut client, &handle, None).unwrap(), UNLIMITED);
    for limit in [64 * MIB, 128 * MIB, 32 * MIB] {
        assert_eq!(memory(&mut client, &handle, Some(limit)).unwrap(), limit);
        assert_eq!(memory(&mut client, &handle, None).unwrap(), limit);
        let stat = client.info(&handle).memory_stat.unwrap();
        assert_eq!(stat.hierarchical_memory_limit, Some(limit));
        assert!(stat.hierarchical_memsw_limit.is_none_or(|both| both == limit), "{stat:?}");
    }
    assert_eq!(
        memory(&mut client, &handle, Some(100 * MIB + 1)).unwrap(),
        100 * MIB,
        "a whole number of pages"
    );
    for none in [UNLIMITED, u64::MAX] {
        assert_eq!(memory(&mut client, &handle, Some(64 * MIB)).unwrap(), 64 * MIB);
        assert_eq!(memory(&mut client, &handle, Some(none)).unwrap(), UNLIMITED);
    }
}

#[test]
fn a_limit_of_memory_that_cannot_be_is_named_and_changes_nothing() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    memory(&mut client, &handle, Some(256 * MIB)).unwrap();
    for wrong in [0, 1, 1 << 60] {
        let refused = memory(&mut client, &handle, Some(wrong)).unwrap_err();
        assert!(refused.starts_with(&format!("Failed setting memory limit: {wrong}: ")), "{refused}");
    }
    // A job that holds more than the new limit.
    let job = client.spawn(
        &handle,
        "exec python3 -c 'import time; x = b\"x\" * 60000000; open(\"ready\", \"w\"); time.sleep(100)'",
    );
    eventually("the job holds its memory", 30, || client.run(&handle, "test -e ready").status == 0);
    let refused = memory(&mut client, &handle, Some(16 * MIB)).unwrap_err();
    let expected =
        format!("Failed setting memory limit: {}: more is in use, and cannot be given back", 16 * MIB);
    assert_eq!(refused, expected);
    assert_eq!(memory(&mut client, &handle, None).unwrap(), 256 * MIB);
    let stat = client.info(&handle).memory_stat.unwrap();
    assert!(stat.hierarchical_memsw_limit.is_none_or(|both| both == 256 * MIB), "{stat:?}");
    assert!(client.info(&handle).job_ids.contains(&job.into()), "nothing was killed");
}

#[test]
fn limits_are_for_active_and_stopped_containers() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    client.must(StopRequest { handle: Some(handle.clone()), ..StopRequest::default() });
    assert_eq!(memory(&mut client, &handle, Some(64 * MIB)).unwrap(), 64 * MIB);
    assert_eq!(cpu(&mut client, &handle, Some(512), None).unwrap(), (512, None));
}

#[test]
fn running_out_of_memory_kills_jobs_alone_is_told_and_stops_the_container() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let (handle, other) = (client.create(), client.create());
    let id = id_of(&mut client, &handle);
    memory(&mut client, &handle, Some(32 * MIB)).unwrap();
    let bystander = client.spawn(&handle, "sleep 100");
    let began = Instant::now();
    let output = client.run(&handle, "x=$(head -c 200000000 /dev/zero | tr '\\0' x)");
    assert_ne!(output.status, 0);
    eventually("the container is stopped", 30, || client.info(&handle).state.unwrap() == b"stopped");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(client.info(&handle).events, [b"out of memory".to_vec()]);
    assert_eq!(client.link(&handle, bystander).status, 255);
    // wshd still answers: a copy out needs it, and a stop that waits for it.
    client.must(StopRequest { handle: Some(handle.clone()), ..StopRequest::default() });
    let inside = kernel::processes_in_cgroup(&id);
    assert_eq!(inside.len(), 1, "wshd alone: {inside:?}");
    assert_eq!(client.text(&other, "echo alive"), "alive\n");
    assert_eq!(client.info(&handle).events, [b"out of memory".to_vec()], "told once");
    let told =
        |line: &str| line.contains("out of memory: the container") && line.contains(&(32 * MIB).to_string());
    eventually("the log tells the limit", 10, || daemon.log().lines().any(told));
}

#[test]
fn memory_that_no_process_holds_ends_jobs_before_wshd() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    memory(&mut client, &handle, Some(32 * MIB)).unwrap();
    client.run(&handle, "head -c 100000000 /dev/zero > /dev/shm/full");
    eventually("the container is stopped", 30, || client.info(&handle).state.unwrap() == b"stopped");
    client.must(StopRequest { handle: Some(handle.clone()), ..StopRequest::default() });
    assert_eq!(client.info(&handle).events, [b"out of memory".to_vec()]);
}

#[test]
fn a_job_is_killed_before_its_init_where_memory_ends() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let score = client.text(&handle, "read score < /proc/$$/oom_score_adj; echo $score");
    // Init has the job's score for the moment in which it makes the job, which may run before that is over.
    let script = "for round in $(seq 200); do
            read init < /proc/1/oom_score_adj; [ $init -lt 200 ] && break; sleep 0.05
        done; echo $init; cat /proc/$$/oom_score_adj";
    let privileged = client.run_privileged(&handle, script).text();
    let scores: Vec<i32> = privileged.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(scores[1], score.trim().parse::<i32>().unwrap());
    assert!(scores[1] > scores[0], "{scores:?}");
}

#[test]
fn no_job_can_have_the_machines_own_programs_ended_before_itself() {
    let daemon = Daemon::with(&[NOTHING_AHEAD]);
    // As a service manager does. Where nobody has CAP_SYS_RESOURCE, nobody is below zero either.
    let score = |pid: i32| format!("/proc/{pid}/oom_score_adj");
    let expected = match fs::write(score(daemon.pid()), "-500") {
        Ok(()) => "-500\n",
        Err(refused) => {
            assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
            "0\n"
        }
    };
    let mut client = daemon.connect();
    let handle = client.create();
    let script = "for score in -500 -1 0; do
            sh -c 'echo $0 > /proc/self/oom_score_adj' $score 2>/dev/null && echo $score
        done; true";
    assert_eq!(client.text(&handle, script), "0\n");
    assert_eq!(client.run_privileged(&handle, script).text(), "0\n");
    // The supervisor works for the host, and is as safe as the daemon.
    let supervisor = daemon.helpers().into_iter().find(|helper| helper.command.contains("iomux")).unwrap();
    assert_eq!(fs::read_to_string(score(supervisor.pid)).unwrap(), expected);
}

#[test]
fn one_descriptor_watches_the_memory_of_a_container_that_has_a_limit() {
    let daemon = Daemon::with(&[NOTHING_AHEAD]);
    let mut client = daemon.connect();
    let open = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let handle = client.create();
    let before = open();
    for limit in [64 * MIB, 128 * MIB, 96 * MIB] {
        memory(&mut client, &handle, Some(limit)).unwrap();
        cpu(&mut client, &handle, Some(512), None).unwrap();
    }
    eventually("one descriptor more", 30, || open() == before + 1);
    client.must(DestroyRequest { handle: Some(handle) });
    eventually("the descriptor is closed", 30, || open() < before);
}

#[test]
fn shares_of_the_processors_are_set_and_read() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(cpu(&mut client, &handle, None, None).unwrap(), (1024, None));
    for (asked, answered) in
        [(512, 512), (1023, 1023), (2048, 2048), (0, 2), (1, 2), (u64::MAX, 262_144), (7, 7)]
    {
        assert_eq!(cpu(&mut client, &handle, Some(asked), None).unwrap(), (answered, None));
        assert_eq!(cpu(&mut client, &handle, None, None).unwrap(), (answered, None));
    }
}

#[test]
fn a_quota_of_the_processors_holds_and_is_lifted() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(cpu(&mut client, &handle, Some(512), Some(20_000)).unwrap(), (512, Some(20_000)));
    assert_eq!(cpu(&mut client, &handle, None, None).unwrap(), (512, Some(20_000)));
    let used = |client: &mut Connection| client.info(&handle).cpu_stat.unwrap().usage.unwrap();
    let (before, began) = (used(&mut client), Instant::now());
    client.run(&handle, "timeout 2 bash -c 'while :; do :; done'");
    let (spent, took) = (used(&mut client) - before, began.elapsed());
    assert!(u128::from(spent) < took.as_nanos() * 35 / 100, "{spent} ns in {took:?}");
    for wrong in [0, 999, 1 << 40] {
        let refused = cpu(&mut client, &handle, Some(100), Some(wrong)).unwrap_err();
        assert!(refused.starts_with(&format!("Failed setting cpu quota: {wrong}: ")), "{refused}");
    }
    assert_eq!(cpu(&mut client, &handle, None, None).unwrap(), (512, Some(20_000)), "nothing half-applied");
    assert_eq!(cpu(&mut client, &handle, None, Some(u64::MAX)).unwrap(), (512, None));
}

#[test]
fn the_tasks_of_a_container_are_limited() {
    let daemon = Daemon::with(&[("server.max_tasks", "40")]);
    let mut client = daemon.connect();
    let (handle, other) = (client.create(), client.create());
    let id = id_of(&mut client, &handle);
    assert_eq!(kept(&id, "pids.max").unwrap(), "40");
    let output = client.run(&handle, "for i in $(seq 60); do sleep 20 & done");
    assert!(output.errors().contains("Resource temporarily unavailable"), "{}", output.errors());
    assert_eq!(client.text(&other, "echo alive"), "alive\n");
}

#[test]
fn devices_are_those_of_the_list_even_for_who_can_name_others() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let devices = "for d in null zero full random urandom; do head -c 1 /dev/$d > /dev/null || echo $d; done; : > /dev/null";
    let output = client.run(&handle, devices);
    assert_eq!(output.text(), "", "{}", output.errors());
    let made = client.run_privileged(&handle, "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem");
    assert_ne!(made.status, 0, "{}", made.errors());
}

#[test]
fn reading_and_writing_of_the_depot_s_device_is_limited_where_the_configuration_says_so() {
    let limits = "{read_bps: 50000000, write_bps: 40000000, read_iops: 3000, write_iops: 2000}";
    let daemon = Daemon::with(&[("server.io_limits", limits)]);
    let mut client = daemon.connect();
    let handle = client.create();
    let id = id_of(&mut client, &handle);
    let expected = [("read_bps", "rbps", 50_000_000), ("write_bps", "wbps", 40_000_000)];
    let operations = [("read_iops", "riops", 3_000), ("write_iops", "wiops", 2_000)];
    let unified = kept(&id, "io.max");
    for (file, key, number) in expected.into_iter().chain(operations) {
        match &unified {
            Some(max) => assert!(max.contains(&format!("{key}={number}")), "{max}"),
            None => {
                let held = kept(&id, &format!("blkio.throttle.{file}_device")).unwrap();
                assert!(held.ends_with(&format!(" {number}")), "{file}: {held}");
            }
        }
    }
    assert_eq!(
        client.text(&handle, "head -c 100000 /dev/zero > file; sync file; stat -c %s file"),
        "100000\n"
    );
}

#[test]
fn pressure_is_told_where_the_kernel_measures_it_for_the_container() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = id_of(&mut client, &handle);
    let told = client.info(&handle).pressure_stat;
    match kept(&id, "cpu.pressure") {
        None => assert_eq!(told, None),
        Some(text) => {
            assert!(text.starts_with("some avg10="), "{text}");
            let told = told.unwrap();
            for pressure in [told.cpu, told.memory, told.io] {
                let pressure = pressure.unwrap();
                assert!(
                    pressure.some_total.is_some() && pressure.some_avg10.unwrap() <= 10_000,
                    "{pressure:?}"
                );
            }
        }
    }
}
