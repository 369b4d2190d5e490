//! copy_in and copy_out: what arrives, and what a hostile inside cannot make of it.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use warden_protocol::messages::*;
use warden_tests::files::{self, bytes};
use warden_tests::{ALL_PRIVILEGES, Connection, Daemon, eventually, kernel, within};

fn copy_in(client: &mut Connection, handle: &[u8], from: &str, to: &str) -> Result<(), String> {
    let (src_path, dst_path) = (Some(from.into()), Some(to.into()));
    client.ask(CopyInRequest { handle: Some(handle.to_vec()), src_path, dst_path }).map(drop)
}

fn copy_out(client: &mut Connection, handle: &[u8], from: &str, to: &str) -> Result<(), String> {
    client.ask(out(handle, from, to)).map(drop)
}

fn out(handle: &[u8], from: &str, to: &str) -> CopyOutRequest {
    let (src_path, dst_path) = (Some(from.into()), Some(to.into()));
    CopyOutRequest { handle: Some(handle.to_vec()), src_path, dst_path, owner: None }
}

fn text(path: &Path) -> String {
    String::from_utf8(bytes(path)).unwrap()
}

#[test]
fn files_and_directories_arrive_as_rsync_would_place_them() {
    let daemon = Daemon::any();
    let base = files::directory();
    let from = text(base.path());
    let mut client = daemon.connect();
    let handle = client.create();
    files::write(&base.path().join("d/sub/file"), "deep", 0o640);
    files::write(&base.path().join("tool"), "#!/bin/sh\necho works\n", 0o755);
    symlink("sub/file", base.path().join("d/link")).unwrap();
    copy_in(&mut client, &handle, &format!("{from}/tool"), "/tmp").unwrap();
    copy_in(&mut client, &handle, &format!("{from}/tool"), "/tmp/renamed").unwrap();
    copy_in(&mut client, &handle, &format!("{from}/d"), "/tmp").unwrap();
    copy_in(&mut client, &handle, &format!("{from}/d/"), "/tmp/content").unwrap();
    copy_in(&mut client, &handle, &format!("{from}/d/"), "at-home").unwrap();
    let script = "/tmp/tool; /tmp/renamed; cat /tmp/d/link; readlink /tmp/d/link; cat /tmp/content/sub/file
        stat -c '%a %U' /tmp/d/sub/file /tmp/tool; cat ~/at-home/link";
    let expected = "works\nworks\ndeepsub/file\ndeep640 vcap\n755 vcap\ndeep";
    assert_eq!(client.text(&handle, script), expected);

    let to = files::directory();
    let out = text(to.path());
    copy_out(&mut client, &handle, "/tmp/d", &out).unwrap();
    copy_out(&mut client, &handle, "/tmp/d/", &format!("{out}/content")).unwrap();
    copy_out(&mut client, &handle, "/tmp/tool", &format!("{out}/new")).unwrap();
    assert_eq!(fs::read(to.path().join("d/link")).unwrap(), b"deep");
    assert_eq!(fs::read(to.path().join("content/sub/file")).unwrap(), b"deep");
    let tool = fs::metadata(to.path().join("new")).unwrap();
    assert_eq!((tool.mode() & 0o7777, tool.uid()), (0o755, 0), "it is the daemon's user's");
}

/// Unprotected: `chown -R` without -h, as the original ran it, gives /etc/passwd away through the link.
#[test]
fn the_owner_of_what_is_copied_out_is_the_one_that_is_named() {
    let daemon = Daemon::any();
    let to = files::directory();
    let mut client = daemon.connect();
    let handle = client.create();
    client.text(&handle, "mkdir -p d/sub; echo x >d/sub/file; ln -s /etc/passwd d/link");
    files::write(&to.path().join("outside"), "precious", 0o600);
    let mut out = |owner: &str| {
        client.ask(CopyOutRequest {
            handle: Some(handle.clone()),
            src_path: Some(b"/home/vcap/d".to_vec()),
            dst_path: Some(bytes(to.path())),
            owner: Some(owner.into()),
        })
    };
    out("1234:daemon").unwrap();
    for path in ["d", "d/sub", "d/sub/file", "d/link"] {
        let owner = fs::symlink_metadata(to.path().join(path)).unwrap();
        assert_eq!((owner.uid(), owner.gid()), (1234, 1), "{path}");
    }
    assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
    assert_eq!(fs::metadata(to.path().join("outside")).unwrap().uid(), 0);
    assert!(out("nobody-of-that-name").unwrap_err().contains("nobody-of-that-name"));
}

#[test]
fn names_of_any_bytes_and_sparse_files_survive_both_ways() {
    let daemon = Daemon::any();
    let (base, to) = (files::directory(), files::directory());
    let mut client = daemon.connect();
    let handle = client.create();
    let odd = files::path(b"\xff\xfe \n'\"$(x)");
    files::write(&base.path().join("d").join(&odd), "odd", 0o644);
    let long = "n".repeat(255);
    files::write(&base.path().join("d").join(&long), "long", 0o644);
    let sparse = fs::File::create(base.path().join("d/sparse")).unwrap();
    sparse.write_all_at(b"end", 3 << 30).unwrap();
    copy_in(&mut client, &handle, &format!("{}/d", text(base.path())), "/tmp").unwrap();
    assert_eq!(
        client.text(
            &handle,
            "stat -c %s /tmp/d/sparse; [ $(stat -c %b /tmp/d/sparse) -lt 1000 ] && echo sparse"
        ),
        format!("{}\nsparse\n", (3_u64 << 30) + 3)
    );
    copy_out(&mut client, &handle, "/tmp/d/", &text(to.path())).unwrap();
    assert_eq!(fs::read(to.path().join(&odd)).unwrap(), b"odd");
    assert_eq!(fs::read(to.path().join(&long)).unwrap(), b"long");
    let copied = fs::metadata(to.path().join("sparse")).unwrap();
    assert!(copied.len() == (3 << 30) + 3 && copied.blocks() < 1000);
}

#[test]
fn a_gigabyte_and_ten_thousand_files_arrive_byte_for_byte_and_not_through_the_daemon() {
    let daemon = Daemon::own();
    let (base, to) = (files::directory(), files::directory());
    let mut client = daemon.connect();
    let handle = client.create();
    let host = |script: &str| {
        let output = std::process::Command::new("bash").arg("-c").arg(script).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // A stream of a cipher: as random as it need be, and as fast as the disk.
    let big = base.path().join("big");
    host(&format!(
        "openssl enc -aes-128-ctr -pass pass:w -nosalt -pbkdf2 </dev/zero 2>/dev/null | head -c 1G >{}",
        big.display()
    ));
    for number in 0..10_000 {
        let path = base.path().join(format!("small/{}/{number}", number % 50));
        if number < 50 {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::write(path, format!("file {number}")).unwrap();
    }
    copy_in(&mut client, &handle, &format!("{}/", text(base.path())), "/tmp").unwrap();
    copy_out(&mut client, &handle, "/tmp/big", &text(to.path())).unwrap();
    copy_out(&mut client, &handle, "/tmp/small", &text(to.path())).unwrap();
    let sum = |directory: &Path| {
        host(&format!(
            "cd {} && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum",
            directory.display()
        ))
    };
    assert_eq!(sum(base.path()), sum(to.path()));
    let peak = kernel::peak_memory(daemon.pid());
    assert!(peak < 64 << 20, "wardend needed {peak} bytes");
}

#[test]
fn what_is_missing_or_forbidden_is_named() {
    let daemon = Daemon::any();
    let base = files::directory();
    let from = text(base.path());
    files::write(&base.path().join("a"), "x", 0o644);
    let mut client = daemon.connect();
    let handle = client.create();
    let long = "n".repeat(256);
    for (source, target, named) in [
        (format!("{from}/missing"), "/tmp".to_owned(), format!("{from}/missing: No such file")),
        (
            format!("{from}/a"),
            "/tmp/no/where".to_owned(),
            "/tmp/no/where in the container: No such file".to_owned(),
        ),
        (format!("{from}/a"), "/etc/a".to_owned(), "/etc/a in the container: Permission denied".to_owned()),
        (
            format!("{from}/a"),
            "/usr/a".to_owned(),
            "/usr/a in the container: Read-only file system".to_owned(),
        ),
        (format!("{from}/a"), format!("/tmp/{long}"), "File name too long".to_owned()),
        (format!("{from}/a/"), "/tmp".to_owned(), "Not a directory".to_owned()),
    ] {
        let error = copy_in(&mut client, &handle, &source, &target).unwrap_err();
        assert!(error.contains(&named), "{named}: {error}");
        assert!(error.contains("0 entries and 0 bytes had arrived"), "{error}");
    }
    let error = copy_out(&mut client, &handle, "/root/x", &from).unwrap_err();
    assert!(error.contains("/root/x in the container: Permission denied"), "{error}");
    let error = copy_out(&mut client, &handle, "/tmp/missing", &from).unwrap_err();
    assert!(error.contains("/tmp/missing in the container: No such file"), "{error}");
    assert_eq!(copy_in(&mut client, b"nobody", "/a", "/b").unwrap_err(), "unknown handle");
}

#[test]
fn only_copies_out_of_a_stopped_container_are_admitted() {
    let daemon = Daemon::any();
    let to = files::directory();
    let mut client = daemon.connect();
    let handle = client.create();
    client.text(&handle, "echo kept >/tmp/file");
    client.must(StopRequest { handle: Some(handle.clone()), kill: Some(true), ..StopRequest::default() });
    copy_out(&mut client, &handle, "/tmp/file", &text(to.path())).unwrap();
    assert_eq!(fs::read(to.path().join("file")).unwrap(), b"kept\n");
    let error = copy_in(&mut client, &handle, "/etc/passwd", "/tmp").unwrap_err();
    assert_eq!(error, "Container state must be one of 'active', current state is 'stopped'");
}

#[test]
fn a_full_disk_is_an_error_that_names_the_path_and_how_far_the_copy_came() {
    let daemon = Daemon::with(&[ALL_PRIVILEGES]);
    let base = files::directory();
    files::write(&base.path().join("d/a-small"), "x", 0o644);
    files::write(&base.path().join("d/big"), vec![7; 4 << 20], 0o644);
    let mut client = daemon.connect();
    let handle = client.create();
    let mounted = client
        .run_privileged(&handle, "mkdir /tmp/full && mount -t tmpfs -o size=1m,mode=777 none /tmp/full");
    assert_eq!(mounted.status, 0, "{}", mounted.errors());
    let from = format!("{}/d/", text(base.path()));
    let error = copy_in(&mut client, &handle, &from, "/tmp/full").unwrap_err();
    assert!(error.contains("/tmp/full/big in the container: No space left on device"), "{error}");
    assert_eq!(
        client.text(&handle, "ls -A /tmp/full | grep -v a-small || true"),
        "",
        "nothing unfinished is left"
    );
}

/// Unprotected: `cp` from the host to `<depot>/<id>/tmp/rootfs/tmp/target/file` follows the link by the host's names and writes
/// into `outside`; `cp` of the tree a second time writes `planted` through the link that the first one brought out.
#[test]
fn links_inside_never_lead_a_copy_to_the_hosts_files() {
    let daemon = Daemon::own();
    let (base, to) = (files::directory(), files::directory());
    let secret = files::write(&base.path().join("secret"), "precious", 0o600);
    let outside = files::make_directory(&base.path().join("outside"), 0o777);
    files::write(&base.path().join("d/file"), "copied", 0o644);
    let mut client = daemon.connect();
    let handle = client.create();
    // The names mean something on the host, and nothing inside.
    let script = format!(
        "mkdir -p out && ln -s {secret} out/secret && ln -s {outside} out/dir && ln -s {outside} /tmp/target && ln -s {secret} /tmp/file",
        secret = secret.display(),
        outside = outside.display()
    );
    client.text(&handle, &script);
    copy_out(&mut client, &handle, "/home/vcap/out", &text(to.path())).unwrap();
    assert!(fs::symlink_metadata(to.path().join("out/secret")).unwrap().is_symlink());
    // A target that is a link of the inside is resolved inside, where there is nothing.
    let from = format!("{}/d/file", text(base.path()));
    copy_in(&mut client, &handle, &from, "/tmp/target/file").unwrap_err();
    copy_in(&mut client, &handle, &from, "/tmp/file").unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read(&secret).unwrap(), b"precious");
    assert_eq!(client.text(&handle, "cat /tmp/file"), "copied");
    // On the host, a link that an earlier copy brought out is replaced, not followed.
    client.text(&handle, "rm out/dir && mkdir out/dir && echo evil >out/dir/planted");
    copy_out(&mut client, &handle, "/home/vcap/out", &text(to.path())).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read(to.path().join("out/dir/planted")).unwrap(), b"evil\n");
    // By the host's names the same copy goes through the same link.
    let layer = daemon.depot(&client.id(&handle)).join("tmp/rootfs");
    fs::copy(from, layer.join("tmp/target/file")).unwrap();
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"copied");
}

/// Unprotected: a walk that looks at a path and then opens the same path again (lstat, then open) reads the host's token
/// whenever the link stands between the two; opened from outside, the link means the host's file.
#[test]
fn a_tree_that_changes_while_it_is_copied_never_leads_outside() {
    let daemon = Daemon::own();
    let (base, to) = (files::directory(), files::directory());
    let outside = files::make_directory(&base.path().join("outside"), 0o777);
    files::write(&outside.join("token"), "precious", 0o600);
    let mut client = daemon.connect();
    let handle = client.create();
    client.text(&handle, "mkdir -p r/d && echo harmless >r/d/token");
    let swap =
        format!("while :; do mv r/d r/aside; ln -s {} r/d; rm r/d; mv r/aside r/d; done", outside.display());
    client.spawn(&handle, swap);
    for round in 0..40 {
        let target = to.path().join(round.to_string());
        fs::create_dir(&target).unwrap();
        // It may fail, for what was there a moment ago; it may not bring the host's file.
        let _ = copy_out(&mut client, &handle, "/home/vcap/r", &text(&target));
        let copied = target.join("r/d");
        if fs::symlink_metadata(&copied).is_ok_and(|metadata| metadata.is_dir())
            && let Ok(token) = fs::read(copied.join("token"))
        {
            assert_eq!(token, b"harmless\n");
        }
    }
    // By the host's names there is the secret to be read, now and then.
    let token = daemon.depot(&client.id(&handle)).join("tmp/rootfs/home/vcap/r/d/token");
    eventually("a reader outside is led astray", 20, || {
        fs::read(&token).is_ok_and(|read| read == b"precious")
    });
    client.kill(&handle);
}

/// Unprotected: opening the pipe waits for a writer for ever, and reading /dev/zero never ends.
#[test]
fn devices_pipes_and_sockets_in_the_way_are_left_out_and_hold_nothing_up() {
    let daemon = Daemon::any();
    let to = files::directory();
    let mut client = daemon.connect();
    let handle = client.create();
    client.text(&handle, "mkdir s && mkfifo s/pipe && echo x >s/file && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s/socket\")'");
    let ((), _) = within(10.0, "copy_out", || {
        copy_out(&mut client, &handle, "/home/vcap/s", &text(to.path())).unwrap()
    });
    let names: Vec<_> =
        fs::read_dir(to.path().join("s")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    let (error, _) =
        within(10.0, "copy_out", || copy_out(&mut client, &handle, "/dev/zero", &text(to.path())));
    assert!(error.unwrap_err().contains("/dev/zero in the container: Operation not supported"));
    let fifo = to.path().join("fifo");
    std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    let (error, _) = within(10.0, "copy_in", || copy_in(&mut client, &handle, &text(&fifo), "/tmp"));
    assert!(error.unwrap_err().contains("Operation not supported"));
}

/// Mounts a file system that never answers at /tmp/fuse in a container.
fn mount_silent(client: &mut Connection, handle: &[u8]) {
    client.must(SpawnRequest {
        handle: Some(handle.to_vec()),
        script: Some(warden_tests::fuse::silent("/tmp/fuse").into_bytes()),
        privileged: Some(true),
        ..SpawnRequest::default()
    });
    eventually("the file system is mounted", 10, || {
        client.text(handle, "grep -c ' /tmp/fuse fuse' /proc/mounts || true").trim() == "1"
    });
}

/// How many processes inside a container copy.
fn helpers(id: &str) -> usize {
    let processes = kernel::processes_in_cgroup(id);
    processes.into_iter().filter(|process| process.command.contains("iomux")).count()
}

/// Unprotected: a stat of the mount from the daemon waits for an answer for ever, and with it the thread, and the request.
#[test]
fn a_file_system_that_never_answers_costs_the_copy_and_nobody_else() {
    let daemon = Daemon::with(&[("server.copy_stall_timeout", "2"), ALL_PRIVILEGES]);
    let to = files::directory();
    let mut client = daemon.connect();
    let handle = client.create();
    mount_silent(&mut client, &handle);
    for (name, copied) in [
        ("out", copy_out(&mut client, &handle, "/tmp/fuse/x", &text(to.path()))),
        ("in", copy_in(&mut client, &handle, "/etc/passwd", "/tmp/fuse/x")),
    ] {
        let error = copied.unwrap_err();
        assert!(error.contains("no progress: not done after 2 s"), "{name}: {error}");
    }
    // A client that vanishes takes its copy with it.
    let mut gone = daemon.connect();
    gone.send(out(&handle, "/tmp/fuse/x", &text(to.path())));
    std::thread::sleep(Duration::from_millis(100));
    drop(gone);
    let id = client.id(&handle);
    eventually("the copy's processes are gone", 10, || helpers(&id) == 0);
    within(5.0, "another container", || {
        let other = client.create();
        copy_in(&mut client, &other, "/etc/passwd", "/tmp").unwrap();
    });
    client.kill(&handle);
}

/// Unprotected: `cp -L` as the host's root reads `secret` through the tenant's link, and waits for ever at the tenant's pipe.
#[test]
fn a_source_on_the_host_that_a_tenant_can_write_to_is_not_trusted_either() {
    let daemon = Daemon::any();
    let base = files::directory();
    let shared = files::make_directory(&base.path().join("shared"), 0o777);
    files::write(&base.path().join("secret"), "precious", 0o600);
    let mut client = daemon.connect();
    let handle = client.create_with(CreateRequest {
        bind_mounts: vec![BindMount {
            src_path: Some(bytes(&shared)),
            dst_path: Some(b"/shared".to_vec()),
            mode: Some(Mode::Rw as i32),
        }],
        ..CreateRequest::default()
    });
    client.text(&handle, format!("mkfifo /shared/pipe; ln -s {}/secret /shared/link", base.path().display()));
    let ((), _) = within(10.0, "copy_in", || {
        copy_in(&mut client, &handle, &text(&shared), "/tmp").unwrap();
    });
    assert_eq!(client.text(&handle, "ls /tmp/shared; cat /tmp/shared/link 2>/dev/null || true"), "link\n");
}

/// Unprotected: a helper that joins the namespace of process ids is listed in /proc inside, and one that executes a readable
/// program there can be traced by the container's root.
#[test]
fn nobody_inside_can_see_or_trace_a_copy() {
    let daemon = Daemon::any();
    let base = files::directory();
    let file = fs::File::create(base.path().join("big")).unwrap();
    file.write_all_at(&[1; 1 << 20], 0).unwrap();
    fs::set_permissions(base.path().join("big"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut client = daemon.connect();
    let handle = client.create();
    let watch = "for i in $(seq 200); do for p in /proc/[0-9]*; do read -r c <$p/comm; echo $c; done; done 2>/dev/null | sort -u";
    let job = client.must(SpawnRequest {
        handle: Some(handle.clone()),
        script: Some(watch.into()),
        privileged: Some(true),
        ..SpawnRequest::default()
    });
    for _ in 0..20 {
        copy_in(&mut client, &handle, &format!("{}/big", text(base.path())), "/tmp").unwrap();
    }
    let seen = client.link(&handle, job.job_id.unwrap()).text();
    assert!(seen.contains("wshd") && !seen.contains("iomux"), "{seen}");
}

#[test]
fn destroying_a_container_ends_its_copies() {
    let daemon = Daemon::any();
    let to = files::directory();
    let mut client = daemon.connect();
    let handle = client.create();
    client.text(&handle, "mkdir many && cd many && for i in $(seq 3000); do echo $i >$i; done");
    let mut copier = daemon.connect();
    let out = text(to.path());
    let copying = {
        let handle = handle.clone();
        std::thread::spawn(move || {
            let mut results = Vec::new();
            for _ in 0..50 {
                results.push(copy_out(&mut copier, &handle, "/home/vcap/many", &out));
            }
            results
        })
    };
    std::thread::sleep(Duration::from_millis(300));
    client.kill(&handle);
    client.destroy(&handle);
    let results = copying.join().unwrap();
    // The last ones came when it was going, or gone.
    let refused = results.last().unwrap().as_ref().unwrap_err();
    assert!(refused == "unknown handle" || refused.ends_with("current state is 'destroyed'"), "{refused}");
}

#[test]
fn copies_end_with_the_daemon_that_asked_and_are_not_taken_for_the_next_ones() {
    let mut daemon = Daemon::with(&[ALL_PRIVILEGES]);
    let to = files::directory();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    mount_silent(&mut client, &handle);
    let mut asking = daemon.connect();
    asking.send(out(&handle, "/tmp/fuse/x", &text(to.path())));
    eventually("the copy has begun", 10, || helpers(&id) == 1);
    daemon.signal(Signal::KILL);
    daemon.wait();
    eventually("its processes are gone", 10, || helpers(&id) == 0);
    daemon.restart();
    let mut client = daemon.connect();
    copy_in(&mut client, &handle, "/etc/passwd", "/tmp").unwrap();
    let missing = copy_in(&mut client, &handle, "/no/such/file", "/tmp").unwrap_err();
    assert!(missing.contains("/no/such/file") && missing.contains("No such file"), "{missing}");
    client.kill(&handle);
}

#[test]
fn a_path_that_is_longer_than_any_message_costs_the_copy_alone() {
    let daemon = Daemon::any();
    let to = files::directory();
    let mut client = daemon.connect();
    let handle = client.create();
    let name = "d".repeat(250);
    for depth in [40, 261, 400] {
        let script = format!(
            "mkdir /tmp/deep{depth} && cd /tmp/deep{depth} || exit
            for level in $(seq {depth}); do mkdir {name} && cd -P {name} || exit; done; chmod 0 . "
        );
        let made = client.run(&handle, &script);
        assert_eq!(made.status, 0, "{}", made.errors());
        let refused =
            copy_out(&mut client, &handle, &format!("/tmp/deep{depth}"), &text(to.path())).unwrap_err();
        assert!(refused.contains("/tmp/deep") && refused.contains("Permission denied"), "{refused}");
        assert!(refused.contains("..."), "it is cut: {refused}");
    }
    let info = client.info(&handle);
    assert_eq!((info.state.unwrap(), info.events), (b"active".to_vec(), Vec::<Vec<u8>>::new()));
    assert!(!daemon.log().contains("another takes over"));
    client.destroy(&handle);
}
