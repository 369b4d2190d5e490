//! What a rule and a container cost beside few and beside many others, and what the table costs each packet.
//!
//! `network-costs [FEW [MANY]]`: 10 and 2,000 containers by default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use warden_protocol::messages::*;
use warden_tests::world::PYTHON;
use warden_tests::{Connection, Daemon};

/// Requests of each kind that are measured.
const SAMPLES: usize = 60;
/// Packets there and back in one measurement.
const ROUNDS: usize = 20_000;
/// Who sends and who answers wake each other: on two processors that would take longer than all that is measured.
const ONE_PROCESSOR: &str = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})";
const INTERNET: &str = "192.0.2.2";

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<usize>().expect("a number"));
    let few = arguments.next().unwrap_or(10);
    let many = arguments.next().unwrap_or(2_000);
    let daemon = Daemon::with(&[
        ("logging.level", "warn"),
        ("network.pool_network", "10.254.0.0/19"),
        ("user.pool_size", "4096"),
    ]);
    let world = World::beside(&daemon);
    let mut client = daemon.connect();
    let mut handles = Vec::new();
    println!("median milliseconds at the client; microseconds there and back for a packet of 64 bytes");
    println!(
        "{:>10} {:>8} {:>8} {:>8} {:>13} {:>16} {:>8} {:>8} {:>10}",
        "containers",
        "create",
        "net_in",
        "net_out",
        "net_out ICMP",
        "limit_bandwidth",
        "info",
        "destroy",
        "packet us"
    );
    for count in [few, many] {
        while handles.len() < count {
            handles.push(client.create());
        }
        let costs = measure(&mut client);
        let packet = world.there_and_back(&daemon, &mut client, &handles[0]);
        print!("{count:>10}");
        for (cost, width) in costs.iter().zip([8, 8, 8, 13, 16, 8, 8]) {
            print!(" {:>width$.2}", cost.as_secs_f64() * 1e3);
        }
        println!(" {packet:>10.2}");
    }
    println!("{:>10} {:>85.2}", "no table", world.without_table(&daemon, &mut client, &handles[0]));
    // With their interfaces thousands of containers end quicker side by side.
    std::thread::scope(|scope| {
        for part in handles.chunks(handles.len().div_ceil(8)) {
            let mut client = daemon.connect();
            scope.spawn(move || part.iter().for_each(|handle| client.destroy(handle)));
        }
    });
}

/// Medians of what is done beside the others: with one container that is there, then with some that come and go.
fn measure(client: &mut Connection) -> [Duration; 7] {
    let mut samples: [Vec<Duration>; 7] = Default::default();
    let mut timed = |kind: usize, work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        samples[kind].push(start.elapsed());
    };
    let handle = client.create();
    // What the kernel does by and by for those that were just made is no part of it.
    std::thread::sleep(Duration::from_secs(5));
    let name = || Some(handle.clone());
    let network = || Some(b"198.51.100.0/24".to_vec());
    let icmp = Some(net_out_request::Protocol::Icmp.into());
    for _ in 0..SAMPLES {
        timed(1, &mut || {
            client.must(NetInRequest { handle: name(), ..Default::default() });
        });
        timed(2, &mut || {
            client.must(NetOutRequest { handle: name(), network: network(), ..Default::default() });
        });
        timed(3, &mut || {
            let request =
                NetOutRequest { handle: name(), network: network(), protocol: icmp, ..Default::default() };
            client.must(request);
        });
        let (rate, burst) = (Some(1_000_000), Some(100_000));
        timed(4, &mut || {
            client.must(LimitBandwidthRequest { handle: name(), rate, burst });
        });
        timed(5, &mut || {
            client.info(&handle);
        });
    }
    client.destroy(&handle);
    for _ in 0..SAMPLES {
        let mut handle = Vec::new();
        timed(0, &mut || handle = client.create());
        timed(6, &mut || client.destroy(&handle));
    }
    samples.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}

/// A network namespace beside the daemon's that answers each packet.
struct World {
    name: String,
    echo: Child,
}

impl World {
    fn beside(daemon: &Daemon) -> Self {
        let name = format!("warden-bench-{}", daemon.pid());
        run(Command::new("ip").args(["netns", "add", &name]));
        let outside = |program: &str| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &name, program]);
            command
        };
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let pair = format!("link add out0 type veth peer name net0 netns {name}");
        run(daemon.in_its_network("ip").args(words(&pair)));
        run(daemon.in_its_network("ip").args(words("addr add 192.0.2.1/24 dev out0")));
        run(daemon.in_its_network("ip").args(words("link set out0 up")));
        run(outside("ip").args(words(&format!("addr add {INTERNET}/24 dev net0"))));
        run(outside("ip").args(words("link set net0 up")));
        // Without the table nothing has the host's address as its source.
        run(outside("ip").args(words("route add 10.254.0.0/19 via 192.0.2.1")));
        let script = format!(
            "import os, socket\n{ONE_PROCESSOR}\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('{INTERNET}', 7000))\n\
             while True:\n    data, peer = s.recvfrom(100); s.sendto(data, peer)\n"
        );
        let echo = outside(PYTHON).args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
        Self { name, echo }
    }

    /// Microseconds that a packet from a container needs to the world and back, the best of five rounds.
    fn there_and_back(&self, daemon: &Daemon, client: &mut Connection, handle: &[u8]) -> f64 {
        let network = Some(INTERNET.as_bytes().to_vec());
        let protocol = Some(net_out_request::Protocol::Udp.into());
        client.must(NetOutRequest {
            handle: Some(handle.to_vec()),
            network,
            protocol,
            ..NetOutRequest::default()
        });
        let id = client.id(handle);
        ping(daemon, &id)
    }

    /// The same without any rule; the daemon is held meanwhile, so that it does not repair its table.
    fn without_table(&self, daemon: &Daemon, client: &mut Connection, handle: &[u8]) -> f64 {
        let id = client.id(handle);
        daemon.signal(Signal::STOP);
        run(daemon.in_its_network("nft").args(["delete", "table", "inet", "warden"]));
        let cost = ping(daemon, &id);
        daemon.signal(Signal::CONT);
        cost
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.echo.kill();
        let _ = self.echo.wait();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ping(daemon: &Daemon, id: &str) -> f64 {
    let script = format!(
        r#"
import os, socket, time
{ONE_PROCESSOR}
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(("{INTERNET}", 7000))
best = 1e9
for _ in range(5):
    start = time.perf_counter()
    for _ in range({ROUNDS} // 5):
        s.send(bytes(36)); s.recv(100)
    best = min(best, time.perf_counter() - start)
print(best / ({ROUNDS} // 5) * 1e6)
"#
    );
    let pid = fs::read_to_string(daemon.depot(id).join("run/wshd.pid")).unwrap();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", pid.trim())).args([PYTHON, "-c", &script]);
    run(&mut command).trim().parse().unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
