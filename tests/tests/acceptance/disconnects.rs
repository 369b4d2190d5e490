//! Clients that vanish: the job goes on, the daemon answers the next one, nothing is left.

use std::thread;
use std::time::Duration;

use warden_protocol::Request;
use warden_protocol::messages::*;
use warden_tests::{Daemon, eventually, within};

/// Sends a request, or its first bytes, and disappears.
fn vanish(daemon: &Daemon, request: &Request, part: usize, linger: u64) {
    let bytes = request.encode();
    let mut client = daemon.connect();
    client.send_bytes(&bytes[..bytes.len().min(part)]);
    thread::sleep(Duration::from_millis(linger));
}

#[test]
fn clients_that_vanish_in_the_middle_of_every_command_disturb_nobody() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, "sleep 3; echo done; exit 4");
    let mut requests = super::commands::on_handle(&handle);
    // Those that would end the container or wait for this very job come below.
    requests.retain(|request| !matches!(request, Request::Stop(_) | Request::Destroy(_)));
    requests.push(LinkRequest { handle: Some(handle.clone()), job_id: Some(job) }.into());
    requests.push(StreamRequest { handle: Some(handle.clone()), job_id: Some(job) }.into());
    requests.extend([Request::from(PingRequest {}), ListRequest {}.into()]);
    for request in &requests {
        for part in [1, 3, 8, usize::MAX] {
            vanish(&daemon, request, part, 0);
        }
        vanish(&daemon, request, usize::MAX, 10);
        within(2.0, "the next client's ping", || daemon.connect().ping());
    }
    let output = client.link(&handle, job);
    assert_eq!((output.status, output.text().as_str()), (4, "done\n"));
}

#[test]
fn a_container_whose_creator_vanished_is_complete_or_absent() {
    let daemon = Daemon::own();
    for (number, linger) in [0, 1, 5, 20, 100].into_iter().enumerate() {
        let handle = format!("orphan-{number}").into_bytes();
        let request = CreateRequest { handle: Some(handle.clone()), ..CreateRequest::default() };
        vanish(&daemon, &request.into(), usize::MAX, linger);
        let mut client = daemon.connect();
        eventually("the container whose creator vanished appears", 10, || client.list().contains(&handle));
        assert_eq!(client.text(&handle, "echo alive"), "alive\n");
        client.destroy(&handle);
    }
}

#[test]
fn stop_and_destroy_are_done_although_their_client_vanished() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    client.spawn(&handle, "trap '' TERM; while :; do sleep 1; done");
    vanish(
        &daemon,
        &StopRequest { handle: Some(handle.clone()), kill: Some(true), background: None }.into(),
        usize::MAX,
        0,
    );
    eventually("the container is stopped", 5, || client.state(&handle) == "stopped");
    vanish(&daemon, &DestroyRequest { handle: Some(handle.clone()) }.into(), usize::MAX, 0);
    eventually("the container is destroyed", 10, || client.list().is_empty());
}

#[test]
fn a_job_goes_on_when_the_client_of_its_run_vanishes() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let script = b"sleep 0.5; echo survived > /home/vcap/mark".to_vec();
    vanish(
        &daemon,
        &RunRequest { handle: Some(handle.clone()), script: Some(script), ..Default::default() }.into(),
        usize::MAX,
        100,
    );
    eventually("the job writes its file", 5, || {
        client.run(&handle, "cat /home/vcap/mark").stdout == b"survived\n"
    });
}

#[test]
fn an_answer_that_nobody_took_keeps_the_job() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let size = 6_000_000;
    let job = client.spawn(&handle, format!("head -c {size} /dev/zero; exit 9"));
    // Waits until the job has ended, without asking for its answer.
    eventually("the job has ended", 10, || client.info(&handle).job_ids.is_empty());
    for _ in 0..3 {
        let mut impatient = daemon.connect();
        impatient.send(LinkRequest { handle: Some(handle.clone()), job_id: Some(job) });
        thread::sleep(Duration::from_millis(50));
        drop(impatient);
        let mut impatient = daemon.connect();
        impatient.send(StreamRequest { handle: Some(handle.clone()), job_id: Some(job) });
        thread::sleep(Duration::from_millis(50));
    }
    let output = client.link(&handle, job);
    assert_eq!((output.status, output.stdout.len()), (9, size));
    assert_eq!(client.try_link(&handle, job).unwrap_err(), "no such job");
}
