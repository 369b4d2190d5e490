//! A daemon with something outside of it: "the internet", a second network namespace that a process of the test holds.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use warden_protocol::messages::RunRequest;

use crate::connection::Connection;
use crate::daemon::Daemon;

/// What runs the programs below, inside and outside: by its path, for what PATH finds first may be a script that takes
/// a hundred times as long to start it.
pub const PYTHON: &str = "/usr/bin/python3";
/// The internet's addresses.
pub const INTERNET: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// The host's addresses there.
pub const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// The containers' network of IPv6, where a test wants one.
pub const POOL_V6: (&str, &str) = ("network.pool_network_v6", "\"fd00:77::/64\"");

/// A daemon's network, joined to the internet by one link.
#[derive(Debug)]
pub struct World {
    /// The daemon.
    pub daemon: Daemon,
    /// Its namespace goes with it.
    internet: Child,
}

impl World {
    /// Starts a daemon and puts an internet beside it.
    pub fn new(settings: &[(&str, &str)]) -> Self {
        Self::around(Daemon::with(settings))
    }

    /// Puts an internet beside a daemon.
    pub fn around(daemon: Daemon) -> Self {
        let mut internet = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        await_line(&mut internet);
        let world = Self { daemon, internet };
        let pid = world.internet.id().to_string();
        let link = ["link", "add", "out0", "type", "veth", "peer", "name", "net0", "netns", &pid];
        run(world.host("ip").args(link));
        for (here, interface, addresses) in [(true, "out0", HOST), (false, "net0", INTERNET)] {
            let ip = || if here { world.host("ip") } else { world.internet("ip") };
            run(ip().args(["addr", "add", &format!("{}/24", addresses[0]), "dev", interface]));
            run(ip().args(["addr", "add", &format!("{}/64", addresses[1]), "dev", interface, "nodad"]));
            run(ip().args(["link", "set", interface, "up"]));
        }
        world
    }

    /// A command in the internet.
    pub fn internet(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.internet.id())).arg(program);
        command
    }

    /// A command on the host.
    pub fn host(&self, program: &str) -> Command {
        self.daemon.in_its_network(program)
    }

    /// Holds the host's network: it outlives the daemon with this.
    #[track_caller]
    pub fn keep(&self) -> Keeper {
        let mut child = self.host("sh");
        child.args(["-c", "echo ready; exec sleep 1000"]).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        await_line(&mut child);
        Keeper(Kept(child))
    }

    /// All rules of the host.
    #[track_caller]
    pub fn nft(&self) -> String {
        run(self.host("nft").args(["list", "ruleset"]))
    }

    /// The names of all interfaces of the host: their states change by themselves.
    #[track_caller]
    pub fn links(&self) -> Vec<String> {
        let listed = run(self.host("ip").args(["-o", "link"]));
        listed.lines().filter_map(|line| line.split(": ").nth(1).map(str::to_owned)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.internet.kill();
        let _ = self.internet.wait();
    }
}

/// Runs a command that must succeed, and gives what it wrote.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn await_line(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
}

/// A process that ends with this.
#[derive(Debug)]
pub struct Kept(pub Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The host's network, held by a process.
#[derive(Debug)]
pub struct Keeper(Kept);

impl Keeper {
    /// A command in it.
    pub fn host(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.0.id())).arg(program);
        command
    }
}

/// A process that answers whoever comes to a port with the address that it came from, until this is dropped.
#[derive(Debug)]
pub struct Echo {
    _serving: Kept,
}

impl Echo {
    /// Serves `STREAM` or `DGRAM` in the namespace of a command that will run python.
    #[track_caller]
    pub fn start(mut command: Command, kind: &str, port: u16) -> Self {
        command.args(["-c", &serving(kind, "::", port, "print('ready', flush=True)")]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        await_line(&mut child);
        Self { _serving: Kept(child) }
    }
}

/// A program in python that serves both families at a port, and says with `ready` when it does.
pub fn serving(kind: &str, address: &str, port: u16, ready: &str) -> String {
    format!(
        r#"
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_{kind})
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("{address}", {port}))
name = lambda peer: peer[0].removeprefix("::ffff:").encode()
if "{kind}" == "STREAM": s.listen(100)
{ready}
while True:
    if "{kind}" == "STREAM":
        c, peer = s.accept()
        try: c.sendall(name(peer)); c.close()
        except OSError: pass
    else:
        data, peer = s.recvfrom(100); s.sendto(name(peer), peer)
"#
    )
}

/// A program in python that asks an echo, and prints the address that it saw, or "failed".
pub fn asking(kind: &str, address: &str, port: u32) -> String {
    format!(
        r#"
import socket
s = socket.socket(socket.AF_INET6 if ":" in "{address}" else socket.AF_INET, socket.SOCK_{kind}); s.settimeout(1.5)
try:
    s.connect(("{address}", {port})); s.send(b"x") if "{kind}" == "DGRAM" else None
    print(s.recv(100).decode())
except OSError as e: print("failed")
"#
    )
}

/// A program in python that sends an ICMP message of this type and prints the type of the answer, or "failed".
///
/// It is long enough for every kind of question.
pub fn pinging(address: &str, kind: u8) -> String {
    format!(
        r#"
import socket, struct, time
v6 = ":" in "{address}"
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) if v6 else socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.settimeout(0.3)
body = struct.pack("!HH", 77, 1) + bytes(12)
packet = lambda check: struct.pack("!BBH", {kind}, 0, check) + body
words = sum(struct.unpack("!10H", packet(0)))
while words >> 16: words = (words & 0xffff) + (words >> 16)
try:
    s.sendto(packet(~words & 0xffff), ("{address}", 0))
    end = time.time() + 1.5
    answer = "failed"
    while time.time() < end:
        try: data, peer = s.recvfrom(2000)
        except socket.timeout: continue
        data = data if v6 else data[(data[0] & 15) * 4:]
        if peer[0] == "{address}" and data[0] not in (1, 3, {kind}) and data[4:6] == body[:2]:
            answer = str(data[0]); break
    print(answer)
except OSError: print("failed")
"#
    )
}

/// Asks an echo from a container.
#[track_caller]
pub fn from_container(
    client: &mut Connection,
    handle: &[u8],
    kind: &str,
    address: &str,
    port: u32,
) -> String {
    let script = format!("{PYTHON} - <<'END'\n{}\nEND\n", asking(kind, address, port));
    client.text(handle, &script).trim().to_owned()
}

/// Asks an echo from the namespace of a command that will run python.
#[track_caller]
pub fn from(mut command: Command, kind: &str, address: &str, port: u32) -> String {
    run(command.args(["-c", &asking(kind, address, port)])).trim().to_owned()
}

/// Runs a program in python as a container's root, and gives what it prints.
#[track_caller]
pub fn python_as_root(client: &mut Connection, handle: &[u8], program: &str) -> String {
    let answer = client.must(RunRequest {
        handle: Some(handle.to_vec()),
        script: Some(format!("{PYTHON} - <<'END'\n{program}\nEND\n").into_bytes()),
        privileged: Some(true),
        ..RunRequest::default()
    });
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).unwrap();
    let (out, err) = (text(answer.stdout), text(answer.stderr));
    assert_eq!(err, "", "stdout: {out}");
    out.trim().to_owned()
}

/// Starts an echo of `STREAM` or `DGRAM` inside a container.
#[track_caller]
pub fn echo_inside(client: &mut Connection, handle: &[u8], kind: &str, port: u16) {
    let mark = format!("/tmp/ready-{kind}-{port}");
    let program = serving(kind, "::", port, &format!("open('{mark}', 'w').close()"));
    client.spawn(handle, format!("exec {PYTHON} - >/dev/null 2>&1 <<'END'\n{program}\nEND\n"));
    client.text(handle, format!("while [ ! -e {mark} ]; do sleep 0.05; done"));
}
