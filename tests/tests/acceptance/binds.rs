//! Bind mounts: any characters, who may write, whose files they are.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use warden_protocol::messages::*;
use warden_tests::files::{self, bytes, quote};
use warden_tests::{ALL_PRIVILEGES, Connection, Daemon};

const NAMES: [&[u8]; 12] = [
    b"with space",
    b"comma,colon:",
    b"back\\slash\\040",
    b"new\nline",
    b"quo'te\"s",
    "\u{fc}n\u{ef}c\u{f6}de \u{1f980}".as_bytes(),
    b"\xff\xfe not UTF-8",
    b"$(touch pwned)`id`;&|*?[x]",
    b"-leading dash",
    b"#hash",
    b"\x01\x7f\t",
    b"trailing ",
];

fn bind(source: &Path, destination: impl AsRef<[u8]>, mode: Mode) -> BindMount {
    BindMount {
        src_path: Some(bytes(source)),
        dst_path: Some(destination.as_ref().to_vec()),
        mode: Some(mode as i32),
    }
}

fn create(client: &mut Connection, bind_mounts: Vec<BindMount>) -> Vec<u8> {
    client.create_with(CreateRequest { bind_mounts, ..CreateRequest::default() })
}

fn script(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn paths_may_hold_any_characters() {
    let daemon = Daemon::any();
    let base = files::directory();
    let mut client = daemon.connect();
    let mut binds = Vec::new();
    for name in NAMES {
        let source = base.path().join(files::path(name));
        files::write(&source.join("ro/file"), name, 0o644);
        files::make_directory(&source.join("rw"), 0o777);
        binds.push(bind(&source.join("ro"), [b"/ro/", name].concat(), Mode::Ro));
        binds.push(bind(&source.join("rw"), [b"/rw/", name].concat(), Mode::Rw));
    }
    let handle = create(&mut client, binds);
    for name in NAMES {
        let (ro, rw) = (quote([b"/ro/", name].concat()), quote([b"/rw/", name].concat()));
        let output =
            client.run(&handle, script(&[b"cat ", &ro, b"/file && cp ", &ro, b"/file ", &rw, b"/copy"]));
        assert_eq!(
            (output.status, output.stdout.as_slice()),
            (0, name),
            "{}: {}",
            name.escape_ascii(),
            output.errors()
        );
        let copy = base.path().join(files::path(name)).join("rw/copy");
        assert_eq!(fs::read(copy).unwrap(), name);
        assert_ne!(client.run(&handle, script(&[b"touch ", &ro, b"/file"])).status, 0);
    }
}

#[test]
fn a_single_file_can_be_bound() {
    let daemon = Daemon::any();
    let base = files::directory();
    let ro = files::write(&base.path().join("ro"), "read me", 0o644);
    let rw = files::write(&base.path().join("rw"), "", 0o666);
    let mut client = daemon.connect();
    let handle =
        create(&mut client, vec![bind(&ro, "/etc/ro.conf", Mode::Ro), bind(&rw, "/new/dirs/rw", Mode::Rw)]);
    assert_eq!(client.text(&handle, "cat /etc/ro.conf; echo written > /new/dirs/rw"), "read me");
    assert_eq!(fs::read(rw).unwrap(), b"written\n");
    assert_ne!(client.run_privileged(&handle, "echo x > /etc/ro.conf").status, 0);
    assert_eq!(fs::read(ro).unwrap(), b"read me");
}

#[test]
fn a_read_only_bind_shows_the_host_s_owners() {
    let daemon = Daemon::own();
    let base = files::directory();
    files::write(&base.path().join("theirs"), "x", 0o640);
    chown(base.path().join("theirs"), Some(1234), Some(5678)).unwrap();
    files::write(&base.path().join("root-only"), "secret of root", 0o600);
    let mut client = daemon.connect();
    let handle = create(&mut client, vec![bind(base.path(), "/shared", Mode::Ro)]);
    let seen = client.text(&handle, "stat -c %u:%g:%a /shared/theirs");
    let mapped = files::can_be_idmapped(base.path());
    assert_eq!(seen, if mapped { "1234:5678:640\n" } else { "65534:65534:640\n" });
    assert_ne!(client.run(&handle, "cat /shared/root-only").status, 0, "vcap is not the host's root");
    let output = client.run_privileged(&handle, "cat /shared/root-only");
    assert_eq!(
        output.status == 0,
        mapped,
        "root inside reads as the host's root does, where owners are mapped"
    );
}

/// What root inside, with every capability and system call, may try to make a read-only mount at `$1` writable; each leaves in `$t` where to write.
///
/// The last one takes the mount away from its place, so it has to be the last one.
const ATTEMPTS: [&str; 9] = [
    "t=$1",
    "mount -o remount,rw $1; t=$1",
    "mount -o remount,bind,rw $1; t=$1",
    "mkdir -p /tmp/b; mount --bind $1 /tmp/b || exit 0; mount -o remount,bind,rw /tmp/b; t=/tmp/b",
    "mkdir -p /tmp/r; mount --rbind $1 /tmp/r || exit 0; mount -o remount,bind,rw /tmp/r; t=/tmp/r",
    "unshare -m sh -c \"mount -o remount,bind,rw $1; : > $1/hole; echo x >> $1/other\"; t=$1",
    "unshare -Urm sh -c \"mount -o remount,bind,rw $1; : > $1/hole; echo x >> $1/other\"; t=$1",
    "unshare -Urm sh -c \"mount --bind $1 /mnt; mount -o remount,bind,rw /mnt; : > /mnt/hole; echo x >> /mnt/other\"; t=$1",
    "mkdir -p /tmp/m; mount --move $1 /tmp/m || exit 0; mount -o remount,bind,rw /tmp/m; t=/tmp/m",
];

fn attack(client: &mut Connection, handle: &[u8], target: &str) {
    for attempt in ATTEMPTS {
        let script = format!(
            "set -- {target}\n{attempt}\n: > $t/hole && echo HOLE\necho x >> $t/other && echo HOLE\n"
        );
        let output = client.run_privileged(handle, script);
        assert!(!output.text().contains("HOLE"), "{attempt}: {}{}", output.text(), output.errors());
    }
}

#[test]
fn root_inside_cannot_make_a_read_only_bind_writable() {
    let daemon = Daemon::with(&[ALL_PRIVILEGES]);
    let base = files::directory();
    files::write(&base.path().join("other"), "untouched", 0o644);
    let before = files::snapshot(base.path());
    let mut client = daemon.connect();
    let handle = create(&mut client, vec![bind(base.path(), "/shared", Mode::Ro)]);
    attack(&mut client, &handle, "/shared");
    assert_eq!(files::snapshot(base.path()), before);
}

#[test]
fn root_inside_cannot_write_to_the_host_s_usr() {
    let daemon = Daemon::with(&[ALL_PRIVILEGES]);
    let mut client = daemon.connect();
    for target in ["/usr", "/usr/bin"] {
        let handle = client.create();
        attack(&mut client, &handle, target);
    }
    for path in ["/usr/hole", "/usr/bin/hole", "/usr/other", "/usr/bin/other"] {
        assert!(!Path::new(path).exists(), "{path} was made on the host");
    }
}

#[test]
fn a_writable_bind_makes_files_of_the_container_s_ids() {
    let daemon = Daemon::own();
    let base = files::directory();
    files::set_mode(base.path(), 0o777);
    files::write(&base.path().join("root-owned"), "", 0o644);
    let mut client = daemon.connect();
    let handle = create(&mut client, vec![bind(base.path(), "/shared", Mode::Rw)]);
    let host_start: u32 = client.text(&handle, "awk '{print $2}' /proc/self/uid_map").trim().parse().unwrap();
    client.text(&handle, "echo vcap > /shared/by-vcap");
    client.run_privileged(
        &handle,
        "echo root > /shared/by-root; cp /bin/true /shared/suid; chmod 4755 /shared/suid",
    );
    let owner = |name: &str| fs::metadata(base.path().join(name)).unwrap().uid();
    assert_eq!(owner("by-vcap"), host_start + 10_000);
    assert_eq!(owner("by-root"), host_start);
    assert_eq!(owner("suid"), host_start);
    assert_eq!(
        client.text(&handle, "stat -c %u /shared/root-owned"),
        "65534\n",
        "the host's root is nobody inside"
    );
    let output = client.run_privileged(&handle, "echo x >> /shared/root-owned || chown 0 /shared/root-owned");
    assert_ne!(output.status, 0, "root inside is not the host's root");
    let options = client.text(&handle, "awk '$2==\"/shared\" {print $4}' /proc/self/mounts");
    for option in ["rw", "nosuid", "nodev"] {
        assert!(options.trim().split(',').any(|found| found == option), "{option} is missing: {options}");
    }
}

#[test]
fn a_directory_given_to_the_container_s_ids_is_writable_by_vcap_alone() {
    let daemon = Daemon::with(&[("server.host_ids", "{start: 700000, count: 65536}")]);
    let base = files::directory();
    files::set_mode(base.path(), 0o700);
    chown(base.path(), Some(710_000), Some(710_000)).unwrap();
    let mut client = daemon.connect();
    let handle = create(&mut client, vec![bind(base.path(), "/mine", Mode::Rw)]);
    client.text(&handle, "echo hello > /mine/file");
    assert_eq!(fs::read(base.path().join("file")).unwrap(), b"hello\n");
}

#[test]
fn binds_are_made_in_order_so_one_may_lie_in_another() {
    let daemon = Daemon::any();
    let base = files::directory();
    files::write(&base.path().join("outer/inner/hidden"), "", 0o644);
    files::write(&base.path().join("other/shown"), "seen", 0o644);
    let mut client = daemon.connect();
    let binds = vec![
        bind(&base.path().join("outer"), "/a", Mode::Ro),
        bind(&base.path().join("other"), "/a/inner", Mode::Ro),
    ];
    let handle = create(&mut client, binds);
    assert_eq!(client.text(&handle, "ls /a/inner; cat /a/inner/shown"), "shown\nseen");
}

#[test]
fn one_source_serves_several_containers_in_both_modes() {
    let daemon = Daemon::any();
    let base = files::directory();
    files::set_mode(base.path(), 0o777);
    let mut client = daemon.connect();
    let writer = create(&mut client, vec![bind(base.path(), "/shared", Mode::Rw)]);
    let readers: Vec<_> =
        (0..2).map(|_| create(&mut client, vec![bind(base.path(), "/shared", Mode::Ro)])).collect();
    client.text(&writer, "echo news > /shared/file");
    for reader in &readers {
        assert_eq!(client.text(reader, "cat /shared/file"), "news\n");
    }
}

#[test]
fn a_bad_bind_is_refused_by_name_and_leaves_nothing() {
    let daemon = Daemon::own();
    let base = files::directory();
    let mut client = daemon.connect();
    let missing = base.path().join("not\nhere");
    let refused = client
        .ask(CreateRequest { bind_mounts: vec![bind(&missing, "/x", Mode::Ro)], ..CreateRequest::default() })
        .unwrap_err();
    assert_eq!(refused, format!("Source path for bind mount does not exist: {}", missing.display()));
    for destination in ["relative", "", "/a/../../b", "/.."] {
        let request = CreateRequest {
            bind_mounts: vec![bind(base.path(), destination, Mode::Rw)],
            ..CreateRequest::default()
        };
        let refused = client.ask(request).unwrap_err();
        assert!(refused.contains(destination), "{refused}");
    }
    assert!(client.list().is_empty());
}
