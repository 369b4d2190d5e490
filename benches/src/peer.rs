//! The peers: other programs that make containers, each by command lines.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How many whole lives there can be at a time.
pub(crate) const CLIENTS: usize = 8;

/// The command lines of one peer, each a program with its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Tells its version.
    pub(crate) version: Vec<String>,
    /// A whole life of `true`.
    pub(crate) life: Vec<String>,
    /// A container that runs for long.
    pub(crate) running: Option<Running>,
    /// It is measured in one of so many rounds: some are slow.
    pub(crate) every: usize,
}

/// How a container that runs is made, used and ended.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// Makes and starts it, in as many steps as the peer has.
    pub(crate) start: Vec<Vec<String>>,
    /// Runs `true` in it.
    pub(crate) exec: Vec<String>,
    /// Ends it.
    pub(crate) end: Vec<Vec<String>>,
}

impl Peer {
    /// The command line of a whole life that may go on beside those of other clients.
    pub(crate) fn life_of(&self, client: usize) -> Vec<String> {
        self.life.iter().map(|word| word.replace("life-0", &format!("life-{client}"))).collect()
    }
}

/// The cgroup of the peers that take one.
pub(crate) const CGROUP: &str = "warden-bench-peers";
/// The name of the container that runs.
pub(crate) const RUNNING: &str = "warden-bench-long";
/// The name of another one, beside it.
pub(crate) const BESIDE: &str = "warden-bench-short";
/// A command that lasts longer than every measurement.
const LONG: [&str; 2] = ["/bin/sleep", "86400"];

/// All peers, with their state below `directory` and their programs in the root file system there.
pub(crate) fn all(directory: &Path) -> Result<Vec<Peer>> {
    let place = |name: &str| directory.join(name).display().to_string();
    let root = place("root");
    let lives = (0..CLIENTS).map(|client| (format!("life-{client}"), &["/bin/true"][..]));
    let long = [RUNNING, BESIDE].map(|name| (name.to_owned(), &LONG[..]));
    for (name, arguments) in lives.chain(long) {
        let bundle = directory.join(&name);
        std::fs::create_dir_all(&bundle)?;
        std::fs::write(bundle.join("config.json"), bundle_of(&root, &name, arguments).to_string())?;
    }
    let lxc =
        format!("lxc.rootfs.path = dir:{root}\nlxc.net.0.type = empty\nlxc.mount.auto = proc:mixed sys:ro\n");
    std::fs::write(directory.join("lxc.conf"), lxc)?;
    std::fs::create_dir_all(directory.join("lxc"))?;
    let (life, long) = (place("life-0"), place(RUNNING));
    Ok(vec![
        oci("crun", &place("crun"), &life, &long),
        oci("runc", &place("runc"), &life, &long),
        Peer {
            name: "bubblewrap",
            version: words("bwrap --version"),
            life: words(&format!(
                "bwrap --unshare-all --ro-bind {root} / --proc /proc --dev /dev --tmpfs /tmp /bin/true"
            )),
            running: None,
            every: 1,
        },
        lxc_peer(&place("lxc"), &place("lxc.conf")),
        Peer {
            name: "systemd-nspawn",
            version: words("systemd-nspawn --version"),
            life: words(&format!(
                "systemd-nspawn --quiet --directory={root} --register=no --keep-unit --private-network --as-pid2 /bin/true"
            )),
            running: None,
            every: 4,
        },
        podman(&place("podman"), &place("podman-run"), &root),
    ])
}

fn oci(name: &'static str, state: &str, life: &str, long: &str) -> Peer {
    let line = |rest: &str| words(&format!("{name} --root {state} {rest}"));
    Peer {
        name,
        version: words(&format!("{name} --version")),
        life: line(&format!("run --bundle {life} warden-bench-life-0")),
        running: Some(Running {
            start: vec![
                line(&format!("create --bundle {long} warden-bench-long")),
                line("start warden-bench-long"),
            ],
            exec: line("exec warden-bench-long /bin/true"),
            end: vec![line("delete --force warden-bench-long")],
        }),
        every: 1,
    }
}

fn lxc_peer(state: &str, config: &str) -> Peer {
    let line =
        |program: &str, name: &str, rest: &str| words(&format!("{program} -P {state} -n {name} {rest}"));
    Peer {
        name: "lxc",
        version: words("lxc-start --version"),
        life: line("lxc-start", "warden-bench-life-0", &format!("-f {config} -F -- /bin/true")),
        running: Some(Running {
            start: vec![line(
                "lxc-start",
                "warden-bench-long",
                &format!("-f {config} -d -- {}", LONG.join(" ")),
            )],
            exec: line("lxc-attach", "warden-bench-long", "-- /bin/true"),
            end: vec![line("lxc-stop", "warden-bench-long", "-k")],
        }),
        every: 2,
    }
}

/// With runc, which runs on every kind of machine; limits are given because it would raise its own.
fn podman(state: &str, run: &str, root: &str) -> Peer {
    let line = |rest: &str| {
        words(&format!(
            "podman --root {state} --runroot {run} --cgroup-manager cgroupfs --runtime runc {rest}"
        ))
    };
    let options =
        format!("--network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --rootfs {root}");
    Peer {
        name: "podman",
        version: words("podman --version"),
        life: line(&format!("run --rm {options} /bin/true")),
        running: Some(Running {
            start: vec![line(&format!(
                "run -d --name warden-bench-long {}",
                [&options, LONG[0], LONG[1]].join(" ")
            ))],
            exec: line("exec warden-bench-long /bin/true"),
            end: vec![line("rm -f -t 0 warden-bench-long")],
        }),
        every: 10,
    }
}

/// None of the words has a space: they are names of this benchmark and of a temporary directory.
fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// The description of a container for an OCI runtime, as `runc spec` makes it, without a network.
fn bundle_of(root: &str, name: &str, arguments: &[&str]) -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": arguments,
            "env": ["PATH=/bin:/usr/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "noNewPrivileges": true
        },
        "root": { "path": root, "readonly": true },
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        ],
        "linux": {
            "cgroupsPath": format!("/{CGROUP}/{name}"),
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// Runs a command line to its end; its last words are the error when it fails.
pub(crate) fn execute(words: &[String]) -> Result<()> {
    let (program, arguments) = words.split_first().context("an empty command")?;
    // A file, not a pipe: what goes on in the background would hold a pipe open.
    let mut errors = tempfile::tempfile()?;
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::try_clone(&errors)?)
        .status()
        .with_context(|| format!("starting {program}"))?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    std::io::Seek::rewind(&mut errors)?;
    std::io::Read::read_to_string(&mut errors, &mut text)?;
    bail!("{program}: {}", text.lines().last().unwrap_or(&status.to_string()));
}

/// The first line that a program says of its version; None when it is not there.
pub(crate) fn version(peer: &Peer) -> Option<String> {
    let (program, arguments) = peer.version.split_first()?;
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_and_missing_programs_too() {
        execute(&words("true")).unwrap();
        let lines = ["sh".to_owned(), "-c".to_owned(), "echo first >&2; echo last >&2; exit 3".to_owned()];
        assert_eq!(format!("{:#}", execute(&lines).unwrap_err()), "sh: last");
        let missing = format!("{:#}", execute(&words("/no/such/program x")).unwrap_err());
        assert!(missing.starts_with("starting /no/such/program: "), "{missing}");
    }

    #[test]
    fn every_peer_has_whole_command_lines() {
        let directory = tempfile::tempdir().unwrap();
        let peers = all(directory.path()).unwrap();
        assert_eq!(peers.len(), 6);
        for peer in peers {
            assert!(peer.life.len() > 3 && peer.life.iter().all(|word| !word.is_empty()), "{peer:?}");
        }
        let bundle = std::fs::read(directory.path().join("life-7/config.json")).unwrap();
        let bundle: Value = serde_json::from_slice(&bundle).unwrap();
        assert_eq!(bundle["process"]["args"], json!(["/bin/true"]));
    }
}
