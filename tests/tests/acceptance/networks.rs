//! The pools of addresses and users, as clients see them.

use std::thread;
use std::time::Duration;

use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon};

fn at(network: &str) -> CreateRequest {
    CreateRequest { network: Some(network.as_bytes().to_vec()), ..CreateRequest::default() }
}

fn addresses(client: &mut Connection, handle: &[u8]) -> (String, String) {
    let info = client.info(handle);
    let text = |address: Option<Vec<u8>>| String::from_utf8(address.unwrap()).unwrap();
    (text(info.host_ip), text(info.container_ip))
}

fn pair(host: &str, container: &str) -> (String, String) {
    (host.to_owned(), container.to_owned())
}

#[test]
fn networks_come_in_order_four_addresses_apart() {
    let daemon = Daemon::with(&[("network.pool_network", "10.77.0.0/27")]);
    let mut client = daemon.connect();
    for n in 0..3 {
        let handle = client.create();
        let expected = pair(&format!("10.77.0.{}", 4 * n + 1), &format!("10.77.0.{}", 4 * n + 2));
        assert_eq!(addresses(&mut client, &handle), expected);
        let seen = client.text(&handle, "cat /etc/hosts");
        assert!(seen.contains(&format!("10.77.0.{} ", 4 * n + 2)), "{seen}");
    }
}

#[test]
fn a_network_asked_for_is_masked_and_refused_when_taken() {
    let daemon = Daemon::with(&[("network.pool_network", "10.77.0.0/27")]);
    let mut client = daemon.connect();
    let handle = client.create_with(at("10.77.0.14"));
    assert_eq!(addresses(&mut client, &handle), pair("10.77.0.13", "10.77.0.14"));
    for (asked, masked) in [("10.77.0.13", "10.77.0.12"), ("10.99.1.7", "10.99.1.4"), ("hello", "0.0.0.0")] {
        assert_eq!(client.ask(at(asked)).unwrap_err(), format!("Could not acquire network: {masked}"));
    }
    client.destroy(&handle);
    let handle = client.create_with(at("10.77.0.12"));
    assert_eq!(addresses(&mut client, &handle), pair("10.77.0.13", "10.77.0.14"));
}

#[test]
fn an_exhausted_pool_of_networks_is_an_error_that_leaves_nothing() {
    let daemon = Daemon::with(&[("network.pool_network", "10.77.0.0/29")]);
    let mut client = daemon.connect();
    let first = client.create();
    client.create();
    for _ in 0..3 {
        assert_eq!(client.ask(CreateRequest::default()).unwrap_err(), "Could not acquire network");
    }
    assert_eq!(client.list().len(), 2);
    client.destroy(&first);
    client.create();
}

#[test]
fn a_released_network_rests() {
    let daemon = Daemon::with(&[("network.pool_network", "10.77.0.0/30"), ("network.release_delay", "1")]);
    let mut client = daemon.connect();
    let handle = client.create();
    client.destroy(&handle);
    assert_eq!(client.ask(CreateRequest::default()).unwrap_err(), "Could not acquire network");
    thread::sleep(Duration::from_millis(1100));
    client.create();
}

#[test]
fn a_start_address_with_a_size_makes_the_pool() {
    let daemon = Daemon::with(&[("network.pool_start_address", "10.88.0.0"), ("network.pool_size", "3")]);
    let mut client = daemon.connect();
    // Rounded up to a power of two: four networks.
    let last = (0..4).map(|_| client.create()).last().unwrap();
    assert_eq!(addresses(&mut client, &last), pair("10.88.0.13", "10.88.0.14"));
    assert_eq!(client.ask(CreateRequest::default()).unwrap_err(), "Could not acquire network");
}

#[test]
fn users_come_in_order_and_an_exhausted_pool_is_an_error() {
    let daemon = Daemon::with(&[("user.pool_start_uid", "21000"), ("user.pool_size", "2")]);
    let mut client = daemon.connect();
    let first = client.create();
    let second = client.create();
    assert_eq!(client.text(&first, "id -u; id -g"), "21000\n21000\n");
    assert_eq!(client.text(&second, "id -u; id -g"), "21001\n21001\n");
    assert_eq!(client.ask(CreateRequest::default()).unwrap_err(), "no uid available");
    client.destroy(&first);
    let third = client.create();
    assert_eq!(client.text(&third, "id -u"), "21000\n");
}

#[test]
fn an_exhausted_range_of_host_ids_is_an_error() {
    let daemon = Daemon::with(&[("server.host_ids", "{start: 600000, count: 131072}")]);
    let mut client = daemon.connect();
    let first = client.create();
    client.create();
    let refused = client.ask(CreateRequest::default()).unwrap_err();
    assert!(refused.contains("host ids"), "{refused}");
    client.destroy(&first);
    client.create();
}

#[test]
fn the_network_namespace_has_lo_up_and_nothing_of_the_host() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let script = r#"/usr/bin/python3 -c '
import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
c = socket.create_connection(s.getsockname()); print("connected")'"#;
    assert_eq!(client.text(&handle, script), "connected\n");
    let inside = client.text(&handle, "readlink /proc/self/ns/net");
    let outside = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(inside.trim(), outside.to_str().unwrap());
}
