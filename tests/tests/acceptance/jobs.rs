//! Statuses, output byte for byte, links and streams of a job, and when it is forgotten.

use std::thread;
use std::time::{Duration, Instant};

use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon, Streamed, eventually, within};

#[test]
fn statuses_are_the_exit_code_or_255() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    for (script, status) in [
        ("", 0),
        ("true", 0),
        ("exit 1", 1),
        ("exit 7", 7),
        ("exit 254", 254),
        ("exit 255", 255),
        ("kill -9 $$", 255),
        ("kill -TERM $$", 255),
        ("kill -SEGV $$", 255),
        ("sh -c 'kill -9 $$'", 137),
        ("nonexistent-command", 127),
        ("if then", 2),
    ] {
        let output = client.run(&handle, script);
        assert_eq!(output.status, status, "{script}: {}", output.errors());
        let job = client.spawn(&handle, script);
        assert_eq!(client.link(&handle, job).status, status, "link: {script}");
        let job = client.spawn(&handle, script);
        assert_eq!(client.stream(&handle, job).status, status, "stream: {script}");
    }
}

#[test]
fn both_outputs_are_delivered_byte_for_byte_and_apart() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let all = "for i in $(seq 0 255); do printf \"\\\\x$(printf %02x $i)\"; done";
    let bytes: Vec<u8> = (0..=255).collect();
    let script = format!("{all}\n{{ {all}\n{all}\n}} >&2");
    let output = client.run(&handle, &script);
    assert_eq!((output.stdout, output.stderr), (bytes.clone(), bytes.repeat(2)));
    let job = client.spawn(&handle, &script);
    let streamed = client.stream(&handle, job);
    assert_eq!((streamed.stdout, streamed.stderr), (bytes.clone(), bytes.repeat(2)));
    let empty = client.run(&handle, "true");
    assert_eq!((empty.stdout, empty.stderr), (vec![], vec![]));
}

#[test]
fn the_last_bytes_before_the_exit_are_never_lost() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    for size in [1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_000_000] {
        for _ in 0..4 {
            let output = client
                .run(&handle, format!("head -c {size} /dev/zero; head -c {size} /dev/zero >&2; exit 3"));
            assert_eq!((output.status, output.stdout.len(), output.stderr.len()), (3, size, size));
        }
    }
}

#[test]
fn spawn_answers_at_once_and_link_waits() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let (job, _) = within(0.5, "spawn", || client.spawn(&handle, "sleep 1; echo out; echo err >&2; exit 5"));
    let start = Instant::now();
    let output = client.link(&handle, job);
    assert!(start.elapsed() > Duration::from_millis(500));
    assert_eq!((output.status, output.text().as_str(), output.errors().as_str()), (5, "out\n", "err\n"));
    assert_eq!(output.info.unwrap().state.unwrap(), b"active");
}

#[test]
fn job_ids_grow_over_all_containers_and_are_listed_while_they_run() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (one, other) = (client.create(), client.create());
    let jobs =
        [client.spawn(&one, "sleep 100"), client.spawn(&other, "sleep 100"), client.spawn(&one, "true")];
    assert!(jobs.is_sorted() && jobs[0] >= 1 && jobs[0] != jobs[1], "{jobs:?}");
    eventually("the last job has ended", 5, || client.info(&one).job_ids == [u64::from(jobs[0])]);
    assert_eq!(client.info(&other).job_ids, [u64::from(jobs[1])]);
}

#[test]
fn a_late_link_or_stream_gets_everything_from_the_first_byte() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let script = "seq 1 50000; echo problem >&2; exit 6";
    let (linked, streamed) = (client.spawn(&handle, script), client.spawn(&handle, script));
    eventually("the jobs have ended", 10, || client.info(&handle).job_ids.is_empty());
    let expected: String = (1..=50_000).map(|number| format!("{number}\n")).collect();
    let output = client.link(&handle, linked);
    assert_eq!((output.status, output.errors().as_str()), (6, "problem\n"));
    assert!(output.text() == expected, "the linked output differs");
    let output = client.stream(&handle, streamed);
    assert_eq!((output.status, output.stderr.as_slice()), (6, &b"problem\n"[..]));
    assert!(output.stdout == expected.as_bytes(), "the streamed output differs");
}

#[test]
fn a_stream_joined_late_replays_and_goes_on_live() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, "echo early; sleep 0.6; echo late; sleep 0.6; exit 2");
    thread::sleep(Duration::from_millis(300));
    client.send(StreamRequest { handle: Some(handle), job_id: Some(job) });
    let mut streamed = Streamed::default();
    let start = Instant::now();
    assert_eq!(client.next_chunk(&mut streamed).unwrap(), Some((b"stdout".to_vec(), b"early\n".to_vec())));
    assert!(start.elapsed() < Duration::from_millis(250), "what is there already comes at once");
    assert_eq!(client.next_chunk(&mut streamed).unwrap(), Some((b"stdout".to_vec(), b"late\n".to_vec())));
    let late = start.elapsed();
    assert!(late < Duration::from_millis(700), "a chunk came {late:?} after the stream began");
    assert_eq!(client.next_chunk(&mut streamed).unwrap(), None);
    assert!(start.elapsed() > late + Duration::from_millis(300), "the end waits for the job");
    assert_eq!(streamed.status, 2);
}

#[test]
fn many_links_and_streams_of_one_job_each_get_everything() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, "sleep 0.5; head -c 300000 /dev/zero; echo err >&2; exit 8");
    let mut links: Vec<Connection> = (0..4).map(|_| daemon.connect()).collect();
    let mut streams: Vec<Connection> = (0..4).map(|_| daemon.connect()).collect();
    for link in &mut links {
        link.send(LinkRequest { handle: Some(handle.clone()), job_id: Some(job) });
    }
    thread::scope(|scope| {
        for stream in &mut streams {
            let handle = &handle;
            scope.spawn(move || {
                let output = stream.stream(handle, job);
                assert_eq!(
                    (output.status, output.stdout.len(), output.stderr.as_slice()),
                    (8, 300_000, &b"err\n"[..])
                );
            });
        }
    });
    for link in &mut links {
        let answer = link.receive_of::<LinkRequest>().unwrap();
        assert_eq!((answer.exit_status, answer.stdout.unwrap().len()), (Some(8), 300_000));
    }
    assert_eq!(client.try_link(&handle, job).unwrap_err(), "no such job");
}

#[test]
fn the_first_complete_answer_forgets_the_job() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let (linked, streamed) = (client.spawn(&handle, "echo x"), client.spawn(&handle, "echo x"));
    client.link(&handle, linked);
    client.stream(&handle, streamed);
    for job in [linked, streamed] {
        assert_eq!(client.try_link(&handle, job).unwrap_err(), "no such job");
        assert_eq!(client.try_stream(&handle, job).unwrap_err(), "no such job");
    }
}

#[test]
fn output_arrives_while_the_job_runs() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done");
    client.send(StreamRequest { handle: Some(handle), job_id: Some(job) });
    let mut streamed = Streamed::default();
    let mut arrivals = Vec::new();
    let start = Instant::now();
    while let Some((_, data)) = client.next_chunk(&mut streamed).unwrap() {
        arrivals.push((start.elapsed(), data));
    }
    let lines: Vec<&[u8]> = arrivals.iter().map(|(_, data)| data.as_slice()).collect();
    assert_eq!(lines, [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"]);
    let spread = arrivals[4].0 - arrivals[0].0;
    assert!(spread > Duration::from_millis(600), "all came at once: {spread:?}");
}

#[test]
fn a_background_child_neither_delays_the_end_nor_is_it_ended() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let script = "(sleep 1.5; echo alive > /home/vcap/mark; echo too late) & echo out; echo err >&2; exit 4";
    let (output, _) = within(1.0, "a run that leaves a child", || client.run(&handle, script));
    assert_eq!((output.status, output.text().as_str(), output.errors().as_str()), (4, "out\n", "err\n"));
    let job = client.spawn(&handle, "sleep 1000 & echo out");
    let (output, _) = within(1.0, "a stream of a job that leaves a child", || client.stream(&handle, job));
    assert_eq!((output.status, output.stdout.as_slice()), (0, &b"out\n"[..]));
    eventually("the child goes on", 5, || client.run(&handle, "cat /home/vcap/mark").stdout == b"alive\n");
}

#[test]
fn a_job_may_close_its_streams_and_go_on() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let start = Instant::now();
    let output = client.run(&handle, "echo before; exec >&- 2>&-; sleep 0.5; exit 3");
    assert_eq!((output.status, output.text().as_str()), (3, "before\n"));
    assert!(start.elapsed() > Duration::from_millis(500), "closed streams are not the end");
}

#[test]
fn finished_jobs_that_nobody_links_are_kept_up_to_the_configured_number() {
    let daemon = Daemon::with(&[("server.max_finished_jobs", "3")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let jobs: Vec<u32> = (0..5)
        .map(|number| {
            let job = client.spawn(&handle, format!("sleep 0.1; echo {number}"));
            eventually("the job has ended", 5, || client.info(&handle).job_ids.is_empty());
            job
        })
        .collect();
    assert_eq!(client.try_link(&handle, jobs[0]).unwrap_err(), "no such job");
    assert_eq!(client.try_link(&handle, jobs[1]).unwrap_err(), "no such job");
    for (number, &job) in jobs.iter().enumerate().skip(2) {
        assert_eq!(client.link(&handle, job).text(), format!("{number}\n"));
    }
}

#[test]
fn finished_jobs_that_nobody_links_are_kept_up_to_the_configured_bytes() {
    let daemon = Daemon::with(&[("server.max_finished_bytes", "250000")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let jobs: Vec<u32> = (0..4)
        .map(|_| {
            let job = client.spawn(&handle, "sleep 0.1; head -c 100000 /dev/zero");
            eventually("the job has ended", 5, || client.info(&handle).job_ids.is_empty());
            job
        })
        .collect();
    assert_eq!(client.try_link(&handle, jobs[0]).unwrap_err(), "no such job");
    assert_eq!(client.link(&handle, jobs[3]).stdout.len(), 100_000);
    assert_eq!(client.link(&handle, jobs[2]).stdout.len(), 100_000);
}

#[test]
fn the_number_of_running_jobs_is_bounded() {
    let daemon = Daemon::with(&[("server.max_running_jobs", "2")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let first = client.spawn(&handle, "sleep 0.5");
    client.spawn(&handle, "sleep 100");
    let request =
        SpawnRequest { handle: Some(handle.clone()), script: Some(b"true".to_vec()), ..Default::default() };
    let refused = client.ask(request).unwrap_err();
    assert!(refused.contains("too many running jobs"), "{refused}");
    client.link(&handle, first);
    assert_eq!(client.run(&handle, "exit 1").status, 1);
}
