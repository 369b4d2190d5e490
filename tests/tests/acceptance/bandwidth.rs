//! limit_bandwidth: what the kernel holds, what passes through it, and what is left.

use std::process::Command;

use warden_protocol::messages::*;
use warden_tests::world::PYTHON;
use warden_tests::{Connection, Daemon, NOTHING_AHEAD, eventually};

const UNLIMITED: u64 = 4_294_967_295;

fn limit(client: &mut Connection, handle: &[u8], rate: u64, burst: u64) -> Result<(u64, u64), String> {
    let request =
        LimitBandwidthRequest { handle: Some(handle.to_vec()), rate: Some(rate), burst: Some(burst) };
    client.ask(request).map(|answer| (answer.rate.unwrap(), answer.burst.unwrap()))
}

/// in_rate, in_burst, out_rate, out_burst.
fn told(client: &mut Connection, handle: &[u8]) -> [u64; 4] {
    let stat = client.info(handle).bandwidth_stat.unwrap();
    [stat.in_rate, stat.in_burst, stat.out_rate, stat.out_burst].map(Option::unwrap)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A number of the token bucket before an interface of the host, as tc tells it; none without interface or bucket.
fn of_bucket(daemon: &Daemon, interface: &str, name: &str) -> Option<u64> {
    if !links(daemon).contains(interface) {
        return None;
    }
    let text = run(daemon.in_its_network("tc").args(["-s", "-j", "qdisc", "show", "dev", interface]));
    let queues: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bucket = queues.as_array().unwrap().iter().find(|queue| queue["kind"] == "tbf")?;
    bucket.get(name).or_else(|| bucket["options"].get(name)).and_then(serde_json::Value::as_u64)
}

fn rates(daemon: &Daemon, id: &str) -> [Option<u64>; 2] {
    ["0", "2"].map(|end| of_bucket(daemon, &format!("w-{id}-{end}"), "rate"))
}

fn links(daemon: &Daemon) -> String {
    run(daemon.in_its_network("ip").args(["-d", "-o", "link"]))
}

fn redirections(daemon: &Daemon, id: &str) -> usize {
    let interface = format!("w-{id}-0");
    let filters = run(daemon.in_its_network("tc").args(["filter", "show", "dev", &interface, "ingress"]));
    filters.matches(&format!("Egress Redirect to device w-{id}-2")).count()
}

#[test]
fn a_limit_is_held_in_both_directions_told_changed_and_lifted() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (handle, other) = (client.create(), client.create());
    let id = client.id(&handle);
    assert_eq!(told(&mut client, &handle), [UNLIMITED; 4]);
    assert!(!links(&daemon).contains("ifb"), "made only when a limit asks for it");
    for (rate, burst) in [(100_000, 1_000), (200_000, 2_000), (5_000_000_000, 100_000), (1, 1)] {
        assert_eq!(limit(&mut client, &handle, rate, burst).unwrap(), (rate, burst));
        assert_eq!(told(&mut client, &handle), [rate, burst, rate, burst]);
        assert_eq!(rates(&daemon, &id), [Some(rate); 2]);
        assert_eq!(redirections(&daemon, &id), 1);
    }
    let links = links(&daemon);
    let outward = links.lines().find(|line| line.contains(&format!("w-{id}-2"))).unwrap();
    assert!(outward.contains("addrgenmode none") && outward.contains("UP"), "{outward}");
    assert_eq!(links.matches(" ifb ").count(), 1, "{links}");
    assert_eq!(told(&mut client, &other), [UNLIMITED; 4]);
    assert_eq!(limit(&mut client, &handle, UNLIMITED, UNLIMITED).unwrap(), (UNLIMITED, UNLIMITED));
    assert_eq!(told(&mut client, &handle), [UNLIMITED; 4]);
    assert_eq!((rates(&daemon, &id), redirections(&daemon, &id)), ([None; 2], 0));
    assert_eq!(limit(&mut client, &handle, 300_000, 3_000).unwrap(), (300_000, 3_000));
    assert_eq!(told(&mut client, &handle), [300_000, 3_000, 300_000, 3_000]);
    client.must(StopRequest { handle: Some(handle.clone()), ..StopRequest::default() });
    assert_eq!(limit(&mut client, &handle, 400_000, 4_000).unwrap(), (400_000, 4_000));
    assert_eq!(told(&mut client, &handle), [400_000, 4_000, 400_000, 4_000]);
}

#[test]
fn what_goes_in_and_what_comes_out_passes_the_buckets_and_a_change_keeps_them() {
    const LENGTH: u64 = 200_000;
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    limit(&mut client, &handle, 10_000_000, 100_000).unwrap();
    client.spawn(
        &handle,
        format!(
            r#"exec /usr/bin/python3 - <<'END'
import socket
s = socket.socket(); s.bind(("0.0.0.0", 7000)); s.listen()
open("/tmp/ready", "w").close()
while True:
    c, peer = s.accept()
    c.recv({LENGTH}, socket.MSG_WAITALL); c.sendall(bytes({LENGTH})); c.close()
END
"#
        ),
    );
    client.text(&handle, "while [ ! -e /tmp/ready ]; do sleep 0.05; done");
    let address = String::from_utf8(client.info(&handle).container_ip.unwrap()).unwrap();
    let script = format!(
        r#"
import socket
s = socket.create_connection(("{address}", 7000))
s.sendall(bytes({LENGTH}))
print(len(s.recv({LENGTH}, socket.MSG_WAITALL)), s.getsockname()[0])
"#
    );
    let sent = |end: &str| of_bucket(&daemon, &format!("w-{id}-{end}"), "bytes").unwrap();
    let before = [sent("0"), sent("2")];
    let answer = run(daemon.in_its_network(PYTHON).args(["-c", &script]));
    let host = String::from_utf8(client.info(&handle).host_ip.unwrap()).unwrap();
    assert_eq!(answer, format!("{LENGTH} {host}\n"), "the way round changes nothing");
    let after = [sent("0"), sent("2")];
    assert!(after[0] - before[0] > LENGTH && after[1] - before[1] > LENGTH, "{before:?} {after:?}");
    limit(&mut client, &handle, 20_000_000, 100_000).unwrap();
    assert!(
        sent("0") >= after[0] && sent("2") >= after[1],
        "the bucket is the same: nothing passed beside it"
    );
}

#[test]
fn a_limit_that_cannot_be_is_named_and_changes_nothing() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let minus_one = u64::MAX;
    let wrong = [
        (0, 1000, "rate: 0"),
        (minus_one, 1000, "rate: 18446744073709551615"),
        (u64::MAX / 8, 1000, "rate: 2305843009213693951"),
        (1000, 0, "burst: 0"),
        (1000, minus_one, "burst: 18446744073709551615"),
        (1000, 1 << 32, "burst: 4294967296"),
    ];
    for (rate, burst, named) in wrong {
        let refused = limit(&mut client, &handle, rate, burst).unwrap_err();
        assert!(refused.starts_with(&format!("Failed setting bandwidth {named}: ")), "{refused}");
    }
    assert_eq!((rates(&daemon, &id), redirections(&daemon, &id)), ([None; 2], 0));
    assert!(!links(&daemon).contains("ifb"));
    limit(&mut client, &handle, 100_000, 10_000).unwrap();
    for (rate, burst, _) in wrong {
        limit(&mut client, &handle, rate, burst).unwrap_err();
    }
    assert_eq!(told(&mut client, &handle), [100_000, 10_000, 100_000, 10_000]);
    assert_eq!(rates(&daemon, &id), [Some(100_000); 2]);
    // A number that does not fit into 64 bits is no number of protobuf at all.
    let mut body = vec![0x0a, u8::try_from(handle.len()).unwrap()];
    body.extend(&handle);
    body.extend([0x10].iter().chain(&[0xff; 10]).chain(&[0x7f, 0x18, 1]));
    let message = [vec![0x08, 53, 0x12, u8::try_from(body.len()).unwrap()], body].concat();
    client.send_bytes(&[format!("{}\r\n", message.len()).as_bytes(), &message, b"\r\n"].concat());
    let refused = client.receive_error();
    assert!(!refused.is_empty());
    assert_eq!(rates(&daemon, &id), [Some(100_000); 2]);
}

#[test]
fn a_limit_that_the_kernel_refuses_leaves_the_one_before() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    // Somebody else's queue under the number of ours cannot become a bucket.
    let occupy = |end: &str, verb: &[&str]| {
        let interface = format!("w-{id}-{end}");
        let mut command = daemon.in_its_network("tc");
        run(command.args(["qdisc", verb[0], "dev", &interface, "root"]).args(&verb[1..]));
    };
    occupy("0", &["add", "handle", "1:", "pfifo"]);
    let refused = limit(&mut client, &handle, 100_000, 10_000).unwrap_err();
    assert!(refused.starts_with("limiting interface "), "{refused}");
    assert_eq!((rates(&daemon, &id), redirections(&daemon, &id)), ([None; 2], 0));
    assert_eq!(told(&mut client, &handle), [UNLIMITED; 4]);
    occupy("0", &["del"]);
    limit(&mut client, &handle, 100_000, 10_000).unwrap();
    occupy("2", &["del"]);
    occupy("2", &["add", "handle", "1:", "pfifo"]);
    limit(&mut client, &handle, 200_000, 20_000).unwrap_err();
    assert_eq!(rates(&daemon, &id), [Some(100_000), None]);
    assert_eq!(
        told(&mut client, &handle),
        [100_000, 10_000, UNLIMITED, UNLIMITED],
        "info tells the kernel's view"
    );
}

#[test]
fn no_interface_outlives_its_container() {
    let daemon = Daemon::with(&[NOTHING_AHEAD]);
    let mut client = daemon.connect();
    let handles: Vec<_> = (0..5).map(|_| client.create()).collect();
    let survivor = client.create();
    for handle in handles.iter().chain([&survivor]) {
        limit(&mut client, handle, 100_000, 10_000).unwrap();
    }
    assert_eq!(links(&daemon).matches(" ifb ").count(), 6);
    for handle in &handles {
        client.destroy(handle);
    }
    eventually("the interfaces are gone", 30, || links(&daemon).matches("w-").count() == 2);
    let left = client.id(&survivor);
    assert!(links(&daemon).contains(&format!("w-{left}-2")));
    assert_eq!(told(&mut client, &survivor), [100_000, 10_000, 100_000, 10_000]);
}
