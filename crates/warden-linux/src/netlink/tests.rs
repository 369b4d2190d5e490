use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

use super::nftables::{
    Batch, ChainKind, Compare, Connection, Expression, Field, Held, Holds, Hook, Meta, Part, Verdict,
};
use super::*;

/// Runs in a thread with a network namespace of its own.
fn alone<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    assert!(rustix::process::geteuid().is_root(), "a network namespace needs root");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            crate::namespace::leave_network().unwrap();
            test()
        });
        thread.join().unwrap()
    })
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn new_namespace() -> std::fs::File {
    alone(|| std::fs::File::open("/proc/thread-self/ns/net").unwrap())
}

#[test]
fn a_request_is_a_header_a_fixed_part_and_padded_attributes() {
    let mut requests = Requests::default();
    requests.push("testing".into(), 0x1234, flag::CREATE, &[9, 8, 7], |attributes| {
        attributes.text(3, "ab").big(4, 1);
        attributes.nested(5, |inner| {
            inner.bytes(6, &[1]);
        });
        attributes.nested_after(7, &[2; 4], |inner| {
            inner.number(8, 3);
        });
    });
    requests.acknowledge_last();
    #[rustfmt::skip]
    let expected = [
        64, 0, 0, 0, 0x34, 0x12, 0x05, 0x04, 0, 0, 0, 0, 0, 0, 0, 0,
        9, 8, 7, 0,
        7, 0, 3, 0, b'a', b'b', 0, 0,
        8, 0, 4, 0, 0, 0, 0, 1,
        12, 0, 5, 0x80, 5, 0, 6, 0, 1, 0, 0, 0,
        16, 0, 7, 0, 2, 2, 2, 2, 8, 0, 8, 0, 3, 0, 0, 0,
    ];
    assert_eq!(requests.bytes(), expected);
}

#[test]
fn attributes_that_are_cut_off_are_none() {
    let bytes = [8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0x80, 9, 0, 0, 0, 9, 0, 3, 0, 1];
    let found: Vec<_> = attributes(&bytes).collect();
    assert_eq!(found, [(1, &[1_u8, 2, 3, 4][..]), (2, &[9])]);
    assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    assert_eq!(attributes(&[]).count(), 0);
    assert_eq!(messages(&[15; 15]).count(), 0);
    assert_eq!(messages(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
}

#[test]
fn expressions_are_named_lists_of_numbers_in_the_networks_order() {
    let mut bytes = Vec::new();
    Expression::Compare { slot: 1, how: Compare::Different, value: &[10, 0, 0, 1] }
        .write(&mut Attributes(&mut bytes));
    #[rustfmt::skip]
    let expected = [
        8, 0, 1, 0, b'c', b'm', b'p', 0,
        32, 0, 2, 0x80,
        8, 0, 1, 0, 0, 0, 0, 9,
        8, 0, 2, 0, 0, 0, 0, 1,
        12, 0, 3, 0x80, 8, 0, 1, 0, 10, 0, 0, 1,
    ];
    assert_eq!(bytes, expected);
}

/// One of each, and none that the kernel had to take back.
const QUEUES: &str = "numtxqueues 1 numrxqueues 1 ";

#[test]
fn a_pair_of_interfaces_is_made_with_its_peer_in_place() {
    alone(|| {
        let namespace = new_namespace();
        let mut here = Socket::open(Protocol::Route).unwrap();
        let mut there = Socket::open_in(Protocol::Route, namespace.as_fd()).unwrap();
        let mut requests = Requests::default();
        let ends = [("a-0", [2, 0, 0, 0, 0, 1]), ("a-1", [2, 0, 0, 0, 0, 2])]
            .map(|(name, mac)| route::End { name, mac });
        route::add_veth(&mut requests, ends[0], ends[1], namespace.as_fd(), 1400, 7);
        here.execute(requests).unwrap();
        let index = route::link_index(&mut here, "a-0").unwrap();
        let inner = route::link_index(&mut there, "a-1").unwrap();
        assert!(route::link_index(&mut here, "a-1").unwrap_err().is_absence());
        let (host, container) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let (host6, container6) = ["fd00::1", "fd00::2"].map(|text| text.parse::<IpAddr>().unwrap()).into();
        let mut requests = Requests::default();
        route::set_up(&mut requests, index);
        route::add_address(&mut requests, index, host, 30);
        route::add_neighbour(&mut requests, index, container, ends[1].mac);
        route::add_address(&mut requests, index, host6, 126);
        route::add_neighbour(&mut requests, index, container6, ends[1].mac);
        route::route_loopback(&mut requests, ends[0].name);
        here.execute(requests).unwrap();
        let mut requests = Requests::default();
        route::set_up(&mut requests, inner);
        route::add_address(&mut requests, inner, container, 30);
        route::add_default_route(&mut requests, inner, host);
        route::add_address(&mut requests, inner, container6, 126);
        route::add_default_route(&mut requests, inner, host6);
        there.execute(requests).unwrap();

        let links = output("ip", &["-d", "link", "show", "a-0"]);
        for part in ["mtu 1400", "UP", "02:00:00:00:00:01", "addrgenmode none", QUEUES] {
            assert!(links.contains(part), "{part} in {links}");
        }
        let inside = format!("--net=/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        let peer = output("nsenter", &[&inside, "ip", "-d", "link", "show", "a-1"]);
        assert!(peer.contains(QUEUES), "{peer}");
        assert!(
            output("ip", &["addr", "show", "a-0"]).contains("inet 10.0.0.1/30 brd 10.0.0.3 scope global")
        );
        let listed = output("ip", &["-6", "addr", "show", "a-0"]);
        assert!(listed.contains("inet6 fd00::1/126 scope global") && !listed.contains("fe80"), "{listed}");
        assert!(!listed.contains("tentative"), "{listed}");
        assert!(output("ip", &["-6", "neigh"]).contains("fd00::2 dev a-0 lladdr 02:00:00:00:00:02"));
        assert!(route::is_local(&mut here, host).unwrap() && route::is_local(&mut here, host6).unwrap());
        assert!(!route::is_local(&mut here, container).unwrap());
        assert!(output("ip", &["neigh"]).contains("10.0.0.2 dev a-0 lladdr 02:00:00:00:00:02 PERMANENT"));

        let mut requests = Requests::default();
        route::delete_address(&mut requests, index, host, 30);
        here.execute(requests).unwrap();
        assert!(!output("ip", &["addr", "show", "a-0"]).contains("10.0.0.1"));
        let mut requests = Requests::default();
        route::delete_link(&mut requests, "a-0");
        here.execute(requests).unwrap();
        assert_eq!(route::links(&mut here).unwrap(), [("lo".to_owned(), 0)]);
        assert!(route::link_index(&mut there, "a-1").unwrap_err().is_absence());
    });
}

#[test]
fn a_refusal_names_the_request_and_keeps_the_kernels_words() {
    alone(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut requests = Requests::default();
        route::add_default_route(&mut requests, 1, [10, 0, 0, 1].into());
        route::delete_link(&mut requests, "none");
        let refusal = socket.execute(requests).unwrap_err();
        assert_eq!(refusal.action, "adding the default route by 10.0.0.1");
        assert!(refusal.words.is_some(), "{refusal:?}");
        // The socket is still in step.
        let mut requests = Requests::default();
        route::delete_link(&mut requests, "none");
        let refusal = socket.execute(requests).unwrap_err();
        assert!(refusal.is_absence() && refusal.to_string().starts_with("deleting the interface none: "));
    });
}

/// A table with everything that this module can write.
fn fill(batch: &mut Batch<'_>) {
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    batch.add_base_chain("filter", ChainKind::Filter, Hook::Forward, -5);
    batch.add_base_chain("nat", ChainKind::Nat, Hook::Prerouting, -100);
    batch.add_base_chain("hide", ChainKind::Nat, Hook::Postrouting, 100);
    batch.add_chain("one");
    batch.add_set("names", &[Field::Interface], Holds::Verdicts);
    batch.add_set("members", &[Field::Interface, Field::Address], Holds::Nothing);
    batch.add_set("ports", &[Field::Protocol, Field::Port], Holds::Values(&[Field::Address, Field::Port]));
    let jump = Held::Verdict(Verdict::Jump("one"));
    batch.add_element("names", &nftables::interface("w-0"), jump);
    let address = [10, 0, 0, 2].into();
    batch.add_element("members", &nftables::interface_and_address("w-0", address), Held::Nothing);
    let target = nftables::address_and_port(address, 80);
    batch.add_element("ports", &nftables::protocol_and_port(6, 8080), Held::Value(&target));
    batch.add_rule(
        "filter",
        &[
            Expression::Meta { key: Meta::InputInterface, slot: 0 },
            Expression::VerdictMap { set: "names", slot: 0 },
        ],
    );
    batch.add_rule(
        "nat",
        &[
            Expression::DestinationKind { slot: 0 },
            Expression::Compare { slot: 0, how: Compare::Equal, value: &Expression::LOCAL },
            Expression::Meta { key: Meta::Protocol, slot: 0 },
            Expression::Payload { part: Part::Transport, offset: 2, length: 2, slot: 1 },
            Expression::Map { set: "ports", slot: 0, into: 0 },
            Expression::Redirect { ipv6: false, address: 0, port: 1 },
        ],
    );
    batch.add_rule("hide", &[Expression::Masquerade]);
    batch.add_rule(
        "one",
        &[
            Expression::Connection { key: Connection::State, slot: 0 },
            Expression::Mask { slot: 0, mask: &Connection::NEW.to_ne_bytes() },
            Expression::Compare { slot: 0, how: Compare::Different, value: &[0; 4] },
            Expression::Meta { key: Meta::Family, slot: 0 },
            Expression::Compare { slot: 0, how: Compare::Equal, value: &[2] },
            Expression::Payload { part: Part::Network, offset: 16, length: 4, slot: 0 },
            Expression::Range { slot: 0, from: &[10, 0, 0, 1], to: &[10, 0, 0, 9] },
            Expression::Log { prefix: "warden-i-x " },
            Expression::Verdict(Verdict::Accept),
        ],
    );
    batch.add_rule(
        "one",
        &[
            Expression::Meta { key: Meta::Family, slot: 0 },
            Expression::Compare { slot: 0, how: Compare::Equal, value: &[2] },
            Expression::Meta { key: Meta::InputInterface, slot: 0 },
            Expression::Payload { part: Part::Network, offset: 12, length: 4, slot: 4 },
            Expression::Lookup { set: "members", slot: 0 },
            Expression::Reject,
        ],
    );
}

#[test]
fn the_kernel_and_nft_read_a_table_as_it_was_meant() {
    alone(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut batch = Batch::new("test");
        fill(&mut batch);
        batch.commit(&mut socket).unwrap();
        let listed = output("nft", &["list", "table", "inet", "test"]);
        for part in [
            "type filter hook forward priority filter - 5; policy accept;",
            "type nat hook prerouting priority dstnat; policy accept;",
            "iifname vmap @names",
            "\"w-0\" : jump one",
            "\"w-0\" . 10.0.0.2",
            "tcp . 8080 : 10.0.0.2 . 80",
            "masquerade",
            "ct state new ip daddr 10.0.0.1-10.0.0.9 log prefix \"warden-i-x \" level info accept",
            "iifname . ip saddr @members reject",
            "fib daddr type local dnat ip to meta l4proto . th dport map @ports",
        ] {
            assert!(listed.contains(part), "{part} in {listed}");
        }
        let chains = nftables::base_chains(&mut socket).unwrap();
        assert!(chains.iter().any(|chain| chain.name == "filter" && chain.hook == 2 && !chain.drops));
        assert_eq!(chains.len(), 3);

        let mut batch = Batch::new("test");
        batch.delete_element("names", &nftables::interface("w-0"));
        batch.delete_chain("one");
        batch.commit(&mut socket).unwrap();
        let mut batch = Batch::new("test");
        batch.delete_table();
        batch.commit(&mut socket).unwrap();
        assert_eq!(output("nft", &["list", "ruleset"]), "");
    });
}

#[test]
fn a_batch_is_done_whole_or_not_at_all() {
    alone(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut batch = Batch::new("test");
        batch.add_table();
        batch.add_chain("one");
        batch.add_rule("none", &[Expression::Masquerade]);
        batch.add_chain("two");
        let refusal = batch.commit(&mut socket).unwrap_err();
        assert!(refusal.is_absence() && refusal.action == "adding a rule to the chain none", "{refusal}");
        assert_eq!(output("nft", &["list", "ruleset"]), "");
        // The socket is still in step.
        let mut batch = Batch::new("test");
        batch.add_table();
        batch.commit(&mut socket).unwrap();
        let mut batch = Batch::new("test");
        batch.add_chain("one");
        batch.commit(&mut socket).unwrap();
    });
}

/// A socket of a network namespace whose connections are tracked: they are where somebody asks for them.
fn tracking() -> Socket {
    output("ip", &["link", "set", "lo", "up"]);
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    let mut batch = Batch::new("test");
    batch.add_table();
    batch.add_base_chain("all", ChainKind::Filter, Hook::Output, 0);
    batch.add_rule("all", &[Expression::Connection { key: Connection::State, slot: 0 }]);
    batch.commit(&mut socket).unwrap();
    socket
}

/// Forgets the connections from or to an address.
fn forget(socket: &mut Socket, address: IpAddr) -> usize {
    let is_one = |connection: &conntrack::Tracked<'_>| {
        connection.original().has(address) || connection.reply().has(address)
    };
    conntrack::forget(socket, is_one).unwrap()
}

#[test]
fn connections_of_an_address_are_forgotten() {
    alone(|| {
        let mut socket = tracking();
        let packet = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        packet.send_to(b"x", "127.0.0.2:9").unwrap();
        assert_eq!(forget(&mut socket, [127, 0, 0, 3].into()), 0);
        assert_eq!(forget(&mut socket, [127, 0, 0, 2].into()), 1);
        assert_eq!(forget(&mut socket, [127, 0, 0, 2].into()), 0);

        packet.send_to(b"x", "127.0.0.2:9").unwrap();
        let is_it = |connection: &conntrack::Tracked<'_>| {
            assert_eq!(connection.original().destination(), Some([127, 0, 0, 2].into()));
            assert_eq!(connection.reply().destination(), Some([127, 0, 0, 1].into()));
            assert_eq!(connection.original().source(), Some([127, 0, 0, 1].into()));
            assert!(!connection.is_translated());
            connection.original().udp_port() == Some(9)
        };
        assert_eq!(conntrack::forget(&mut socket, is_it).unwrap(), 1);
        let packet = std::net::UdpSocket::bind("[::1]:0").unwrap();
        packet.send_to(b"x", "[::1]:9").unwrap();
        assert_eq!(forget(&mut socket, "::1".parse().unwrap()), 1);
    });
}

#[test]
fn of_those_that_sent_to_a_port_the_kernel_tells_of_no_others() {
    alone(|| {
        let mut socket = tracking();
        for (ipv6, address) in [(false, "127.0.0.1"), (true, "::1")] {
            let senders = [(); 3].map(|()| std::net::UdpSocket::bind((address, 0)).unwrap());
            for sender in &senders {
                sender.send_to(b"x", (address, 10)).unwrap();
                sender.send_to(b"x", (address, 11)).unwrap();
            }
            let listener = std::net::TcpListener::bind((address, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            std::net::TcpStream::connect((address, port)).unwrap();
            let told = |socket: &mut Socket, port, chosen: bool| {
                let mut told = 0;
                let forgotten = conntrack::forget_udp(socket, ipv6, port, |connection| {
                    assert_eq!(connection.original().udp_port(), Some(port));
                    told += 1;
                    chosen
                });
                (told, forgotten.unwrap())
            };
            assert_eq!(told(&mut socket, 10, false), (3, 0), "{address}");
            assert_eq!(told(&mut socket, 10, true), (3, 3), "{address}");
            assert_eq!(told(&mut socket, 10, true), (0, 0), "{address}");
            assert_eq!(told(&mut socket, port, true), (0, 0), "{address}: that of TCP is another");
            assert_eq!(told(&mut socket, 11, true), (3, 3), "{address}");
        }
    });
}

#[test]
fn a_batch_larger_than_any_socket_buffer_is_still_one_transaction() {
    alone(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut batch = Batch::new("test");
        batch.add_table();
        batch.add_set("ports", &[Field::Protocol, Field::Port], Holds::Nothing);
        for port in 0..u16::MAX {
            batch.add_element("ports", &nftables::protocol_and_port(6, port), Held::Nothing);
        }
        batch.add_rule("none", &[Expression::Masquerade]);
        let refusal = batch.commit(&mut socket).unwrap_err();
        assert_eq!(refusal.action, "adding a rule to the chain none");
        assert_eq!(output("nft", &["list", "ruleset"]), "");
        let mut batch = Batch::new("test");
        batch.add_table();
        batch.commit(&mut socket).unwrap();
    });
}

#[test]
fn changes_by_others_are_noticed_and_ones_own_wake_nobody() {
    alone(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let watch = nftables::Watch::start(socket.port().unwrap()).unwrap();
        let wakes = || {
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut wanted = [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut wanted, Some(&now)).unwrap() > 0
        };
        let make = |socket: &mut Socket| {
            let mut batch = Batch::new("test");
            fill(&mut batch);
            batch.commit(socket).unwrap();
        };
        make(&mut socket);
        assert!(!wakes() && !watch.has_changed("test").unwrap());
        output("nft", &["add", "table", "inet", "other"]);
        output("nft", &["add", "table", "ip", "test"]);
        assert!(wakes() && !watch.has_changed("test").unwrap());
        for change in ["flush chain inet test one", "delete table inet test", "flush ruleset"] {
            make(&mut socket);
            output("nft", &[change]);
            assert!(watch.has_changed("test").unwrap(), "{change}");
            assert!(!watch.has_changed("test").unwrap());
        }
        make(&mut Socket::open(Protocol::Netfilter).unwrap());
        assert!(watch.has_changed("test").unwrap(), "another socket of the same process");
    });
}

/// Two interfaces that are up.
fn two_interfaces(socket: &mut Socket) -> [u32; 2] {
    ["one", "two"].map(|name| {
        let mut requests = Requests::default();
        route::add_ifb(&mut requests, name, 1500, 0);
        socket.execute(requests).unwrap();
        let index = route::link_index(socket, name).unwrap();
        let mut requests = Requests::default();
        route::set_up(&mut requests, index);
        socket.execute(requests).unwrap();
        index
    })
}

#[test]
fn a_bucket_is_set_read_changed_in_place_and_removed() {
    alone(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let [one, two] = two_interfaces(&mut socket);
        assert_eq!(qdisc::bucket(&mut socket, one).unwrap(), None);
        let slow = qdisc::Bucket { rate: 125_000, burst: 20_000, queue: 23_125 };
        let fast = qdisc::Bucket { rate: 5_000_000_000, burst: 50_000, queue: 200_000_000 };
        for bucket in [slow, fast, slow] {
            let mut requests = Requests::default();
            qdisc::set_bucket(&mut requests, one, bucket);
            socket.execute(requests).unwrap();
            let held = qdisc::bucket(&mut socket, one).unwrap().unwrap();
            assert_eq!((held.rate, held.queue), (bucket.rate, bucket.queue));
            assert!(held.burst.abs_diff(bucket.burst) <= 320, "{held:?}");
        }
        let shown = output("tc", &["qdisc", "show", "dev", "one"]);
        assert!(shown.starts_with("qdisc tbf 1: root refcnt 2 rate 1Mbit burst 20000b"), "{shown}");
        assert_eq!(qdisc::bucket(&mut socket, two).unwrap(), None);
        let mut requests = Requests::default();
        qdisc::remove_bucket(&mut requests, one);
        socket.execute(requests).unwrap();
        assert_eq!(qdisc::bucket(&mut socket, one).unwrap(), None);
        assert_eq!(qdisc::bucket(&mut socket, 12_345).unwrap(), None);
    });
}

#[test]
fn what_comes_in_is_redirected_once_however_often_that_is_asked_for() {
    alone(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let [one, two] = two_interfaces(&mut socket);
        for _ in 0..2 {
            let mut requests = Requests::default();
            qdisc::redirect(&mut requests, one, two);
            socket.execute(requests).unwrap();
            let shown = output("tc", &["filter", "show", "dev", "one", "ingress"]);
            assert_eq!(shown.matches("Egress Redirect to device two").count(), 1, "{shown}");
        }
        let mut requests = Requests::default();
        qdisc::remove_redirect(&mut requests, one);
        socket.execute(requests).unwrap();
        assert!(!output("tc", &["qdisc", "show", "dev", "one"]).contains("ingress"));
        let mut requests = Requests::default();
        qdisc::remove_redirect(&mut requests, one);
        assert!(socket.execute(requests).is_err());
    });
}

#[test]
fn interfaces_of_a_group_are_deleted_together_and_no_other() {
    alone(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        two_interfaces(&mut socket);
        let mut requests = Requests::default();
        route::set_group(&mut requests, "none", 77);
        route::set_group(&mut requests, "one", 77);
        assert!(socket.execute(requests).unwrap_err().is_absence());
        let mut requests = Requests::default();
        route::delete_group(&mut requests, 77);
        socket.execute(requests).unwrap();
        let names: Vec<_> = route::links(&mut socket).unwrap().into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"two".to_owned()) && !names.contains(&"one".to_owned()), "{names:?}");
        let mut requests = Requests::default();
        route::delete_group(&mut requests, 77);
        assert!(socket.execute(requests).unwrap_err().is_absence());
    });
}
