//! Images and tenants that set traps: the host stays untouched, and nothing hangs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use warden_protocol::messages::*;
use warden_tests::{Connection, Daemon, eventually, files, image, within};

fn create(client: &mut Connection, rootfs: &Path, destination: Option<&str>) -> Result<Vec<u8>, String> {
    let source = rootfs.parent().unwrap().join("source");
    let bind = destination.map(|path| BindMount {
        src_path: Some(files::bytes(&source)),
        dst_path: Some(path.as_bytes().to_vec()),
        mode: Some(0),
    });
    let request = CreateRequest {
        rootfs: Some(files::bytes(rootfs)),
        bind_mounts: bind.into_iter().collect(),
        ..CreateRequest::default()
    };
    client.ask(request).map(|answer| answer.handle.unwrap())
}

/// An image, a source for bind mounts, and a victim that nobody may touch, with a file in each place of interest.
fn scene() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let base = files::directory();
    let (rootfs, victim) = (base.path().join("rootfs"), base.path().join("victim"));
    image::fill(&rootfs);
    files::write(&base.path().join("source/file"), "bound", 0o644);
    for name in ["passwd", "group", "hosts", "hostname", "resolv.conf", "mtab", "null", "vcap/file"] {
        files::write(&victim.join(name), "untouched", 0o644);
    }
    (base, rootfs, victim)
}

#[test]
fn links_of_an_image_lead_nowhere_on_the_host() {
    let daemon = Daemon::own();
    for name in [
        "etc",
        "dev",
        "proc",
        "sys",
        "home",
        "tmp",
        "bin",
        "dev/shm",
        "dev/pts",
        "etc/hosts",
        "etc/passwd",
        "etc/group",
        "etc/mtab",
        "home/vcap",
    ] {
        for relative in [false, true] {
            let (_base, rootfs, victim) = scene();
            let place = rootfs.join(name);
            let _ = fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place));
            let file = ["etc/hosts", "etc/passwd", "etc/group", "etc/mtab"].contains(&name);
            let target = if file { victim.join(name.trim_start_matches("etc/")) } else { victim.clone() };
            let up = Path::new("../../../../../../../..").join(target.strip_prefix("/").unwrap());
            symlink(if relative { up } else { target }, &place).unwrap();
            let before = files::snapshot(&victim);
            let mut client = daemon.connect();
            let (created, _) = within(20.0, "create", || create(&mut client, &rootfs, None));
            if let Ok(handle) = created {
                client.run_privileged(
                    &handle,
                    "echo x > /etc/hosts; echo x > /home/vcap/file; echo x > /dev/null",
                );
                client.kill(&handle);
                client.destroy(&handle);
            }
            assert_eq!(files::snapshot(&victim), before, "/{name} led out (relative: {relative})");
        }
    }
    daemon.connect().create();
}

#[test]
fn a_bind_through_links_of_the_image_stays_inside() {
    let daemon = Daemon::own();
    let (base, rootfs, victim) = scene();
    symlink(&victim, rootfs.join("absolute")).unwrap();
    let up = Path::new("../../../../../../../..").join(victim.strip_prefix("/").unwrap());
    symlink(up, rootfs.join("relative")).unwrap();
    symlink("loop", rootfs.join("loop")).unwrap();
    symlink("/proc/self/root", rootfs.join("magic")).unwrap();
    let before = files::snapshot(&victim);
    for destination in [
        "/absolute",
        "/absolute/new/dir",
        "/relative/new",
        "/relative",
        "/loop/x",
        "/magic/x",
        "/proc/self/cwd/x",
    ] {
        let mut client = daemon.connect();
        let (created, _) = within(20.0, "create", || create(&mut client, &rootfs, Some(destination)));
        if let Ok(handle) = created {
            client.destroy(&handle);
        }
        assert_eq!(files::snapshot(&victim), before, "a bind at {destination} reached the host");
    }
    assert!(warden_tests::kernel::mounts_of(victim.to_str().unwrap()).is_empty());
    // By the host's names the same links lead a bind to the victim, in mounts that only this command sees.
    for link in ["absolute", "relative"] {
        let script = "mount --bind \"$1/source\" \"$1/rootfs/$2\" && cat \"$1/victim/file\"";
        let words = ["--mount", "--propagation", "private", "sh", "-c", script, "sh"];
        let base = base.path().to_str().unwrap();
        let said = warden_tests::programs::host("unshare", &[&words[..], &[base, link]].concat());
        assert_eq!(said, "bound", "{link}");
    }
}

#[test]
fn files_that_never_end_do_not_hold_up_create() {
    let daemon = Daemon::own();
    for name in ["etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf", "etc/mtab"] {
        let (_base, rootfs, _victim) = scene();
        let place = rootfs.join(name);
        let _ = fs::remove_file(&place);
        warden_tests::programs::host("mkfifo", &[place.to_str().unwrap()]);
        let mut client = daemon.connect();
        let (created, _) = within(20.0, "create with a fifo", || create(&mut client, &rootfs, None));
        if let Ok(handle) = created {
            client.destroy(&handle);
        }
        fs::remove_file(&place).unwrap();
        symlink("/dev/zero", &place).unwrap();
        let (created, _) = within(20.0, "create with an endless file", || create(&mut client, &rootfs, None));
        if let Ok(handle) = created {
            client.destroy(&handle);
        }
    }
}

#[test]
fn a_tenant_that_lays_traps_in_etc_passwd_harms_itself_alone() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (trap, other) = (client.create(), client.create());
    let traps = [
        "rm -f /etc/passwd; mkfifo /etc/passwd",
        "rm -f /etc/passwd; ln -s /dev/zero /etc/passwd",
        "rm -f /etc/passwd; ln -s /proc/kmsg /etc/passwd",
        "rm -f /etc/passwd; truncate -s 1T /etc/passwd",
        "rm -f /etc/passwd; mkdir /etc/passwd",
        "rm -rf /etc/passwd",
    ];
    let mut spare = client.create();
    for script in traps {
        let handle = std::mem::replace(&mut spare, client.create());
        client.run_privileged(&handle, script);
        let request = RunRequest {
            handle: Some(handle.clone()),
            script: Some(b"echo ran".to_vec()),
            ..Default::default()
        };
        // Whether it runs or is refused, it is answered, and so is everybody else.
        let _ = within(10.0, script, || client.ask(request));
        assert_eq!(client.text(&other, "echo fine"), "fine\n");
        client.destroy(&handle);
    }
    client.destroy(&trap);
}

#[test]
fn what_a_tenant_leaves_in_its_layer_does_not_keep_it_from_being_destroyed() {
    let daemon = Daemon::own();
    let (_base, _rootfs, victim) = scene();
    let before = files::snapshot(&victim);
    let mut client = daemon.connect();
    let handle = client.create();
    let script = format!(
        "ln -s {victim} link; mkdir locked; touch locked/f; chmod 0 locked; mkfifo fifo; touch 'new\nline' $'\\xff'
         for i in $(seq 300); do mkdir deeper-and-deeper 2>/dev/null && cd deeper-and-deeper; done
         python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'; chattr +i /home/vcap/fifo; true",
        victim = victim.display()
    );
    client.run_privileged(&handle, &script);
    client.run(&handle, &script);
    let id = client.id(&handle);
    client.destroy(&handle);
    assert!(!daemon.depot(&id).exists());
    assert_eq!(files::snapshot(&victim), before);
}

#[test]
fn an_image_s_programs_are_never_run_as_the_host_s_root() {
    let daemon = Daemon::own();
    let (base, rootfs, _victim) = scene();
    // Whatever creation might call is a trap here.
    files::make_directory(&rootfs.join("sbin"), 0o755);
    files::make_directory(&rootfs.join("usr/sbin"), 0o755);
    for name in [
        "sbin/ifconfig",
        "sbin/route",
        "bin/hostname",
        "usr/sbin/useradd",
        "usr/sbin/groupadd",
        "bin/mount",
        "bin/sh",
    ] {
        files::write(&rootfs.join(name), "#!/bin/bash\ntouch /trapped\n", 0o755);
    }
    let mut client = daemon.connect();
    let handle = create(&mut client, &rootfs, Some("/mnt/x")).unwrap();
    assert_eq!(
        client.text(&handle, "cat /mnt/x/file; test -e /trapped || echo ' nothing ran'"),
        "bound nothing ran\n"
    );
    drop(base);
    eventually("it is destroyed although its image is gone", 10, || {
        client.ask(DestroyRequest { handle: Some(handle.clone()) }).is_ok() || client.list().is_empty()
    });
}
