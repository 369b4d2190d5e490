//! A daemon, its helpers, or both are killed: what was promised holds.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::net::SendFlags;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Signal};
use warden_protocol::messages::*;
use warden_tests::world::parts;
use warden_tests::{Connection, Daemon, NOTHING_AHEAD, eventually, kernel, programs};

const MIB: u64 = 1 << 20;

fn killed(daemon: &mut Daemon) {
    daemon.signal(Signal::KILL);
    daemon.wait();
}

fn killed_and_restarted(daemon: &mut Daemon) -> Connection {
    killed(daemon);
    daemon.restart();
    daemon.connect()
}

/// Lets jobs that wait for it in their home go on, without the daemon.
fn release(daemon: &Daemon, id: &str) {
    release_in(&daemon.depot(id));
}

fn release_in(directory: &Path) {
    let mut command = Command::new(programs::find("wsh"));
    command.arg("--socket").arg(directory.join("run/wshd.sock"));
    assert!(command.args(["--user", "vcap", "touch", "go"]).status().unwrap().success());
}

const WAIT: &str = "while [ ! -e go ]; do sleep 0.02; done";

fn pid_of(daemon: &Daemon, id: &str, helper: &str) -> i32 {
    let text = fs::read_to_string(daemon.depot(id).join("run").join(format!("{helper}.pid"))).unwrap();
    text.trim().parse().unwrap()
}

fn kill_helper(daemon: &Daemon, id: &str, helper: &str) {
    let pid = pid_of(daemon, id, helper);
    kernel::signal(pid, Signal::KILL);
    eventually("it is dead", 10, || !kernel::is_alive(pid));
}

/// What `seq` prints.
fn numbers(last: u32) -> Vec<u8> {
    (1..=last).map(|number| format!("{number}\n")).collect::<String>().into_bytes()
}

fn assert_same(found: &[u8], expected: &[u8]) {
    // Megabytes help nobody in a message.
    assert!(found == expected, "{} bytes instead of {}, or others", found.len(), expected.len());
}

#[test]
fn jobs_go_on_while_no_daemon_runs_and_are_whole_afterwards() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let ended_before = client.spawn(&handle, "echo before; exit 2");
    assert_eq!(client.run(&handle, "echo delivered").text(), "delivered\n");
    let ends_meanwhile =
        client.spawn(&handle, format!("echo first; {WAIT}; seq 200000; seq 100000 >&2; exit 3"));
    let ends_later = client.spawn(
        &handle,
        format!("seq 1000; {WAIT}; echo then; while [ ! -e end ]; do sleep 0.02; done; exit 4"),
    );
    let floods = client.spawn(&handle, format!("{WAIT}; exec cat /dev/zero"));
    eventually("the first has ended", 10, || client.info(&handle).job_ids.len() == 3);
    killed(&mut daemon);
    release(&daemon, &id);
    let jobs = daemon.depot(&id).join("jobs");
    eventually("jobs end without a daemon", 30, || {
        [ends_meanwhile, floods].iter().all(|job| jobs.join(job.to_string()).join("exit.json").exists())
    });
    daemon.restart();
    let mut client = daemon.connect();
    assert_eq!(client.list(), std::slice::from_ref(&handle));
    let info = client.info(&handle);
    assert_eq!(info.state.as_deref(), Some(&b"active"[..]));
    assert_eq!(info.job_ids, [u64::from(ends_later)]);
    assert_eq!(info.events, [b"command exceeded maximum output".to_vec()]);
    let output = client.link(&handle, ended_before);
    assert_eq!((output.status, output.text().as_str()), (2, "before\n"));
    let streamed = client.stream(&handle, ends_meanwhile);
    assert_eq!(streamed.status, 3);
    assert_same(&streamed.stdout, &[b"first\n".to_vec(), numbers(200_000)].concat());
    assert_same(&streamed.stderr, &numbers(100_000));
    let flooded = client.link(&handle, floods);
    assert_eq!((flooded.status, flooded.stdout.len() as u64), (255, 10 * MIB));
    client.run(&handle, "touch end");
    let output = client.link(&handle, ends_later);
    assert_eq!(output.status, 4);
    assert_same(&output.stdout, &[numbers(1000), b"then\n".to_vec()].concat());
    // What was delivered does not come back, once that is written down: nobody waits for it.
    let delivered = [ended_before, ends_meanwhile, floods, ends_later];
    let is_gone = |job: &u32| !jobs.join(job.to_string()).exists();
    eventually("what was delivered is removed", 30, || delivered.iter().all(is_gone));
    let mut client = killed_and_restarted(&mut daemon);
    for job in delivered {
        assert_eq!(client.try_link(&handle, job).unwrap_err(), "no such job");
    }
    assert_eq!(client.info(&handle).events.len(), 1, "an event is told once");
    let next = client.spawn(&handle, "true");
    assert!(next > ends_later || fs::read_dir(jobs).unwrap().count() <= 1);
}

#[test]
fn discarded_output_goes_on_without_end() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let request = SpawnRequest {
        handle: Some(handle.clone()),
        script: Some(b"yes".to_vec()),
        discard_output: Some(true),
        ..SpawnRequest::default()
    };
    let job = client.must(request).job_id.unwrap();
    let mut client = killed_and_restarted(&mut daemon);
    assert_eq!(client.info(&handle).job_ids, [u64::from(job)]);
    client.kill(&handle);
    assert_eq!(client.link(&handle, job).status, 255);
}

#[test]
fn a_client_that_retries_its_link_sees_nothing_but_a_reconnect() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let job = client.spawn(&handle, format!("seq 50000; {WAIT}; seq 50000; exit 9"));
    client.send(LinkRequest { handle: Some(handle.clone()), job_id: Some(job) });
    thread::sleep(Duration::from_millis(100));
    killed(&mut daemon);
    assert!(matches!(client.next_body(), Ok(None) | Err(_)));
    release(&daemon, &id);
    daemon.restart();
    let output = daemon.connect().link(&handle, job);
    assert_eq!(output.status, 9);
    assert_same(&output.stdout, &numbers(50_000).repeat(2));
}

#[test]
fn containers_are_as_they_were() {
    let mut daemon = Daemon::with(&[NOTHING_AHEAD]);
    let mut client = daemon.connect();
    let handles: Vec<Vec<u8>> = [&b"zebra"[..], b"ape\xff\n", b"mouse"]
        .map(|handle| {
            client.create_with(CreateRequest { handle: Some(handle.to_vec()), ..CreateRequest::default() })
        })
        .to_vec();
    let memory = LimitMemoryRequest { handle: Some(handles[1].clone()), limit_in_bytes: Some(64 * MIB) };
    client.must(memory);
    client.must(LimitCpuRequest {
        handle: Some(handles[1].clone()),
        limit_in_shares: Some(300),
        quota_us: Some(50_000),
    });
    let forward = client.must(NetInRequest { handle: Some(handles[0].clone()), ..NetInRequest::default() });
    let stopped = StopRequest { handle: Some(handles[2].clone()), ..StopRequest::default() };
    client.must(stopped);
    let before: Vec<_> = handles.iter().map(|handle| client.info(handle)).collect();
    let rules = rules(&daemon);
    let mut client = killed_and_restarted(&mut daemon);
    assert_eq!(client.list(), handles, "in the order of creation");
    for (handle, before) in handles.iter().zip(&before) {
        let after = client.info(handle);
        assert_eq!(after.state, before.state);
        assert_eq!((&after.container_ip, &after.host_ip), (&before.container_ip, &before.host_ip));
        assert_eq!(after.container_path, before.container_path);
    }
    let memory = LimitMemoryRequest { handle: Some(handles[1].clone()), limit_in_bytes: None };
    assert_eq!(client.must(memory).limit_in_bytes, Some(64 * MIB));
    let cpu = client.must(LimitCpuRequest {
        handle: Some(handles[1].clone()),
        limit_in_shares: None,
        quota_us: None,
    });
    assert_eq!((cpu.limit_in_shares, cpu.quota_us), (Some(300), Some(50_000)));
    assert_eq!(self::rules(&daemon), rules);
    let refused = client.ask(NetInRequest {
        handle: Some(handles[1].clone()),
        host_port: forward.host_port,
        ..NetInRequest::default()
    });
    assert!(refused.unwrap_err().contains("already mapped"));
    // Nothing that is in use is given out again.
    let other = client.create();
    let address = client.info(&other).container_ip;
    assert!(before.iter().all(|info| info.container_ip != address));
    assert_ne!(client.text(&other, "id -u"), client.text(&handles[0], "id -u"));
    let refused = client.ask(CreateRequest { handle: Some(handles[0].clone()), ..CreateRequest::default() });
    assert!(refused.unwrap_err().contains("already exists"));
    // Exhausted memory is still an end.
    client.spawn(&handles[1], "x=$(head -c 100000000 /dev/zero | tr '\\0' x)");
    eventually("it is stopped", 30, || client.state(&handles[1]) == "stopped");
    assert_eq!(client.info(&handles[1]).events, [b"out of memory".to_vec()]);
    for handle in &handles {
        client.destroy(handle);
    }
}

/// The packet filter's rules, without what changes by itself.
fn rules(daemon: &Daemon) -> Vec<String> {
    let output = programs::output(daemon.in_its_network("nft").args(["list", "ruleset"]));
    assert!(output.status.success());
    parts(&String::from_utf8(output.stdout).unwrap())
}

#[test]
fn memory_that_runs_out_while_no_daemon_runs_is_told() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let limit = LimitMemoryRequest { handle: Some(handle.clone()), limit_in_bytes: Some(32 * MIB) };
    client.must(limit);
    let job = client.spawn(&handle, format!("{WAIT}; x=$(head -c 100000000 /dev/zero | tr '\\0' x)"));
    client.spawn(&handle, "sleep 1000");
    killed(&mut daemon);
    release(&daemon, &id);
    let exit = daemon.depot(&id).join("jobs").join(job.to_string()).join("exit.json");
    eventually("the job is killed", 30, || exit.exists());
    daemon.restart();
    let mut client = daemon.connect();
    eventually("it is stopped", 30, || client.info(&handle).job_ids.is_empty());
    assert_eq!(client.state(&handle), "stopped");
    assert_eq!(client.info(&handle).events, [b"out of memory".to_vec()]);
    let written = fs::read_to_string(daemon.depot(&id).join("snapshot.json")).unwrap();
    let mut client = killed_and_restarted(&mut daemon);
    assert_eq!(client.info(&handle).events.len(), 1, "{written}");
}

#[test]
fn rules_hold_while_no_daemon_runs_and_while_one_starts() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let host = client.info(&handle).host_ip.unwrap();
    // A connection to the host, which is closed to containers: tried without a pause.
    let script = format!(
        "while [ ! -e go ]; do echo try; timeout 1 bash -c 'exec 3<>/dev/tcp/{}/2345' 2>/dev/null && echo open; done",
        String::from_utf8_lossy(&host)
    );
    let id = client.id(&handle);
    let job = client.spawn(&handle, script);
    for _ in 0..3 {
        killed(&mut daemon);
        assert!(rules(&daemon).iter().any(|part| part.contains(&id)), "the rules stay");
        daemon.restart();
        assert!(rules(&daemon).iter().any(|part| part.contains(&id)));
    }
    release(&daemon, &id);
    let text = daemon.connect().link(&handle, job).text();
    assert!(text.contains("try") && !text.contains("open"), "{text}");
}

#[test]
fn the_grace_time_begins_anew_after_a_restart() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let request = CreateRequest { grace_time: Some(1), ..CreateRequest::default() };
    let handle = client.create_with(request);
    let id = String::from_utf8(handle).unwrap();
    killed(&mut daemon);
    thread::sleep(Duration::from_millis(1200));
    assert!(daemon.depot(&id).exists());
    daemon.restart();
    eventually("it is destroyed", 10, || !daemon.depot(&id).exists());
}

#[test]
fn a_supervisor_that_dies_is_replaced_and_no_byte_is_lost() {
    let daemon = Daemon::with(&[("server.job_output_limit", "200000000")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let job = client.spawn(&handle, "seq 3000000; exit 7");
    let stdout = daemon.depot(&id).join("jobs").join(job.to_string()).join("stdout");
    let length = || fs::metadata(&stdout).map_or(0, |found| found.len());
    let mut streaming = daemon.connect();
    streaming.send(StreamRequest { handle: Some(handle.clone()), job_id: Some(job) });
    for round in 1..=3 {
        eventually("it floods", 20, || length() > round * MIB);
        kill_helper(&daemon, &id, "iomux");
        // Clients wait for the next and notice nothing.
        assert_eq!(client.text(&handle, "echo well"), "well\n");
    }
    let mut streamed = warden_tests::Streamed::default();
    while let Some((_, data)) = streaming.next_chunk(&mut streamed).unwrap() {
        streamed.stdout.extend(data);
    }
    assert_eq!(streamed.status, 7);
    assert_same(&streamed.stdout, &numbers(3_000_000));
    let info = client.info(&handle);
    assert_eq!((info.state.as_deref(), info.events.len()), (Some(&b"active"[..]), 0));
    client.kill(&handle);
    client.destroy(&handle);
}

#[test]
fn the_fork_server_dies_alone_and_goes_with_the_daemon() {
    let mut daemon = Daemon::with(&[]);
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let server = daemon.fork_server();
    let iomux = pid_of(&daemon, &id, "iomux");
    assert_eq!(kernel::parent_of(iomux), Some(server));
    let line = fs::read(format!("/proc/{iomux}/cmdline")).unwrap();
    let spec = format!("iomux\0{}\0", daemon.depot(&id).join("spec.json").display());
    let shown = String::from_utf8(line).unwrap();
    assert!(shown.trim_end_matches('\0').ends_with(spec.trim_end_matches('\0')), "{shown:?}");
    // Nothing but its pid is the server's: neither its socket nor wardend's.
    let sockets = |pid: i32| {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok()).collect::<std::collections::HashSet<_>>()
    };
    let socket = |path: &std::path::PathBuf| path.to_string_lossy().starts_with("socket:");
    assert!(!sockets(server).intersection(&sockets(iomux)).any(socket));

    kernel::signal(server, Signal::KILL);
    eventually("it is dead", 20, || !kernel::is_alive(server));
    let second = client.create();
    let next = daemon.fork_server();
    assert_ne!(next, server);
    assert_eq!(client.text(&handle, "echo well"), "well\n");
    kill_helper(&daemon, &id, "iomux");
    assert_eq!(client.text(&handle, "echo well"), "well\n", "another iomux comes from it, too");
    assert_eq!(kernel::parent_of(pid_of(&daemon, &id, "iomux")), Some(next));

    let mut client = killed_and_restarted(&mut daemon);
    eventually("it goes with the daemon", 20, || !kernel::is_alive(next));
    for handle in [handle, second] {
        assert_eq!(client.text(&handle, "echo well"), "well\n");
        client.destroy(&handle);
    }
}

/// Says something to the daemon in the name of a container's iomux, on each of its sockets.
fn say_as_iomux(pid: i32, words: &[u8]) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let said =
        fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().flatten().filter(|entry| {
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            let held = rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty());
            let Ok(socket) = held else { return false };
            // wshd's end is read by wshd: its name tells which one it is.
            let is_daemon = rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| {
                let name = fs::read_to_string(format!("/proc/{}/comm", peer.pid.as_raw_nonzero()));
                name.is_ok_and(|name| name.trim() == "wardend")
            });
            is_daemon && rustix::net::send(&socket, words, SendFlags::NOSIGNAL).is_ok()
        });
    assert_eq!(said.count(), 1, "the daemon's socket");
}

#[test]
fn a_supervisor_that_is_not_understood_is_replaced_and_no_byte_is_lost() {
    let mut daemon = Daemon::with(&[("server.job_output_limit", "200000000")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let job = client.spawn(&handle, format!("seq 500000; {WAIT}; seq 500000; exit 7"));
    let replaced = |client: &mut Connection, garbage: &[u8]| {
        let pid = pid_of(&daemon, &id, "iomux");
        say_as_iomux(pid, garbage);
        eventually("it is ended", 20, || !kernel::is_alive(pid));
        assert_eq!(client.text(&handle, "echo well"), "well\n");
        assert_ne!(pid_of(&daemon, &id, "iomux"), pid);
    };
    replaced(&mut client, b"nonsense");
    // Words that it may say once.
    replaced(&mut client, br#"{"hello":{"version":1}}"#);
    assert!(daemon.log().contains("iomux is ended: another takes over"));
    let mut client = killed_and_restarted(&mut daemon);
    let pid = pid_of(&daemon, &id, "iomux");
    say_as_iomux(pid, b"\xff");
    eventually("it is ended", 20, || !kernel::is_alive(pid));
    assert_eq!(client.text(&handle, "echo well"), "well\n");
    release(&daemon, &id);
    let output = client.link(&handle, job);
    assert_eq!(output.status, 7);
    assert_same(&output.stdout, &numbers(500_000).repeat(2));
    let info = client.info(&handle);
    assert_eq!((info.state.as_deref(), info.events.len()), (Some(&b"active"[..]), 0));
    client.destroy(&handle);
}

#[test]
fn a_supervisor_that_dies_with_its_daemon_is_replaced_too() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let running = client.spawn(&handle, format!("seq 100000; {WAIT}; seq 100000; exit 5"));
    let ended = client.spawn(&handle, "echo ended; exit 6");
    thread::sleep(Duration::from_millis(50));
    killed(&mut daemon);
    kill_helper(&daemon, &id, "iomux");
    release(&daemon, &id);
    daemon.restart();
    let mut client = daemon.connect();
    let output = client.link(&handle, running);
    assert_eq!(output.status, 5);
    assert_same(&output.stdout, &numbers(100_000).repeat(2));
    let output = client.link(&handle, ended);
    assert_eq!((output.status, output.text().as_str()), (6, "ended\n"));
    client.destroy(&handle);
}

#[test]
fn a_container_whose_init_dies_is_stopped_with_an_event() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    for helpers in [&["wshd"][..], &["iomux", "wshd"], &["wshd", "iomux"]] {
        let handle = client.create();
        let id = client.id(&handle);
        let job = client.spawn(&handle, "echo so far; sleep 1000");
        let stdout = daemon.depot(&id).join("jobs").join(job.to_string()).join("stdout");
        eventually("it has written", 10, || fs::metadata(&stdout).is_ok_and(|found| found.len() == 7));
        let pids: Vec<i32> = helpers.iter().map(|helper| pid_of(&daemon, &id, helper)).collect();
        pids.iter().for_each(|pid| kernel::signal(*pid, Signal::KILL));
        let output = client.link(&handle, job);
        assert_eq!((output.status, output.text().as_str()), (255, "so far\n"), "{helpers:?}");
        eventually("it is stopped", 10, || client.state(&handle) == "stopped");
        assert_eq!(client.info(&handle).events, [b"init died".to_vec()], "{helpers:?}");
        client.destroy(&handle);
    }
}

#[test]
fn what_is_dead_or_was_never_handed_out_is_removed_at_start() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let mut make = || {
        let handle = client.create();
        String::from_utf8(handle).unwrap()
    };
    let [lives, dead, unknown, corrupt] = [make(), make(), make(), make()];
    killed(&mut daemon);
    for helper in ["iomux", "wshd"] {
        kernel::signal(pid_of(&daemon, &dead, helper), Signal::KILL);
    }
    fs::remove_file(daemon.depot(&unknown).join("snapshot.json")).unwrap();
    fs::write(daemon.depot(&corrupt).join("snapshot.json"), "{\"version\":1,\"state\":\"act").unwrap();
    fs::create_dir(daemon.depot("0000000000v")).unwrap();
    daemon.restart();
    assert_eq!(daemon.connect().list(), [lives.into_bytes()]);
    for id in [&dead, &unknown, &corrupt, "0000000000v"] {
        assert!(!daemon.depot(id).exists(), "{id}");
        assert!(kernel::processes_in_cgroup(id).is_empty(), "{id}");
        assert!(daemon.log().contains(id));
    }
}

#[test]
fn a_snapshot_of_a_later_version_ends_the_start_and_nothing_else() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let path = daemon.depot(&id).join("snapshot.json");
    killed(&mut daemon);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"version\":1", "\"version\":99", 1)).unwrap();
    let mut command = daemon.in_its_network(programs::find("wardend").to_str().unwrap());
    let output = programs::output(command.arg("--config").arg(daemon.directory().join("wardend.yml")));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && stderr.contains("version 99") && stderr.contains(&id), "{stderr}");
    fs::write(&path, text).unwrap();
    daemon.restart();
    assert_eq!(daemon.connect().text(&handle, "echo unharmed"), "unharmed\n");
}

#[test]
fn a_depot_that_was_moved_is_recovered_where_it_is() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let job = client.spawn(&handle, format!("echo here; {WAIT}; echo there; exit 3"));
    thread::sleep(Duration::from_millis(50));
    killed(&mut daemon);
    let (old, new) = (daemon.depot(""), daemon.directory().join("moved"));
    fs::rename(&old, &new).unwrap();
    let path = daemon.directory().join("wardend.yml");
    let config = fs::read_to_string(&path).unwrap();
    let depot = old.to_str().unwrap().trim_end_matches('/');
    assert!(config.contains(depot));
    fs::write(&path, config.replace(depot, new.to_str().unwrap())).unwrap();
    release_in(&new.join(&id));
    daemon.restart();
    let mut client = daemon.connect();
    let info = client.info(&handle);
    assert_eq!(info.container_path.as_deref(), Some(new.join(&id).to_str().unwrap().as_bytes()));
    let output = client.link(&handle, job);
    assert_eq!((output.status, output.text().as_str()), (3, "here\nthere\n"));
    assert_eq!(client.text(&handle, "echo new"), "new\n");
    kernel::signal(iomux_in(&new.join(&id)), Signal::KILL);
    assert_eq!(client.text(&handle, "echo again"), "again\n");
    client.destroy(&handle);
    assert!(!new.join(&id).exists());
    assert_eq!(client.text(&client_create(&daemon), "echo fresh"), "fresh\n");
}

#[test]
fn a_depot_that_was_moved_and_still_has_its_old_name_is_the_same() {
    let mut daemon = Daemon::own();
    let handle = daemon.connect().create();
    let (old, new) = (daemon.depot(""), daemon.directory().join("moved"));
    let old = Path::new(old.to_str().unwrap().trim_end_matches('/'));
    for _ in 0..2 {
        killed(&mut daemon);
        if !new.exists() {
            fs::rename(old, &new).unwrap();
            std::os::unix::fs::symlink(&new, old).unwrap();
        }
        daemon.restart();
        assert_eq!(daemon.connect().text(&handle, "echo here"), "here\n");
    }
    // Without a container, too: the table of the daemon that was killed names the depot.
    daemon.connect().destroy(&handle);
    killed(&mut daemon);
    fs::remove_file(old).unwrap();
    fs::rename(&new, old).unwrap();
    std::os::unix::fs::symlink(old, &new).unwrap();
    daemon.restart();
    assert_eq!(daemon.connect().text(&client_create(&daemon), "echo fresh"), "fresh\n");
}

#[test]
fn clients_are_served_while_the_files_of_dead_containers_are_removed() {
    let mut daemon = Daemon::with(&[NOTHING_AHEAD, ("network.pool_network", "10.254.0.0/30")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let init = fs::read_to_string(daemon.depot(&id).join("run/wshd.pid")).unwrap().trim().parse().unwrap();
    killed(&mut daemon);
    kernel::signal(init, Signal::KILL);
    eventually("nothing of it runs", 10, || kernel::processes_of(&id).is_empty());
    // Directories, for each takes the kernel a while.
    let layer = daemon.depot(&id).join("tmp/rootfs/many");
    for number in 0..40_000 {
        fs::create_dir_all(layer.join(number.to_string())).unwrap();
    }
    daemon.restart();
    let trash = daemon.depot(".trash").join(&id);
    assert!(trash.join("tmp/rootfs/many").exists(), "its files are still there");
    assert!(!daemon.depot(&id).exists());
    let mut client = daemon.connect();
    // The only address is free again, and neither it nor a destruction waits for the files.
    let next = client.create();
    client.destroy(&next);
    let next = client.create();
    assert!(trash.exists(), "nobody has waited for it");
    let diagnosed = programs::output(
        daemon
            .in_its_network(programs::find("wardend").to_str().unwrap())
            .arg("doctor")
            .arg("--config")
            .arg(daemon.directory().join("wardend.yml")),
    );
    assert_eq!(String::from_utf8(diagnosed.stdout).unwrap(), "", "what the daemon removes is not left over");
    eventually("its files are gone", 60, || !trash.exists());
    client.destroy(&next);
}

fn client_create(daemon: &Daemon) -> Vec<u8> {
    daemon.connect().create()
}

fn iomux_in(directory: &Path) -> i32 {
    fs::read_to_string(directory.join("run/iomux.pid")).unwrap().trim().parse().unwrap()
}

#[test]
fn many_containers_are_taken_over_and_destroyed() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handles: Vec<_> = (0..40).map(|_| client.create()).collect();
    let jobs: Vec<_> =
        handles.iter().map(|handle| client.spawn(handle, "echo on; exec sleep 1000")).collect();
    for _ in 0..3 {
        killed(&mut daemon);
        daemon.restart();
    }
    let mut client = daemon.connect();
    assert_eq!(client.list(), handles);
    for (handle, job) in handles.iter().zip(jobs) {
        assert_eq!(client.info(handle).job_ids, [u64::from(job)]);
        client.kill(handle);
        assert_eq!(client.link(handle, job).text(), "on\n");
        client.destroy(handle);
    }
}

#[test]
fn a_stop_and_a_destruction_that_were_begun_are_finished() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let stopping = client.create();
    let job = client.spawn(&stopping, format!("trap 'echo trapped' TERM; touch set; {WAIT}"));
    client.text(&stopping, "while [ ! -e set ]; do sleep 0.02; done");
    client.must(StopRequest {
        handle: Some(stopping.clone()),
        background: Some(true),
        ..StopRequest::default()
    });
    killed(&mut daemon);
    let id = String::from_utf8(stopping.clone()).unwrap();
    daemon.restart();
    let mut client = daemon.connect();
    assert_eq!(client.state(&stopping), "stopped");
    release(&daemon, &id);
    assert!(client.link(&stopping, job).text().starts_with("trapped\n"));
    eventually("its end is noted", 10, || {
        !fs::read_to_string(daemon.depot(&id).join("snapshot.json")).unwrap().contains("\"stopping\"")
    });
    // A shell that an operator has opened since is not the stop's concern.
    let mut shell = Command::new(programs::find("wsh"))
        .arg("--socket")
        .arg(daemon.depot(&id).join("run/wshd.sock"))
        .args(["sleep", "1000"])
        .spawn()
        .unwrap();
    eventually("the shell runs", 10, || {
        kernel::processes_in_cgroup(&id).iter().any(|process| process.command.contains("sleep 1000"))
    });
    let mut client = killed_and_restarted(&mut daemon);
    assert_eq!(client.state(&stopping), "stopped");
    assert!(shell.try_wait().unwrap().is_none());
    client.destroy(&stopping);
    shell.wait().unwrap();
}

#[test]
fn what_was_left_of_destroyed_containers_when_the_daemon_was_killed_is_removed_by_the_next() {
    let mut daemon = Daemon::with(&[NOTHING_AHEAD]);
    let mut client = daemon.connect();
    let handles: Vec<_> = (0..10).map(|_| client.create()).collect();
    let kept = client.create();
    let directory = daemon.depot("");
    for handle in &handles {
        client.destroy(handle);
    }
    daemon.signal(Signal::KILL);
    // Whatever it had not removed yet: nothing of it is taken for a container.
    let ids = |hidden: bool| {
        let entries =
            fs::read_dir(if hidden { directory.join(".trash") } else { directory.clone() }).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect::<Vec<_>>()
    };
    let alive = ids(false);
    assert_eq!(alive.len(), 1, "{alive:?}");
    daemon.wait();
    daemon.restart();
    let mut client = daemon.connect();
    assert_eq!(client.list(), std::slice::from_ref(&kept));
    eventually("their files are gone, while clients are served", 10, || ids(true).is_empty());
    let groups = kernel::cgroups_of(daemon.mark());
    let instances =
        groups.iter().filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("instance-"));
    assert!(instances.clone().all(|path| path.ends_with(format!("instance-{}", alive[0]))), "{groups:?}");
    assert_eq!(client.run(&kept, "exit 5").status, 5);
}
