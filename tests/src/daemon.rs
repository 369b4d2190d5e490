//! A running `wardend`, and the proof that it leaves nothing behind.

use std::env;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use warden_protocol::messages::{DestroyRequest, StopRequest};

use crate::config::Config;
use crate::connection::Connection;
use crate::wait::patience;
use crate::{files, kernel, programs};

/// A file in a daemon's directory that stands for the host's.
const RESOLV_CONF: &str = "resolv.conf";

/// How long a daemon may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon that answers; dropping one of the test's own checks that nothing is left of it.
#[derive(Debug)]
pub struct Daemon {
    socket: PathBuf,
    created: Arc<Mutex<Vec<Vec<u8>>>>,
    own: Option<Own>,
}

/// What belongs to a daemon of the test's own.
#[derive(Debug)]
struct Own {
    directory: TempDir,
    child: Child,
    /// Its network namespace, in which it is started again.
    network: Option<File>,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// The daemon of `WARDEN_TEST_SOCKET`, or one of the test's own.
    pub fn any() -> Self {
        match env::var_os("WARDEN_TEST_SOCKET") {
            Some(socket) => Self { socket: PathBuf::from(socket), created: Arc::default(), own: None },
            None => Self::own(),
        }
    }

    /// A daemon of the test's own.
    pub fn own() -> Self {
        Self::with(&[])
    }

    /// A daemon of the test's own with further configuration: `section.key` and the value as YAML.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::with_files(settings, &[])
    }

    /// The same, which finds `text` in the host's resolv.conf, wherever it looks; [`Self::set_resolv_conf`] changes it.
    pub fn with_resolv_conf(settings: &[(&str, &str)], text: &str) -> Self {
        Self::with_files(settings, &[(RESOLV_CONF, text)])
    }

    /// Changes what the daemon finds in the host's resolv.conf.
    pub fn set_resolv_conf(&self, text: &str) {
        fs::write(self.directory().join(RESOLV_CONF), text).unwrap();
    }

    fn with_files(settings: &[(&str, &str)], more: &[(&str, &str)]) -> Self {
        programs::require_root();
        let directory = tempfile::Builder::new()
            .prefix("warden-test.")
            .tempdir()
            .expect("a temporary directory can be made");
        files::set_mode(directory.path(), 0o711);
        let mut config = Config::new(directory.path(), mark(directory.path()));
        for (key, value) in settings {
            config.set(key, value);
        }
        fs::write(directory.path().join("wardend.yml"), config.text()).unwrap();
        for (name, text) in more {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let child = start(directory.path());
        let socket = directory.path().join("warden.sock");
        let mut daemon = Self {
            socket,
            created: Arc::default(),
            own: Some(Own { directory, child, network: None, ended: None }),
        };
        daemon.await_socket();
        let network = File::open(format!("/proc/{}/ns/net", daemon.pid())).unwrap();
        if let Some(own) = &mut daemon.own {
            own.network = Some(network);
        }
        daemon
    }

    /// Starts the daemon of the same directory again, after it has ended.
    pub fn restart(&mut self) {
        let own = self.own.as_mut().expect("a daemon of the test's own");
        assert!(own.ended.is_some(), "the daemon still runs");
        let network = own.network.as_ref().expect("it has listened before");
        own.child = start_in(network, own.directory.path());
        own.ended = None;
        self.await_socket();
    }

    /// The same, with a place at which a test build ends as a crash would; `false` when it has ended before it listened.
    pub fn try_restart(&mut self, failpoint: Option<(&str, &str)>) -> bool {
        let own = self.own.as_mut().expect("a daemon of the test's own");
        let network = own.network.as_ref().expect("it has listened before");
        own.child = start_at(network, own.directory.path(), failpoint);
        own.ended = None;
        let deadline = Instant::now() + PATIENCE * patience();
        while Connection::open(&self.socket, Arc::default()).is_err() {
            if self.has_ended() {
                return false;
            }
            assert!(Instant::now() < deadline, "wardend does not listen after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        let own = self.own.as_mut().expect("a daemon of the test's own");
        own.ended = own.ended.or_else(|| own.child.try_wait().unwrap());
        own.ended.is_some()
    }

    fn await_socket(&mut self) {
        let deadline = Instant::now() + PATIENCE * patience();
        while Connection::open(&self.socket, Arc::default()).is_err() {
            let own = self.own.as_mut().expect("a daemon of the test's own");
            if let Some(status) = own.child.try_wait().unwrap() {
                own.ended = Some(status);
                panic!("wardend ended with {status} before it listened");
            }
            assert!(Instant::now() < deadline, "wardend does not listen after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Connects a client.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        self.try_connect().expect("the daemon accepts connections")
    }

    /// Connects a client to a daemon that may have ended.
    pub fn try_connect(&self) -> std::io::Result<Connection> {
        Connection::open(&self.socket, Arc::clone(&self.created))
    }

    /// The path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its own directory, which holds its configuration, log, socket and depot.
    pub fn directory(&self) -> &Path {
        self.own.as_ref().expect("a daemon of the test's own").directory.path()
    }

    /// A path below its depot.
    pub fn depot(&self, name: &str) -> PathBuf {
        self.directory().join("depot").join(name)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory().join("wardend.log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.own.as_ref().expect("a daemon of the test's own").child.id().try_into().unwrap()
    }

    /// Its name among cgroups, which is part of the path of all that it makes.
    pub fn mark(&self) -> &str {
        mark(self.directory())
    }

    /// The processes of its containers, and their supervisors.
    pub fn helpers(&self) -> Vec<kernel::Process> {
        let mut processes = kernel::processes_of(self.mark());
        processes.retain(|process| process.pid != self.pid() && kernel::is_alive(process.pid));
        processes
    }

    /// The process that its iomuxes are copied from.
    pub fn fork_server(&self) -> i32 {
        self.find_fork_server().expect("it starts with the first container")
    }

    /// The same, if there is one.
    pub fn find_fork_server(&self) -> Option<i32> {
        let is_it = |process: &kernel::Process| {
            process.command.contains("iomux --fork-server")
                && kernel::parent_of(process.pid) == Some(self.pid())
        };
        kernel::processes().into_iter().find(is_it).map(|process| process.pid)
    }

    /// Runs a command in its network namespace, also when it has ended.
    pub fn in_its_network(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let network = self.own.as_ref().and_then(|own| own.network.as_ref());
        let network = network.expect("a daemon of the test's own").as_raw_fd();
        command.arg(format!("--net=/proc/{}/fd/{network}", std::process::id())).arg(program);
        command
    }

    /// Runs the `warden` program with its socket.
    pub fn client(&self) -> Command {
        let mut command = Command::new(programs::find("warden"));
        command.arg("--socket").arg(&self.socket).stdin(Stdio::null());
        command
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kernel::signal(self.pid(), signal);
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let own = self.own.as_mut().expect("a daemon of the test's own");
        let deadline = Instant::now() + PATIENCE * patience();
        while own.ended.is_none() {
            assert!(Instant::now() < deadline, "wardend has not ended after {PATIENCE:?}");
            own.ended = own.child.try_wait().unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        own.ended.unwrap()
    }

    /// Destroys every container, and those that are made meanwhile.
    fn destroy_all(&self) -> Result<(), String> {
        let mut client =
            self.try_connect().map_err(|error| format!("connecting for the last time: {error}"))?;
        let deadline = Instant::now() + PATIENCE * patience();
        loop {
            let handles = client.list();
            if handles.is_empty() {
                return Ok(());
            }
            for handle in handles {
                remove(&mut client, handle)?;
            }
            if Instant::now() > deadline {
                return Err(format!("containers remain: {:?}", client.list()));
            }
        }
    }

    /// What is left of it, by the kernel's view and in the depot.
    fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.helpers().iter().map(|process| format!("process {process:?}")).collect();
        left.extend(kernel::mounts_of(self.mark()).iter().map(|mount| format!("mount {mount}")));
        left.extend(kernel::cgroups_of(self.mark()).iter().map(|path| format!("cgroup {}", path.display())));
        let depot = fs::read_dir(self.depot("")).into_iter().flatten().flatten();
        left.extend(
            depot
                .map(|entry| entry.path())
                .filter(|path| !is_hidden(path))
                .map(|path| path.display().to_string()),
        );
        left
    }

    /// Ends it as an operator does; gives what was wrong.
    fn end(&mut self) -> Result<(), String> {
        if self.own.as_ref().is_some_and(|own| own.ended.is_none()) {
            self.destroy_all()?;
            self.signal(Signal::TERM);
            let status = self.wait();
            if !status.success() {
                return Err(format!(
                    "wardend ended with {status} (signal {:?}) after SIGTERM",
                    status.signal()
                ));
            }
        }
        let left = self.leftovers();
        if left.is_empty() { Ok(()) } else { Err(format!("left over:\n  {}", left.join("\n  "))) }
    }

    /// Removes what is there, whatever it takes.
    fn force_end(&mut self) {
        if let Some(own) = &mut self.own {
            let _ = own.child.kill();
            let _ = own.child.wait();
        }
        for _ in 0..200 {
            let left = self.helpers();
            left.iter().for_each(|process| kernel::signal(process.pid, Signal::KILL));
            for cgroup in kernel::cgroups_of(self.mark()) {
                let _ = fs::remove_dir(cgroup);
            }
            if left.is_empty() && kernel::cgroups_of(self.mark()).is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        for mount in kernel::mounts_of(self.mark()) {
            let _ = Command::new("umount").arg("-l").args(mount.split(' ').nth(4)).status();
        }
    }

    fn print_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let stderr = fs::read_to_string(self.directory().join("stderr")).unwrap_or_default();
        eprintln!(
            "wardend's stderr:\n{stderr}wardend's log:\n{}",
            lines[lines.len().saturating_sub(60)..].join("\n")
        );
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.own.is_none() {
            let handles =
                std::mem::take(&mut *self.created.lock().unwrap_or_else(|poison| poison.into_inner()));
            if let Ok(mut client) = self.try_connect() {
                handles.into_iter().for_each(|handle| drop(remove(&mut client, handle)));
            }
            return;
        }
        let failed = thread::panicking();
        let wrong = if failed { None } else { self.end_caught().err() };
        if failed || wrong.is_some() {
            self.print_log();
            self.force_end();
        }
        if let Some(wrong) = wrong {
            panic!("the daemon did not end cleanly: {wrong}");
        }
    }
}

impl Daemon {
    /// Ends it; a panic on the way is what was wrong.
    fn end_caught(&mut self) -> Result<(), String> {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.end()));
        ended.unwrap_or_else(|_| Err("asking it to end failed, as said above".to_owned()))
    }
}

/// Stops a container's jobs at once and destroys it; one that is gone is no error.
fn remove(client: &mut Connection, handle: Vec<u8>) -> Result<(), String> {
    let _ = client.ask(StopRequest { handle: Some(handle.clone()), kill: Some(true), background: None });
    match client.ask(DestroyRequest { handle: Some(handle.clone()) }) {
        Err(message) if message != "unknown handle" => {
            Err(format!("destroying {:?}: {message}", handle.escape_ascii()))
        }
        _ => Ok(()),
    }
}

fn mark(directory: &Path) -> &str {
    directory.file_name().unwrap().to_str().unwrap()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Starts wardend in a network namespace of its own, whose addresses and ports collide with nobody's.
fn start(directory: &Path) -> Child {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &format!("ip link set lo up && {}", running(directory))]);
    spawn(command, directory)
}

/// Starts it in a network namespace that is there.
fn start_in(network: &File, directory: &Path) -> Child {
    start_at(network, directory, None)
}

/// The same with a place at which a test build ends: a variable and its value.
fn start_at(network: &File, directory: &Path, failpoint: Option<(&str, &str)>) -> Child {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/fd/{}", std::process::id(), network.as_raw_fd()));
    command.args(["sh", "-c", running(directory)]);
    command.env_remove("WARDEN_FAILPOINT").env_remove("WARDEN_IOMUX_FAILPOINT").envs(failpoint);
    spawn(command, directory)
}

/// The script that becomes wardend: its program is $0, its configuration $1, its resolv.conf $2.
fn running(directory: &Path) -> &'static str {
    if directory.join(RESOLV_CONF).exists() {
        // The file is seen over the host's, in a mount namespace of the daemon's own.
        return "exec unshare --mount sh -c \
            'mount --bind \"$2\" /etc/resolv.conf && exec \"$0\" --config \"$1\"' \"$0\" \"$1\" \"$2\"";
    }
    "exec \"$0\" --config \"$1\""
}

fn spawn(mut command: Command, directory: &Path) -> Child {
    let stderr = File::create(directory.join("stderr")).unwrap();
    command
        .arg(programs::find("wardend"))
        .arg(directory.join("wardend.yml"))
        .arg(directory.join(RESOLV_CONF));
    command.env("LANG", "C.UTF-8").stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    command.spawn().unwrap_or_else(|error| panic!("starting wardend: {error}"))
}
