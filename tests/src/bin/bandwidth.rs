//! Measures limited bandwidth in both directions through real sockets; fails where it is off by more than a tenth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::process::ExitCode;

use warden_protocol::messages::LimitBandwidthRequest;
use warden_tests::Daemon;
use warden_tests::world::PYTHON;

/// Bytes per second: 10, 40 and 100 Mbit.
const RATES: [u64; 3] = [1_250_000, 5_000_000, 12_500_000];
/// The burst, as a part of what passes in a second: a timer that is late by as much loses nothing.
const BURST: u64 = 20;
/// How often each is measured: what else the machine does makes it slower, nothing makes it faster, and so the highest counts.
const ROUNDS: u64 = 3;
/// How long one round takes, in seconds.
const SECONDS: u64 = 2;

/// Inside: takes what comes until its end, or sends as much as it is told to.
const INSIDE: &str = r#"exec /usr/bin/python3 - <<'END'
import socket
s = socket.socket(); s.bind(("0.0.0.0", 7000)); s.listen()
open("/tmp/ready", "w").close()
while True:
    c, _ = s.accept()
    want = int(c.recv(16, socket.MSG_WAITALL))
    if want:
        c.sendall(bytes(want))
    else:
        while c.recv(1 << 20): pass
        c.sendall(b"x")
    c.close()
END
"#;

/// Outside: prints the seconds from the first byte to the last one's arrival.
const OUTSIDE: &str = r#"
import socket, sys, time
address, way, length = sys.argv[1], sys.argv[2], int(sys.argv[3])
s = socket.create_connection((address, 7000))
start = time.monotonic()
if way == "in":
    s.sendall(b"%16d" % 0 + bytes(length)); s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b"x"
else:
    s.sendall(b"%16d" % length)
    left = length
    while left: left -= len(s.recv(1 << 20))
print(time.monotonic() - start)
"#;

fn main() -> ExitCode {
    let daemon = Daemon::with(&[("logging.level", "info")]);
    let mut client = daemon.connect();
    let handle = client.create();
    client.spawn(&handle, INSIDE);
    client.text(&handle, "while [ ! -e /tmp/ready ]; do sleep 0.05; done");
    let address = String::from_utf8(client.info(&handle).container_ip.unwrap()).unwrap();
    let mut right = true;
    println!("{:>14} {:>10} {:>14} {:>8}", "limit Mbit/s", "direction", "measured", "of it");
    for rate in RATES {
        let burst = rate / BURST;
        let request =
            LimitBandwidthRequest { handle: Some(handle.clone()), rate: Some(rate), burst: Some(burst) };
        client.must(request);
        for way in ["in", "out"] {
            // What the bucket holds at the beginning is free.
            let length = rate * SECONDS + burst;
            let measured = (0..ROUNDS)
                .map(|_| (length - burst) as f64 / transfer(&daemon, &address, way, length))
                .fold(0.0, f64::max);
            let part = measured / rate as f64;
            right &= (0.9..=1.1).contains(&part);
            let megabits = |bytes: f64| bytes * 8.0 / 1e6;
            println!(
                "{:>14.1} {way:>10} {:>14.1} {:>7.1}%",
                megabits(rate as f64),
                megabits(measured),
                part * 100.0
            );
        }
    }
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Seconds that so many bytes take on their way.
fn transfer(daemon: &Daemon, address: &str, way: &str, length: u64) -> f64 {
    let mut command = daemon.in_its_network(PYTHON);
    let output = command.args(["-c", OUTSIDE, address, way, &length.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}
