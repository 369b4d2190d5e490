//! Containers and jobs on the real kernel: whole lives, and that nothing is left of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test says so")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use warden_container::container::Container;
use warden_container::error::Error;
use warden_container::host::{Connection, Host};
use warden_container::job::{Job, Progress, Stream};
use warden_container::request::{Bind, Create, Run, Stop};
use warden_container::settings::{Firewall, Image, IoLimits, NetworkPool, PortPool, Settings, UserPool};
use warden_container::state::State;
use warden_init::spec::IdRange;
use warden_iomux::message::ExitCause;

/// Where iomux is: named by the environment, or built beside this test.
static HELPERS: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(directory) = std::env::var_os("WARDEN_HELPERS") {
        return directory.into();
    }
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "warden-iomux"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "iomux is needed");
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
});

/// A depot and a cgroup parent of its own; whatever a failed test leaves is removed.
struct World {
    host: Option<Host>,
    parent: String,
    depot: tempfile::TempDir,
    /// No two worlds of this machine have the same addresses.
    pool: Ipv4Net,
}

/// The addresses of another world.
fn next_pool() -> Ipv4Net {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    Ipv4Net::new_assert([10, 253, NEXT.fetch_add(4, Ordering::Relaxed), 0].into(), 22)
}

impl World {
    async fn new(name: &str) -> Self {
        Self::with(name, |_| {}).await
    }

    async fn with(name: &str, change: impl FnOnce(&mut Settings)) -> Self {
        assert!(rustix::process::geteuid().is_root(), "containers need root");
        let depot = tempfile::tempdir().unwrap();
        let parent = format!("warden-test-{}-{name}", std::process::id());
        let mut world = Self { host: None, parent, depot, pool: next_pool() };
        let mut settings = world.settings();
        change(&mut settings);
        world.host = Some(Host::start(settings).await.unwrap());
        world
    }

    fn settings(&self) -> Settings {
        Settings {
            depot_image: None,
            disk_quota: true,
            depot: self.depot.path().to_owned(),
            image: Image::Host,
            helpers: HELPERS.clone(),
            cgroup_parent: self.parent.clone(),
            ids: Some(IdRange { host_start: 524_288, count: 65_536 * 200 }),
            grace_time: None,
            job_output_limit: 10 << 20,
            rlimits: BTreeMap::new(),
            max_finished_jobs: 1_000,
            max_finished_bytes: 1 << 30,
            max_running_jobs: 200,
            io_limits: IoLimits::default(),
            max_tasks: 2048,
            warm_pool_size: 0,
            memory_thresholds: warden_container::pressure::Thresholds { pressure: 100, available: 0 },
            copy_stall_time: Duration::from_secs(10),
            reconcile_interval: Duration::from_secs(3600),
            syslog_socket: PathBuf::from("/dev/log"),
            lang: "C.UTF-8".to_owned(),
            network: NetworkPool { network: self.pool, network_v6: None, release_delay: Duration::ZERO },
            firewall: Firewall {
                table: self.parent.clone(),
                mtu: 1500,
                allow_networks: Vec::new(),
                allow_host_access: false,
                connection_mark_bit: 12,
            },
            ports: PortPool { start: 61_001, size: 100 },
            dns_servers: Vec::new(),
            dns_forwarder: false,
            users: UserPool { start: 10_000, size: 256 },
            allow_nested_warden: false,
            confinement: warden_init::confinement::Confinement::FULL,
            device_rules: true,
        }
    }

    /// An address of the pool.
    fn address(&self, number: u32) -> Ipv4Addr {
        (u32::from(self.pool.network()) + number).into()
    }

    fn connect(&self) -> Connection {
        self.host.as_ref().unwrap().connect()
    }

    /// Fails when anything of a container is left for long.
    async fn assert_nothing_left(&self) {
        let trash = self.depot.path().join(".trash");
        let busy = || {
            let files = fs::read_dir(&trash).unwrap().count();
            files > 0 || !self.cgroups().is_empty() || !self.processes().is_empty()
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while busy() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let depot = self.depot.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(depot), "{mounts}");
        assert_eq!(self.processes(), Vec::<String>::new());
        let left =
            fs::read_dir(depot).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = left.filter(|name| !name.starts_with('.')).collect();
        assert_eq!(left, Vec::<String>::new());
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let parents =
            hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|path| path.join(&self.parent));
        let groups = parents.filter_map(|parent| fs::read_dir(parent).ok()).flatten().flatten();
        groups.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect()
    }

    /// Command lines of processes that belong to this depot.
    fn processes(&self) -> Vec<String> {
        let line = |pid: fs::DirEntry| fs::read(pid.path().join("cmdline")).ok();
        let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(line);
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(self.depot.path().to_str().unwrap())).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(host) = self.host.take() {
            // What all containers share goes with an orderly end, the packet filter's table above all. A thread, because
            // a test's own runtime cannot be waited for here.
            let ending = std::thread::spawn(move || {
                tokio::runtime::Runtime::new().map(|runtime| runtime.block_on(host.shutdown()))
            });
            let _ = ending.join();
        }
        for group in self.cgroups() {
            let deadline = Instant::now() + Duration::from_secs(5);
            while fs::remove_dir(&group).is_err() && Instant::now() < deadline {
                let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                for pid in
                    processes.lines().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?))
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for entry in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let _ = fs::remove_dir(entry.path().join(&self.parent));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.parent));
    }
}

async fn create(connection: &Connection, request: Create) -> Arc<Container> {
    let handle = connection.create(request).await.unwrap();
    connection.container(&handle).unwrap()
}

async fn spawn(container: &Container, script: &str) -> Arc<Job> {
    container.spawn(Run { script: script.into(), ..Run::default() }).await.unwrap()
}

async fn end(job: &Job) -> Progress {
    let mut progress = job.progress();
    let ended = progress.wait_for(|progress| progress.end.is_some());
    *tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the job ends").unwrap()
}

fn read(job: &Job, stream: Stream) -> String {
    let mut text = String::new();
    job.open(stream).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Runs a script to its end: stdout, stderr, status.
async fn run(container: &Container, script: &str) -> (String, String, u32) {
    let job = spawn(container, script).await;
    let progress = end(&job).await;
    let (stdout, stderr) = (read(&job, Stream::Stdout), read(&job, Stream::Stderr));
    assert_eq!((progress.stdout, progress.stderr), (stdout.len() as u64, stderr.len() as u64));
    (stdout, stderr, progress.end.unwrap().status())
}

async fn stdout(container: &Container, script: &str) -> String {
    let (stdout, stderr, status) = run(container, script).await;
    assert_eq!((stderr.as_str(), status), ("", 0), "{script}: {stdout}");
    stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life() {
    let world = World::new("life").await;
    let connection = world.connect();
    let container = create(&connection, Create::default()).await;
    assert_eq!(connection.list(), [container.handle().to_vec()]);
    let info = container.info().await.unwrap();
    assert_eq!((info.state, info.jobs.len(), info.events.len()), (State::Active, 0, 0));
    assert_eq!(info.container_ip, world.address(2));
    assert!(info.cpu.unwrap().usage.unwrap() > 0);
    let id = container.id().to_string();
    assert_eq!(
        stdout(&container, "id -u; id -un; pwd; hostname; echo $LANG").await,
        format!("10000\nvcap\n/home/vcap\n{id}\nC.UTF-8\n")
    );
    assert_eq!(
        stdout(&container, "cat /etc/hosts").await,
        format!("127.0.0.1 localhost\n{} {id}\n", info.container_ip)
    );
    assert_eq!(run(&container, "echo out; echo err >&2; exit 7").await, ("out\n".into(), "err\n".into(), 7));
    assert_eq!(run(&container, "kill -9 $$").await.2, 255);
    let root = Run { script: b"id -u; touch /here".to_vec(), privileged: true, ..Run::default() };
    let job = container.spawn(root).await.unwrap();
    assert_eq!(end(&job).await.end, Some(ExitCause::Code(0)));
    assert!(info.path.join("tmp/rootfs/here").exists(), "the writable layer can be read on the host");
    job.answered();
    assert!(matches!(container.job(job.id()).await, Err(Error::NoSuchJob)));
    container.destroy().await.unwrap();
    assert!(matches!(connection.container(container.handle()), Err(Error::UnknownHandle)));
    assert_eq!(container.last_info().await.state, State::Active);
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_host_runs_what_the_host_runs() {
    let world = World::new("image").await;
    let container = create(&world.connect(), Create::default()).await;
    for script in [
        "echo 1 2 | awk '{ print $1 + $2 }'",
        "perl -e 'print 3, qq(\\n)'",
        "test -s /etc/ssl/certs/ca-certificates.crt || test -d /etc/pki; echo 3",
        "command -v python3 > /tmp/z || { echo 3; exit; }; python3 -c 'import ssl; print(3)'",
        "getent passwd root > /tmp/x && getent hosts localhost > /tmp/y && echo 3",
    ] {
        assert_eq!(stdout(&container, script).await, "3\n", "{script}");
    }
    let privileged =
        Run { script: b"cat /etc/shadow /etc/ssl/private/*".to_vec(), privileged: true, ..Run::default() };
    let job = container.spawn(privileged).await.unwrap();
    assert_ne!(end(&job).await.end, Some(ExitCause::Code(0)));
    assert_eq!(read(&job, Stream::Stdout), "");
    container.destroy().await.unwrap();
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_user_namespace() {
    let world = World::with("plain", |settings| settings.ids = None).await;
    let container = create(&world.connect(), Create::default()).await;
    assert_eq!(
        stdout(&container, "id -u; cat /proc/self/uid_map").await.split_whitespace().collect::<Vec<_>>(),
        ["10000", "0", "0", "4294967295"]
    );
    let script = b"mkdir /kept; touch /kept/x; chattr +i /kept/x /kept; exit 0".to_vec();
    let job = container.spawn(Run { script, privileged: true, ..Run::default() }).await.unwrap();
    assert_eq!(end(&job).await.end, Some(ExitCause::Code(0)));
    container.destroy().await.unwrap();
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_every_size_are_read_whole() {
    let world = World::new("scripts").await;
    let container = create(&world.connect(), Create::default()).await;
    for size in [0, 1_000, 64 * 1024, 64 * 1024 + 1, 1 << 20] {
        let tail = "\necho end\n";
        let mut script = "#".repeat(size);
        script.push_str(tail);
        assert_eq!(stdout(&container, &script).await, "end\n", "{size}");
    }
    container.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_jobs_at_once() {
    let world = World::new("hundred").await;
    let container = create(&world.connect(), Create::default()).await;
    let mut jobs = Vec::new();
    for number in 0..100 {
        jobs.push(
            spawn(&container, &format!("read -t 0.2 < <(sleep 1); echo {number}; exit {number}")).await,
        );
    }
    for (number, job) in jobs.iter().enumerate() {
        assert_eq!(end(job).await.end, Some(ExitCause::Code(number as u8)));
        assert_eq!(read(job, Stream::Stdout), format!("{number}\n"));
    }
    container.destroy().await.unwrap();
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_what_ignores_term_when_told_to_kill() {
    let world = World::new("stop").await;
    let container = create(&world.connect(), Create::default()).await;
    let job = spawn(&container, "trap '' TERM; echo ready; while :; do sleep 1; done").await;
    job.progress().wait_for(|progress| progress.stdout == 6).await.unwrap();
    let started = Instant::now();
    container.stop(Stop { kill: true, background: false }).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(end(&job).await.end, Some(ExitCause::Signal(9)));
    assert_eq!(container.info().await.unwrap().state, State::Stopped);
    container.stop(Stop::default()).await.unwrap();
    assert!(matches!(container.spawn(Run::default()).await, Err(Error::State { .. })));
    container.destroy().await.unwrap();
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destroy_ends_a_job_and_its_output_is_still_read() {
    let world = World::new("destroy").await;
    let container = create(&world.connect(), Create::default()).await;
    let job = spawn(&container, "echo begun; setsid sleep 1000 & sleep 1000").await;
    job.progress().wait_for(|progress| progress.stdout == 6).await.unwrap();
    let (first, second) = tokio::join!(container.destroy(), container.destroy());
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert!(end(&job).await.end.is_some_and(|end| end.status() == 255));
    assert_eq!(read(&job, Stream::Stdout), "begun\n");
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_output_ends_the_job_with_an_event() {
    let world = World::with("limit", |settings| settings.job_output_limit = 100_000).await;
    let container = create(&world.connect(), Create::default()).await;
    let job = spawn(&container, "yes").await;
    let progress = end(&job).await;
    assert_eq!((progress.stdout, progress.end), (100_000, Some(ExitCause::OutputLimit)));
    assert_eq!(container.info().await.unwrap().events, ["command exceeded maximum output"]);
    let discarded =
        Run { script: b"head -c 200000 /dev/zero".to_vec(), discard_output: true, ..Run::default() };
    let job = container.spawn(discarded).await.unwrap();
    assert_eq!(end(&job).await, Progress { stdout: 0, stderr: 0, end: Some(ExitCause::Code(0)) });
    assert_eq!(read(&job, Stream::Stdout), "");
    container.destroy().await.unwrap();
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bind_mounts_read_only_and_writable() {
    let world = World::new("binds").await;
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(shared.path().join("a b"), "content").unwrap();
    let source = shared.path().to_str().unwrap().as_bytes().to_vec();
    let bind = |destination: &[u8], writable| Bind {
        source: source.clone(),
        destination: destination.to_vec(),
        writable,
    };
    let binds = vec![bind(b"/mnt/r o", false), bind(b"/mnt/rw", true)];
    let container = create(&world.connect(), Create { binds, ..Create::default() }).await;
    assert_eq!(
        stdout(&container, "cat '/mnt/r o/a b'; echo x > /mnt/rw/new; cat /mnt/rw/new").await,
        "contentx\n"
    );
    assert_ne!(run(&container, "echo x > '/mnt/r o/new2'").await.2, 0);
    assert!(shared.path().join("new").exists() && !shared.path().join("new2").exists());
    container.destroy().await.unwrap();
    assert!(shared.path().join("a b").exists(), "what was shown stays");
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_creation_leaves_nothing_and_takes_nothing() {
    let world = World::new("refused").await;
    let connection = world.connect();
    let bind = Bind { source: b"/no/such".to_vec(), destination: b"/x".to_vec(), writable: false };
    let cases = [
        (
            Create { binds: vec![bind], ..Create::default() },
            "Source path for bind mount does not exist: /no/such",
        ),
        (Create { rootfs: Some(b"/no/such".to_vec()), ..Create::default() }, "rootfs /no/such not found"),
        (
            Create { network: Some(b"hello".to_vec()), ..Create::default() },
            "Could not acquire network: 0.0.0.0",
        ),
    ];
    for (request, text) in cases {
        let request = Create { handle: Some(b"h".to_vec()), ..request };
        assert_eq!(connection.create(request).await.unwrap_err().to_string(), text);
        world.assert_nothing_left().await;
    }
    let request = Create {
        handle: Some(b"h".to_vec()),
        network: Some(world.address(3).to_string().into_bytes()),
        ..Create::default()
    };
    let container = create(&connection, request.clone()).await;
    let taken = connection.create(request).await.unwrap_err().to_string();
    assert_eq!(taken, "container with handle: h already exists.");
    container.destroy().await.unwrap();
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_run_at_the_same_time_and_keep_their_own() {
    let world = World::new("many").await;
    let connection = Arc::new(world.connect());
    let handle = |number: u32| Some(format!("c{number}").into_bytes());
    let creations = (0..10).map(|number| {
        let connection = Arc::clone(&connection);
        tokio::spawn(async move {
            connection.create(Create { handle: handle(number % 9), ..Create::default() }).await
        })
    });
    let mut refused = 0;
    for creation in creations.collect::<Vec<_>>() {
        refused += usize::from(creation.await.unwrap().is_err());
    }
    assert_eq!((refused, connection.list().len()), (1, 9));
    for handle in connection.list() {
        let container = connection.container(&handle).unwrap();
        assert_eq!(stdout(&container, "hostname").await, format!("{}\n", container.id()));
        container.destroy().await.unwrap();
    }
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreferenced_container_is_destroyed_after_its_grace_time() {
    let world = World::new("grace").await;
    let connection = world.connect();
    let request = Create { grace_time: Some(Duration::from_millis(300)), ..Create::default() };
    let container = create(&connection, request).await;
    drop(connection);
    let visitor = world.connect();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(visitor.list().len(), 1, "a new connection cancels it");
    drop(visitor);
    let deadline = Instant::now() + Duration::from_secs(20);
    while container.info().await.is_ok() || !world.processes().is_empty() || !world.cgroups().is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    container.destroy().await.unwrap();
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_init_stops_the_container_and_a_dead_iomux_is_replaced() {
    let world = World::new("deaths").await;
    let connection = world.connect();
    let kill = async |container: &Container, name: &str| {
        let path = container.info().await.unwrap().path;
        let pid = fs::read_to_string(path.join("run").join(name)).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let container = create(&connection, Create::default()).await;
    let job = spawn(&container, "sleep 1000").await;
    kill(&container, "iomux.pid").await;
    let another = spawn(&container, "exit 3").await;
    assert_eq!(end(&another).await.end, Some(ExitCause::Code(3)));
    assert_eq!(job.progress().borrow().end, None, "it goes on");
    kill(&container, "wshd.pid").await;
    assert_eq!(end(&job).await.end, Some(ExitCause::InitDied));
    let deadline = Instant::now() + Duration::from_secs(5);
    while container.info().await.unwrap().state != State::Stopped {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(container.info().await.unwrap().events, ["init died"]);
    container.destroy().await.unwrap();
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_daemon_takes_over_what_lives() {
    let mut world = World::new("restart").await;
    let connection = world.connect();
    let container = create(&connection, Create::default()).await;
    let job = spawn(&container, "sleep 1000").await.id();
    let handle = container.handle().to_vec();
    drop((connection, container));
    world.host = None;
    let deadline = Instant::now() + Duration::from_secs(10);
    let next = loop {
        match Host::start(world.settings()).await {
            Ok(host) => break host,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let connection = next.connect();
    assert_eq!(connection.list(), std::slice::from_ref(&handle));
    let container = connection.container(&handle).unwrap();
    assert_eq!(container.info().await.unwrap().jobs, [job]);
    container.destroy().await.unwrap();
    world.assert_nothing_left().await;
    next.shutdown().await;
    assert!(!Path::new("/sys/fs/cgroup/memory").join(&world.parent).exists());
    let refused = next.connect().create(Create::default()).await.unwrap_err();
    assert!(matches!(refused, Error::ShuttingDown));
}
