//! A container that takes all it can get costs the others at most their share.

use std::thread;

use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon, eventually};

/// What a neighbour must be able to do, whatever another container does.
fn works(client: &mut Connection, neighbour: &[u8]) {
    for round in 0..3 {
        let output = client.run(neighbour, format!("echo {round}; echo x > file && cat file; exit 3"));
        assert_eq!((output.text(), output.status), (format!("{round}\nx\n"), 3), "{}", output.errors());
    }
    assert_eq!(client.state(neighbour), "active");
}

/// Runs a script in one container, and looks at another one while it goes on.
fn beside(script: &str, settings: &[(&str, &str)], limit_memory: Option<u64>) {
    let daemon = Daemon::with(settings);
    let mut client = daemon.connect();
    let (greedy, neighbour) = (client.create(), client.create());
    if let Some(bytes) = limit_memory {
        client.must(LimitMemoryRequest { handle: Some(greedy.clone()), limit_in_bytes: Some(bytes) });
    }
    let job = client.spawn(&greedy, format!("touch /tmp/begun; {script}"));
    let begun = || daemon.connect().run(&neighbour, "true").status == 0;
    eventually("the neighbour answers", 60, begun);
    works(&mut client, &neighbour);
    works(&mut daemon.connect(), &neighbour);
    // Whatever has become of the job, both containers can be destroyed.
    let _ = daemon.connect().try_link(&neighbour, job);
    client.kill(&greedy);
    works(&mut client, &neighbour);
    client.destroy(&greedy);
    works(&mut client, &neighbour);
}

#[test]
fn a_fork_bomb() {
    beside(":(){ :|:& };:; sleep 1000", &[("server.max_tasks", "64")], None);
}

#[test]
fn output_without_end() {
    beside("yes & yes >&2", &[("server.job_output_limit", "100000000")], None);
}

#[test]
fn memory_without_end() {
    beside("tail /dev/zero", &[], Some(32 << 20));
}

#[test]
fn files_without_end() {
    let script =
        "i=0; while :; do mkdir -p d$i; for n in 1 2 3 4 5 6 7 8; do : > d$i/$n; done; i=$((i+1)); done";
    beside(script, &[], None);
}

#[test]
fn packets_without_end() {
    // UDP to everybody that it can name, as fast as it goes: nothing of it leaves.
    let script = "python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setblocking(False)
while True:
    for last in range(1, 255):
        try: s.sendto(b\"x\" * 1000, (\"10.254.0.%d\" % last, 53))
        except OSError: pass
'";
    beside(script, &[], None);
}

#[test]
fn jobs_without_end_are_refused_by_name_and_the_neighbour_starts_its_own() {
    let daemon = Daemon::with(&[("server.max_running_jobs", "20")]);
    let mut client = daemon.connect();
    let (greedy, neighbour) = (client.create(), client.create());
    let spawners: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, greedy) = (daemon.connect(), greedy.clone());
            thread::spawn(move || {
                let spawn = || SpawnRequest {
                    handle: Some(greedy.clone()),
                    script: Some(b"sleep 1000".to_vec()),
                    ..SpawnRequest::default()
                };
                let outcomes: Vec<_> = (0..50).map(|_| client.ask(spawn()).map(drop)).collect();
                outcomes.into_iter().filter_map(Result::err).collect::<Vec<_>>()
            })
        })
        .collect();
    works(&mut client, &neighbour);
    let refusals: Vec<String> = spawners.into_iter().flat_map(|spawner| spawner.join().unwrap()).collect();
    assert_eq!(refusals.len(), 180);
    assert!(refusals.iter().all(|refusal| refusal.starts_with("too many running jobs")), "{refusals:?}");
    assert_eq!(client.info(&greedy).job_ids.len(), 20);
    works(&mut client, &neighbour);
}

#[test]
fn processors_are_shared_by_containers_and_not_by_processes() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (greedy, modest) = (client.create(), client.create());
    let spin = |count: usize| format!("for i in $(seq {count}); do while :; do :; done & done; wait");
    let processors = thread::available_parallelism().unwrap().get();
    client.spawn(&greedy, spin(processors * 16));
    client.spawn(&modest, spin(processors));
    let used = |client: &mut Connection, handle: &[u8]| client.info(handle).cpu_stat.unwrap().usage.unwrap();
    eventually("both spin", 60, || used(&mut client, &greedy).min(used(&mut client, &modest)) > 200_000_000);
    let before = [used(&mut client, &greedy), used(&mut client, &modest)];
    eventually("they have used four seconds together", 120, || {
        used(&mut client, &greedy) + used(&mut client, &modest) > before[0] + before[1] + 4_000_000_000
    });
    let [greedy, modest] = [used(&mut client, &greedy) - before[0], used(&mut client, &modest) - before[1]];
    // A half each; by processes it would be a seventeenth.
    assert!(modest * 3 > greedy, "{modest} ns beside {greedy} ns");
}
