//! What must not get through whatever is tried, and what must go on whatever others do.

use warden_protocol::messages::*;
use warden_tests::world::{
    Echo, HOST, INTERNET, Kept, POOL_V6, PYTHON, World, all_from, all_from_container, echo_inside, from,
    from_container, parts, python_as_root, run,
};
use warden_tests::{ALL_PRIVILEGES, Connection, NOTHING_AHEAD, crowd, eventually};

fn text(bytes: Option<Vec<u8>>) -> String {
    String::from_utf8(bytes.unwrap()).unwrap()
}

fn map(client: &mut Connection, handle: &[u8], inside: u32) -> u32 {
    let request = NetInRequest {
        handle: Some(handle.to_vec()),
        container_port: Some(inside),
        ..NetInRequest::default()
    };
    client.must(request).host_port.unwrap()
}

/// Sends a hand-made UDP packet over Ethernet, from a source to 127.0.0.1.
fn to_loopback(device: &str, mac: &str, source: &str, port: u16) -> String {
    format!(
        r#"
import socket, struct
device, mac, source, port = "{device}", "{mac}", "{source}", {port}
body = b"attack"
udp = struct.pack("!HHHH", 4444, port, 8 + len(body), 0) + body
def ip(check): return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, check, socket.inet_aton(source), socket.inet_aton("127.0.0.1"))
words = sum(struct.unpack("!10H", ip(0)))
while words >> 16: words = (words & 0xffff) + (words >> 16)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((device, 0))
frame = bytes.fromhex(mac.replace(":", "")) + s.getsockname()[4] + b"\x08\x00" + ip(~words & 0xffff) + udp
for _ in range(3): s.send(frame)
print("sent")
"#
    )
}

#[test]
fn the_hosts_loopback_is_reached_neither_by_a_neighbour_nor_by_a_container() {
    // CVE-2020-8558: forwarded ports want loopback addresses routed, and then neighbours' packets to them come in.
    let world = World::new(&[("network.allow_host_access", "true")]);
    let mut client = world.daemon.connect();
    let handle = client.create();
    map(&mut client, &handle, 9000);
    let mut service = world.host(PYTHON);
    service.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).args([
        "-c",
        r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 8001)); print("ready", flush=True)
while True: print(s.recv(100).decode(), flush=True)
"#,
    ]);
    let mut service = Kept(service.spawn().unwrap());
    let out = service.0.stdout.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");

    let link = run(world.host("ip").args(["-o", "link", "show", "out0"]));
    let mac = link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let attack = to_loopback("net0", mac, INTERNET[0], 8001);
    assert_eq!(run(world.internet(PYTHON).args(["-c", &attack])), "sent\n");
    let own = text(client.info(&handle).container_ip);
    let gateway =
        python_as_root(&mut client, &handle, "print(open('/proc/net/arp').readlines()[1].split()[3])");
    let id = client.id(&handle);
    for source in [&*own, "127.0.0.1"] {
        let attack = to_loopback(&format!("w-{id}-1"), &gateway, source, 8001);
        assert_eq!(python_as_root(&mut client, &handle, &attack), "sent");
    }
    // The host itself gets there: and what came before would have been told before.
    run(world.host(PYTHON).args([
        "-c",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'own', ('127.0.0.1', 8001))",
    ]));
    assert_eq!(lines.next().unwrap().unwrap(), "own");

    // Without what holds each of them back, the same packets arrive: while the daemon sleeps, which would repair it.
    let daemon = world.daemon.pid();
    warden_tests::kernel::signal(daemon, rustix::process::Signal::STOP);
    let init = std::fs::read_to_string(world.daemon.depot(&id).join("run/wshd.pid")).unwrap();
    run(world.host("nft").args(["flush chain inet warden from-container"]));
    let attack = to_loopback(&format!("w-{id}-1"), &gateway, &own, 8001);
    let mut inside = std::process::Command::new("nsenter");
    inside.arg(format!("--net=/proc/{}/ns/net", init.trim())).args(["python3", "-c", &attack]);
    assert_eq!(run(&mut inside), "sent\n");
    assert_eq!(lines.next().unwrap().unwrap(), "attack", "it is the rule that drops a container's");
    run(world.host("sh").args(["-c", "echo 1 >/proc/sys/net/ipv4/conf/out0/route_localnet"]));
    run(world.host("python3").args(["-c", SAY_END]));
    while lines.next().unwrap().unwrap() != "end" {}
    let attack = to_loopback("net0", mac, INTERNET[0], 8001);
    assert_eq!(run(world.internet("python3").args(["-c", &attack])), "sent\n");
    assert_eq!(
        lines.next().unwrap().unwrap(),
        "attack",
        "it is that loopback is routed for containers alone"
    );
    warden_tests::kernel::signal(daemon, rustix::process::Signal::CONT);
}

const SAY_END: &str =
    "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'end', ('127.0.0.1', 8001))";

#[test]
fn a_source_of_ipv6_that_is_not_the_containers_own_is_dropped() {
    // Root inside may change its interface: what is tried is what stands behind that.
    let world = World::new(&[POOL_V6, ("network.allow_networks", "[\"::/0\", 0.0.0.0/0]"), ALL_PRIVILEGES]);
    let mut client = world.daemon.connect();
    let (handle, other) = (client.create(), client.create());
    let _echo = Echo::start(world.internet(PYTHON), &[("STREAM", 8001)]);
    assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET[1], 8001), HOST[1]);
    let others = text(client.info(&other).container_ipv6);
    let program = format!(
        r#"
import subprocess, socket, os
device = [name for name in os.listdir("/proc/sys/net/ipv6/conf") if name.startswith("w-")][0]
for address in ("{others}", "fd00:77::ffff", "2001:db8::77"):
    subprocess.run(["ip", "addr", "add", address + "/128", "dev", device, "nodad"], check=True)
    s = socket.socket(socket.AF_INET6); s.settimeout(1); s.bind((address, 0))
    try: s.connect(("{}", 8001)); print("reached")
    except OSError: print("failed")
"#,
        INTERNET[1]
    );
    assert_eq!(python_as_root(&mut client, &handle, &program), "failed\nfailed\nfailed");
}

#[test]
fn a_flush_by_another_program_is_repaired_and_other_tables_are_left_alone() {
    let world = World::new(&[NOTHING_AHEAD]);
    let mut client = world.daemon.connect();
    let _echo = Echo::start(world.internet(PYTHON), &[("STREAM", 8001)]);
    let handle = client.create();
    echo_inside(&mut client, &handle, &[("STREAM", 9000)]);
    let port = map(&mut client, &handle, 9000);
    client.must(NetOutRequest {
        handle: Some(handle.clone()),
        network: Some(INTERNET[0].into()),
        port: Some(8002),
        ..NetOutRequest::default()
    });
    let own = text(client.info(&handle).container_ip);
    run(world.host("nft").args(["add table inet other; add chain inet other mine { type filter hook forward priority 5; policy accept; }; add rule inet other mine counter"]));
    let table = |name: &str| run(world.host("nft").args(["-s", "list", "table", "inet", name]));
    let (ours, others) = (table("warden"), table("other"));
    for (done, damage) in
        ["delete table inet warden", "flush table inet warden", &format!("flush chain inet warden out-{own}")]
            .iter()
            .enumerate()
    {
        run(world.host("nft").arg(damage));
        eventually("the table is back", 10, || {
            let listed = world.host("nft").args(["-s", "list", "table", "inet", "warden"]).output().unwrap();
            parts(&String::from_utf8_lossy(&listed.stdout)) == parts(&ours)
        });
        assert_eq!(world.daemon.log().matches("it was repaired").count(), done + 1, "told once: {damage}");
        assert_eq!(from_container(&mut client, &handle, "STREAM", INTERNET[0], 8001), "failed", "{damage}");
        assert_eq!(from(world.internet(PYTHON), "STREAM", HOST[0], port), INTERNET[0], "{damage}");
    }
    client.destroy(&handle);
    assert_eq!(table("other"), others);
    run(world.host("nft").args(["flush", "ruleset"]));
    eventually("our table is back", 10, || {
        run(world.host("nft").args(["list", "tables"])) == "table inet warden\n"
    });
}

#[test]
fn a_crowd_of_containers_is_reached_each_at_its_port_and_reaches_nobody() {
    let world = World::new(&[POOL_V6, NOTHING_AHEAD]);
    let mut client = world.daemon.connect();
    let (mut handles, mut ports, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..crowd() {
        let handle = client.create();
        ports.push(map(&mut client, &handle, 9000));
        let info = client.info(&handle);
        addresses.extend([text(info.container_ip), text(info.container_ipv6)]);
        // Answers with its own address, so that it is seen who was reached.
        let serve = r#"exec perl -MSocket=:DEFAULT,inet_ntop -e '
            socket(S, AF_INET6, SOCK_STREAM, 0) && bind(S, pack_sockaddr_in6(9000, "\0" x 16)) && listen(S, 9) or die;
            while (accept(C, S)) { $own = inet_ntop(AF_INET6, (unpack_sockaddr_in6(getsockname(C)))[1]);
                $own =~ s/^::ffff://; syswrite(C, $own); close C }'"#;
        client.spawn(&handle, serve);
        handles.push(handle);
    }
    let at_the_host: Vec<_> =
        ports.iter().flat_map(|&port| HOST.map(|address| ("STREAM", address, port))).collect();
    let mut seen = Vec::new();
    eventually("all of them serve", 60, || {
        seen = all_from(world.internet(PYTHON), &at_the_host);
        !seen.iter().any(|address| address == "failed")
    });
    assert_eq!(seen, addresses);
    let last = handles.last().unwrap();
    let others: Vec<_> =
        addresses.iter().take(2 * crowd() - 2).map(|address| ("STREAM", address.as_str(), 9000)).collect();
    assert_eq!(all_from_container(&mut client, last, &others), vec!["failed"; 2 * crowd() - 2]);
    for handle in &handles {
        client.destroy(handle);
    }
    assert!(!world.nft().contains("\"w-"), "{}", world.nft());
}
