//! Ending jobs and containers, whatever they do against it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use warden_protocol::messages::*;
use warden_tests::{ALL_PRIVILEGES, Connection, Daemon, NOTHING_AHEAD, Streamed, eventually, kernel, within};

const NOT_ACTIVE: &str = "Container state must be one of 'active', current state is 'stopped'";
const STUBBORN: &str = "trap '' TERM HUP INT; echo ready; while :; do sleep 0.2; done";

fn stop(handle: &[u8]) -> StopRequest {
    StopRequest { handle: Some(handle.to_vec()), ..StopRequest::default() }
}

fn kill(handle: &[u8]) -> StopRequest {
    StopRequest { kill: Some(true), ..stop(handle) }
}

fn destroy(handle: &[u8]) -> DestroyRequest {
    DestroyRequest { handle: Some(handle.to_vec()) }
}

/// Waits until a job has written its first line, and so has set its traps.
fn ready(daemon: &Daemon, handle: &[u8], job: u32) {
    let mut client = daemon.connect();
    client.send(StreamRequest { handle: Some(handle.to_vec()), job_id: Some(job) });
    assert!(client.next_chunk(&mut Streamed::default()).unwrap().is_some(), "the job ended early");
}

/// How many processes run in a container, wshd among them.
fn count(id: &str) -> usize {
    kernel::processes_in_cgroup(id).len()
}

#[test]
fn stop_ends_jobs_with_term_and_they_may_say_goodbye() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let polite =
        client.spawn(&handle, "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done");
    let plain = client.spawn(&handle, "echo ready; sleep 1000");
    [polite, plain].iter().for_each(|&job| ready(&daemon, &handle, job));
    within(5.0, "stop", || client.must(stop(&handle)));
    assert_eq!(client.state(&handle), "stopped");
    let output = client.link(&handle, polite);
    assert_eq!((output.status, output.text().as_str()), (5, "ready\nbye\n"));
    let output = client.link(&handle, plain);
    assert_eq!((output.status, output.text().as_str()), (255, "ready\n"));
    assert_eq!(output.info.unwrap().state.unwrap(), b"stopped");
}

#[test]
fn stop_sends_kill_after_ten_seconds_of_term() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let job = client.spawn(&handle, STUBBORN);
    client.run(&handle, format!("setsid bash -c \"{STUBBORN}\" > /dev/null 2>&1 < /dev/null &"));
    ready(&daemon, &handle, job);
    thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    client.send(stop(&handle));
    // The state changes at once, and nobody else has to wait.
    let mut other = daemon.connect();
    eventually("the state is stopped", 2, || other.state(&handle) == "stopped");
    client.receive_of::<StopRequest>().unwrap();
    let took = start.elapsed();
    assert!((9.0..15.0).contains(&took.as_secs_f64()), "stop took {took:?}");
    assert_eq!(count(&id), 1, "only wshd is left");
    assert_eq!(client.link(&handle, job).status, 255);
}

#[test]
fn stop_with_kill_is_quick() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let job = client.spawn(&handle, STUBBORN);
    let stopped = client.spawn(&handle, "kill -STOP $$; echo never");
    client.run(&handle, "for i in 1 2 3; do setsid sleep 1000 & done; (setsid bash -c 'nohup sleep 1001 & disown' &) > /dev/null 2>&1");
    eventually("all of them run", 5, || count(&id) >= 7);
    within(3.0, "stop with kill", || client.must(kill(&handle)));
    assert_eq!(count(&id), 1, "only wshd is left");
    for job in [job, stopped] {
        assert_eq!(client.link(&handle, job).status, 255);
    }
}

#[test]
fn stop_in_the_background_answers_at_once() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(
        &handle,
        "trap 'trap \"\" TERM; sleep 0.5; exit 9' TERM; echo ready; while :; do sleep 0.1; done",
    );
    ready(&daemon, &handle, job);
    within(0.5, "stop in the background", || {
        client.must(StopRequest { background: Some(true), ..stop(&handle) })
    });
    assert_eq!(client.state(&handle), "stopped");
    assert_eq!(client.link(&handle, job).status, 9);
}

#[test]
fn stop_may_be_repeated_and_sharpened() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    client.must(stop(&handle));
    within(1.0, "the second stop", || client.must(stop(&handle)));
    client.must(kill(&handle));
    assert_eq!(client.state(&handle), "stopped");
    let handle = client.create();
    let job = client.spawn(&handle, STUBBORN);
    ready(&daemon, &handle, job);
    client.send(stop(&handle));
    thread::sleep(Duration::from_millis(300));
    within(3.0, "kill during a stop", || daemon.connect().must(kill(&handle)));
    within(3.0, "the stop that was overtaken", || client.receive_of::<StopRequest>().unwrap());
}

#[test]
fn a_stopped_container_refuses_jobs_and_answers_the_rest() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, "echo kept");
    eventually("the job has ended", 5, || client.info(&handle).job_ids.is_empty());
    client.must(stop(&handle));
    let script = || Some(b"true".to_vec());
    let spawn = SpawnRequest { handle: Some(handle.clone()), script: script(), ..SpawnRequest::default() };
    let run = RunRequest { handle: Some(handle.clone()), script: script(), ..RunRequest::default() };
    assert_eq!(client.ask(spawn).unwrap_err(), NOT_ACTIVE);
    assert_eq!(client.ask(run).unwrap_err(), NOT_ACTIVE);
    assert_eq!(client.link(&handle, job).text(), "kept\n");
    assert!(client.list().contains(&handle));
}

#[test]
fn destroy_leaves_nothing_when_it_answers() {
    let daemon = Daemon::with(&[NOTHING_AHEAD]);
    let mut client = daemon.connect();
    let active = client.create();
    let stopped = client.create();
    client.must(stop(&stopped));
    let busy = client.create();
    client.spawn(&busy, "sleep 1000");
    client.run(&busy, "setsid sleep 1001 > /dev/null 2>&1 &");
    let stopping = client.create();
    let job = client.spawn(&stopping, STUBBORN);
    ready(&daemon, &stopping, job);
    client.must(StopRequest { background: Some(true), ..stop(&stopping) });
    client.must(StopRequest { background: Some(true), ..kill(&stopping) });
    for handle in [active, stopped, busy, stopping] {
        let id = client.id(&handle);
        within(6.0, "destroy", || client.must(destroy(&handle)));
        assert_eq!(count(&id), 0);
        assert!(!daemon.depot(&id).exists());
        assert_eq!(client.ask(destroy(&handle)).unwrap_err(), "unknown handle");
        // Nobody waits for the rest, and it goes by itself.
        eventually("nothing is left of it", 30, || {
            let group = format!("instance-{id}");
            kernel::cgroups_of(daemon.mark()).iter().all(|path| !path.ends_with(&group))
                && daemon.helpers().iter().all(|process| !process.command.contains(&id))
                && !daemon.depot(".trash").join(&id).exists()
        });
    }
    assert!(client.list().is_empty());
    let server = daemon.fork_server();
    let of_daemon = |pid: i32| [daemon.pid(), server].map(Some).contains(&kernel::parent_of(pid));
    let children: Vec<_> =
        kernel::processes().into_iter().map(|process| process.pid).filter(|&pid| of_daemon(pid)).collect();
    assert_eq!(children, [server], "all others are reaped");
}

/// How often the threads of this name have gone to sleep.
fn sleeps(daemon: &Daemon, name: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten();
    let status = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let counts: Vec<u64> = status
        .filter(|status| status.starts_with(&format!("Name:\t{name}\n")))
        .map(|status| {
            let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            count.unwrap().trim().parse().unwrap()
        })
        .collect();
    assert_eq!(counts.len(), 1, "{name}");
    counts[0]
}

#[test]
fn the_kernel_s_connections_are_not_searched_for_those_of_containers_that_had_none() {
    let daemon = Daemon::with(&[NOTHING_AHEAD]);
    let mut client = daemon.connect();
    let before = sleeps(&daemon, "connections");
    // Many at a time: their inits end while others are disconnected.
    thread::scope(|scope| {
        for _ in 0..12 {
            let mut client = daemon.connect();
            scope.spawn(move || {
                for _ in 0..8 {
                    let handle = client.create();
                    client.run(&handle, "true");
                    client.destroy(&handle);
                }
            });
        }
    });
    assert_eq!(sleeps(&daemon, "connections"), before);
    let handle = client.create();
    client.run(&handle, "exec 3<>/dev/udp/192.0.2.1/9; echo >&3");
    client.destroy(&handle);
    eventually("those of one that had some are", 20, || sleeps(&daemon, "connections") > before);
}

#[test]
fn links_streams_and_runs_in_flight_end_with_255_and_info_when_their_container_is_destroyed() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, "echo partial; sleep 1000");
    let mut link = daemon.connect();
    let mut stream = daemon.connect();
    let mut run = daemon.connect();
    link.send(LinkRequest { handle: Some(handle.clone()), job_id: Some(job) });
    run.send(RunRequest {
        handle: Some(handle.clone()),
        script: Some(b"sleep 1000".to_vec()),
        ..RunRequest::default()
    });
    let streaming = handle.clone();
    let streamer = thread::spawn(move || stream.stream(&streaming, job));
    ready(&daemon, &handle, job);
    thread::sleep(Duration::from_millis(400));
    client.must(destroy(&handle));
    let answer = link.receive_of::<LinkRequest>().unwrap();
    assert_eq!((answer.exit_status, answer.stdout.unwrap()), (Some(255), b"partial\n".to_vec()));
    let info = answer.info.expect("the last info of the container");
    assert!(info.container_path.is_some() && info.state.is_some(), "{info:?}");
    let answer = run.receive_of::<RunRequest>().unwrap();
    assert!(answer.exit_status == Some(255) && answer.info.is_some(), "{answer:?}");
    let streamed = streamer.join().unwrap();
    assert_eq!((streamed.status, streamed.stdout), (255, b"partial\n".to_vec()));
    assert_eq!(client.try_link(&handle, job).unwrap_err(), "unknown handle");
}

#[test]
fn destroys_at_once_share_one_end() {
    let daemon = Daemon::any();
    let mut clients: Vec<Connection> = (0..4).map(|_| daemon.connect()).collect();
    let handle = clients[0].create();
    clients[0].spawn(&handle, "sleep 1000");
    clients.iter_mut().for_each(|client| client.send(destroy(&handle)));
    let answers: Vec<_> = clients.iter_mut().map(Connection::receive_of::<DestroyRequest>).collect();
    assert!(answers.iter().any(Result::is_ok), "{answers:?}");
    assert!(
        answers.iter().flat_map(|answer| answer.as_ref().err()).all(|text| text == "unknown handle"),
        "{answers:?}"
    );
}

#[test]
fn destroy_ends_jobs_that_ignore_term() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, STUBBORN);
    ready(&daemon, &handle, job);
    within(15.0, "destroy of a job that ignores TERM", || client.must(destroy(&handle)));
    assert!(client.list().is_empty());
}

#[test]
fn a_fork_bomb_ends_by_stop_and_by_destroy() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    for by_stop in [true, false] {
        let handle = client.create();
        let id = client.id(&handle);
        let script = Some(b"bomb() { bomb | bomb & }; bomb; while :; do bomb; sleep 0.01; done".to_vec());
        let rlimits = Some(ResourceLimits { nproc: Some(150), ..ResourceLimits::default() });
        client.must(SpawnRequest {
            handle: Some(handle.clone()),
            script,
            rlimits,
            ..SpawnRequest::default()
        });
        eventually("the bomb has grown", 10, || count(&id) > 30);
        if by_stop {
            within(15.0, "stop of a fork bomb", || client.must(kill(&handle)));
            assert_eq!(count(&id), 1, "only wshd is left");
        }
        within(15.0, "destroy of a fork bomb", || client.must(destroy(&handle)));
        assert_eq!(count(&id), 0);
    }
}

#[test]
fn other_containers_do_not_notice() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let (ended, other) = (client.create(), client.create());
    let job = client.spawn(&other, "sleep 1; echo unharmed; exit 3");
    client.spawn(&ended, "sleep 1000");
    client.must(kill(&ended));
    client.must(destroy(&ended));
    let output = client.link(&other, job);
    assert_eq!((output.status, output.text().as_str()), (3, "unharmed\n"));
}

#[test]
fn a_container_whose_init_dies_ends_its_jobs_and_can_be_destroyed() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let job = client.spawn(&handle, "echo before; sleep 1000");
    ready(&daemon, &handle, job);
    let pid = std::fs::read_to_string(daemon.depot(&id).join("run/wshd.pid")).unwrap();
    kernel::signal(pid.trim().parse().unwrap(), rustix::process::Signal::KILL);
    let (output, _) = within(10.0, "a link to a job of a dead container", || client.try_link(&handle, job));
    let output = output.unwrap();
    assert_eq!((output.status, output.text().as_str()), (255, "before\n"));
    eventually("the container is stopped", 5, || client.state(&handle) == "stopped");
    within(10.0, "destroy of a dead container", || client.must(destroy(&handle)));
    client.create();
}

#[test]
fn stop_succeeds_while_init_dies() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    for _ in 0..10 {
        let handle = client.create();
        let id = client.id(&handle);
        client.spawn(&handle, "sleep 1000");
        let pid = std::fs::read_to_string(daemon.depot(&id).join("run/wshd.pid")).unwrap();
        kernel::signal(pid.trim().parse().unwrap(), rustix::process::Signal::KILL);
        within(5.0, "stop", || client.must(kill(&handle)));
        assert_eq!(count(&id), 0);
        client.must(destroy(&handle));
    }
}

#[test]
fn a_container_whose_supervisor_dies_answers_and_can_be_destroyed() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let job = client.spawn(&handle, "sleep 1000");
    let supervisor =
        daemon.helpers().into_iter().find(|process| process.command.contains("iomux")).expect("iomux runs");
    kernel::signal(supervisor.pid, rustix::process::Signal::KILL);
    let mut linking = daemon.connect();
    linking.send(LinkRequest { handle: Some(handle.clone()), job_id: Some(job) });
    daemon.connect().ping();
    within(20.0, "destroy without its supervisor", || client.must(destroy(&handle)));
    assert_eq!(linking.receive_of::<LinkRequest>().unwrap().exit_status, Some(255));
    assert_eq!(count(&id), 0);
}

#[test]
fn a_file_system_that_never_answers_over_etc_holds_up_neither_stop_nor_destroy() {
    let daemon = Daemon::with(&[ALL_PRIVILEGES]);
    for by_stop in [true, false] {
        let mut client = daemon.connect();
        let handle = client.create();
        let job = client.must(SpawnRequest {
            handle: Some(handle.clone()),
            script: Some(warden_tests::fuse::silent("/etc").into_bytes()),
            privileged: Some(true),
            ..SpawnRequest::default()
        });
        let mut watcher = daemon.connect();
        watcher.send(StreamRequest { handle: Some(handle.clone()), job_id: job.job_id });
        watcher.receive();
        // wshd looks the next job's user up, and is not answered.
        let mut stuck = daemon.connect();
        stuck.send(SpawnRequest {
            handle: Some(handle.clone()),
            script: Some(b"true".to_vec()),
            ..SpawnRequest::default()
        });
        std::thread::sleep(std::time::Duration::from_millis(300));
        if by_stop {
            within(6.0, "stop", || {
                client.must(StopRequest {
                    handle: Some(handle.clone()),
                    kill: Some(true),
                    ..StopRequest::default()
                })
            });
            assert_eq!(client.info(&handle).events, [b"init died".to_vec()]);
        }
        within(16.0, "destroy", || client.destroy(&handle));
    }
}
