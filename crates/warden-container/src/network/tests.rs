//! The table in the kernel, in a network namespace of each test's own.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use super::exercise::{container, settings};
use super::state::Member;
use super::*;
use crate::request::Transport;
use warden_linux::netlink::conntrack;

/// Runs in a thread with a network namespace of its own.
fn alone(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            warden_linux::namespace::leave_network().expect("a network namespace needs root");
            test();
        });
        thread.join().unwrap();
    });
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().unwrap();
    assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The table, with the elements of its sets and the rules of its chains, in the same order always.
fn listed() -> Vec<String> {
    let mut lines: Vec<_> = nft(&["list", "table", "inet", "warden"])
        .split([',', '\n'])
        .map(|line| line.trim().trim_start_matches("elements = { ").trim_end_matches(" }").to_owned())
        .collect();
    lines.sort();
    lines
}

/// A network that has taken over.
fn prepare(
    settings: &Settings,
    adopted: Vec<ContainerNetwork>,
    leftovers: &[Id],
) -> Result<(Network, Vec<NotAdopted>), Error> {
    let network = Network::open(settings)?;
    let refused = network.restore(adopted, leftovers)?;
    Ok((network, refused))
}

fn await_table(expected: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let there =
        || Command::new("nft").args(["list", "table", "inet", "warden"]).output().unwrap().status.success();
    while !there() || listed() != expected {
        assert!(Instant::now() < deadline, "the table is not as it was: {:?}", nft(&["list", "ruleset"]));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_table_of_500_containers_is_written_whole_and_repaired_whatever_is_done_to_it() {
    alone(|| {
        nft(&["add", "table", "inet", "warden"]);
        nft(&["add", "chain", "inet", "warden", "left"]);
        nft(&["add", "table", "ip", "other"]);
        let containers: Vec<_> = (0..500).map(container).collect();
        let ids: Vec<_> = containers.iter().map(|container| container.id).collect();
        let (network, refused) = prepare(&settings(), containers, &[]).unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        let whole = listed();
        let count = |part: &str| whole.iter().filter(|line| line.contains(part)).count();
        assert_eq!((count("chain out-10.254."), count("chain out-fd00::")), (512, 512), "64 at a time");
        assert_eq!((count("jump out-10.254."), count("jump out-fd00::")), (512, 512));
        // What is opened has no verdict, at which the kernel would follow all jumps of the table.
        assert_eq!(count("ct mark set ct mark | 0x00001000"), 1_000);
        assert_eq!(whole.iter().filter(|line| line.ends_with("accept")).count(), 6);
        assert_eq!(count("log prefix \"warden-i-"), 500);
        assert_eq!(count("ip daddr 192.0.2.0-192.0.2.255 "), 500);
        assert_eq!((count("tcp . 6"), count("udp . 10")), (1_000, 1_000));
        assert_eq!(count("ip6 daddr 2001:db8::1-2001:db8::9"), 500);
        assert!(!whole.iter().any(|line| line.contains("left")));
        assert_eq!(network.records(ids[7]).unwrap(), container(7).records);

        for damage in [
            "flush ruleset",
            "delete table inet warden",
            "flush table inet warden",
            "flush chain inet warden forward",
        ] {
            nft(&[damage]);
            await_table(&whole);
        }
        nft(&["add", "table", "ip", "other"]);
        network.detach(ids[0]).unwrap();
        let without = listed();
        assert!(!without.concat().contains(ids[0].as_str()));
        assert_eq!(without.iter().filter(|line| line.contains("ct mark set")).count(), 998);
        network.close();
        nft(&["flush", "ruleset"]);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(nft(&["list", "ruleset"]), "", "what is closed is nobody's concern");
    });
}

#[test]
fn a_change_that_meets_a_table_of_somebody_elses_making_writes_it_whole() {
    alone(|| {
        let (network, _) = prepare(&settings(), vec![container(1), container(2)], &[]).unwrap();
        let whole = listed();
        let ids = [1, 2].map(|number| container(number).id);
        // Held, so that nobody repairs it meanwhile.
        let mut state = lock(&network.state);
        nft(&["delete", "table", "inet", "warden"]);
        let request = NetOut { network: Some(b"203.0.113.1".to_vec()), ..NetOut::default() };
        let rule = rule::read(&request).unwrap();
        state.allow(ids[0], &request, &rule).unwrap();
        let added: Vec<_> = listed().into_iter().filter(|line| !whole.contains(line)).collect();
        assert_eq!(added.len(), 1, "{added:?}");
        assert_eq!(state.members[&ids[0]].records.net_out.len(), 3);
        drop(state);
        nft(&["flush", "ruleset"]);
        network.detach(ids[0]).unwrap();
        network.detach(ids[0]).unwrap();
        let left: Vec<_> = listed().into_iter().filter(|line| line.contains(ids[0].as_str())).collect();
        assert_eq!(left, Vec::<String>::new());
        network.release_ports(ids[0]);
        assert!(network.records(ids[0]).is_none());
    });
}

#[test]
fn chains_of_other_programs_that_drop_forwarding_are_known() {
    alone(|| {
        // As iptables-nft makes them when Docker or ufw asks for "-P FORWARD DROP".
        nft(&[
            "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
        ]);
        nft(&["add chain ip filter INPUT { type filter hook input priority 0; policy drop; }"]);
        nft(&[
            "add table ip6 filter; add chain ip6 filter FORWARD { type filter hook forward priority 0; policy accept; }",
        ]);
        let (network, _) = prepare(&settings(), Vec::new(), &[]).unwrap();
        let mut state = lock(&network.state);
        let chains = nftables::base_chains(&mut state.filter).unwrap();
        let found: Vec<_> = chains.iter().filter(|chain| drops_forwarding(chain, "warden")).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].table.as_str(), found[0].name.as_str()), ("filter", "FORWARD"));
    });
}

#[test]
fn ports_of_adopted_containers_are_taken_and_what_contradicts_is_not_adopted() {
    alone(|| {
        let mut twin = container(2);
        twin.records.net_in.push(container(1).records.net_in[0]);
        let twins = twin.id;
        let (network, refused) = prepare(&settings(), vec![container(1), twin], &[]).unwrap();
        let [(id, why)] = &refused[..] else { panic!("{refused:?}") };
        assert_eq!(
            (*id, why.to_string().as_str()),
            (twins, "port 61002 of the host is already mapped (TCP)")
        );
        assert!(network.records(twins).is_none());
        let state = lock(&network.state);
        let reserve = |protocol, host_port| {
            let request = NetIn { protocol, host_port: Some(host_port), container_port: None };
            state.forwards.reserve(&request).map(|reserved| reserved.port)
        };
        assert!(matches!(reserve(Transport::Tcp, 61_002), Err(Error::PortTaken { .. })));
        assert!(matches!(reserve(Transport::Udp, 10_001), Err(Error::PortTaken { .. })));
        assert!(reserve(Transport::Tcp, 61_003).is_ok(), "the other's ports are free again");
        assert!(!listed().concat().contains(twins.as_str()));
    });
}

#[test]
fn addresses_come_back_when_their_connections_are_forgotten() {
    alone(|| {
        // The pools' own network of this test.
        let mut settings = settings();
        settings.network.network = Ipv4Net::new_assert(Ipv4Addr::new(10, 254, 0, 4), 30);
        let pools = crate::leases::Pools::new(&settings);
        let gone = container(1);
        let address = gone.addresses.container;
        for command in
            [["link", "set", "lo", "up"].as_slice(), &["address", "add", "10.254.0.6", "dev", "lo"]]
        {
            assert!(Command::new("ip").args(command).status().unwrap().success());
        }
        let packet = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut tracked = || {
            let mut count = 0;
            let look = |connection: &conntrack::Tracked<'_>| {
                count += usize::from(connection.original().has(address.into()));
                false
            };
            conntrack::forget(&mut socket, look).unwrap();
            count
        };

        let (network, _) = prepare(&settings, vec![gone.clone(), container(2)], &[]).unwrap();
        packet.send_to(b"x", (address, 9)).unwrap();
        assert_eq!(tracked(), 1);
        pools.lease(gone.id, None).unwrap();
        network.detach(gone.id).unwrap();
        network.give_back(gone.id, pools.take(gone.id).unwrap());
        network.settle();
        assert_eq!(tracked(), 0);
        assert_eq!(pools.lease(gone.id, None).unwrap().addresses.container, address);
        drop(network);

        // The table stays with the other container. One that ends before it has forgotten them leaves that to the next, which knows no container of this address.
        packet.send_to(b"x", (address, 9)).unwrap();
        assert_eq!(tracked(), 1);
        let _next = prepare(&settings, Vec::new(), &[]).unwrap();
        assert_eq!(tracked(), 0);
    });
}

#[test]
fn what_the_table_holds_of_containers_that_are_no_more_is_deleted_and_nothing_else() {
    alone(|| {
        let (network, _) = prepare(&settings(), vec![container(1)], &[]).unwrap();
        let before = listed();
        nft(&["add", "table", "inet", "other"]);
        nft(&["add", "chain", "inet", "other", "out-10.254.0.10"]);
        nft(&["add", "rule", "inet", "other", "out-10.254.0.10", "accept"]);
        // As a fault of ours would leave it: nothing is repaired that we ourselves have done.
        let lost = container(2);
        {
            let mut state = lock(&network.state);
            let member = Member { addresses: lost.addresses, index: None, records: lost.records.clone() };
            let mark = state.firewall.mark();
            let added = state.change(|table| {
                table.add_container(&names(lost.id).host, lost.addresses);
                table.allow(lost.id, lost.addresses, &rule::read(&lost.records.net_out[0]).unwrap(), mark);
                for forward in lost.records.net_in.iter().flat_map(|&mapping| member.forwards(mapping)) {
                    table.add_forward(forward);
                }
                // Of addresses that nobody has.
                let (protocol, port) = (Transport::Tcp, 1);
                let address = Ipv4Addr::new(10, 254, 9, 9).into();
                table.add_forward(table::Forward { protocol, host_port: 99, address, port });
                let orphan = container(3);
                table.allow(
                    orphan.id,
                    orphan.addresses,
                    &rule::read(&orphan.records.net_out[0]).unwrap(),
                    mark,
                );
            });
            added.unwrap();
        }
        let entries = stale::entries("warden").unwrap().unwrap();
        let told: Vec<_> = entries.iter().map(|entry| (entry.owner, entry.name.as_str())).collect();
        let expected = [
            (Some(container(1).id), "inet warden w-00000000001-0"),
            (Some(lost.id), "inet warden w-00000000002-0"),
            (None, "inet warden out-10.254.0.14"),
            (None, "inet warden forwards 6:99"),
        ];
        assert_eq!(told, expected);
        // The first is connected, whatever is asked for.
        network.delete_stale(&told.iter().map(|(_, name)| *name).collect()).unwrap();
        assert_eq!(listed(), before);
        assert!(nft(&["list", "table", "inet", "other"]).contains("accept"));
        assert_eq!(stale::entries("warden").unwrap().unwrap().len(), 1);
        assert!(stale::entries("nothing").unwrap().is_none());

        // Without a daemon nobody is connected but who is not named.
        drop(network);
        nft(&["add", "element", "inet", "warden", "interfaces", "{ w-00000000003-0 }"]);
        let names = ["inet warden w-00000000003-0"];
        stale::delete("warden", &names.into()).unwrap();
        assert_eq!(listed(), before);
    });
}

#[test]
fn what_is_withdrawn_was_never_opened() {
    alone(|| {
        let (network, _) = prepare(&settings(), vec![container(1)], &[]).unwrap();
        let id = container(1).id;
        let before = (listed(), network.records(id));
        let request = NetIn { protocol: Transport::Tcp, host_port: Some(77), container_port: Some(7) };
        let mapping = PortMapping { protocol: Transport::Tcp, host_port: 77, container_port: 7 };
        {
            // Without an interface: that is not what is tested.
            let mut state = lock(&network.state);
            let reserved = state.forwards.reserve(&request).unwrap();
            state.map(id, mapping).unwrap();
            state.forwards.keep(mapping.protocol, reserved);
        }
        let more = NetOut { network: Some(b"198.51.100.7".to_vec()), ..NetOut::default() };
        network.net_out(id, &more).unwrap();
        assert_ne!((listed(), network.records(id)), before);
        network.withdraw_port(id, mapping).unwrap();
        network.withdraw_rule(id, &more).unwrap();
        assert_eq!((listed(), network.records(id)), before);
        assert!(lock(&network.state).forwards.reserve(&request).is_ok());
        network.withdraw_port(id, mapping).unwrap();
        network.withdraw_rule(id, &more).unwrap();
        network.withdraw_rule(container(2).id, &more).unwrap();
        assert_eq!((listed(), network.records(id)), before);
    });
}

#[test]
fn the_ports_of_what_is_disconnected_are_its_own_until_nothing_of_it_runs() {
    alone(|| {
        let (network, _) = prepare(&settings(), vec![container(1)], &[]).unwrap();
        let (id, ports) = (container(1).id, container(1).records.net_in);
        let request = NetIn { protocol: Transport::Tcp, host_port: Some(61_002), container_port: None };
        let is_free = |network: &Network| lock(&network.state).forwards.reserve(&request).is_ok();
        network.detach(id).unwrap();
        assert!(!is_free(&network) && !listed().concat().contains("61002"));
        assert_eq!(network.records(id).unwrap().net_in, ports, "its snapshot tells of them");
        network.release_ports(id);
        assert!(is_free(&network) && network.records(id).is_none());
        network.hold_ports(id, &ports);
        network.hold_ports(container(2).id, &ports);
        assert!(!is_free(&network));
        network.release_ports(container(2).id);
        assert!(!is_free(&network), "they were not the other's");
        network.release_ports(id);
        assert!(is_free(&network));
    });
}

#[test]
fn what_is_opened_is_marked_with_the_configured_bit_and_only_icmp_with_a_verdict() {
    alone(|| {
        let mut settings = settings();
        settings.firewall.connection_mark_bit = 30;
        let mut opened = container(1);
        let icmp = NetOut { protocol: crate::request::Protocol::Icmp, ..opened.records.net_out[0].clone() };
        opened.records.net_out.push(icmp);
        let (_network, _) = prepare(&settings, vec![opened], &[]).unwrap();
        let listed = listed();
        let chain = |part: &str| listed.iter().filter(|line| line.contains(part)).count();
        assert_eq!(chain("ct mark set ct mark | 0x40000000"), 2);
        assert_eq!(chain("ct mark & 0x40000000"), 2, "to let it through, and to log it once");
        assert_eq!(chain("ip daddr 192.0.2.0-192.0.2.255 meta l4proto icmp accept"), 1);
    });
}
