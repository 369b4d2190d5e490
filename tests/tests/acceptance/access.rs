//! Who may use the socket, and how much all clients together may ask for.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::process::{Gid, Uid};
use warden_protocol::messages::*;
use warden_tests::{Daemon, eventually};

/// A user and a group that no machine has.
const STRANGER: u32 = 2_100_000_001;
const GROUP: u32 = 2_100_000_002;

/// What a process of this user and these supplementary groups is told when it connects and pings.
fn ping_as(daemon: &Daemon, user: u32, groups: &[u32]) -> String {
    let (path, groups) = (daemon.socket().to_owned(), groups.to_vec());
    // Ids are a thread's own in the kernel: no other test changes its user.
    let asked = thread::spawn(move || {
        let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
        rustix::thread::set_thread_groups(&groups).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let mut stream = UnixStream::connect(path).unwrap();
        // A refused connection may be closed before this arrives; its error can be read all the same.
        let _ = stream.write_all(b"4\r\n\x08\x5b\x12\x00\r\n");
        let mut answer = [0; 256];
        let got = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..got]).into_owned()
    });
    asked.join().unwrap()
}

#[test]
fn only_the_listed_users_and_groups_and_root_are_served() {
    let access = format!("{{users: [{STRANGER}], groups: [{GROUP}]}}");
    let daemon =
        Daemon::with(&[("server.unix_domain_permissions", "0777"), ("server.access", access.as_str())]);
    const PONG: &str = "4\r\n\x08\x5b\x12\x00\r\n";
    assert_eq!(ping_as(&daemon, STRANGER, &[]), PONG);
    assert_eq!(ping_as(&daemon, STRANGER + 10, &[GROUP]), PONG);
    let refused = ping_as(&daemon, STRANGER + 10, &[GROUP + 10]);
    assert!(refused.contains(&format!("user {} may not use this server (server.access)", STRANGER + 10)));
    daemon.connect().ping();
    // The log says who was refused, and who did what.
    let log = daemon.log();
    assert!(log.contains("refusing a connection") && log.contains(&format!("\"user\":{}", STRANGER + 10)));
    let mut client = daemon.connect();
    client.create();
    let mut created = String::new();
    eventually("the log says who created", 20, || {
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("\"message\":\"create\""));
        created = line.unwrap_or_default().to_owned();
        line.is_some()
    });
    assert!(created.contains("\"user\":0") && created.contains(&format!("\"pid\":{}", std::process::id())));
}

#[test]
fn without_a_list_the_permissions_alone_decide() {
    let daemon = Daemon::with(&[("server.unix_domain_permissions", "0777")]);
    assert!(ping_as(&daemon, STRANGER, &[]).contains('\x5b'));
}

#[test]
fn requests_above_the_limit_are_refused_by_name_and_others_go_on() {
    let daemon = Daemon::with(&[("server.max_requests", "1")]);
    let mut first = daemon.connect();
    let handle = first.create();
    let job = first.spawn(&handle, "trap '' TERM; touch /tmp/armed; while :; do sleep 1; done");
    let armed = || daemon.connect().run(&handle, "test -e /tmp/armed").status == 0;
    eventually("the job ignores TERM", 20, armed);
    // A stop that takes ten seconds.
    first.send(StopRequest { handle: Some(handle.clone()), ..StopRequest::default() });
    let mut second = daemon.connect();
    eventually("the stop is under way", 20, || second.state(&handle) == "stopped");
    let refused = second.ask(CreateRequest::default()).unwrap_err();
    assert!(refused.contains("server.max_requests"), "{refused}");
    // What only looks, or waits for a job, does not count.
    second.ping();
    assert_eq!(second.info(&handle).job_ids, [u64::from(job)]);
    first.receive_of::<StopRequest>().unwrap();
    // Who has an answer does not count any more.
    for _ in 0..50 {
        let made = first.create();
        second.must(NetInRequest { handle: Some(made.clone()), ..NetInRequest::default() });
        first.destroy(&made);
    }
}

#[test]
fn long_requests_above_the_limit_are_refused_by_name() {
    let daemon = Daemon::with(&[("server.max_request_memory", "1048576")]);
    let mut slow = UnixStream::connect(daemon.socket()).unwrap();
    slow.write_all(b"900000\r\n").unwrap();
    // Nothing tells when the daemon has read the length; until then the second one is served, and says so at once.
    eventually("the first request holds its share", 20, || {
        let mut second = UnixStream::connect(daemon.socket()).unwrap();
        second.write_all(b"200000\r\n").unwrap();
        second.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        second.read_to_string(&mut answer).unwrap();
        answer.contains("server.max_request_memory")
    });
    daemon.connect().ping();
    drop(slow);
    eventually("the share comes back", 20, || {
        let mut third = UnixStream::connect(daemon.socket()).unwrap();
        third.write_all(b"900000\r\n").unwrap();
        third.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        third.read_to_string(&mut answer).unwrap();
        answer.is_empty()
    });
}

#[test]
fn a_new_container_is_refused_by_name_where_memory_is_short_and_others_go_on() {
    let daemon = Daemon::with(&[("server.memory_pressure", "{min_available: 1152921504606846976}")]);
    let mut client = daemon.connect();
    let refused = client.ask(CreateRequest::default()).unwrap_err();
    assert!(refused.contains("short of memory") && refused.contains("min_available"), "{refused}");
    client.ping();
    assert!(client.list().is_empty());
}
