//! The actor against an iomux that the test plays itself.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use warden_init::message::SpawnStep;
use warden_iomux::message::{Exit, ExitCause, MAX_PACKET, Step};
use warden_linux::socket::PacketSocket;

use super::*;
use crate::container::Container;
use crate::fork_server::tests::stand_in;
use crate::info::Info;
use crate::loss::MAX_MISUNDERSTOOD;
use crate::machine::Machine;
use crate::registry::Registry;
use crate::settings::Settings;

/// A machine of its own, with one container whose iomux is the test.
struct World {
    machine: Arc<Machine>,
    registry: Arc<Registry>,
    container: Arc<Container>,
    iomux: Iomux,
    /// The process that stands for iomux.
    process: Process,
    _child: tokio::process::Child,
    _depot: tempfile::TempDir,
}

impl World {
    /// Lets iomux end, as it does after its init.
    fn end_iomux(&mut self) {
        self.process.kill();
        self.iomux.0 = None;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let id = self.container.id();
        let _ = self.machine.destroy(id);
        // Somebody may hold the machine until the process ends.
        self.machine.network.close();
        self.machine.cgroups.parent.remove();
    }
}

/// The other end of the link.
struct Iomux(Option<AsyncFd<PacketSocket>>);

impl Iomux {
    fn say(&self, event: &Event) {
        self.say_bytes(&serde_json::to_vec(event).unwrap());
    }

    fn say_bytes(&self, bytes: &[u8]) {
        self.0.as_ref().unwrap().get_ref().send(bytes, &[]).unwrap();
    }

    async fn hear(&self) -> (Request, Vec<OwnedFd>) {
        let socket = self.0.as_ref().unwrap();
        let hearing = async {
            loop {
                let mut ready = socket.readable().await.unwrap();
                if let Ok(packet) = ready.try_io(|socket| socket.get_ref().receive(MAX_PACKET)) {
                    return packet.unwrap();
                }
            }
        };
        let packet = tokio::time::timeout(Duration::from_secs(20), hearing).await.unwrap();
        (serde_json::from_slice(&packet.bytes).unwrap(), packet.fds)
    }

    /// Hears a spawn, and says that it was done.
    async fn start_job(&self) -> u32 {
        let (Request::Spawn { job, .. }, fds) = self.hear().await else { panic!("no spawn") };
        assert_eq!(fds.len(), 1);
        self.say(&Event::Spawned { job });
        job
    }

    fn end_job(&self, job: u32, cause: ExitCause) {
        self.say(&Event::Ended { job, exit: Exit { cause, stdout: 0, stderr: 0 } });
    }
}

fn settings(depot: &std::path::Path, name: &str) -> Settings {
    let mut settings = crate::settings::sample(depot);
    let helpers = depot.join("helpers");
    fs::create_dir(&helpers).unwrap();
    fs::write(helpers.join("iomux"), "").unwrap();
    fs::set_permissions(helpers.join("iomux"), fs::Permissions::from_mode(0o711)).unwrap();
    settings.helpers = helpers;
    settings.cgroup_parent = format!("warden-test-{}-{name}", std::process::id());
    settings.firewall.table.clone_from(&settings.cgroup_parent);
    settings.max_running_jobs = 2;
    settings
}

/// A container whose iomux process is `program`, which need not do anything.
fn world(name: &str, program: &[&str]) -> World {
    let depot = tempfile::tempdir().unwrap();
    let machine = Arc::new(Machine::prepare(settings(depot.path(), name)).unwrap().0);
    let registry = Arc::new(Registry::default());
    let id = machine.ids.next();
    machine.cgroups.create(id, false, 2048).unwrap();
    machine.depot.create(id, 0).unwrap();
    let (ours, theirs) = PacketSocket::pair().unwrap();
    let child = tokio::process::Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let [process, watched] = [(); 2].map(|()| Process::open(child.id().unwrap()).unwrap());
    let supervisor =
        Supervisor { link: Link::new(ours).unwrap(), process, init: 0, told: Vec::new(), stands: true };
    let leases = machine.pools.lease(id, None).unwrap();
    let shared = Shared::new(id, b"handle".to_vec(), Arc::clone(&machine), &registry, leases, None);
    shared.set_state(State::Active);
    let reservation = registry.reserve(b"handle".to_vec()).unwrap();
    let container = Container::launch(shared, supervisor);
    reservation.fill(Arc::clone(&container), None, registry.open());
    let iomux = Iomux(Some(crate::link::watch(theirs).unwrap()));
    World { machine, registry, container, iomux, process: watched, _child: child, _depot: depot }
}

const SLEEPS: &[&str] = &["sleep", "1000"];

async fn spawn(world: &World) -> (Arc<Job>, u32) {
    let (job, id) = tokio::join!(world.container.spawn(Run::default()), world.iomux.start_job());
    (job.unwrap(), id)
}

async fn info(world: &World) -> Info {
    world.container.info().await.unwrap()
}

async fn ended(job: &Job) -> ExitCause {
    let mut progress = job.progress();
    progress.wait_for(|progress| progress.end.is_some()).await.unwrap().end.unwrap()
}

#[tokio::test]
async fn a_job_is_asked_for_told_and_forgotten() {
    let world = world("job", SLEEPS);
    let run =
        Run { script: b"echo".to_vec(), privileged: true, log_tag: Some(b"t".to_vec()), ..Run::default() };
    let answer = async {
        let (request, fds) = world.iomux.hear().await;
        let Request::Spawn { job, process, output } = request else { panic!("{request:?}") };
        assert_eq!(
            (job, fds.len(), process.program, process.user),
            (1, 1, "/bin/bash".into(), "root".into())
        );
        assert_eq!((output.limit, output.discard, output.log.unwrap().tag), (10 << 20, false, "t".into()));
        world.iomux.say(&Event::Spawned { job });
        world.iomux.say(&Event::Output { job, stdout: 3, stderr: 1 });
    };
    let (job, ()) = tokio::join!(world.container.spawn(run), answer);
    let job = job.unwrap();
    job.progress().wait_for(|progress| progress.stdout == 3).await.unwrap();
    assert_eq!(info(&world).await.jobs, [1]);
    world.iomux.end_job(1, ExitCause::Code(7));
    assert_eq!(ended(&job).await, ExitCause::Code(7));
    assert!(info(&world).await.jobs.is_empty());
    assert!(world.container.job(1).await.is_ok());
    job.answered();
    assert_eq!(world.container.job(1).await.unwrap_err().to_string(), "no such job");
}

#[tokio::test]
async fn rlimits_of_one_job_are_not_those_of_the_next() {
    use warden_init::message::Resource;

    let world = world("rlimits", SLEEPS);
    for (asked, expected) in
        [(vec![(Resource::Nofile, 5)], vec![(Resource::Nofile, 5)]), (Vec::new(), Vec::new())]
    {
        let run = Run { rlimits: asked, ..Run::default() };
        let hear = async {
            let (Request::Spawn { job, process, .. }, _) = world.iomux.hear().await else {
                panic!("no spawn")
            };
            world.iomux.say(&Event::Spawned { job });
            process.rlimits
        };
        let (job, rlimits) = tokio::join!(world.container.spawn(run), hear);
        assert_eq!((job.is_ok(), rlimits), (true, expected));
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_told_with_its_step() {
    let world = world("refused", SLEEPS);
    let refuse = async {
        let (Request::Spawn { job, .. }, _) = world.iomux.hear().await else { panic!("no spawn") };
        world.iomux.say(&Event::SpawnFailed { job, step: Step::Inside(SpawnStep::Directory), errno: 13 });
    };
    let (refused, ()) = tokio::join!(world.container.spawn(Run::default()), refuse);
    let text = refused.unwrap_err().to_string();
    assert_eq!(
        text,
        "starting /bin/bash as vcap: entering the home directory: Permission denied (os error 13)"
    );
    let long = Run { log_tag: Some(vec![b'x'; 70_000]), ..Run::default() };
    let text = world.container.spawn(long).await.unwrap_err().to_string();
    assert_eq!(text, "starting /bin/bash as vcap: too long for one packet");
}

#[tokio::test]
async fn running_jobs_are_bounded() {
    let world = world("bounded", SLEEPS);
    let (_a, a) = spawn(&world).await;
    let (_b, _) = spawn(&world).await;
    let refused = world.container.spawn(Run::default()).await.unwrap_err().to_string();
    assert_eq!(refused, "too many running jobs: the container has 2, the configured limit");
    world.iomux.end_job(a, ExitCause::Code(0));
    ended(&_a).await;
    spawn(&world).await;
}

#[tokio::test]
async fn too_much_output_is_an_event_that_is_told_once() {
    let world = world("output", SLEEPS);
    let (job, id) = spawn(&world).await;
    world.iomux.end_job(id, ExitCause::OutputLimit);
    world.iomux.end_job(id, ExitCause::OutputLimit);
    assert_eq!(ended(&job).await, ExitCause::OutputLimit);
    let (another, id) = spawn(&world).await;
    world.iomux.end_job(id, ExitCause::OutputLimit);
    assert_eq!(ended(&another).await, ExitCause::OutputLimit);
    assert_eq!(info(&world).await.events, ["command exceeded maximum output"]);
}

#[tokio::test]
async fn stop_answers_all_who_wait_when_nothing_runs() {
    let world = world("stop", SLEEPS);
    let (job, id) = spawn(&world).await;
    let iomux = async {
        assert_eq!(world.iomux.hear().await.0, Request::SignalAll { signal: 15 });
        let refused = world.container.spawn(Run::default()).await.unwrap_err().to_string();
        assert_eq!(refused, "Container state must be one of 'active', current state is 'stopped'");
        assert_eq!(world.iomux.hear().await.0, Request::SignalAll { signal: 15 }, "again after a second");
        world.iomux.end_job(id, ExitCause::Signal(15));
        world.iomux.say(&Event::Idle);
        world.iomux.say(&Event::Idle);
    };
    let stop = || world.container.stop(Stop::default());
    let (first, second, ()) = tokio::join!(stop(), stop(), iomux);
    assert!(first.is_ok() && second.is_ok());
    assert!(job.progress().borrow().end.is_some());
    assert_eq!(info(&world).await.state, State::Stopped);
    stop().await.unwrap();
}

#[tokio::test]
async fn kill_hurries_and_background_answers_at_once() {
    let world = world("kill", SLEEPS);
    spawn(&world).await;
    world.container.stop(Stop { background: true, kill: false }).await.unwrap();
    assert_eq!(world.iomux.hear().await.0, Request::SignalAll { signal: 15 });
    let iomux = async {
        assert_eq!(world.iomux.hear().await.0, Request::SignalAll { signal: 9 });
        world.iomux.say(&Event::Idle);
    };
    let (stopped, ()) = tokio::join!(world.container.stop(Stop { background: false, kill: true }), iomux);
    stopped.unwrap();
}

#[tokio::test]
async fn destroy_stops_kills_clears_and_answers_everybody() {
    let mut world = world("destroy", SLEEPS);
    let (job, id) = spawn(&world).await;
    let path = info(&world).await.path;
    let container = Arc::clone(&world.container);
    let destroying = tokio::spawn(async move { tokio::join!(container.destroy(), container.destroy()) });
    assert_eq!(world.iomux.hear().await.0, Request::SignalAll { signal: 15 });
    world.iomux.say(&Event::Idle);
    assert_eq!(world.iomux.hear().await.0, Request::Kill);
    let refused = world.container.info().await.unwrap_err().to_string();
    assert_eq!(refused, "Container state must be one of 'active, stopped', current state is 'destroyed'");
    world.iomux.end_job(id, ExitCause::InitDied);
    world.iomux.say(&Event::Gone);
    world.iomux.0 = None;
    // The process that stands for iomux does not end: it is cleared all the same.
    let (first, second) = destroying.await.unwrap();
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    world.container.destroy().await.unwrap();
    assert!(!path.exists() && world.registry.list().is_empty());
    let obituary = world.container.last_info().await;
    assert_eq!((obituary.state, obituary.jobs), (State::Active, vec![id]));
    assert!(job.open(crate::job::Stream::Stdout).is_ok());
    let machine = Arc::clone(&world.machine);
    let lease = move || machine.lease(machine.ids.next(), Some(b"10.254.0.1"));
    assert!(tokio::task::spawn_blocking(lease).await.unwrap().is_ok(), "the network is free again");
}

#[tokio::test]
async fn a_job_that_was_asked_for_when_its_container_was_destroyed_is_refused_by_the_state() {
    let mut world = world("refused-late", SLEEPS);
    let stop = Stop { background: false, kill: true };
    let asked = tokio::spawn({
        let container = Arc::clone(&world.container);
        async move { container.spawn(Run::default()).await }
    });
    let (Request::Spawn { job, .. }, _) = world.iomux.hear().await else { panic!("no spawn") };
    let idle = async {
        assert_eq!(world.iomux.hear().await.0, Request::SignalAll { signal: 9 });
        world.iomux.say(&Event::Idle);
    };
    let (stopped, ()) = tokio::join!(world.container.stop(stop), idle);
    stopped.unwrap();
    let container = Arc::clone(&world.container);
    let destroying = tokio::spawn(async move { container.destroy().await });
    assert_eq!(world.iomux.hear().await.0, Request::Kill);
    world.iomux.say(&Event::SpawnFailed {
        job,
        step: Step::Init,
        errno: rustix::io::Errno::SRCH.raw_os_error(),
    });
    let refused = asked.await.unwrap().unwrap_err().to_string();
    assert_eq!(refused, "Container state must be one of 'active', current state is 'destroyed'");
    world.iomux.say(&Event::Gone);
    world.iomux.0 = None;
    destroying.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dead_init_stops_the_container() {
    let mut world = world("init", SLEEPS);
    let (job, _) = spawn(&world).await;
    world.iomux.say(&Event::Gone);
    assert_eq!(ended(&job).await, ExitCause::InitDied);
    world.end_iomux();
    let info = loop {
        let info = info(&world).await;
        if info.state == State::Stopped {
            break info;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(info.events, ["init died"]);
    world.container.stop(Stop::default()).await.unwrap();
    assert!(world.container.spawn(Run::default()).await.is_err());
    world.container.destroy().await.unwrap();
}

#[tokio::test]
async fn garbage_of_an_iomux_that_nothing_replaces_ends_this_container_cleanly() {
    let world = world("garbage", SLEEPS);
    let (job, _) = spawn(&world).await;
    let starting = world.container.spawn(Run::default());
    let garbage = async {
        let _ = world.iomux.hear().await;
        world.iomux.say_bytes(b"\xff");
    };
    let (refused, ()) = tokio::join!(starting, garbage);
    assert!(refused.unwrap_err().to_string().starts_with("starting /bin/bash as vcap"));
    assert_eq!(ended(&job).await, ExitCause::InitDied);
    let stopped = world.container.stop(Stop::default()).await;
    assert!(stopped.unwrap_err().to_string().ends_with("it has ended"), "what runs inside is not known");
    assert_eq!(info(&world).await.events, ["supervisor died"]);
    world.container.destroy().await.unwrap();
}

/// A script in the place of the next iomux: it greets, says that the container stands, goes on with some words, and stays.
struct Successor(std::path::PathBuf);

impl Successor {
    fn new(world: &World, then: &str) -> Self {
        let starts = world.machine.settings.depot.join("helpers/starts");
        let script = format!(
            "echo $$ >>{}\nprintf '{{\"hello\":{{\"version\":1}}}}' >&0\n\
             printf '{{\"ready\":{{\"init_pid\":1}}}}' >&0\n{then}\nexec sleep 1000\n",
            starts.display()
        );
        stand_in(&world.machine.settings.helpers.join("iomux"), &script);
        // The next iomux keeps a log.
        let spec = world.machine.depot.spec_path(world.container.id());
        fs::create_dir_all(spec.with_file_name("run")).unwrap();
        Self(starts)
    }

    /// The process of each start.
    fn started(&self) -> Vec<i32> {
        let text = fs::read_to_string(&self.0).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        // Those before the last are reaped; it is not, as long as the world is there.
        let last = self.started().last().and_then(|pid| rustix::process::Pid::from_raw(*pid));
        let _ = rustix::process::kill_process(last.unwrap(), rustix::process::Signal::KILL);
    }
}

#[tokio::test]
async fn an_iomux_that_is_not_understood_is_ended_and_another_takes_over() {
    for garbage in [&b"\xff"[..], br#"{"hello":{"version":1}}"#] {
        let world = world("understood", SLEEPS);
        let (job, id) = spawn(&world).await;
        let output = format!(r#"printf '{{"output":{{"job":{id},"stdout":7,"stderr":0}}}}' >&0"#);
        let successor = Successor::new(&world, &output);
        world.iomux.say_bytes(garbage);
        job.progress().wait_for(|progress| progress.stdout == 7).await.unwrap();
        assert!(job.progress().borrow().end.is_none(), "the job goes on");
        assert_eq!((info(&world).await.state, info(&world).await.events.len()), (State::Active, 0));
        assert_eq!(successor.started().len(), 1);
        assert!(world.process.has_ended().unwrap(), "two would read the same pipes");
    }
}

#[tokio::test]
async fn when_no_iomux_is_understood_the_container_is_ended() {
    let world = world("babble", SLEEPS);
    let (job, _) = spawn(&world).await;
    let successor = Successor::new(&world, "printf nonsense >&0");
    world.iomux.say_bytes(b"{");
    assert_eq!(ended(&job).await, ExitCause::InitDied);
    while info(&world).await.events.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(info(&world).await.events, ["supervisor died"]);
    assert_eq!(successor.started().len(), MAX_MISUNDERSTOOD as usize);
    world.container.destroy().await.unwrap();
}

#[tokio::test]
async fn the_end_of_iomux_is_noticed_though_its_socket_is_open_elsewhere() {
    let world = world("exit", &["sleep", "0.2"]);
    let (job, id) = spawn(&world).await;
    world.iomux.say(&Event::Output { job: id, stdout: 5, stderr: 0 });
    assert_eq!(ended(&job).await, ExitCause::InitDied);
    assert_eq!(job.progress().borrow().stdout, 5, "what it had said counts");
    world.container.destroy().await.unwrap();
}

#[tokio::test]
async fn messages_about_jobs_that_nobody_knows_change_nothing() {
    let world = world("unknown", SLEEPS);
    world.iomux.say(&Event::Spawned { job: 99 });
    world.iomux.say(&Event::Output { job: 99, stdout: 1, stderr: 1 });
    world.iomux.end_job(99, ExitCause::OutputLimit);
    world.iomux.say(&Event::SpawnFailed { job: 99, step: Step::Files, errno: 1 });
    spawn(&world).await;
    assert_eq!((info(&world).await.state, info(&world).await.events.len()), (State::Active, 0));
}

#[tokio::test]
async fn a_failed_destruction_can_be_tried_again() {
    let mut world = world("again", SLEEPS);
    world.end_iomux();
    // A file where the trash shall be makes the removal fail.
    let trash = world.machine.settings.depot.join(".trash");
    fs::remove_dir(&trash).unwrap();
    fs::write(&trash, "").unwrap();
    let failed = world.container.destroy().await.unwrap_err().to_string();
    assert!(failed.contains(".trash"), "{failed}");
    assert_eq!(world.registry.list(), [b"handle"]);
    assert_eq!(info(&world).await.state, State::Stopped);
    fs::remove_file(&trash).unwrap();
    fs::create_dir(&trash).unwrap();
    world.container.destroy().await.unwrap();
    assert!(world.registry.list().is_empty());
}

#[tokio::test]
async fn a_closing_daemon_refuses_requests_and_lets_jobs_go_on() {
    let world = world("closing", SLEEPS);
    let (job, id) = spawn(&world).await;
    world.machine.close();
    let refusals = [
        world.container.spawn(Run::default()).await.err(),
        world.container.stop(Stop::default()).await.err(),
        world.container.destroy().await.err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.unwrap().to_string(), "the server is shutting down");
    }
    world.iomux.end_job(id, ExitCause::Code(0));
    assert_eq!(ended(&job).await, ExitCause::Code(0));
}

#[tokio::test]
async fn a_container_without_its_actor_can_be_destroyed() {
    let world = world("orphan", SLEEPS);
    let leases = world.machine.pools.lease(world.container.id(), None).unwrap();
    let shared = Shared::new(
        world.container.id(),
        b"handle".to_vec(),
        Arc::clone(&world.machine),
        &world.registry,
        leases,
        None,
    );
    shared.set_state(State::Active);
    let orphan = Container::without_actor(shared);
    let refused = orphan.spawn(Run::default()).await.unwrap_err().to_string();
    assert!(refused.starts_with("asking container"), "{refused}");
    let (first, second) = tokio::join!(orphan.destroy(), orphan.destroy());
    assert!(first.is_ok() && second.is_ok());
    assert!(world.registry.list().is_empty());
}

#[tokio::test]
async fn a_panic_in_an_actor_ends_its_requests_and_nothing_else() {
    let world = world("panic", SLEEPS);
    let other = self::world("beside", SLEEPS);
    let refused = world.container.panic().await.unwrap_err().to_string();
    assert!(refused.starts_with("asking container"), "{refused}");
    let refused = world.container.spawn(Run::default()).await.unwrap_err().to_string();
    assert!(refused.starts_with("asking container"), "{refused}");
    let (_, job) = spawn(&other).await;
    assert_eq!(info(&other).await.jobs, [job]);
    // It can be looked at, and destroyed with all it owns.
    let path = info(&world).await.path;
    assert!(path.exists());
    world.container.destroy().await.unwrap();
    assert!(!path.exists() && world.registry.list().is_empty());
}
