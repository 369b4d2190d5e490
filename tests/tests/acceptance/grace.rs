//! Grace time: a container ends when nobody references it any more.

use std::thread;
use std::time::Duration;

use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon, eventually};

fn with_grace(client: &mut Connection, seconds: u32) -> (Vec<u8>, String) {
    let handle = client.create_with(CreateRequest { grace_time: Some(seconds), ..CreateRequest::default() });
    let id = String::from_utf8(handle.clone()).unwrap();
    (handle, id)
}

/// Looks in the depot, because a new connection would count as a reference.
fn exists(daemon: &Daemon, id: &str) -> bool {
    daemon.depot(id).exists()
}

#[test]
fn it_is_destroyed_after_its_grace_time_and_not_before() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (_, id) = with_grace(&mut client, 1);
    thread::sleep(Duration::from_millis(1500));
    assert!(exists(&daemon, &id), "its connection still stands");
    drop(client);
    thread::sleep(Duration::from_millis(600));
    assert!(exists(&daemon, &id), "its grace time is not over");
    eventually("it is destroyed", 5, || !exists(&daemon, &id));
    eventually("it is no longer listed", 5, || daemon.connect().list().is_empty());
}

#[test]
fn a_grace_time_of_zero_ends_it_with_its_last_connection() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (handle, id) = with_grace(&mut client, 0);
    client.spawn(&handle, "sleep 1000");
    assert!(exists(&daemon, &id));
    drop(client);
    eventually("it is destroyed", 5, || !exists(&daemon, &id));
}

#[test]
fn a_new_connection_cancels_the_timer() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (_, id) = with_grace(&mut client, 1);
    drop(client);
    thread::sleep(Duration::from_millis(400));
    let silent = daemon.connect();
    thread::sleep(Duration::from_millis(1500));
    assert!(exists(&daemon, &id), "any connection references it");
    drop(silent);
    eventually("it is destroyed", 5, || !exists(&daemon, &id));
}

#[test]
fn a_connection_opened_while_it_exists_references_it() {
    let daemon = Daemon::own();
    let mut creator = daemon.connect();
    let (_, id) = with_grace(&mut creator, 0);
    let silent = daemon.connect();
    // Connections are counted when they are accepted.
    daemon.connect().ping();
    drop(creator);
    thread::sleep(Duration::from_millis(700));
    assert!(exists(&daemon, &id));
    drop(silent);
    eventually("it is destroyed", 5, || !exists(&daemon, &id));
}

#[test]
fn a_connection_opened_before_it_references_it_only_by_naming_it() {
    let daemon = Daemon::own();
    let mut before = daemon.connect();
    let mut naming = daemon.connect();
    before.ping();
    naming.ping();
    let mut creator = daemon.connect();
    let (handle, id) = with_grace(&mut creator, 0);
    naming.info(&handle);
    drop(creator);
    thread::sleep(Duration::from_millis(700));
    assert!(exists(&daemon, &id), "it was named on a connection that stands");
    drop(naming);
    eventually("it is destroyed although an older connection stands", 5, || !exists(&daemon, &id));
    eventually("it is no longer listed", 5, || before.list().is_empty());
}

#[test]
fn the_configured_grace_time_counts_where_the_request_names_none() {
    let daemon = Daemon::with(&[("server.container_grace_time", "1")]);
    let mut client = daemon.connect();
    let short = client.id_of_new(None);
    let long = client.id_of_new(Some(3600));
    drop(client);
    eventually("the one without a grace time of its own is destroyed", 6, || !exists(&daemon, &short));
    assert!(exists(&daemon, &long));
}

#[test]
fn without_a_grace_time_containers_stay() {
    let daemon = Daemon::with(&[("server.container_grace_time", "")]);
    let mut client = daemon.connect();
    let id = client.id_of_new(None);
    drop(client);
    thread::sleep(Duration::from_millis(1500));
    assert!(exists(&daemon, &id));
}

trait NewContainer {
    /// Creates a container and gives its id.
    fn id_of_new(&mut self, grace_time: Option<u32>) -> String;
}

impl NewContainer for Connection {
    fn id_of_new(&mut self, grace_time: Option<u32>) -> String {
        let handle = self.create_with(CreateRequest { grace_time, ..CreateRequest::default() });
        String::from_utf8(handle).unwrap()
    }
}
