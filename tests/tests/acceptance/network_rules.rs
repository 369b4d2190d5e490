//! What goes into and out of a container, by real sockets through the real kernel.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use warden_protocol::messages::net_out_request::Protocol;
use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon};

/// A second network namespace beside the daemon's: "the internet", at 192.0.2.2.
struct World {
    name: String,
    daemon: Daemon,
}

const INTERNET: &str = "192.0.2.2";
const HOST: &str = "192.0.2.1";

impl World {
    fn new(settings: &[(&str, &str)]) -> Self {
        let daemon = Daemon::with(settings);
        let name = format!("warden-internet-{}", daemon.pid());
        let world = Self { name, daemon };
        run(Command::new("ip").args(["netns", "add", &world.name]));
        run(world.daemon.in_its_network("ip").args(["link", "add", "out0", "type", "veth"]).args([
            "peer",
            "name",
            "net0",
            "netns",
            &world.name,
        ]));
        run(world.daemon.in_its_network("ip").args(["addr", "add", "192.0.2.1/24", "dev", "out0"]));
        run(world.daemon.in_its_network("ip").args(["link", "set", "out0", "up"]));
        run(world.internet("ip").args(["addr", "add", "192.0.2.2/24", "dev", "net0"]));
        run(world.internet("ip").args(["link", "set", "net0", "up"]));
        run(world.internet("ip").args(["link", "set", "lo", "up"]));
        world
    }

    fn internet(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn nft(&self) -> String {
        run(self.daemon.in_its_network("nft").args(["list", "ruleset"]))
    }

    fn links(&self) -> String {
        run(self.daemon.in_its_network("ip").args(["-o", "link"]))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A process that echoes what comes at a port, until this is dropped.
struct Echo(std::process::Child);

impl Echo {
    fn start(mut command: Command, kind: &str, port: u16) -> Self {
        let script = format!(
            r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_{kind})
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", {port}))
if "{kind}" == "STREAM":
    s.listen()
    print("ready", flush=True)
    while True:
        c, peer = s.accept(); c.sendall(peer[0].encode()); c.close()
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(100); s.sendto(peer[0].encode(), peer)
"#
        );
        command.args(["-c", &script]).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks an echo; the answer is the address that it saw, or the name of the error.
fn asking(kind: &str, address: &str, port: u32) -> String {
    format!(
        r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_{kind}); s.settimeout(2)
try:
    s.connect(("{address}", {port})); s.send(b"x") if "{kind}" == "DGRAM" else None
    print(s.recv(100).decode())
except OSError as e: print("failed")
"#
    )
}

fn from_container(client: &mut Connection, handle: &[u8], kind: &str, address: &str, port: u32) -> String {
    let script = format!("/usr/bin/python3 - <<'END'\n{}\nEND\n", asking(kind, address, port));
    client.text(handle, &script).trim().to_owned()
}

fn from(mut command: Command, kind: &str, address: &str, port: u32) -> String {
    run(command.args(["-c", &asking(kind, address, port)])).trim().to_owned()
}

/// Runs an echo inside a container.
fn echo_inside(client: &mut Connection, handle: &[u8], port: u32) {
    let script = format!(
        r#"(exec /usr/bin/python3 - >/dev/null 2>&1 <<'END'
import socket
s = socket.socket(); s.bind(("0.0.0.0", {port})); s.listen()
open("/tmp/ready", "w").close()
while True:
    c, peer = s.accept(); c.sendall(peer[0].encode()); c.close()
END
)"#
    );
    let request = SpawnRequest {
        handle: Some(handle.to_vec()),
        script: Some(script.into_bytes()),
        ..SpawnRequest::default()
    };
    client.ask(request).unwrap();
    client.text(handle, "while [ ! -e /tmp/ready ]; do sleep 0.05; done");
}

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
    let _tcp = [8001, 8002, 8003].map(|port| Echo::start(world.internet("python3"), "STREAM", port));
    let _udp = Echo::start(world.internet("python3"), "DGRAM", 8001);
    assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET, 8001), "failed");
    assert_eq!(from_container(&mut client, &handle, "DGRAM", INTERNET, 8001), "failed");

    client.ask(NetOutRequest { port: Some(8001), ..to(&handle, INTERNET) }).unwrap();
    assert_eq!(
        from_container(&mut client, &handle, "STREAM", INTERNET, 8001),
        HOST,
        "hidden behind the host"
    );
    assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET, 8002), "failed");
    assert_eq!(from_container(&mut client, &handle, "DGRAM", INTERNET, 8001), "failed");

    let range = Some(b"8002:8003".to_vec());
    client.ask(NetOutRequest { port_range: range, ..to(&handle, "192.0.2.0-192.0.2.9") }).unwrap();
    assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET, 8003), HOST);
    let udp = Some(Protocol::Udp as i32);
    client.ask(NetOutRequest { protocol: udp, ..to(&handle, "192.0.2.0/24") }).unwrap();
    assert_eq!(from_container(&mut client, &handle, "DGRAM", INTERNET, 8001), HOST);

    let all = Some(Protocol::All as i32);
    let other = client.create();
    assert_eq!(from_container(&mut client, &other, "STREAM", INTERNET, 8001), "failed", "another's rules");
    client.ask(NetOutRequest { protocol: all, log: Some(true), ..to(&other, "0.0.0.0/0") }).unwrap();
    assert_eq!(from_container(&mut client, &other, "STREAM", INTERNET, 8002), HOST);
    assert!(world.nft().contains("log prefix \"warden-i-"));
}

#[test]
fn configured_networks_are_open_to_all() {
    let world = World::new(&[("network.allow_networks", "[192.0.2.2]")]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    let _echo = Echo::start(world.internet("python3"), "STREAM", 8001);
    assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET, 8001), HOST);
}

#[test]
fn net_in_forwards_from_everywhere() {
    let world = World::new(&[]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    echo_inside(&mut client, &handle, 9000);
    let ports = client.ask(net_in(&handle, None, Some(9000))).unwrap();
    let port = ports.host_port.unwrap();
    assert_eq!((port, ports.container_port), (61_000, Some(9000)));
    assert_eq!(from(world.internet("python3"), "STREAM", HOST, port), INTERNET);
    let gateway = host_ip(&mut client, &handle);
    assert_eq!(from(world.daemon.in_its_network("python3"), "STREAM", "127.0.0.1", port), gateway);
    assert_ne!(from(world.daemon.in_its_network("python3"), "STREAM", HOST, port), "failed");

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
    assert_eq!(from(world.internet("python3"), "STREAM", HOST, port), "failed");
    client.ask(net_in(&other, Some(port), Some(1))).unwrap();
}

#[test]
fn containers_reach_neither_each_other_nor_the_host_but_the_host_reaches_them() {
    let world = World::new(&[]);
    let mut client = world.daemon.connect();
    let (one, two) = (client.create(), client.create());
    echo_inside(&mut client, &two, 9000);
    let (address, gateway) = (container_ip(&mut client, &two), host_ip(&mut client, &one));
    assert_eq!(from_container(&mut client, &one, "STREAM", &address, 9000), "failed");
    let seen = from(world.daemon.in_its_network("python3"), "STREAM", &address, 9000);
    assert_eq!(seen, host_ip(&mut client, &two));
    let _echo = Echo::start(world.daemon.in_its_network("python3"), "STREAM", 8001);
    for host in [HOST, &gateway, "127.0.0.1"] {
        assert_eq!(from_container(&mut client, &one, "STREAM", host, 8001), "failed", "{host}");
    }
    // From outside only what is forwarded is reached.
    run(world.internet("ip").args(["route", "add", "10.254.0.0/22", "via", HOST]));
    assert_eq!(from(world.internet("python3"), "STREAM", &address, 9000), "failed");
}

#[test]
fn the_host_is_open_where_that_is_configured_but_never_its_loopback() {
    let world = World::new(&[("network.allow_host_access", "true")]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    let _echo = Echo::start(world.daemon.in_its_network("python3"), "STREAM", 8001);
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
    let world = World::new(&[("network.allow_networks", "[0.0.0.0/0]")]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    let _echo = Echo::start(world.internet("python3"), "STREAM", 8001);
    assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET, 8001), HOST);
    let device = run(world.daemon.in_its_network("ip").args(["-o", "link"]));
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
fn wrong_values_are_named_and_change_nothing() {
    let world = World::new(&[]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    let before = world.nft();
    for (request, part) in [
        (net_out(&handle), "Please specify network, port, and/or port_range."),
        (to(&handle, "1.2.3.4/33"), "\"1.2.3.4/33\""),
        (NetOutRequest { port: Some(70_000), ..net_out(&handle) }, "\"70000\""),
        (
            NetOutRequest { port_range: Some(b"90:80".to_vec()), ..net_out(&handle) },
            "Port range maximum must be greater than minimum",
        ),
    ] {
        let refused = client.ask(request).unwrap_err();
        assert!(refused.contains(part), "{refused}");
    }
    for port in [0, 70_000] {
        assert!(client.ask(net_in(&handle, Some(port), None)).unwrap_err().contains(&port.to_string()));
        assert!(client.ask(net_in(&handle, None, Some(port))).unwrap_err().contains(&port.to_string()));
    }
    assert_eq!(world.nft(), before);
}

#[test]
fn destroy_leaves_no_link_no_rule_and_no_element() {
    let world = World::new(&[]);
    let mut client = world.daemon.connect();
    let (links, table) = (world.links(), world.nft());
    for _ in 0..3 {
        let handle = client.create();
        client.ask(to(&handle, "1.2.3.4")).unwrap();
        client.ask(net_in(&handle, None, None)).unwrap();
        assert_ne!(world.nft(), table);
        client.destroy(&handle);
        assert_eq!(world.nft(), table);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while world.links() != links {
        assert!(Instant::now() < deadline, "{}", world.links());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn rules_of_other_programs_stay_and_ours_go_with_the_daemon() {
    let mut world = World::new(&[]);
    // The daemon's network namespace lives on with this process in it.
    let mut keeper = world.daemon.in_its_network("sleep").arg("100").spawn().unwrap();
    thread::sleep(Duration::from_millis(100));
    let inside = |program: &str| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", keeper.id())).arg(program);
        command
    };
    run(inside("nft").args(["add", "table", "inet", "other"]));
    run(inside("nft").args(["add", "chain", "inet", "other", "mine"]));
    let mut client = world.daemon.connect();
    let handle = client.create();
    assert!(world.nft().contains("table inet warden"));
    client.destroy(&handle);
    drop(client);
    world.daemon.signal(rustix::process::Signal::TERM);
    world.daemon.wait();
    let left = run(inside("nft").args(["list", "ruleset"]));
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    assert_eq!(left.trim(), "table inet other {\n\tchain mine {\n\t}\n}");
}
