//! Containers and jobs on the real kernel: whole lives, and that nothing is left of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test says so")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use warden_container::container::Container;
use warden_container::error::Error;
use warden_container::host::{Connection, Host};
use warden_container::job::{Job, Progress, Stream};
use warden_container::request::{Bind, Create, Run, Stop};
use warden_container::settings::{Image, NetworkPool, Settings, UserPool};
use warden_container::state::State;
use warden_init::spec::IdRange;
use warden_iomux::message::ExitCause;

/// Where wshd and iomux are: named by the environment, or built beside this test.
static HELPERS: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(directory) = std::env::var_os("WARDEN_HELPERS") {
        return directory.into();
    }
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "warden-init", "-p", "warden-iomux"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "wshd and iomux are needed");
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
});

/// A depot and a cgroup parent of its own; whatever a failed test leaves is removed.
struct World {
    host: Option<Host>,
    parent: String,
    depot: tempfile::TempDir,
}

impl World {
    async fn new(name: &str) -> Self {
        Self::with(name, |_| {}).await
    }

    async fn with(name: &str, change: impl FnOnce(&mut Settings)) -> Self {
        assert!(rustix::process::geteuid().is_root(), "containers need root");
        let depot = tempfile::tempdir().unwrap();
        let parent = format!("warden-test-{}-{name}", std::process::id());
        let mut world = Self { host: None, parent, depot };
        let mut settings = world.settings();
        change(&mut settings);
        world.host = Some(Host::start(settings).await.unwrap());
        world
    }

    fn settings(&self) -> Settings {
        Settings {
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
            syslog_socket: PathBuf::from("/dev/log"),
            lang: "C.UTF-8".to_owned(),
            network: NetworkPool {
                network: "10.254.0.0/22".parse::<Ipv4Net>().unwrap(),
                release_delay: Duration::ZERO,
            },
            dns_servers: Vec::new(),
            users: UserPool { start: 10_000, size: 256 },
            allow_nested_warden: false,
        }
    }

    fn connect(&self) -> Connection {
        self.host.as_ref().unwrap().connect()
    }

    /// Fails when anything of a container is left.
    fn assert_nothing_left(&self) {
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let depot = self.depot.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(depot), "{mounts}");
        assert_eq!(self.processes(), Vec::<String>::new());
        let left =
            fs::read_dir(depot).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = left.filter(|name| !name.starts_with('.')).collect();
        assert_eq!(left, Vec::<String>::new());
        assert_eq!(fs::read_dir(self.depot.path().join(".trash")).unwrap().count(), 0);
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
        self.host = None;
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
async fn timing() {
    let world = World::new("timing").await;
    let connection = world.connect();
    let (mut c, mut r, mut d) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..30 {
        let t = Instant::now();
        let container = create(&connection, Create::default()).await;
        c.push(t.elapsed());
        let t = Instant::now();
        stdout(&container, "true").await;
        r.push(t.elapsed());
        let t = Instant::now();
        container.destroy().await.unwrap();
        d.push(t.elapsed());
    }
    for v in [&mut c, &mut r, &mut d] { v.sort(); eprintln!("{:?} {:?} {:?}", v[0], v[15], v[29]); }
    let t = Instant::now();
    for _ in 0..100 { connection.create(Create::default()).await.unwrap(); }
    eprintln!("100 creates {:?}", t.elapsed());
    let connection = Arc::new(connection);
    let t = Instant::now();
    let all: Vec<_> = connection.list().into_iter().map(|h| { let c = connection.container(&h).unwrap(); tokio::spawn(async move { let o = stdout(&c, "echo 1").await; assert_eq!(o, "1\n"); c.destroy().await.unwrap(); }) }).collect();
    for a in all { a.await.unwrap(); }
    eprintln!("100 runs and destroys at once {:?}", t.elapsed());
    world.assert_nothing_left();
}
