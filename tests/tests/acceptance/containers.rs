//! Creating, naming and listing containers, and what info says of them.

use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon, kernel};

fn named(handle: &[u8]) -> CreateRequest {
    CreateRequest { handle: Some(handle.to_vec()), ..CreateRequest::default() }
}

fn is_id(text: &[u8]) -> bool {
    text.len() == 11 && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'v'))
}

#[test]
fn the_handle_is_the_id_when_none_is_asked_for() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handles: Vec<_> = (0..3).map(|_| client.create()).collect();
    assert!(handles.iter().all(|handle| is_id(handle)), "{handles:?}");
    assert!(handles.is_sorted(), "ids grow: {handles:?}");
    let path = client.info(&handles[0]).container_path.unwrap();
    assert!(path.ends_with(&handles[0]));
}

#[test]
fn a_handle_is_any_bytes_and_never_part_of_a_path() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handles: [&[u8]; 7] = [
        b"a/../b x",
        "gr\u{fc}n \u{1f980}".as_bytes(),
        b"\xff\xfe",
        b"new\nline",
        b"$(touch /x)'\"",
        b"..",
        &[b'h'; 5000],
    ];
    for handle in handles {
        assert_eq!(client.create_with(named(handle)), handle);
        assert_eq!(client.text(handle, "echo hello"), "hello\n");
        let id = client.id(handle);
        assert!(is_id(id.as_bytes()), "{id}");
        assert!(
            daemon.depot(&id).join("tmp/rootfs").is_dir(),
            "the writable layer is where clients look for it"
        );
    }
    assert_eq!(client.list(), handles);
}

#[test]
fn a_handle_in_use_is_refused_and_its_container_lives_on() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    client.create_with(named(b"twice"));
    let refused = client.ask(named(b"twice")).unwrap_err();
    assert_eq!(refused, "container with handle: twice already exists.");
    assert_eq!(client.text(b"twice", "echo first"), "first\n");
    assert_eq!(client.list(), [b"twice"]);
    client.destroy(b"twice");
    client.create_with(named(b"twice"));
}

#[test]
fn of_two_creates_at_once_with_one_handle_only_one_succeeds() {
    let daemon = Daemon::own();
    let mut clients: Vec<Connection> = (0..4).map(|_| daemon.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(named(b"race")));
    let answers: Vec<_> = clients.iter_mut().map(Connection::receive_of::<CreateRequest>).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert!(
        answers.iter().flat_map(|answer| answer.as_ref().err()).all(|text| text.ends_with("already exists."))
    );
    assert_eq!(daemon.connect().list(), [b"race"]);
}

#[test]
fn list_is_in_order_of_creation() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    for handle in [&b"zebra"[..], b"apple", b"mango", b"10", b"9"] {
        client.create_with(named(handle));
    }
    client.destroy(b"mango");
    client.create_with(named(b"mango"));
    assert_eq!(client.list(), [&b"zebra"[..], b"apple", b"10", b"9", b"mango"]);
}

#[test]
fn info_tells_state_addresses_path_and_use() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, "x=$(head -c 3000000 /dev/zero | tr '\\0' a); sleep 1000; :");
    client.run(&handle, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    let info = client.info(&handle);
    assert_eq!(info.state.unwrap(), b"active");
    assert!(info.events.is_empty());
    assert_eq!(info.job_ids, [u64::from(job)]);
    let path = daemon.depot(std::str::from_utf8(&handle).unwrap());
    assert_eq!(info.container_path.unwrap(), path.to_str().unwrap().as_bytes());
    let memory = info.memory_stat.expect("memory is known");
    assert!(memory.total_rss.unwrap() > 1_000_000, "{memory:?}");
    assert!(memory.hierarchical_memory_limit.unwrap() > 1 << 40, "{memory:?}");
    let cpu = info.cpu_stat.expect("processor time is known");
    assert!(cpu.usage.unwrap() > 10_000_000, "{cpu:?}");
    assert!(cpu.user.unwrap() > 0 && cpu.system.is_some(), "{cpu:?}");
    client.kill(&handle);
    let info = client.info(&handle);
    assert_eq!((info.state.unwrap(), info.job_ids), (b"stopped".to_vec(), vec![]));
}

#[test]
fn create_uses_every_field_of_its_request() {
    let daemon = Daemon::own();
    let source = warden_tests::files::directory();
    warden_tests::files::write(&source.path().join("file"), "content", 0o644);
    let rootfs = warden_tests::files::directory();
    warden_tests::image::fill(rootfs.path());
    let mut client = daemon.connect();
    let handle = client.create_with(CreateRequest {
        bind_mounts: vec![BindMount {
            src_path: Some(warden_tests::files::bytes(source.path())),
            dst_path: Some(b"/data".to_vec()),
            mode: Some(0),
        }],
        grace_time: Some(3600),
        handle: Some(b"all".to_vec()),
        network: Some(b"10.254.2.9".to_vec()),
        rootfs: Some(warden_tests::files::bytes(rootfs.path())),
    });
    assert_eq!(handle, b"all");
    assert_eq!(
        client.text(&handle, "cat /data/file; test -d /etc/ssl || echo ', not the host'"),
        "content, not the host\n"
    );
    assert_eq!(client.info(&handle).container_ip.unwrap(), b"10.254.2.10");
}

#[test]
fn a_process_of_each_container_lives_in_its_own_cgroups() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    client.spawn(&handle, "exec sleep 1000");
    warden_tests::eventually("the job runs", 5, || {
        kernel::processes_in_cgroup(&id).iter().any(|process| process.command.starts_with("sleep 1000"))
    });
    let sleeper = kernel::processes_in_cgroup(&id)
        .into_iter()
        .find(|process| process.command.starts_with("sleep"))
        .unwrap();
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", sleeper.pid)).unwrap();
    let expected = format!(":/{}/instance-{id}", daemon.mark());
    // cpuset and the hierarchy of systemd carry no limits of a container.
    let ours = ["memory", "cpu", "cpuacct", "devices", "pids", "freezer", "blkio"];
    let mut joined = 0;
    for line in cgroups.lines() {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        if controllers.split(',').any(|name| ours.contains(&name)) {
            assert!(line.ends_with(&expected), "{line}");
            joined += 1;
        }
    }
    assert!(
        joined > 0 || cgroups.lines().any(|line| line.starts_with("0::") && line.ends_with(&expected)),
        "{cgroups}"
    );
    assert_eq!(
        client.text(&handle, "cut -d: -f3 /proc/self/cgroup | sort -u"),
        "/\n",
        "inside, the container's cgroup is the root"
    );
}
