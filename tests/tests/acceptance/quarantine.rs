//! Processes that do not die.

use rustix::process::Signal;
use warden_protocol::messages::*;
use warden_tests::{Daemon, Undying, eventually, kernel};

fn destroy(handle: &[u8]) -> DestroyRequest {
    DestroyRequest { handle: Some(handle.to_vec()) }
}

#[test]
fn what_does_not_die_is_named_kept_apart_and_destroyed_once_it_can_die() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let [stuck, other] = [client.create(), client.create()];
    let (id, address) = (client.id(&stuck), client.info(&stuck).container_ip);
    let held = Undying::start(&daemon, &mut client, &stuck);

    client.send(destroy(&stuck));
    let mut second = daemon.connect();
    // Nothing else waits for it.
    second.ping();
    assert_eq!(second.list().len(), 2);
    assert_eq!(second.state(&other), "active");
    let refused = client.receive_error();
    let named = kernel::processes_in_cgroup(&id);
    assert!(
        named.iter().any(|process| refused.contains(&format!("process {} (", process.pid)))
            && refused.contains("state ")
            && refused.contains("it does not die"),
        "{refused}"
    );
    let assert_kept = |daemon: &Daemon| {
        let mut client = daemon.connect();
        assert!(client.list().contains(&stuck));
        let info = client.info(&stuck);
        assert_eq!(info.state.as_deref(), Some("stopped".as_ref()));
        assert_eq!(info.container_ip, address);
        let events = info.events.iter().filter(|event| event.starts_with(b"quarantined: ")).count();
        assert_eq!(events, 1, "{:?}", info.events);
        let taken = client.ask(CreateRequest { network: address.clone(), ..CreateRequest::default() });
        assert!(taken.unwrap_err().starts_with("Could not acquire network"));
    };
    assert_kept(&daemon);
    assert!(daemon.log().contains("quarantined: it cannot be destroyed"), "{}", daemon.log());
    assert_eq!(client.state(&other), "active");

    drop(held);
    eventually("it is destroyed by a retry", 60, || !client.list().contains(&stuck));
    assert!(!daemon.depot(&id).exists());
    assert_eq!(client.text(&other, "echo $((6 * 7))"), "42\n");
}

#[test]
fn the_next_daemon_goes_on_with_what_could_not_be_destroyed() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let stuck = client.create();
    let (id, address) = (client.id(&stuck), client.info(&stuck).container_ip);
    let held = Undying::start(&daemon, &mut client, &stuck);
    client.ask(destroy(&stuck)).unwrap_err();
    daemon.signal(Signal::KILL);
    daemon.wait();
    daemon.restart();
    let mut client = daemon.connect();
    assert_eq!(client.list(), std::slice::from_ref(&stuck));
    let info = client.info(&stuck);
    assert_eq!(info.container_ip, address);
    assert!(info.events.iter().any(|event| event.starts_with(b"quarantined: ")));
    drop(held);
    eventually("it is destroyed by a retry", 60, || client.list().is_empty());
    assert!(!daemon.depot(&id).exists());
}

#[test]
fn a_destruction_that_was_begun_and_cannot_be_finished_is_found_under_its_handle_by_the_next_daemon() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let [stuck, other] = [client.create(), client.create()];
    let (id, address) = (client.id(&stuck), client.info(&stuck).container_ip);
    let net_in = |handle: &[u8], host_port| NetInRequest {
        handle: Some(handle.to_vec()),
        host_port,
        ..NetInRequest::default()
    };
    let port = client.ask(net_in(&stuck, None)).unwrap().host_port;
    let held = Undying::start(&daemon, &mut client, &stuck);
    client.send(destroy(&stuck));
    let withdrawn = daemon.depot(&id).join("snapshot.json.withdrawn");
    eventually("it is written that it is being destroyed", 60, || withdrawn.exists());
    daemon.signal(Signal::KILL);
    daemon.wait();
    // However often a daemon is killed over it.
    for _ in 0..2 {
        daemon.restart();
        let mut client = daemon.connect();
        assert_eq!(client.list().len(), 2);
        let info = client.info(&stuck);
        assert_eq!((info.state.as_deref(), &info.container_ip), (Some(&b"stopped"[..]), &address));
        let told = info.events.iter().filter(|event| event.starts_with(b"quarantined: ")).count();
        assert_eq!(told, 1, "{:?}", info.events);
        assert!(client.ask(net_in(&other, port)).unwrap_err().contains("already mapped"));
        let taken = client.ask(CreateRequest { network: address.clone(), ..CreateRequest::default() });
        assert!(taken.unwrap_err().starts_with("Could not acquire network"));
        let again = CreateRequest { handle: Some(stuck.clone()), ..CreateRequest::default() };
        assert!(client.ask(again).unwrap_err().contains("already exists"));
        assert!(client.ask(destroy(&stuck)).unwrap_err().contains("it does not die"));
        drop(client);
        daemon.signal(Signal::KILL);
        daemon.wait();
    }
    daemon.restart();
    drop(held);
    let mut client = daemon.connect();
    eventually("it is destroyed by a retry", 60, || client.list() == std::slice::from_ref(&other));
    assert!(!daemon.depot(&id).exists());
    assert_eq!(client.ask(net_in(&other, port)).unwrap().host_port, port);
}
