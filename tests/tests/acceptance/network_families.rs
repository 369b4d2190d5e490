//! TCP, UDP and ICMP over IPv4 and IPv6, in both directions, by real sockets through the real kernel.

use warden_protocol::messages::net_out_request::Protocol;
use warden_protocol::messages::*;
use warden_tests::world::{
    Echo, HOST, INTERNET, Kept, POOL_V6, PYTHON, World, echo_inside, from, from_container, pinging,
    python_as_root, run,
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

/// The network of one address, as wide as a test wants it.
fn around(address: &str) -> String {
    if address.contains(':') { format!("{address}/120") } else { format!("{address}/24") }
}

#[test]
fn net_out_opens_one_protocol_of_one_family_at_a_time() {
    let world = World::new(&[POOL_V6]);
    let mut client = world.daemon.connect();
    let _echoes = KINDS.map(|(kind, _)| Echo::start(world.internet(PYTHON), kind, 8001));
    let handle = client.create();
    let mut open = Vec::new();
    let check = |client: &mut Connection, open: &[(usize, Protocol)]| {
        for (family, address) in INTERNET.iter().enumerate() {
            for (kind, protocol) in KINDS {
                let expected = if open.contains(&(family, protocol)) { HOST[family] } else { "failed" };
                let seen = from_container(client, &handle, kind, address, 8001);
                assert_eq!(seen, expected, "{kind} to {address}, open: {open:?}");
            }
        }
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
    let _echo = Echo::start(world.internet(PYTHON), "DGRAM", 8001);
    let ping = |client: &mut Connection, handle: &[u8], family: usize, kind| {
        python_as_root(client, handle, &pinging(INTERNET[family], kind))
    };
    for (family, echo, answer) in [(0, 8, "0"), (1, 128, "129")] {
        let handle = client.create();
        assert_eq!(ping(&mut client, &handle, family, echo), "failed");
        // Another type than that of an echo.
        let wrong = NetOutRequest { icmp_type: Some(13), ..out(&handle, INTERNET[family], Protocol::Icmp) };
        client.must(wrong);
        assert_eq!(ping(&mut client, &handle, family, echo), "failed");
        let code = NetOutRequest {
            icmp_type: Some(echo.into()),
            icmp_code: Some(1),
            ..out(&handle, INTERNET[family], Protocol::Icmp)
        };
        client.must(code);
        assert_eq!(ping(&mut client, &handle, family, echo), "failed", "another code");
        client.must(NetOutRequest {
            icmp_code: Some(0),
            icmp_type: Some(echo.into()),
            ..out(&handle, INTERNET[family], Protocol::Icmp)
        });
        assert_eq!(ping(&mut client, &handle, family, echo), answer);
        assert_eq!(from_container(&mut client, &handle, "DGRAM", INTERNET[family], 8001), "failed");

        let other = client.create();
        client.must(out(&other, &around(INTERNET[family]), Protocol::All));
        assert_eq!(ping(&mut client, &other, family, echo), answer);
        assert_eq!(from_container(&mut client, &other, "DGRAM", INTERNET[family], 8001), HOST[family]);
    }
    // Without a network a port is open in both families.
    let handle = client.create();
    let anywhere = NetOutRequest { network: None, port: Some(8001), ..out(&handle, "", Protocol::Udp) };
    client.must(anywhere);
    for (family, address) in INTERNET.iter().enumerate() {
        assert_eq!(from_container(&mut client, &handle, "DGRAM", address, 8001), HOST[family]);
    }
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
    for (kind, protocol) in KINDS {
        echo_inside(&mut client, &handle, kind, 9000);
        for family in 0..2 {
            let what = format!("{kind} to {}", HOST[family]);
            assert_eq!(from(world.internet(PYTHON), kind, HOST[family], tcp), INTERNET[family], "{what}");
            assert_ne!(from(world.host(PYTHON), kind, HOST[family], tcp), "failed", "{what} from the host");
            // Another container gets there where net_out names the container, and meets it through the host's address.
            assert_eq!(from_container(&mut client, &other, kind, HOST[family], tcp), "failed", "{what}");
            client.must(out(&other, &own[family], protocol));
            assert_eq!(
                from_container(&mut client, &other, kind, HOST[family], tcp),
                others[family],
                "{what}"
            );
            assert_eq!(from_container(&mut client, &other, kind, &gateways[family], tcp), others[family]);
            // A container that is let to itself meets itself.
            client.must(out(&handle, &own[family], protocol));
            let itself = from_container(&mut client, &handle, kind, HOST[family], tcp);
            assert_eq!(itself, gateways[family], "{what} from itself");
        }
        assert_eq!(from(world.host(PYTHON), kind, "127.0.0.1", tcp), gateways[0], "{kind} at the loopback");
        let there = from(world.host(PYTHON), kind, "::1", tcp);
        assert_eq!(there, "failed", "{kind}: the kernel sends nothing from ::1 elsewhere");
    }
    client.destroy(&handle);
    for (kind, _) in KINDS {
        for host in HOST {
            assert_eq!(
                from(world.internet(PYTHON), kind, host, tcp),
                "failed",
                "{kind} to {host}, destroyed"
            );
        }
    }
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
    let there = Echo::start(world.host(PYTHON), "DGRAM", 7000);
    assert_eq!(ask(), format!("answered by {}", INTERNET[0]));
    for _ in 0..2 {
        let handle = client.create();
        echo_inside(&mut client, &handle, "DGRAM", 9000);
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
        for (kind, _) in KINDS {
            echo_inside(&mut client, &handle, kind, 9000);
            for family in 0..2 {
                assert_eq!(from(world.host(PYTHON), kind, &own[family], 9000), gateways[family]);
            }
        }
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
    for (kind, _) in KINDS {
        echo_inside(&mut client, &two, kind, 9000);
        let _host = Echo::start(world.host(PYTHON), kind, 8001);
        for family in 0..2 {
            assert_eq!(
                from(world.host(PYTHON), kind, &own[family], 9000),
                gateways[family],
                "the host gets in"
            );
            for (address, port) in [(&*own[family], 9000), (HOST[family], 8001), (&gateways[family], 8001)] {
                assert_eq!(
                    from_container(&mut client, &one, kind, address, port),
                    "failed",
                    "{kind} to {address}"
                );
            }
        }
    }
    run(world.internet("ip").args(["route", "add", "fd00:77::/64", "via", HOST[1]]));
    run(world.internet("ip").args(["route", "add", "10.254.0.0/22", "via", HOST[0]]));
    for (family, (echo, answer)) in [(8, "0"), (128, "129")].into_iter().enumerate() {
        let ping = pinging(&own[family], echo);
        assert_eq!(run(world.host(PYTHON).args(["-c", &ping])).trim(), answer, "{}", own[family]);
        assert_eq!(run(world.internet(PYTHON).args(["-c", &ping])).trim(), "failed", "{}", own[family]);
    }
    assert_eq!(from(world.internet(PYTHON), "STREAM", &own[1], 9000), "failed", "nobody from outside");
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
        let _host = Echo::start(world.host(PYTHON), "STREAM", 8001);
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
        echo_inside(&mut client, &handle, "STREAM", 9000);
        let mac = run(world.host("sh").args([
            "-c",
            &format!("ip neigh show dev {device} | grep -o 'lladdr [^ ]*' | head -1 | cut -d' ' -f2"),
        ]));
        run(world.host("ip").args(["neigh", "replace", "fe80::2", "lladdr", mac.trim(), "dev", &device]));
        assert_eq!(from(world.host(PYTHON), "STREAM", &format!("fe80::2%{device}"), 9000), "failed");
    }
}
