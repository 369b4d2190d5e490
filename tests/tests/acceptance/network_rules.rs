//! What goes into and out of a container, by real sockets through the real kernel.

use warden_protocol::messages::net_out_request::Protocol;
use warden_protocol::messages::*;
use warden_tests::world::{
    self, Echo, PYTHON, World, all_from, all_from_container, echo_inside, from, from_container, parts, run,
};
use warden_tests::{ALL_PRIVILEGES, Connection, NOTHING_AHEAD, eventually};

const INTERNET: &str = world::INTERNET[0];
const HOST: &str = world::HOST[0];

fn container_ip(client: &mut Connection, handle: &[u8]) -> String {
    String::from_utf8(client.info(handle).container_ip.unwrap()).unwrap()
}

fn host_ip(client: &mut Connection, handle: &[u8]) -> String {
    String::from_utf8(client.info(handle).host_ip.unwrap()).unwrap()
}

fn net_out(handle: &[u8]) -> NetOutRequest {
    NetOutRequest { handle: Some(handle.to_vec()), ..NetOutRequest::default() }
}

fn to(handle: &[u8], network: &str) -> NetOutRequest {
    NetOutRequest { network: Some(network.as_bytes().to_vec()), ..net_out(handle) }
}

fn net_in(handle: &[u8], host_port: Option<u32>, container_port: Option<u32>) -> NetInRequest {
    NetInRequest { handle: Some(handle.to_vec()), host_port, container_port, protocol: None }
}

#[test]
fn nothing_leaves_until_net_out_opens_it() {
    let world = World::new(&[]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    let places = [("STREAM", 8001), ("STREAM", 8002), ("STREAM", 8003), ("DGRAM", 8001)];
    let _echoes = Echo::start(world.internet(PYTHON), &places);
    let questions = places.map(|(kind, port)| (kind, INTERNET, u32::from(port)));
    let seen = |handle: &[u8]| all_from_container(&mut world.daemon.connect(), handle, &questions);
    assert_eq!(seen(&handle), ["failed"; 4]);

    client.ask(NetOutRequest { port: Some(8001), ..to(&handle, INTERNET) }).unwrap();
    assert_eq!(seen(&handle), [HOST, "failed", "failed", "failed"], "hidden behind the host");

    let range = Some(b"8002:8003".to_vec());
    client.ask(NetOutRequest { port_range: range, ..to(&handle, "192.0.2.0-192.0.2.9") }).unwrap();
    assert_eq!(seen(&handle), [HOST, HOST, HOST, "failed"]);
    let udp = Some(Protocol::Udp as i32);
    client.ask(NetOutRequest { protocol: udp, ..to(&handle, "192.0.2.0/24") }).unwrap();
    assert_eq!(seen(&handle), [HOST; 4]);

    let all = Some(Protocol::All as i32);
    let other = client.create();
    assert_eq!(seen(&other), ["failed"; 4], "another's rules");
    client.ask(NetOutRequest { protocol: all, log: Some(true), ..to(&other, "0.0.0.0/0") }).unwrap();
    assert_eq!(seen(&other), [HOST; 4]);
    assert!(world.nft().contains("log prefix \"warden-i-"));
}

#[test]
fn configured_networks_are_open_to_all() {
    let world = World::new(&[("network.allow_networks", "[192.0.2.2]")]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    let _echo = Echo::start(world.internet(PYTHON), &[("STREAM", 8001)]);
    assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET, 8001), HOST);
}

#[test]
fn net_in_forwards_from_everywhere() {
    let world = World::new(&[]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    echo_inside(&mut client, &handle, &[("STREAM", 9000)]);
    let ports = client.ask(net_in(&handle, None, Some(9000))).unwrap();
    let port = ports.host_port.unwrap();
    assert_eq!((port, ports.container_port), (61_000, Some(9000)));
    assert_eq!(from(world.internet(PYTHON), "STREAM", HOST, port), INTERNET);
    let gateway = host_ip(&mut client, &handle);
    let seen = all_from(world.host(PYTHON), &[("STREAM", "127.0.0.1", port), ("STREAM", HOST, port)]);
    assert_eq!(seen[0], gateway);
    assert_ne!(seen[1], "failed");

    // Another container gets there where net_out lets it.
    let other = client.create();
    assert_eq!(from_container(&mut client, &other, "STREAM", HOST, port), "failed");
    let target = container_ip(&mut client, &handle);
    client.ask(to(&other, &target)).unwrap();
    let seen = from_container(&mut client, &other, "STREAM", HOST, port);
    assert_eq!(seen, container_ip(&mut client, &other));

    let refused = client.ask(net_in(&other, Some(port), None)).unwrap_err();
    assert_eq!(refused, format!("port {port} of the host is already mapped (TCP)"));
    let next = client.ask(net_in(&other, None, None)).unwrap();
    assert_eq!((next.host_port, next.container_port), (Some(61_001), Some(61_001)));
    client.destroy(&handle);
    assert_eq!(from(world.internet(PYTHON), "STREAM", HOST, port), "failed");
    client.ask(net_in(&other, Some(port), Some(1))).unwrap();
}

#[test]
fn containers_reach_neither_each_other_nor_the_host_but_the_host_reaches_them() {
    let world = World::new(&[]);
    let mut client = world.daemon.connect();
    let (one, two) = (client.create(), client.create());
    echo_inside(&mut client, &two, &[("STREAM", 9000)]);
    let (address, gateway) = (container_ip(&mut client, &two), host_ip(&mut client, &one));
    assert_eq!(from_container(&mut client, &one, "STREAM", &address, 9000), "failed");
    let seen = from(world.host(PYTHON), "STREAM", &address, 9000);
    assert_eq!(seen, host_ip(&mut client, &two));
    let _echo = Echo::start(world.host(PYTHON), &[("STREAM", 8001)]);
    let hosts = [HOST, &gateway, "127.0.0.1"].map(|host| ("STREAM", host, 8001));
    assert_eq!(all_from_container(&mut client, &one, &hosts), ["failed"; 3]);
    // From outside only what is forwarded is reached.
    run(world.internet("ip").args(["route", "add", "10.254.0.0/22", "via", HOST]));
    assert_eq!(from(world.internet(PYTHON), "STREAM", &address, 9000), "failed");
}

#[test]
fn the_host_is_open_where_that_is_configured_but_never_its_loopback() {
    let world = World::new(&[("network.allow_host_access", "true")]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    let _echo = Echo::start(world.host(PYTHON), &[("STREAM", 8001)]);
    let own = container_ip(&mut client, &handle);
    assert_eq!(from_container(&mut client, &handle, "STREAM", HOST, 8001), own);
    client.ask(net_in(&handle, None, None)).unwrap();
    let script = format!(
        "ip route add 127.0.0.2/32 via {} table 7 2>/dev/null; ip link set lo down; ip route add 127.0.0.1/32 via {}; true",
        host_ip(&mut client, &handle),
        host_ip(&mut client, &handle)
    );
    client
        .ask(RunRequest {
            handle: Some(handle.clone()),
            script: Some(script.into_bytes()),
            privileged: Some(true),
            ..RunRequest::default()
        })
        .unwrap();
    assert_eq!(from_container(&mut client, &handle, "STREAM", "127.0.0.1", 8001), "failed");
}

#[test]
fn a_source_that_is_not_the_containers_own_is_dropped() {
    // Root inside may change its interface: what is tried is what stands behind that.
    let world = World::new(&[("network.allow_networks", "[0.0.0.0/0]"), ALL_PRIVILEGES]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    let _echo = Echo::start(world.internet(PYTHON), &[("STREAM", 8001)]);
    assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET, 8001), HOST);
    let device = run(world.host("ip").args(["-o", "link"]));
    assert!(device.contains("w-"), "{device}");
    let script = format!(
        r#"set -e
device=$(ls /sys/class/net | grep ^w-)
ip addr add 10.254.3.77/32 dev $device
/usr/bin/python3 - <<'END'
import socket
s = socket.socket(); s.settimeout(1); s.bind(("10.254.3.77", 0))
try: s.connect(("{INTERNET}", 8001)); print("reached")
except OSError: print("failed")
END"#
    );
    let run = RunRequest {
        handle: Some(handle.clone()),
        script: Some(script.into_bytes()),
        privileged: Some(true),
        ..RunRequest::default()
    };
    let answer = client.ask(run).unwrap();
    let stderr = String::from_utf8_lossy(answer.stderr.as_deref().unwrap_or_default()).into_owned();
    assert_eq!(answer.stdout.as_deref(), Some(&b"failed\n"[..]), "{stderr}");
}

#[test]
fn who_connects_to_what_is_not_open_hears_that_it_is_refused() {
    let world = World::new(&[]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    let script = format!(
        r#"/usr/bin/python3 - <<'END'
import errno, socket
for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
    s = socket.socket(socket.AF_INET, kind); s.settimeout(20)
    try: s.connect(("{INTERNET}", 8001)); s.send(b"x"); s.recv(1); print("reached")
    except OSError as error: print(errno.errorcode[error.errno])
END"#
    );
    assert_eq!(client.text(&handle, &script), "ECONNREFUSED\nECONNREFUSED\n");
    let _echo = Echo::start(world.internet(PYTHON), &[("STREAM", 8001)]);
    let open_ended = |range: &str| NetOutRequest { port_range: Some(range.into()), ..to(&handle, INTERNET) };
    client.ask(open_ended(":8000")).unwrap();
    client.ask(open_ended("8002:")).unwrap();
    assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET, 8001), "failed");
    client.ask(open_ended("0:65535")).unwrap();
    assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET, 8001), HOST);
}

#[test]
fn wrong_values_are_named_and_change_nothing() {
    let world = World::new(&[NOTHING_AHEAD]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    let before = world.nft();
    let range = |text: &str| NetOutRequest { port_range: Some(text.into()), ..net_out(&handle) };
    let of = |protocol, request: NetOutRequest| NetOutRequest { protocol: Some(protocol), ..request };
    let icmp =
        |kind, code| NetOutRequest { icmp_type: kind, icmp_code: code, ..of(2, to(&handle, "1.2.3.4")) };
    for (request, part) in [
        (net_out(&handle), "Please specify network, port, and/or port_range."),
        (of(3, net_out(&handle)), "Please specify network, port, and/or port_range."),
        (to(&handle, ""), "invalid network \"\""),
        (to(&handle, "1.2.3.4/33"), "invalid network \"1.2.3.4/33\""),
        (to(&handle, "1.2.3.4-1.2.3.3"), "invalid network \"1.2.3.4-1.2.3.3\""),
        (to(&handle, "example.com"), "invalid network \"example.com\""),
        (to(&handle, "::/129"), "invalid network \"::/129\""),
        (to(&handle, "2001:db8::1"), "invalid network \"2001:db8::1\": expected IPv4"),
        (NetOutRequest { port: Some(0), ..net_out(&handle) }, "invalid port \"0\""),
        (NetOutRequest { port: Some(70_000), ..net_out(&handle) }, "invalid port \"70000\""),
        (NetOutRequest { port: Some(u32::MAX), ..net_out(&handle) }, "invalid port \"4294967295\""),
        (range("90:80"), "Port range maximum must be greater than minimum"),
        (range("80:80"), "Port range maximum must be greater than minimum"),
        (range("80:x"), "invalid port_range \"80:x\""),
        (range("80:65536"), "invalid port_range \"80:65536\""),
        (range("-1:80"), "invalid port_range \"-1:80\""),
        (range("99999999999999999999:3"), "invalid port_range \"99999999999999999999:3\""),
        (of(7, to(&handle, "1.2.3.4")), "invalid protocol \"7\""),
        (of(-1, to(&handle, "1.2.3.4")), "invalid protocol \"-1\""),
        (
            of(3, NetOutRequest { port: Some(80), ..net_out(&handle) }),
            "port 80 means nothing to the protocol ALL",
        ),
        (
            of(2, NetOutRequest { port: Some(80), ..net_out(&handle) }),
            "port 80 means nothing to the protocol ICMP",
        ),
        (icmp(Some(256), None), "invalid icmp_type \"256\""),
        (icmp(Some(-2), None), "invalid icmp_type \"-2\""),
        (icmp(Some(8), Some(i32::MAX)), "invalid icmp_code \"2147483647\""),
    ] {
        let refused = client.ask(request).unwrap_err();
        assert!(refused.contains(part), "{part}: {refused}");
    }
    for port in [0, 65_536, 70_000, u32::MAX] {
        let refused = client.ask(net_in(&handle, Some(port), None)).unwrap_err();
        assert!(refused.starts_with(&format!("invalid host_port \"{port}\"")), "{refused}");
        let refused = client.ask(net_in(&handle, None, Some(port))).unwrap_err();
        assert!(refused.starts_with(&format!("invalid container_port \"{port}\"")), "{refused}");
    }
    for protocol in [2, 3, 9, -1, i32::MIN] {
        let request = NetInRequest { protocol: Some(protocol), ..net_in(&handle, Some(7000), None) };
        let refused = client.ask(request).unwrap_err();
        assert!(refused.starts_with(&format!("invalid protocol \"{protocol}\"")), "{refused}");
    }
    assert_eq!(world.nft(), before);
}

#[test]
fn destroy_leaves_no_link_no_rule_and_no_element() {
    let world = World::new(&[NOTHING_AHEAD]);
    let mut client = world.daemon.connect();
    // The first rule brings the chains of the neighbours' addresses.
    let first = client.create();
    client.ask(to(&first, "1.2.3.4")).unwrap();
    let links = world.links();
    client.destroy(&first);
    eventually("its interface is gone", 5, || world.links().len() < links.len());
    let (links, table) = (world.links(), world.nft());
    for _ in 0..3 {
        let handle = client.create();
        client.ask(to(&handle, "1.2.3.4")).unwrap();
        client.ask(net_in(&handle, None, None)).unwrap();
        assert_ne!(parts(&world.nft()), parts(&table));
        client.destroy(&handle);
        assert_eq!(parts(&world.nft()), parts(&table));
    }
    eventually("their interfaces are gone", 5, || world.links() == links);
}

#[test]
fn rules_of_other_programs_stay_and_ours_go_with_the_daemon() {
    let mut world = World::new(&[]);
    let keeper = world.keep();
    run(keeper.host("nft").args(["add", "table", "inet", "other"]));
    run(keeper.host("nft").args(["add", "chain", "inet", "other", "mine"]));
    let mut client = world.daemon.connect();
    let handle = client.create();
    assert!(world.nft().contains("table inet warden"));
    client.destroy(&handle);
    drop(client);
    world.daemon.signal(rustix::process::Signal::TERM);
    world.daemon.wait();
    let left = run(keeper.host("nft").args(["list", "ruleset"]));
    assert_eq!(left.trim(), "table inet other {\n\tchain mine {\n\t}\n}");
}
