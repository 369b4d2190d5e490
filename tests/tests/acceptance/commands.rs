//! Every command, as far as it can be asked without a container or before its time.

use warden_protocol::Request;
use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon};

/// One request of each command that names a container.
pub(crate) fn on_handle(handle: &[u8]) -> Vec<Request> {
    let handle = || Some(handle.to_vec());
    let path = || Some(b"/tmp/x".to_vec());
    let script = || Some(b"true".to_vec());
    vec![
        StopRequest { handle: handle(), ..StopRequest::default() }.into(),
        DestroyRequest { handle: handle() }.into(),
        InfoRequest { handle: handle() }.into(),
        SpawnRequest { handle: handle(), script: script(), ..SpawnRequest::default() }.into(),
        LinkRequest { handle: handle(), job_id: Some(1) }.into(),
        RunRequest { handle: handle(), script: script(), ..RunRequest::default() }.into(),
        StreamRequest { handle: handle(), job_id: Some(1) }.into(),
        NetInRequest { handle: handle(), ..NetInRequest::default() }.into(),
        NetOutRequest { handle: handle(), ..NetOutRequest::default() }.into(),
        CopyInRequest { handle: handle(), src_path: path(), dst_path: path() }.into(),
        CopyOutRequest { handle: handle(), src_path: path(), dst_path: path(), owner: None }.into(),
        LimitMemoryRequest { handle: handle(), ..LimitMemoryRequest::default() }.into(),
        LimitDiskRequest { handle: handle(), ..LimitDiskRequest::default() }.into(),
        LimitBandwidthRequest { handle: handle(), rate: Some(1000), burst: Some(1000) }.into(),
        LimitCpuRequest { handle: handle(), ..LimitCpuRequest::default() }.into(),
    ]
}

fn refusal(client: &mut Connection, request: &Request) -> String {
    client.send_bytes(&request.encode());
    client.receive_error()
}

#[test]
fn every_command_on_an_unknown_handle_is_refused_with_the_original_s_text() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    for request in on_handle(b"nobody").iter().chain(&on_handle(b"")).chain(&on_handle(b"\xff\x00")) {
        assert_eq!(refusal(&mut client, request), "unknown handle", "{}", request.name());
    }
}

#[test]
fn ping_and_list_need_nothing() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    client.ping();
    assert!(client.list().is_empty());
}

#[test]
fn link_and_stream_of_an_unknown_job_are_refused() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let (one, other) = (client.create(), client.create());
    let job = client.spawn(&one, "true");
    for (handle, job) in [(&one, 4_000_000_000), (&one, 0), (&other, job)] {
        assert_eq!(client.try_link(handle, job).unwrap_err(), "no such job");
        assert_eq!(client.try_stream(handle, job).unwrap_err(), "no such job");
    }
    assert_eq!(client.link(&one, job).status, 0);
}

#[test]
fn an_unknown_bind_mode_is_refused() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let bind =
        BindMount { src_path: Some(b"/tmp".to_vec()), dst_path: Some(b"/mnt/x".to_vec()), mode: Some(7) };
    let refused =
        client.ask(CreateRequest { bind_mounts: vec![bind], ..CreateRequest::default() }).unwrap_err();
    assert!(refused.contains("Unknown mode") || refused.contains("mode"), "{refused}");
}
