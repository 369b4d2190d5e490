//! Much output, many jobs, many containers.

use std::thread;

use warden_protocol::messages::*;
use warden_tests::transfer::{self, Way};
use warden_tests::{Connection, Daemon, Random, Streamed, kernel};

const MEGABYTES_100: usize = 100_000_000;

#[test]
fn a_hundred_megabytes_arrive_whole_beside_eight_other_jobs_in_little_memory() {
    let daemon = Daemon::with(&[("server.job_output_limit", "200000000")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let (_, jobs) = transfer::beside_eight_jobs(&daemon, &handle, || {
        for _ in 0..2 {
            let expected = transfer::prepare(&mut client, &handle, MEGABYTES_100);
            for way in [Way::Run, Way::Stream] {
                let transfer = transfer::receive(&mut client, &handle, way);
                assert_eq!((transfer.length, &transfer.hash), (MEGABYTES_100, &expected), "{way:?}");
            }
        }
    });
    assert!(jobs >= 16, "only {jobs} jobs ran beside");
    let peak = kernel::peak_memory(daemon.pid());
    assert!(peak < 64 * 1024, "wardend used {peak} KiB");
    for helper in daemon.helpers().iter().filter(|process| process.command.contains("iomux")) {
        let peak = kernel::peak_memory(helper.pid);
        assert!(peak < 16 * 1024, "iomux used {peak} KiB");
    }
}

/// What job number `number` writes and returns, whatever the others do.
fn script(number: u32) -> String {
    format!(
        "echo out {number}; echo err {number} >&2; sleep 0.5; head -c {} /dev/zero; exit {}",
        number * 100,
        number % 200
    )
}

fn check(output: &warden_tests::Output, number: u32) {
    let mut expected = format!("out {number}\n").into_bytes();
    expected.resize(expected.len() + usize::try_from(number * 100).unwrap(), 0);
    assert_eq!((output.status, output.errors()), (number % 200, format!("err {number}\n")));
    assert!(output.stdout == expected, "job {number} has another's output");
}

#[test]
fn a_hundred_jobs_at_once_in_one_container_each_have_their_own_output_and_status() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let jobs: Vec<u32> = (0..100).map(|number| client.spawn(&handle, script(number))).collect();
    let mut links: Vec<Connection> = jobs.iter().map(|_| daemon.connect()).collect();
    for (link, &job) in links.iter_mut().zip(&jobs) {
        link.send(LinkRequest { handle: Some(handle.clone()), job_id: Some(job) });
    }
    for (number, link) in (0..).zip(&mut links) {
        let answer = link.receive_of::<LinkRequest>().unwrap();
        let output = warden_tests::Output {
            status: answer.exit_status.unwrap(),
            stdout: answer.stdout.unwrap(),
            stderr: answer.stderr.unwrap(),
            info: answer.info,
        };
        check(&output, number);
    }
    assert!(client.info(&handle).job_ids.is_empty());
}

#[test]
fn one_job_in_each_of_a_hundred_containers_has_its_own_output_and_status() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handles: Vec<Vec<u8>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let mut client = daemon.connect();
                scope.spawn(move || (0..25).map(|_| client.create()).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(client.list().len(), 100);
    let jobs: Vec<u32> =
        (0..).zip(&handles).map(|(number, handle)| client.spawn(handle, script(number))).collect();
    for (number, (handle, job)) in (0..).zip(handles.iter().zip(&jobs)) {
        check(&client.link(handle, *job), number);
    }
    thread::scope(|scope| {
        for part in handles.chunks(25) {
            let mut client = daemon.connect();
            scope.spawn(move || part.iter().for_each(|handle| client.destroy(handle)));
        }
    });
    assert!(client.list().is_empty());
}

#[test]
fn jobs_and_containers_come_and_go_without_leaking_descriptors() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let kept = client.create();
    let round = |client: &mut Connection| {
        let handle = client.create();
        client.run(&handle, "echo x");
        client.run(&kept, "echo x");
        let job = client.spawn(&kept, "echo y; exit 1");
        client.stream(&kept, job);
        client.destroy(&handle);
    };
    round(&mut client);
    let before = descriptors();
    (0..8).for_each(|_| round(&mut client));
    warden_tests::eventually("as many descriptors as before", 5, || descriptors() <= before);
}

#[test]
fn an_answer_above_two_gigabytes_is_refused_and_stream_delivers_it() {
    let daemon = Daemon::with(&[("server.job_output_limit", "3000000000")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let length = 1_usize << 31;
    let job = client.spawn(&handle, format!("head -c {length} /dev/zero; exit 3"));
    let refused = client.try_link(&handle, job).unwrap_err();
    assert!(refused.contains("stream"), "{refused}");
    client.send(StreamRequest { handle: Some(handle.clone()), job_id: Some(job) });
    let (mut received, mut streamed) = (0, Streamed::default());
    while let Some((_, data)) = client.next_chunk(&mut streamed).unwrap() {
        received += data.len();
    }
    assert_eq!((received, streamed.status), (length, 3));
    assert!(kernel::peak_memory(daemon.pid()) < 64 * 1024);
}

/// Does one thing of a client at random; every request must be answered, whatever the answer is.
fn act(daemon: &Daemon, client: &mut Connection, random: &mut Random) {
    let handle = vec![b'a' + u8::try_from(random.below(4)).unwrap()];
    let script =
        [&b"echo x"[..], b"sleep 0.2", b"sleep 60 & echo x", b"head -c 300000 /dev/zero", b"exec sleep 30"];
    let script = Some(script[random.below(5)].to_vec());
    let named = || Some(handle.clone());
    let request: warden_protocol::Request = match random.below(12) {
        0..3 => CreateRequest { handle: named(), ..CreateRequest::default() }.into(),
        3 => DestroyRequest { handle: named() }.into(),
        4 => StopRequest { handle: named(), kill: Some(true), background: Some(random.below(2) == 0) }.into(),
        5 => InfoRequest { handle: named() }.into(),
        6 => ListRequest {}.into(),
        7 => {
            LinkRequest { handle: named(), job_id: Some(1 + u32::try_from(random.below(40)).unwrap()) }.into()
        }
        8 => StreamRequest { handle: named(), job_id: Some(1 + u32::try_from(random.below(40)).unwrap()) }
            .into(),
        _ => SpawnRequest { handle: named(), script, ..SpawnRequest::default() }.into(),
    };
    let waits = matches!(request, warden_protocol::Request::Link(_) | warden_protocol::Request::Stream(_));
    client.send_bytes(&request.encode());
    if waits || random.below(4) == 0 {
        *client = daemon.connect();
    } else {
        client.receive();
    }
}

#[test]
fn clients_that_act_at_random_leave_a_daemon_that_serves_and_nothing_else() {
    let daemon = Daemon::own();
    thread::scope(|scope| {
        for seed in 0..6 {
            let daemon = &daemon;
            scope.spawn(move || {
                let (mut client, mut random) = (daemon.connect(), Random::new(seed + 10));
                (0..60).for_each(|_| act(daemon, &mut client, &mut random));
            });
        }
    });
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(client.text(&handle, "echo served"), "served\n");
}
