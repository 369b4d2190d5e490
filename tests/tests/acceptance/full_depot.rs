//! A depot on a file system of its own, and what containers do to it. Where a daemon cannot write down what it was asked to
//! do, it undoes it: an error means that nothing has changed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rustix::process::Signal;
use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon, NOTHING_AHEAD, SmallDepot, eventually, kernel, programs};

/// Writes a file until the file system has no room for a single block more.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let error = io::copy(&mut io::repeat(0), &mut file).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    while file.write(&[0; 512]).is_ok() {}
    file.sync_all().unwrap();
}

fn nft(daemon: &Daemon) -> String {
    let output = programs::output(daemon.in_its_network("nft").args(["list", "ruleset"]));
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// All that the requests of this test change, by the kernel's and the daemon's view.
fn seen(daemon: &Daemon, client: &mut Connection, handle: &[u8]) -> (String, u64, u64, String) {
    let handle = Some(handle.to_vec());
    let memory = LimitMemoryRequest { handle: handle.clone(), limit_in_bytes: None };
    let memory = client.ask(memory).unwrap().limit_in_bytes.unwrap();
    let cpu = LimitCpuRequest { handle: handle.clone(), ..LimitCpuRequest::default() };
    let shares = client.ask(cpu).unwrap().limit_in_shares.unwrap();
    let info = client.ask(InfoRequest { handle }).unwrap();
    (nft(daemon), memory, shares, format!("{:?}", info.bandwidth_stat))
}

fn refused<T: std::fmt::Debug>(answer: Result<T, String>) {
    let text = answer.unwrap_err();
    assert!(text.contains("snapshot") && text.contains("No space left on device"), "{text}");
}

#[test]
fn what_cannot_be_written_down_is_not_done() {
    let mut daemon = Daemon::own();
    let small = SmallDepot::below(&mut daemon);
    let mut client = daemon.connect();
    let [limited, bare, third] = [client.create(), client.create(), client.create()];
    let some = |handle: &[u8]| Some(handle.to_vec());
    let memory = |handle: &[u8], mib: u64| LimitMemoryRequest {
        handle: some(handle),
        limit_in_bytes: Some(mib << 20),
    };
    let shares = |handle: &[u8], shares| LimitCpuRequest {
        handle: some(handle),
        limit_in_shares: Some(shares),
        quota_us: None,
    };
    let rate = |handle: &[u8], rate| LimitBandwidthRequest {
        handle: some(handle),
        rate: Some(rate),
        burst: Some(1_000_000),
    };
    let port = |handle: &[u8], port| NetInRequest {
        handle: some(handle),
        host_port: Some(port),
        ..NetInRequest::default()
    };
    let network = |handle: &[u8], network: &str| NetOutRequest {
        handle: some(handle),
        network: Some(network.into()),
        ..NetOutRequest::default()
    };
    client.must(memory(&limited, 64));
    client.must(shares(&limited, 300));
    client.must(rate(&limited, 2_000_000));
    client.must(port(&limited, 7_001));
    client.must(network(&limited, "192.0.2.1"));
    client.must(network(&limited, "192.0.2.0/24"));
    let before = [&limited, &bare].map(|handle| seen(&daemon, &mut client, handle));

    // A snapshot that has been written twice needs no further room; one that is missing does.
    let second = daemon.depot(&client.id(&limited)).join("snapshot.json.new");
    fs::remove_file(second).unwrap();
    let filler = daemon.depot("filler");
    fill(&filler);
    for handle in [&limited, &bare] {
        refused(client.ask(port(handle, 7_002)));
        refused(client.ask(network(handle, "198.51.100.0/24")));
        refused(client.ask(memory(handle, 80)));
        refused(client.ask(shares(handle, 400)));
        refused(client.ask(rate(handle, 3_000_000)));
    }
    assert_eq!([&limited, &bare].map(|handle| seen(&daemon, &mut client, handle)), before);
    // A full depot keeps nobody from making room.
    let fourth = client.ask(CreateRequest::default()).unwrap_err();
    assert!(fourth.contains("No space left on device"), "{fourth}");
    assert_eq!(client.list().len(), 3);
    client.destroy(&third);
    assert_eq!(client.list().len(), 2);
    fs::remove_file(&filler).unwrap();

    // Neither is anything left of it when the daemon is another.
    daemon.signal(Signal::KILL);
    daemon.wait();
    daemon.restart();
    let mut client = daemon.connect();
    let after = [&limited, &bare].map(|handle| seen(&daemon, &mut client, handle));
    for (after, before) in after.iter().zip(&before) {
        assert_eq!((after.1, after.2, &after.3), (before.1, before.2, &before.3));
    }
    assert!(!after[0].0.contains("7002") && after[0].0.contains("7001"), "{}", after[0].0);
    assert!(!after[0].0.contains("198.51.100") && after[0].0.contains("192.0.2.1-192.0.2.1"));
    assert_eq!(client.ask(port(&bare, 7_002)).unwrap().host_port, Some(7_002));
    [limited, bare].iter().for_each(|handle| client.destroy(handle));
    drop(client);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    drop(small);
}

#[test]
fn a_container_whose_jobs_cannot_be_written_down_lives_and_so_do_its_other_jobs() {
    let mut daemon = Daemon::with(&[NOTHING_AHEAD]);
    let small = SmallDepot::below(&mut daemon);
    let mut client = daemon.connect();
    let [greedy, bystander] = [client.create(), client.create()];
    let job = client.spawn(&bystander, "sleep 1000");
    let supervisors = || -> Vec<i32> {
        let helpers = daemon.helpers().into_iter();
        helpers.filter(|helper| helper.command.contains("spec.json")).map(|helper| helper.pid).collect()
    };
    let before = supervisors();
    assert_eq!(before.len(), 2);
    let filled =
        client.run(&greedy, "dd if=/dev/zero of=/tmp/fill bs=64k; dd if=/dev/zero of=/tmp/rest bs=512; true");
    assert_eq!(filled.status, 0, "{}", filled.errors());
    for _ in 0..3 {
        for handle in [&greedy, &bystander] {
            // Whether there is room for its output or its end is not what this is about.
            let _ = client.ask(RunRequest {
                handle: Some(handle.clone()),
                script: Some(b"echo $(seq 5000)".to_vec()),
                ..RunRequest::default()
            });
        }
    }
    assert_eq!(supervisors(), before, "nobody has died");
    // Another takes over on the full disk, too.
    let id = client.id(&bystander);
    let supervisor = daemon.helpers().into_iter().find(|helper| helper.command.contains(&id)).unwrap();
    kernel::signal(supervisor.pid, Signal::KILL);
    eventually("another has taken over", 20, || {
        let helpers = daemon.helpers().into_iter();
        helpers.filter(|helper| helper.command.contains(&id)).any(|helper| helper.pid != supervisor.pid)
    });
    for handle in [&greedy, &bystander] {
        let info = client.info(handle);
        assert_eq!((info.state.unwrap(), info.events), (b"active".to_vec(), Vec::<Vec<u8>>::new()));
    }
    assert_eq!(client.info(&bystander).job_ids, [u64::from(job)]);
    [greedy, bystander].iter().for_each(|handle| client.destroy(handle));
    drop(client);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    drop(small);
}

#[test]
fn neither_a_job_nor_the_end_of_a_container_forces_the_disk_to_write() {
    let mut daemon = Daemon::with(&[NOTHING_AHEAD]);
    let depot = SmallDepot::below(&mut daemon);
    let mut client = daemon.connect();
    let mut life = || {
        let handle = client.create();
        let id = client.id(&handle);
        client.text(&handle, "echo text > file && sync file");
        client.destroy(&handle);
        eventually("its mounts are gone", 20, || kernel::processes_of(&id).is_empty());
    };
    life();
    let before = depot.flushes();
    (0..20).for_each(|_| life());
    // The file system writes its journal by itself every five seconds.
    let flushes = depot.flushes() - before;
    assert!(flushes < 10, "{flushes} in 20 lives");
}
