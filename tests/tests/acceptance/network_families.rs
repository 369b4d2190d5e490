//! TCP, UDP and ICMP over IPv4 and IPv6, in both directions, by real sockets through the real kernel.

use warden_protocol::messages::net_out_request::Protocol;
use warden_protocol::messages::*;
use warden_tests::world::{
    Echo, HOST, INTERNET, Kept, POOL_V6, PYTHON, Question, World, all_from, all_from_container, echo_inside,
    from, ping_from, ping_from_container, python_as_root, run,
};
use warden_tests::{ALL_PRIVILEGES, Connection, eventually};

const KINDS: [(&str, Protocol); 2] = [("STREAM", Protocol::Tcp), ("DGRAM", Protocol::Udp)];

fn out(handle: &[u8], network: &str, protocol: Protocol) -> NetOutRequest {
    NetOutRequest {
        handle: Some(handle.to_vec()),
        network: Some(network.into()),
        protocol: Some(protocol as i32),
        ..NetOutRequest::default()
    }
}

fn map(client: &mut Connection, handle: &[u8], protocol: Protocol, port: Option<u32>, inside: u32) -> u32 {
    let request = NetInRequest {
        handle: Some(handle.to_vec()),
        host_port: port,
        container_port: Some(inside),
        protocol: Some(protocol as i32),
    };
    client.must(request).host_port.unwrap()
}

/// The container's addresses and the host's ends, IPv4 first.
fn addresses(client: &mut Connection, handle: &[u8]) -> ([String; 2], [String; 2]) {
    let info = client.info(handle);
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap()).unwrap();
    ([text(info.container_ip), text(info.container_ipv6)], [text(info.host_ip), text(info.host_ipv6)])
}

/// Questions in both protocols to an address of each family: those of IPv4 first.
fn everywhere(addresses: [&str; 2], port: u32) -> Vec<Question<'_>> {
    addresses.into_iter().flat_map(|address| KINDS.map(|(kind, _)| (kind, address, port))).collect()
}

/// What is seen where both protocols see the same.
fn twice(seen: [&str; 2]) -> [&str; 4] {
    [seen[0], seen[0], seen[1], seen[1]]
}

/// The network of one address, as wide as a test wants it.
fn around(address: &str) -> String {
    if address.contains(':') { format!("{address}/120") } else { format!("{address}/24") }
}

#[test]
fn net_out_opens_one_protocol_of_one_family_at_a_time() {
    let world = World::new(&[POOL_V6]);
    let mut client = world.daemon.connect();
    let _echoes = Echo::start(world.internet(PYTHON), &KINDS.map(|(kind, _)| (kind, 8001)));
    let handle = client.create();
    let mut open = Vec::new();
    let check = |client: &mut Connection, open: &[(usize, Protocol)]| {
        let seen = all_from_container(client, &handle, &everywhere(INTERNET, 8001));
        let places = [0, 1].into_iter().flat_map(|family| KINDS.map(|(_, protocol)| (family, protocol)));
        let expected = |(family, protocol)| {
            if open.contains(&(family, protocol)) { HOST[family] } else { "failed" }
        };
        assert_eq!(seen, places.map(expected).collect::<Vec<_>>(), "open: {open:?}");
    };
    check(&mut client, &open);
    for (family, address) in INTERNET.iter().enumerate() {
        for (_, protocol) in KINDS {
            client.must(NetOutRequest { port: Some(8001), ..out(&handle, &around(address), protocol) });
            open.push((family, protocol));
        }
        check(&mut client, &open);
    }
}

#[test]
fn icmp_is_opened_by_type_and_all_opens_everything() {
    let world = World::new(&[POOL_V6]);
    let mut client = world.daemon.connect();
    let _echo = Echo::start(world.internet(PYTHON), &[("DGRAM", 8001)]);
    let echoes = [8, 128];
    let pings = [(INTERNET[0], echoes[0]), (INTERNET[1], echoes[1])];
    let names = INTERNET.map(|address| ("DGRAM", address, 8001));
    let handle = client.create();
    let mut open = |kinds: [u8; 2], code: Option<i32>| {
        for (address, kind) in INTERNET.into_iter().zip(kinds) {
            let (icmp_type, icmp_code) = (Some(kind.into()), code);
            client.must(NetOutRequest { icmp_type, icmp_code, ..out(&handle, address, Protocol::Icmp) });
        }
        ping_from_container(&mut client, &handle, &pings)
    };
    assert_eq!(open([13, 13], None), ["failed"; 2], "another type");
    assert_eq!(open(echoes, Some(1)), ["failed"; 2], "another code");
    assert_eq!(open(echoes, Some(0)), ["0", "129"]);
    assert_eq!(all_from_container(&mut client, &handle, &names), ["failed"; 2]);

    let other = client.create();
    assert_eq!(ping_from_container(&mut client, &other, &pings), ["failed"; 2], "nothing was opened here");
    // One family does not open the other.
    client.must(out(&other, &around(INTERNET[0]), Protocol::All));
    assert_eq!(ping_from_container(&mut client, &other, &pings), ["0", "failed"]);
    client.must(out(&other, &around(INTERNET[1]), Protocol::All));
    assert_eq!(ping_from_container(&mut client, &other, &pings), ["0", "129"]);
    assert_eq!(all_from_container(&mut client, &other, &names), HOST);
    // Without a network a port is open in both families.
    let handle = client.create();
    let anywhere = NetOutRequest { network: None, port: Some(8001), ..out(&handle, "", Protocol::Udp) };
    client.must(anywhere);
    assert_eq!(all_from_container(&mut client, &handle, &names), HOST);
}

#[test]
fn net_in_is_reached_from_everywhere_in_both_protocols_and_families() {
    let world = World::new(&[POOL_V6]);
    let mut client = world.daemon.connect();
    let (handle, other) = (client.create(), client.create());
    let (own, gateways) = addresses(&mut client, &handle);
    let (others, _) = addresses(&mut client, &other);
    let tcp = map(&mut client, &handle, Protocol::Tcp, None, 9000);
    let udp = map(&mut client, &handle, Protocol::Udp, Some(tcp), 9000);
    assert_eq!(tcp, udp, "one number for both, when that is asked for");
    let refused = client
        .ask(NetInRequest {
            handle: Some(other.clone()),
            host_port: Some(udp),
            container_port: None,
            protocol: Some(Protocol::Udp as i32),
        })
        .unwrap_err();
    assert_eq!(refused, format!("port {udp} of the host is already mapped (UDP)"));
    echo_inside(&mut client, &handle, &KINDS.map(|(kind, _)| (kind, 9000)));
    let at_host = everywhere(HOST, tcp);
    assert_eq!(all_from(world.internet(PYTHON), &at_host), twice(INTERNET));
    let from_host = all_from(world.host(PYTHON), &at_host);
    assert!(from_host.iter().all(|seen| seen != "failed"), "{from_host:?}");
    // Another container gets there where net_out names the container, and meets it through the host's address.
    assert_eq!(all_from_container(&mut client, &other, &at_host), ["failed"; 4]);
    for (target, address) in [(&other, &own[0]), (&other, &own[1]), (&handle, &own[0]), (&handle, &own[1])] {
        for (_, protocol) in KINDS {
            client.must(out(target, address, protocol));
        }
    }
    let [own_v4, own_v6] = gateways.each_ref().map(String::as_str);
    let at_gateways = everywhere([own_v4, own_v6], tcp);
    let seen = all_from_container(&mut client, &other, &[&*at_host, &at_gateways].concat());
    let expected = twice(others.each_ref().map(String::as_str));
    assert_eq!(seen, [expected, expected].concat());
    // A container that is let to itself meets itself.
    assert_eq!(all_from_container(&mut client, &handle, &at_host), twice([own_v4, own_v6]), "from itself");
    // The kernel sends nothing from ::1 elsewhere.
    let at_loopback = all_from(world.host(PYTHON), &everywhere(["127.0.0.1", "::1"], tcp));
    assert_eq!(at_loopback, twice([own_v4, "failed"]));
    client.destroy(&handle);
    assert_eq!(all_from(world.internet(PYTHON), &at_host), ["failed"; 4], "destroyed");
}

#[test]
fn who_sends_to_a_udp_port_before_it_is_mapped_and_after_its_container_is_gone_meets_the_next() {
    let world = World::new(&[]);
    let mut client = world.daemon.connect();
    // One socket, so one connection to the kernel.
    let mut sender = world.internet(PYTHON);
    sender.args([
        "-c",
        &format!(
            r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1.5); s.bind(("0.0.0.0", 5555))
for line in sys.stdin:
    s.sendto(b"x", ("{}", 7000))
    try: print("answered by", s.recv(100).decode(), flush=True)
    except OSError: print("failed", flush=True)
"#,
            HOST[0]
        ),
    ]);
    sender.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut sender = Kept(sender.spawn().unwrap());
    let (mut to, from) = (sender.0.stdin.take().unwrap(), sender.0.stdout.take().unwrap());
    let mut answers = std::io::BufRead::lines(std::io::BufReader::new(from));
    let mut ask = || {
        std::io::Write::write_all(&mut to, b"x\n").unwrap();
        answers.next().unwrap().unwrap()
    };
    // Somebody on the host has the port, and the kernel remembers that.
    let there = Echo::start(world.host(PYTHON), &[("DGRAM", 7000)]);
    assert_eq!(ask(), format!("answered by {}", INTERNET[0]));
    for _ in 0..2 {
        let handle = client.create();
        echo_inside(&mut client, &handle, &[("DGRAM", 9000)]);
        map(&mut client, &handle, Protocol::Udp, Some(7000), 9000);
        let inside = run(world.host("cat").arg("/proc/net/nf_conntrack"));
        assert_eq!(ask(), format!("answered by {}", INTERNET[0]), "{inside}");
        let tracked = run(world.host("cat").arg("/proc/net/nf_conntrack"));
        assert!(
            tracked.lines().any(|line| line.contains("dport=7000") && line.contains("sport=9000")),
            "{tracked}"
        );
        client.destroy(&handle);
        eventually("the connection is forgotten", 30, || {
            !run(world.host("cat").arg("/proc/net/nf_conntrack")).contains("sport=9000")
        });
    }
    drop(there);
    assert_eq!(ask(), "failed");
}

/// An IPv6 address as the kernel's list of connections has it.
fn unabridged(address: &str) -> String {
    let segments = address.parse::<std::net::Ipv6Addr>().unwrap().segments();
    segments.map(|segment| format!("{segment:04x}")).join(":")
}

#[test]
fn the_next_owner_of_addresses_inherits_no_connection() {
    // Nothing rests between two owners.
    let world = World::new(&[POOL_V6, ("network.release_delay", "0")]);
    let mut client = world.daemon.connect();
    let request = CreateRequest { network: Some(b"10.254.0.4".to_vec()), ..CreateRequest::default() };
    let mut before: Option<[String; 2]> = None;
    for round in 0..3 {
        let handle = client.must(request.clone()).handle.unwrap();
        let (own, gateways) = addresses(&mut client, &handle);
        assert_eq!(*before.get_or_insert(own.clone()), own, "the same addresses, at once");
        let tracked = || run(world.host("cat").arg("/proc/net/nf_conntrack"));
        let known = [own[0].clone(), unabridged(&own[1])];
        let list = tracked();
        assert!(known.iter().all(|address| !list.contains(&format!("={address} "))), "{round}: {list}");
        echo_inside(&mut client, &handle, &KINDS.map(|(kind, _)| (kind, 9000)));
        let there = everywhere(own.each_ref().map(String::as_str), 9000);
        assert_eq!(all_from(world.host(PYTHON), &there), twice(gateways.each_ref().map(String::as_str)));
        let list = tracked();
        assert!(known.iter().all(|address| list.contains(&format!("={address} "))), "{list}");
        client.destroy(&handle);
    }
}

#[test]
fn containers_are_closed_to_each_other_the_host_and_the_world_in_ipv6_too() {
    let world = World::new(&[POOL_V6]);
    let mut client = world.daemon.connect();
    let (one, two) = (client.create(), client.create());
    let (own, gateways) = addresses(&mut client, &two);
    let own_both = own.each_ref().map(String::as_str);
    let gateways_both = gateways.each_ref().map(String::as_str);
    echo_inside(&mut client, &two, &KINDS.map(|(kind, _)| (kind, 9000)));
    let _host = Echo::start(world.host(PYTHON), &KINDS.map(|(kind, _)| (kind, 8001)));
    let there = everywhere(own_both, 9000);
    assert_eq!(all_from(world.host(PYTHON), &there), twice(gateways_both), "the host gets in");
    let closed = [&*there, &everywhere(HOST, 8001), &everywhere(gateways_both, 8001)].concat();
    assert_eq!(all_from_container(&mut client, &one, &closed), ["failed"; 12], "{closed:?}");
    run(world.internet("ip").args(["route", "add", "fd00:77::/64", "via", HOST[1]]));
    run(world.internet("ip").args(["route", "add", "10.254.0.0/22", "via", HOST[0]]));
    let pings = [(own_both[0], 8), (own_both[1], 128)];
    assert_eq!(ping_from(world.host(PYTHON), &pings), ["0", "129"]);
    assert_eq!(ping_from(world.internet(PYTHON), &pings), ["failed"; 2]);
    assert_eq!(all_from(world.internet(PYTHON), &there), ["failed"; 4], "nobody from outside");
    let hosts = client.text(&two, "cat /etc/hosts; hostname");
    assert!(hosts.contains(&format!("\n{} ", own[1])) && hosts.contains("\n::1 localhost\n"), "{hosts}");
}

#[test]
fn link_local_addresses_are_closed_both_ways_with_and_without_ipv6() {
    for settings in [vec![], vec![POOL_V6]] {
        // Root inside may change its interface: what is tried is what stands behind that.
        let more = vec![("network.allow_host_access", "true"), ALL_PRIVILEGES];
        let world = World::new(&[settings, more].concat());
        let mut client = world.daemon.connect();
        let handle = client.create();
        let device = run(world
            .host("sh")
            .args(["-c", "ls /sys/class/net | grep ^w- || ip -o link | grep -o 'w-[^@:]*'"]));
        let device = device.lines().find(|line| line.starts_with("w-")).unwrap().to_owned();
        assert!(!run(world.host("ip").args(["-6", "addr", "show", "dev", &device])).contains("fe80"));
        // Both ends give themselves an address by hand.
        run(world.host("ip").args(["addr", "add", "fe80::1/64", "dev", &device, "nodad"]));
        let _host = Echo::start(world.host(PYTHON), &[("STREAM", 8001)]);
        let inside = r#"
import subprocess, socket, os
device = [name for name in os.listdir("/proc/sys/net/ipv6/conf") if name.startswith("w-")][0]
subprocess.run(["ip", "addr", "add", "fe80::2/64", "dev", device, "nodad"], check=True)
subprocess.run(["ip", "neigh", "replace", "fe80::1", "lladdr", open("/proc/net/arp").readlines()[1].split()[3], "dev", device], check=True)
s = socket.socket(socket.AF_INET6); s.settimeout(1.5)
try: s.connect(("fe80::1", 8001, 0, socket.if_nametoindex(device))); print("reached")
except OSError: print("failed")
"#;
        assert_eq!(python_as_root(&mut client, &handle, inside), "failed");
        echo_inside(&mut client, &handle, &[("STREAM", 9000)]);
        let mac = run(world.host("sh").args([
            "-c",
            &format!("ip neigh show dev {device} | grep -o 'lladdr [^ ]*' | head -1 | cut -d' ' -f2"),
        ]));
        run(world.host("ip").args(["neigh", "replace", "fe80::2", "lladdr", mac.trim(), "dev", &device]));
        assert_eq!(from(world.host(PYTHON), "STREAM", &format!("fe80::2%{device}"), 9000), "failed");
    }
}
