//! Names inside, where the host's only name server is on its loopback.

use std::process::{Command, Stdio};

use warden_protocol::messages::*;
use warden_tests::world::{Kept, PYTHON, World, run};
use warden_tests::{Connection, Daemon, NOTHING_AHEAD, eventually};

/// A name server on the host that answers every question with one address, in both protocols.
struct Server {
    _serving: Kept,
}

impl Server {
    fn start(mut python: Command, address: &str, answer: [u8; 4]) -> Self {
        let script = format!(
            r#"
import socket, struct, threading
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("{address}", 53))
t = socket.socket(); t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); t.bind(("{address}", 53)); t.listen(20)
def answer(q):
    end = q.index(0, 12) + 5
    record = struct.pack("!HHHIH", 0xc00c, 1, 1, 60, 4) + bytes({answer:?})
    wanted = q[end - 4:end - 2] == b"\0\1"
    return q[:2] + b"\x81\x80" + struct.pack("!HHHH", 1, int(wanted), 0, 0) + q[12:end] + (record if wanted else b"")
def serve():
    while True:
        c, _ = t.accept(); q = c.recv(2000)[2:]; a = answer(q); c.sendall(struct.pack("!H", len(a)) + a); c.close()
threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
while True:
    q, peer = u.recvfrom(2000)
    u.sendto(answer(q), peer)
"#
        );
        let mut child = python.args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Self { _serving: Kept(child) }
    }
}

/// Asks the first server of the inside's resolv.conf; the answer's address, or "failed N" with its code, or "none".
fn ask(client: &mut Connection, handle: &[u8], kind: &str) -> String {
    let script = format!(
        r#"{PYTHON} - <<'END'
import socket, struct
server = [l.split()[1] for l in open("/etc/resolv.conf") if l.startswith("nameserver")][0]
q = b"\xab\xcd\1\0\0\1\0\0\0\0\0\0\4some\4name\0\0\1\0\1"
s = socket.socket(socket.AF_INET, socket.SOCK_{kind}); s.settimeout(10)
try:
    s.connect((server, 53))
    if "{kind}" == "STREAM": s.sendall(struct.pack("!H", len(q)) + q); a = s.recv(2000)[2:]
    else: s.send(q); a = s.recv(2000)
    print(socket.inet_ntoa(a[-4:]) if a[3] & 15 == 0 else f"failed {{a[3] & 15}}")
except OSError: print("none")
END
"#
    );
    client.text(handle, script).trim().to_owned()
}

const RESOLVED: &str = "nameserver 127.0.0.53\noptions edns0\nsearch example.test\n";

#[test]
fn names_are_found_through_a_resolver_on_the_hosts_loopback() {
    let world = World::around(Daemon::with_resolv_conf(&[], RESOLVED));
    let mut client = world.daemon.connect();
    let _server = Server::start(world.host(PYTHON), "127.0.0.53", [192, 0, 2, 77]);
    // Another server has port 53 of all other addresses.
    let _other = Server::start(world.host(PYTHON), "192.0.2.1", [192, 0, 2, 66]);
    let handles = [client.create(), client.create()];
    for handle in &handles {
        let info = client.info(handle);
        let host = String::from_utf8(info.host_ip.unwrap()).unwrap();
        let seen = client.text(handle, "cat /etc/resolv.conf");
        assert_eq!(seen, format!("nameserver {host}\noptions edns0\nsearch example.test\n"));
        assert_eq!(ask(&mut client, handle, "DGRAM"), "192.0.2.77");
        assert_eq!(ask(&mut client, handle, "STREAM"), "192.0.2.77");
        let found = client.text(handle, "getent ahostsv4 some.name | head -n 1");
        assert!(found.starts_with("192.0.2.77 "), "{found}");
    }

    // What others do to all rules does not end it for long.
    run(world.host("nft").args(["flush", "ruleset"]));
    eventually("the rules are back", 10, || {
        world.nft().contains("udp dport") && world.nft().contains("\"w-")
    });
    assert_eq!(ask(&mut client, &handles[1], "DGRAM"), "192.0.2.77");

    // The host's file changes, and then there is no server at all.
    world.daemon.set_resolv_conf("nameserver 192.0.2.1\n");
    assert_eq!(ask(&mut client, &handles[0], "DGRAM"), "192.0.2.66");
    world.daemon.set_resolv_conf("nameserver 127.0.0.9\n");
    assert_eq!(ask(&mut client, &handles[0], "DGRAM"), "failed 2", "a failure is told, not waited for");
}

#[test]
fn the_way_to_names_is_the_only_one_and_nobody_outside_finds_it() {
    let world = World::around(Daemon::with_resolv_conf(&[NOTHING_AHEAD], RESOLVED));
    let mut client = world.daemon.connect();
    let _server = Server::start(world.host(PYTHON), "127.0.0.53", [192, 0, 2, 77]);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", world.daemon.pid())).unwrap().count();
    let one = client.create();
    assert_eq!(ask(&mut client, &one, "DGRAM"), "192.0.2.77");
    let log = world.daemon.log();
    let line = log.lines().find(|line| line.contains("names are forwarded")).unwrap();
    let port = line.split("port").nth(1).unwrap();
    let port: String =
        port.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();

    let info = client.info(&one);
    let gateway = String::from_utf8(info.host_ip.unwrap()).unwrap();
    // All at once; what is reached is told.
    let reaching = |places: &[(&str, &str)]| {
        let places: String =
            places.iter().map(|(address, port)| format!("(\"{address}\", {port}), ")).collect();
        format!(
            r#"
import socket, threading
q = b"\xab\xcd\1\0\0\1\0\0\0\0\0\0\4some\4name\0\0\1\0\1"
def reach(kind, place):
    s = socket.socket(socket.AF_INET, kind); s.settimeout(1.5)
    try: s.connect(place); s.send(q); s.recv(1); print("reached", kind.name, *place)
    except OSError: pass
tries = [threading.Thread(target=reach, args=(kind, place)) for place in ({places}) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
for t in tries: t.start()
for t in tries: t.join()
print("tried", len(tries))
"#
        )
    };
    let inside = [(&*gateway, &*port), ("127.0.0.1", &port), ("192.0.2.1", "53"), (&gateway, "54")];
    let seen = client.text(&one, format!("{PYTHON} - <<'END'{}END\n", reaching(&inside)));
    assert_eq!(seen, "tried 8\n", "{inside:?}");
    // From outside neither the port itself nor a gateway's port 53 is reached.
    run(world.internet("ip").args(["route", "add", "10.254.0.0/22", "via", "192.0.2.1"]));
    let outside = [("192.0.2.1", &*port), ("192.0.2.1", "53"), (&gateway, "53"), (&gateway, &port)];
    let seen = run(world.internet(PYTHON).args(["-c", &reaching(&outside)]));
    assert_eq!(seen, "tried 8\n", "{outside:?}");
    let before = descriptors();
    let others: Vec<_> = (0..3).map(|_| client.create()).collect();
    for other in &others {
        assert_eq!(ask(&mut client, other, "DGRAM"), "192.0.2.77");
    }
    for handle in others.iter().chain([&one]) {
        client.destroy(handle);
    }
    eventually("no descriptor is kept of a container", 30, || descriptors() <= before);
}

#[test]
fn the_switch_closes_it_and_configured_servers_need_none() {
    let world = World::around(Daemon::with_resolv_conf(&[("network.dns_forwarder", "false")], RESOLVED));
    let mut client = world.daemon.connect();
    let _server = Server::start(world.host(PYTHON), "127.0.0.53", [192, 0, 2, 77]);
    let handle = client.create();
    assert_eq!(client.text(&handle, "cat /etc/resolv.conf"), RESOLVED, "as the host's");
    let gateway = String::from_utf8(client.info(&handle).host_ip.unwrap()).unwrap();
    client.run_with(RunRequest {
        handle: Some(handle.clone()),
        script: Some(format!("echo nameserver {gateway} > /etc/resolv.conf").into_bytes()),
        privileged: Some(true),
        ..RunRequest::default()
    });
    assert_eq!(ask(&mut client, &handle, "DGRAM"), "none");
    assert_eq!(ask(&mut client, &handle, "STREAM"), "none");
    assert!(!world.nft().contains("-dns"));

    let world = World::around(Daemon::with_resolv_conf(&[("network.dns_servers", "[192.0.2.9]")], RESOLVED));
    let mut client = world.daemon.connect();
    let handle = client.create();
    assert_eq!(client.text(&handle, "cat /etc/resolv.conf"), "nameserver 192.0.2.9\n");
    assert!(!world.nft().contains("-dns"));
}

#[test]
fn the_way_to_names_goes_with_the_daemon() {
    let mut world = World::around(Daemon::with_resolv_conf(&[], RESOLVED));
    let mut client = world.daemon.connect();
    let _server = Server::start(world.host(PYTHON), "127.0.0.53", [192, 0, 2, 77]);
    let handle = client.create();
    assert!(world.nft().contains("table inet warden-dns"), "{}", world.nft());
    let keeper = world.keep();
    world.daemon.signal(rustix::process::Signal::KILL);
    world.daemon.wait();
    let listed = run(keeper.host("nft").args(["list", "ruleset"]));
    assert!(listed.contains("table inet warden {") && !listed.contains("warden-dns"), "{listed}");
    drop(keeper);
    // The next daemon finds the container, and serves it again.
    world.daemon.restart();
    let mut client = world.daemon.connect();
    assert_eq!(ask(&mut client, &handle, "DGRAM"), "192.0.2.77");
}
