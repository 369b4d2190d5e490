//! A daemon with something outside of it: "the internet", a second network namespace that a process of the test holds.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use warden_protocol::messages::RunRequest;

use crate::connection::Connection;
use crate::daemon::Daemon;
use crate::wait::eventually;

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

/// What nft has listed, part by part: chains stand in the order in which they were made, elements of sets in none.
pub fn parts(listed: &str) -> Vec<String> {
    let bare =
        |part: &str| part.trim().trim_start_matches("elements = {").trim_end_matches('}').trim().to_owned();
    let mut parts: Vec<_> = listed.split([',', '\n']).map(bare).collect();
    parts.sort_unstable();
    parts
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
    /// Serves each of these `STREAM` or `DGRAM` and ports in the namespace of a command that will run python.
    #[track_caller]
    pub fn start(mut command: Command, places: &[(&str, u16)]) -> Self {
        command.args(["-c", &serving(places)]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        await_line(&mut child);
        Self { _serving: Kept(child) }
    }
}

/// The programs of echoes, in python.
const PROGRAMS: &str = include_str!("echo.py");

/// A question to an echo: `STREAM` or `DGRAM`, its address and its port.
pub type Question<'a> = (&'a str, &'a str, u32);

/// A program that serves both families at ports, and says with `ready` when it does.
fn serving(places: &[(&str, u16)]) -> String {
    let places: String = places.iter().map(|(kind, port)| format!("(\"{kind}\", {port}), ")).collect();
    format!("{PROGRAMS}\nserve([{places}])\n")
}

/// A program that asks echoes, all at once, and prints for each the address that it saw, or "failed".
fn asking(questions: &[Question<'_>]) -> String {
    let list = |(kind, address, port): &Question<'_>| format!("(\"{kind}\", \"{address}\", {port}), ");
    format!("{PROGRAMS}\nask([{}])\n", questions.iter().map(list).collect::<String>())
}

/// A program that sends ICMP messages, all at once, and prints the type of each answer, or "failed".
fn pinging(questions: &[(&str, u8)]) -> String {
    let list: String = questions.iter().map(|(address, kind)| format!("(\"{address}\", {kind}), ")).collect();
    format!("{PROGRAMS}\nping([{list}])\n")
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// A job that runs a program in python.
fn job(program: &str) -> String {
    format!("{PYTHON} - <<'END'\n{program}\nEND\n")
}

/// Asks echoes from a container, all at once: what each of them saw, or "failed".
#[track_caller]
pub fn all_from_container(client: &mut Connection, handle: &[u8], questions: &[Question<'_>]) -> Vec<String> {
    lines(&client.text(handle, job(&asking(questions))))
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
    all_from_container(client, handle, &[(kind, address, port)]).remove(0)
}

/// Asks echoes from the namespace of a command that will run python, all at once.
#[track_caller]
pub fn all_from(mut command: Command, questions: &[Question<'_>]) -> Vec<String> {
    lines(&run(command.args(["-c", &asking(questions)])))
}

/// Asks an echo from the namespace of a command that will run python.
#[track_caller]
pub fn from(command: Command, kind: &str, address: &str, port: u32) -> String {
    all_from(command, &[(kind, address, port)]).remove(0)
}

/// Sends ICMP messages of these types to these addresses as a container's root: the type of each answer, or "failed".
#[track_caller]
pub fn ping_from_container(client: &mut Connection, handle: &[u8], questions: &[(&str, u8)]) -> Vec<String> {
    lines(&python_as_root(client, handle, &pinging(questions)))
}

/// The same from the namespace of a command that will run python.
#[track_caller]
pub fn ping_from(mut command: Command, questions: &[(&str, u8)]) -> Vec<String> {
    lines(&run(command.args(["-c", &pinging(questions)])))
}

/// Runs a program in python as a container's root, and gives what it prints.
#[track_caller]
pub fn python_as_root(client: &mut Connection, handle: &[u8], program: &str) -> String {
    let answer = client.must(RunRequest {
        handle: Some(handle.to_vec()),
        script: Some(job(program).into_bytes()),
        privileged: Some(true),
        ..RunRequest::default()
    });
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).unwrap();
    let (out, err) = (text(answer.stdout), text(answer.stderr));
    assert_eq!(err, "", "stdout: {out}");
    out.trim().to_owned()
}

/// Starts echoes inside a container, each `STREAM` or `DGRAM` at its port.
#[track_caller]
pub fn echo_inside(client: &mut Connection, handle: &[u8], places: &[(&str, u16)]) {
    let started = client.spawn(handle, format!("exec {}", job(&serving(places))));
    let container = String::from_utf8(client.info(handle).container_path.unwrap()).unwrap();
    let output = format!("{container}/jobs/{started}/stdout");
    eventually("the echoes serve", 20, || fs::read(&output).is_ok_and(|text| text == b"ready\n"));
}
