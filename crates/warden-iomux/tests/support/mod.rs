//! A container of a test's own: a depot directory, cgroups, an iomux with its control socket. All of it goes away with
//! the value, also when the test fails.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use warden_init::byte_string::ByteString;
use warden_init::confinement::Confinement;
use warden_init::message::Process;
use warden_init::spec::{Bind, Cgroup, IdRange, InsideFile, Root, Spec, User, VERSION};
use warden_iomux::layout::Layout;
use warden_iomux::message::{self, Event, Exit, ExitCause, MAX_PACKET, Output, Request};
use warden_linux::epoll::{Epoll, Interest};
use warden_linux::socket::PacketSocket;

const CONTROLLERS: [&str; 7] = ["cpu", "cpuacct", "memory", "devices", "freezer", "blkio", "pids"];

/// Longer than anything that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The inside id of vcap.
pub(crate) const VCAP: u32 = 10_007;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A connection to iomux as a daemon has it.
pub(crate) struct Client {
    socket: PacketSocket,
    epoll: Epoll,
}

impl Client {
    fn new(socket: PacketSocket) -> Self {
        let epoll = Epoll::new().unwrap();
        epoll.add(&socket, 0, Interest::Read).unwrap();
        let client = Self { socket, epoll };
        client.ask(&Request::Hello { version: message::VERSION });
        client
    }

    /// Connects to a running iomux.
    pub(crate) fn connect(path: &Path) -> Self {
        Self::new(PacketSocket::connect(path).unwrap())
    }

    pub(crate) fn ask(&self, request: &Request) {
        self.ask_with(request, &[]);
    }

    pub(crate) fn ask_with(&self, request: &Request, fds: &[OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let bytes = serde_json::to_vec(request).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.socket.send(&bytes, &fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                other => return other.unwrap(),
            }
        }
    }

    pub(crate) fn send_raw(&self, bytes: &[u8]) {
        self.socket.send(bytes, &[]).unwrap();
    }

    /// The next event; `None` once iomux has closed the connection.
    pub(crate) fn next(&self) -> Option<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.socket.receive(MAX_PACKET) {
                Ok(packet) if packet.bytes.is_empty() => return None,
                Ok(packet) => return Some(serde_json::from_slice(&packet.bytes).unwrap()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "iomux says nothing");
            self.epoll.wait(Some(left)).unwrap();
        }
    }

    /// The first event that `wanted` accepts; the others are dropped.
    pub(crate) fn until<T>(&self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().expect("iomux hung up")) {
                return found;
            }
        }
    }

    pub(crate) fn spawn(&self, job: u32, process: Process, output: Output, script: &str) {
        self.ask_with(&Request::Spawn { job, process, output }, &[stdin(script)]);
    }

    /// Waits for the end of a job.
    pub(crate) fn end(&self, job: u32) -> Exit {
        self.until(|event| match event {
            Event::Ended { job: ended, exit } if ended == job => Some(exit),
            Event::SpawnFailed { job: failed, step, errno } if failed == job => {
                panic!("job {job}: {step:?}: {}", io::Error::from_raw_os_error(errno))
            }
            _ => None,
        })
    }
}

/// A file that holds a script, open to be read.
pub(crate) fn stdin(script: &str) -> OwnedFd {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(script.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

/// Bash as a user.
pub(crate) fn bash(user: &str) -> Process {
    Process {
        program: "/bin/bash".into(),
        arguments: Vec::new(),
        user: user.into(),
        lang: "C.UTF-8".into(),
        rlimits: Vec::new(),
    }
}

/// Stored output up to a limit.
pub(crate) fn stored(limit: u64) -> Output {
    Output { limit, discard: false, log: None }
}

/// What a job came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) cause: ExitCause,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A container.
pub(crate) struct Container {
    pub(crate) directory: TempDir,
    pub(crate) layout: Layout,
    pub(crate) spec: Spec,
    /// The control socket.
    pub(crate) client: Client,
    iomux: Child,
    /// The host's process id of wshd; 0 until it is ready.
    pub(crate) init: i32,
    /// Dropped after the processes have ended.
    _cgroups: Cgroups,
    next_job: u32,
}

impl Container {
    /// A container that stands, in a user namespace.
    pub(crate) fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// A container that stands; `change` may change its spec and sees the test's directory.
    pub(crate) fn with(change: impl FnOnce(&mut Spec, &Path)) -> Self {
        let mut container = Self::start(change);
        container.init = container.client.until(|event| match event {
            Event::Ready { init_pid } => Some(init_pid),
            Event::SetupFailed { step, object, errno } => panic!(
                "{} {}: {}",
                step.as_path().display(),
                object.as_path().display(),
                io::Error::from_raw_os_error(errno)
            ),
            _ => None,
        });
        container
    }

    /// Starts iomux and waits for nothing.
    pub(crate) fn start(change: impl FnOnce(&mut Spec, &Path)) -> Self {
        Self::start_in("", change)
    }

    /// The same, so deep in the test's directory.
    pub(crate) fn start_in(depth: &str, change: impl FnOnce(&mut Spec, &Path)) -> Self {
        let directory = tempfile::Builder::new().prefix("iomux-test-").tempdir().unwrap();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let depot = directory.path().join(depth).join("depot/testcontain");
        let mut spec = spec(directory.path(), &depot, number);
        let cgroups = make_cgroups(&mut spec, number);
        change(&mut spec, directory.path());
        for (name, private) in
            [("tmp/rootfs", true), ("tmp/work", true), ("run", false), ("jobs", false), ("mnt", false)]
        {
            let path = depot.join(name);
            fs::create_dir_all(&path).unwrap();
            if let Some(ids) = spec.ids.filter(|_| private) {
                chown(&path, Some(ids.host_start), Some(ids.host_start)).unwrap();
            }
        }
        let path = depot.join("spec.json");
        fs::write(&path, serde_json::to_vec_pretty(&spec).unwrap()).unwrap();
        let (near, far) = PacketSocket::pair().unwrap();
        // Its Hello waits for iomux, which may have ended by the time that another would be sent.
        let client = Client::new(near);
        let iomux = Command::new(helpers().join("iomux"))
            .arg(&path)
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self {
            layout: Layout::new(&depot),
            directory,
            spec,
            client,
            iomux,
            init: 0,
            _cgroups: cgroups,
            next_job: 1,
        }
    }

    /// Starts bash as vcap with a script; gives the job's number.
    pub(crate) fn spawn(&mut self, script: &str) -> u32 {
        self.spawn_as("vcap", script, stored(1 << 30))
    }

    pub(crate) fn spawn_as(&mut self, user: &str, script: &str, output: Output) -> u32 {
        let job = self.next_job;
        self.next_job += 1;
        self.client.spawn(job, bash(user), output, script);
        job
    }

    /// Waits for a job's end and reads its files.
    pub(crate) fn finish(&self, job: u32) -> Outcome {
        let exit = self.client.end(job);
        let read = |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let outcome = Outcome {
            cause: exit.cause,
            stdout: read(self.layout.stdout(job)),
            stderr: read(self.layout.stderr(job)),
        };
        assert_eq!((exit.stdout, exit.stderr), self.lengths(job));
        let written: Exit = serde_json::from_slice(&fs::read(self.layout.exit(job)).unwrap()).unwrap();
        assert_eq!(written, exit);
        outcome
    }

    fn lengths(&self, job: u32) -> (u64, u64) {
        let length = |path: PathBuf| fs::metadata(path).unwrap().len();
        (length(self.layout.stdout(job)), length(self.layout.stderr(job)))
    }

    pub(crate) fn run(&mut self, script: &str) -> Outcome {
        let job = self.spawn(script);
        self.finish(job)
    }

    pub(crate) fn run_as_root(&mut self, script: &str) -> Outcome {
        let job = self.spawn_as("root", script, stored(1 << 30));
        self.finish(job)
    }

    /// The host's ids of the processes inside, wshd included, as the kernel sees them.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
        let Ok(own) = namespace(&self.init.to_string()) else { return Vec::new() };
        let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        names
            .filter_map(|name| name.to_str()?.parse::<i32>().ok())
            .filter(|pid| namespace(&pid.to_string()).is_ok_and(|other| other == own))
            .collect()
    }

    /// Waits until exactly `count` processes are inside.
    pub(crate) fn wait_for_processes(&self, count: usize) {
        wait_until(|| self.processes().len() == count);
    }

    /// Kills the container and waits for iomux's own end.
    pub(crate) fn kill(&mut self) {
        self.client.ask(&Request::Kill);
        self.client.until(|event| (event == Event::Gone).then_some(()));
        assert!(self.iomux.wait().unwrap().success());
    }

    /// Waits for iomux's end; gives whether it was a success.
    pub(crate) fn wait(&mut self) -> bool {
        self.iomux.wait().unwrap().success()
    }

    /// Starts iomux by hand in the same directory, without a control socket, and waits until the container stands.
    pub(crate) fn start_again(&mut self) {
        let path = self.layout.directory().join("spec.json");
        self.iomux = Command::new(helpers().join("iomux")).arg(path).stdin(Stdio::null()).spawn().unwrap();
        wait_until(|| PacketSocket::connect(&self.layout.iomux_socket()).is_ok());
        self.client = self.connect();
        self.init = self.client.until(|event| match event {
            Event::Ready { init_pid } => Some(init_pid),
            _ => None,
        });
    }

    /// Makes the file that jobs wait for, as vcap, without iomux.
    pub(crate) fn release(&self) {
        let mut command = Command::new(helpers().join("wsh"));
        command.arg("--socket").arg(self.layout.wshd_socket());
        assert!(command.args(["--user", "vcap", "touch", "go"]).status().unwrap().success());
    }

    /// Kills iomux, whatever it does.
    pub(crate) fn kill_supervisor(&mut self) {
        self.iomux.kill().unwrap();
        self.iomux.wait().unwrap();
    }

    /// Has another iomux take over from the one that was killed; gives what it tells until it is ready, or gone.
    pub(crate) fn take_over(&mut self) -> Vec<Event> {
        let path = self.layout.directory().join("spec.json");
        let (near, far) = PacketSocket::pair().unwrap();
        self.client = Client::new(near);
        let mut command = Command::new(helpers().join("iomux"));
        command.arg("--adopt").arg(path).stdin(Stdio::from(OwnedFd::from(far)));
        self.iomux = command.spawn().unwrap();
        drop(command);
        let mut told = Vec::new();
        loop {
            let event = self.client.next().expect("iomux hung up");
            let last = matches!(event, Event::Ready { .. } | Event::Gone);
            told.push(event);
            if last {
                return told;
            }
        }
    }

    /// Starts iomux once more, which must refuse; gives its last words.
    pub(crate) fn start_twice(&self) -> String {
        let path = self.layout.directory().join("spec.json");
        let mut command = Command::new(helpers().join("iomux"));
        assert!(!command.arg(path).stdin(Stdio::null()).status().unwrap().success());
        fs::read_to_string(self.layout.log()).unwrap()
    }

    /// The process id of iomux.
    pub(crate) fn iomux_pid(&self) -> i32 {
        self.iomux.id() as i32
    }

    /// Connects as another client.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.layout.iomux_socket())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // What iomux had to say may be why the test failed.
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.layout.log()).unwrap_or_default());
        }
        let _ = self.iomux.kill();
        let _ = self.iomux.wait();
        // With iomux gone, wshd is this machine's init's child; its id is in the file that iomux wrote.
        let pid = fs::read_to_string(self.layout.wshd_pid()).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pidfd) = pid.and_then(open_wshd) {
            let _ = warden_linux::process::kill_by_pidfd(pidfd.as_fd());
            let epoll = Epoll::new().unwrap();
            epoll.add(&pidfd, 0, Interest::Read).unwrap();
            let _ = epoll.wait(Some(PATIENCE));
        }
    }
}

/// Cgroups that are removed with the value.
struct Cgroups(Vec<PathBuf>);

impl Drop for Cgroups {
    fn drop(&mut self) {
        for cgroup in &self.0 {
            let deadline = Instant::now() + Duration::from_secs(5);
            while fs::remove_dir(cgroup).is_err() && cgroup.exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// The pidfd of a process that is still a wshd (its id may have gone to another).
fn open_wshd(pid: i32) -> Option<OwnedFd> {
    let pidfd = warden_linux::process::open_pidfd(pid).ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name == "wshd\n").then_some(pidfd)
}

/// Waits until something is true.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The directory of the helpers under test: the one that WARDEN_HELPERS names, or that of the built iomux.
pub(crate) fn helpers() -> PathBuf {
    static BUILT: Once = Once::new();
    if let Some(directory) = std::env::var_os("WARDEN_HELPERS") {
        return directory.into();
    }
    let iomux = Path::new(env!("CARGO_BIN_EXE_iomux"));
    let profile = iomux.parent().unwrap();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "warden-init", "--bins", "--target-dir"]);
        cargo.arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "wsh could not be built");
    });
    profile.to_path_buf()
}

fn spec(directory: &Path, depot: &Path, number: u32) -> Spec {
    assert_eq!(fs::metadata("/proc/self").unwrap().uid(), 0, "these tests must run as root");
    let lower = directory.join("lower");
    make_lower(&lower);
    Spec {
        version: VERSION,
        id: "testcontain".into(),
        init: None,
        ids: Some(IdRange { host_start: 600_000_000 + number * 65_536, count: 65_536 }),
        cgroups: Vec::new(),
        root: Root {
            lower: lower.into(),
            writable: depot.join("tmp").into(),
            system: vec![bind("/usr", "/usr", false)],
        },
        binds: Vec::new(),
        files: vec![InsideFile {
            path: "/etc/hostname".into(),
            mode: 0o644,
            content: "testcontain\n".into(),
        }],
        user: User { name: "vcap".into(), id: VCAP },
        confinement: Confinement::FULL,
    }
}

pub(crate) fn bind(source: impl AsRef<Path>, destination: &str, writable: bool) -> Bind {
    Bind { source: source.as_ref().into(), destination: destination.into(), writable }
}

fn make_lower(lower: &Path) {
    for name in ["etc", "usr", "root", "home", "tmp", "proc", "sys", "dev", "var"] {
        fs::create_dir_all(lower.join(name)).unwrap();
    }
    fs::set_permissions(lower.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(lower, Permissions::from_mode(0o755)).unwrap();
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), lower.join(name)).unwrap();
    }
    fs::write(lower.join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n").unwrap();
    fs::write(lower.join("etc/group"), "root:x:0:\ntty:x:5:\n").unwrap();
    fs::copy("/etc/ld.so.cache", lower.join("etc/ld.so.cache")).unwrap();
}

/// A cgroup in each hierarchy that is there.
fn make_cgroups(spec: &mut Spec, number: u32) -> Cgroups {
    let mut made = Cgroups(Vec::new());
    for controller in CONTROLLERS {
        let hierarchy = Path::new("/sys/fs/cgroup").join(controller);
        if hierarchy.join("tasks").exists() {
            let path = hierarchy.join(format!("instance-test-{}-{number}", std::process::id()));
            fs::create_dir(&path).unwrap();
            spec.cgroups.push(Cgroup::V1(ByteString::from(path.as_path())));
            made.0.push(path);
        }
    }
    // Version 2 is below `unified` where version 1 has the root.
    let hierarchies = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    if let Some(hierarchy) = hierarchies.into_iter().find(|path| path.join("cgroup.procs").exists()) {
        let path = hierarchy.join(format!("instance-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        spec.cgroups.push(Cgroup::V2(ByteString::from(path.as_path())));
        made.0.push(path);
    }
    made
}
