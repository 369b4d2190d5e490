//! Containers that are made ahead: no client sees them before it gets one, and none sees a difference then.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use warden_protocol::messages::*;
use warden_tests::files::{self, bytes};
use warden_tests::{ALL_PRIVILEGES, Births, Connection, Daemon, Midwife, eventually, image, kernel};

const SIZE: &str = "server.warm_pool_size";
/// Two networks: nothing can be made ahead beside two containers.
const TWO_NETWORKS: (&str, &str) = ("network.pool_network", "10.77.0.0/29");

/// The ids of all containers whose init has said that it serves, known to clients or not.
fn standing(daemon: &Daemon) -> BTreeSet<String> {
    let entries = fs::read_dir(daemon.depot("")).unwrap().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Waits until so many wait to be handed out; gives their ids.
fn parked(daemon: &Daemon, count: usize) -> BTreeSet<String> {
    // A container is complete, and can be handed out, when the daemon has said so.
    eventually("containers are made ahead", 20, || daemon.log().matches("made ahead").count() >= count);
    standing(daemon)
}

fn id_of(handle: &[u8]) -> String {
    String::from_utf8(handle.to_vec()).unwrap()
}

fn address(client: &mut Connection, handle: &[u8]) -> String {
    String::from_utf8(client.info(handle).container_ip.unwrap()).unwrap()
}

fn at(network: &str) -> CreateRequest {
    CreateRequest { network: Some(network.as_bytes().to_vec()), ..CreateRequest::default() }
}

fn bound(source: &Path, destination: &str, mode: Mode) -> BindMount {
    BindMount {
        src_path: Some(bytes(source)),
        dst_path: Some(destination.as_bytes().to_vec()),
        mode: Some(mode as i32),
    }
}

#[test]
fn a_container_that_is_ready_is_handed_out_without_starting_a_process() {
    let daemon = Daemon::with(&[(SIZE, "4"), TWO_NETWORKS]);
    let ahead = parked(&daemon, 2);
    let mut client = daemon.connect();
    let known = daemon.helpers().into_iter().map(|process| process.pid).chain([daemon.fork_server()]);
    let mut midwife = Midwife::of(daemon.pid(), known);
    let first = client.create();
    let chosen = CreateRequest { handle: Some(b"chosen".to_vec()), ..CreateRequest::default() };
    assert_eq!(client.create_with(chosen), b"chosen");
    assert_eq!(midwife.look(), Births::default());
    assert_eq!(ahead, [id_of(&first), client.id(b"chosen")].into());
    for handle in [&first[..], b"chosen"] {
        let own = client.id(handle);
        assert_eq!(client.text(handle, "hostname; id -un; ls -d /proc/[0-9]* | wc -l").lines().count(), 3);
        assert_eq!(client.text(handle, "hostname").trim(), own);
        assert!(daemon.depot(&own).join("snapshot.json").exists());
    }
}

#[test]
fn what_is_ready_is_invisible_and_goes_with_the_daemon() {
    let mut daemon = Daemon::with(&[(SIZE, "3"), ("server.container_grace_time", "0")]);
    let ahead = parked(&daemon, 3);
    let mut client = daemon.connect();
    assert_eq!(client.list(), Vec::<Vec<u8>>::new());
    for id in &ahead {
        let refused = client.ask(InfoRequest { handle: Some(id.clone().into_bytes()) }).unwrap_err();
        assert_eq!(refused, "unknown handle");
        assert!(!daemon.depot(id).join("snapshot.json").exists());
    }
    drop(client);
    // A connection that ends begins grace times; these have none.
    let mut client = daemon.connect();
    assert!(ahead.contains(&id_of(&client.create())));
    drop(client);
    eventually("its grace time is over", 10, || daemon.connect().list().is_empty());
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert_eq!(standing(&daemon), BTreeSet::new());
    assert!(daemon.helpers().is_empty());
}

#[test]
fn addresses_users_ids_and_the_list_come_in_order_whatever_was_ready() {
    let mut daemon = Daemon::with(&[(SIZE, "2"), ("network.pool_network", "10.77.0.0/26")]);
    let mut client = daemon.connect();
    let mut handles = Vec::new();
    // More at once than are ready.
    for number in 0..8_u32 {
        let handle = client.create();
        assert_eq!(address(&mut client, &handle), format!("10.77.0.{}", 4 * number + 2));
        let user = client.text(&handle, "id -u");
        assert_eq!(user.trim(), (10_000 + number).to_string());
        handles.push(handle);
    }
    assert!(handles.is_sorted(), "ids are handed out in order");
    assert_eq!(client.list(), handles);
    drop(client);
    daemon.signal(Signal::KILL);
    daemon.wait();
    daemon.restart();
    assert_eq!(daemon.connect().list(), handles);
}

#[test]
fn what_cannot_be_served_takes_its_place_in_the_order() {
    let daemon = Daemon::with(&[(SIZE, "3"), ("network.pool_network", "10.77.0.0/26")]);
    parked(&daemon, 3);
    let rootfs = files::directory();
    image::fill(rootfs.path());
    let other = || CreateRequest { rootfs: Some(bytes(rootfs.path())), ..CreateRequest::default() };
    let mut client = daemon.connect();
    for (number, request) in [other(), CreateRequest::default(), other(), other()].into_iter().enumerate() {
        let handle = client.create_with(request);
        assert_eq!(address(&mut client, &handle), format!("10.77.0.{}", 4 * number + 2));
        assert_eq!(client.text(&handle, "id -u").trim(), (10_000 + number).to_string());
    }
    for _ in 0..3 {
        client.create_with(other());
    }
    // Nothing is ready for a client that asks for what nothing serves.
    assert_eq!(standing(&daemon).len(), 7);
    client.create();
    eventually("the pool is filled again", 20, || standing(&daemon).len() == 11);
}

#[test]
fn an_address_that_is_asked_for_is_given_up_or_handed_out() {
    let mut daemon = Daemon::with(&[(SIZE, "3"), ("network.pool_network", "10.77.0.0/28")]);
    let ahead = parked(&daemon, 3);
    let mut client = daemon.connect();
    let third = client.create_with(at("10.77.0.9"));
    assert_eq!(address(&mut client, &third), "10.77.0.10");
    assert!(ahead.contains(&id_of(&third)));
    assert_eq!(client.ask(at("10.77.0.9")).unwrap_err(), "Could not acquire network: 10.77.0.8");
    let first = client.create();
    assert_eq!(address(&mut client, &first), "10.77.0.2");
    // This one cannot be served by what is ready.
    let rootfs = files::directory();
    image::fill(rootfs.path());
    let other = CreateRequest { rootfs: Some(bytes(rootfs.path())), ..at("10.77.0.4") };
    let second = client.create_with(other);
    assert_eq!(address(&mut client, &second), "10.77.0.6");
    // The order of creation is not that of ids.
    let handles = [third, first, second];
    assert_eq!(client.list(), handles);
    drop(client);
    daemon.signal(Signal::KILL);
    daemon.wait();
    daemon.restart();
    assert_eq!(daemon.connect().list(), handles);
}

#[test]
fn a_pool_that_is_empty_but_for_what_is_ready_is_not_empty() {
    for setting in
        [TWO_NETWORKS, ("user.pool_size", "2"), ("server.host_ids", "{start: 700000, count: 131072}")]
    {
        let daemon = Daemon::with(&[(SIZE, "2"), setting]);
        let ahead = parked(&daemon, 2);
        let mut client = daemon.connect();
        let rootfs = files::directory();
        image::fill(rootfs.path());
        let other = || CreateRequest { rootfs: Some(bytes(rootfs.path())), ..CreateRequest::default() };
        let made: BTreeSet<_> = (0..2).map(|_| id_of(&client.create_with(other()))).collect();
        assert!(made.is_disjoint(&ahead), "{setting:?}");
        assert_eq!(standing(&daemon), made, "{setting:?}");
        client.ask(other()).unwrap_err();
        assert_eq!(client.list().len(), 2);
    }
}

#[test]
fn bind_mounts_are_inserted_as_safely_as_they_are_made() {
    let daemon = Daemon::with(&[(SIZE, "2"), TWO_NETWORKS, ALL_PRIVILEGES]);
    let ahead = parked(&daemon, 2);
    let base = files::directory();
    let theirs = base.path().join("ro");
    files::write(&theirs.join("file"), "theirs", 0o640);
    files::make_directory(&base.path().join("rw"), 0o777);
    let single = files::write(&base.path().join("single"), "one", 0o644);
    let mut client = daemon.connect();
    let bind_mounts = vec![
        bound(&theirs, "/shared/ro", Mode::Ro),
        bound(&base.path().join("rw"), "/shared/rw x", Mode::Rw),
        bound(&single, "/etc/single.conf", Mode::Ro),
    ];
    let handle = client.create_with(CreateRequest { bind_mounts, ..CreateRequest::default() });
    assert!(ahead.contains(&id_of(&handle)), "it was handed out, not made");
    assert_eq!(client.text(&handle, "cat /etc/single.conf; echo new > '/shared/rw x/made'"), "one");
    assert!(base.path().join("rw/made").exists());
    let mounts = client.text(&handle, "cat /proc/self/mounts");
    let options = |place: &str| {
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(place));
        let line = line.unwrap_or_else(|| panic!("{place} is missing: {mounts}"));
        line.split(' ').nth(3).unwrap().split(',').map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert!(options("/shared/ro").is_superset(&["ro", "nodev"].map(str::to_owned).into()));
    assert!(options("/shared/rw\\040x").is_superset(&["rw", "nosuid", "nodev"].map(str::to_owned).into()));
    for attempt in [
        "true",
        "mount -o remount,rw /shared/ro",
        "mount -o remount,bind,rw /shared/ro",
        "mkdir -p /tmp/b; mount --rbind /shared/ro /tmp/b; mount -o remount,bind,rw /tmp/b; t=/tmp/b",
        "unshare -Urm sh -c 'mount -o remount,bind,rw /shared/ro; : > /shared/ro/hole'",
    ] {
        let script =
            format!("t=/shared/ro\n{attempt}\n: > $t/hole && echo HOLE; echo x >> $t/file && echo HOLE");
        let output = client.run_privileged(&handle, script);
        assert!(!output.text().contains("HOLE"), "{attempt}: {}", output.errors());
    }
    let owners = client.run_privileged(&handle, "stat -c %u:%g:%a /shared/ro/file /shared").text();
    let mapped = if files::can_be_idmapped(&theirs) { "0:0:640\n" } else { "65534:65534:640\n" };
    assert_eq!(owners, format!("{mapped}0:0:755\n"));
    assert_eq!(fs::read(theirs.join("file")).unwrap(), b"theirs");
    assert_eq!(kernel::mounts_of(daemon.mark()), Vec::<String>::new());
}

#[test]
fn a_refusal_costs_no_container_that_is_ready() {
    let daemon = Daemon::with(&[(SIZE, "2"), TWO_NETWORKS]);
    let ahead = parked(&daemon, 2);
    let base = files::directory();
    let mut client = daemon.connect();
    let missing = base.path().join("missing");
    for (source, destination, words) in [
        (missing.as_path(), "/x", "Source path for bind mount does not exist"),
        (base.path(), "/a/../../b", "/a/../../b"),
    ] {
        let bind_mounts = vec![bound(source, destination, Mode::Ro)];
        let refused = client.ask(CreateRequest { bind_mounts, ..CreateRequest::default() }).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
    assert_eq!(standing(&daemon), ahead);
    let handles: BTreeSet<_> = (0..2).map(|_| id_of(&client.create())).collect();
    assert_eq!(handles, ahead);
}

#[test]
fn name_servers_are_those_of_the_moment_at_which_it_is_handed_out() {
    let daemon = Daemon::with_resolv_conf(&[(SIZE, "2"), TWO_NETWORKS], "nameserver 192.0.2.53\n");
    let ahead = parked(&daemon, 2);
    daemon.set_resolv_conf("nameserver 192.0.2.54\nsearch example.org\n");
    let mut client = daemon.connect();
    let handle = client.create();
    assert!(ahead.contains(&id_of(&handle)));
    let seen = client.text(&handle, "cat /etc/resolv.conf; stat -c %u:%a /etc/resolv.conf");
    assert_eq!(seen, "nameserver 192.0.2.54\nsearch example.org\n0:644\n");
    assert_eq!(client.text(&handle, "cat /etc/hostname").trim(), id_of(&handle));
}

#[test]
fn what_has_died_meanwhile_is_not_handed_out() {
    let daemon = Daemon::with(&[(SIZE, "2"), TWO_NETWORKS]);
    let ahead = parked(&daemon, 2);
    for (id, helper) in ahead.iter().zip(["iomux", "wshd"]) {
        let pid = fs::read_to_string(daemon.depot(id).join("run").join(format!("{helper}.pid"))).unwrap();
        let pid = pid.trim().parse().unwrap();
        kernel::signal(pid, Signal::KILL);
        eventually("it is dead", 10, || !kernel::is_alive(pid));
    }
    let mut client = daemon.connect();
    for address_expected in ["10.77.0.2", "10.77.0.6"] {
        let handle = client.create();
        assert!(!ahead.contains(&id_of(&handle)));
        assert_eq!(client.text(&handle, "echo works"), "works\n");
        assert_eq!(address(&mut client, &handle), address_expected);
    }
}

#[test]
fn what_a_killed_daemon_had_ready_is_removed_by_the_next() {
    let mut daemon = Daemon::with(&[(SIZE, "2"), TWO_NETWORKS]);
    let ahead = parked(&daemon, 2);
    let handle = daemon.connect().create();
    daemon.signal(Signal::KILL);
    daemon.wait();
    daemon.restart();
    let mut client = daemon.connect();
    assert_eq!(client.list(), std::slice::from_ref(&handle));
    let left: BTreeSet<_> = standing(&daemon).intersection(&ahead).cloned().collect();
    assert_eq!(left, [id_of(&handle)].into());
    let next = client.create();
    assert_eq!(address(&mut client, &next), "10.77.0.6", "its addresses are free again");
    client.ask(CreateRequest::default()).unwrap_err();
}
