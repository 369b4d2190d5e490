//! What the reference promises about /etc, /dev, the user and its home, inside any image.

use std::fs;

use warden_tests::{Connection, Daemon, files, image};

fn directory_container(daemon: &Daemon, client: &mut Connection) -> (tempfile::TempDir, Vec<u8>) {
    let _ = daemon;
    let rootfs = files::directory();
    image::fill(rootfs.path());
    let handle = client.create_with(warden_protocol::messages::CreateRequest {
        rootfs: Some(files::bytes(rootfs.path())),
        ..Default::default()
    });
    (rootfs, handle)
}

#[test]
fn vcap_exists_with_its_home_and_works_in_it() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (_rootfs, in_directory) = directory_container(&daemon, &mut client);
    let in_host_image = client.create();
    for (handle, uid) in [(in_directory, 10_000), (in_host_image, 10_001)] {
        assert_eq!(
            client.text(&handle, "id -un; id -u; id -g; id -G"),
            format!("vcap\n{uid}\n{uid}\n{uid}\n")
        );
        assert_eq!(client.text(&handle, "pwd; stat -c '%U %G %a' . "), "/home/vcap\nvcap vcap 755\n");
        assert_eq!(client.text(&handle, "echo x > file; cat file; mkdir d; touch d/f"), "x\n");
        let passwd = client.text(&handle, "cat /etc/passwd");
        let line = passwd.lines().find(|line| line.starts_with("vcap:")).unwrap();
        let fields: Vec<&str> = line.split(':').collect();
        assert_eq!(
            (fields[2], fields[3], fields[5], fields[6]),
            (&*uid.to_string(), &*uid.to_string(), "/home/vcap", "/bin/bash")
        );
        assert!(
            client
                .text(&handle, "cat /etc/group")
                .lines()
                .any(|line| line.starts_with(&format!("vcap:x:{uid}:")))
        );
    }
}

#[test]
fn an_image_s_own_vcap_is_changed_to_the_pool_s_id() {
    let daemon = Daemon::own();
    let rootfs = files::directory();
    image::fill(rootfs.path());
    files::write(
        &rootfs.path().join("etc/passwd"),
        "root:x:0:0::/root:/bin/bash\nvcap:x:777:888:The user:/home/vcap:/bin/bash\n",
        0o644,
    );
    files::write(&rootfs.path().join("etc/group"), "root:x:0:\nvcap:x:888:\n", 0o644);
    let owned = files::write(&rootfs.path().join("home/vcap/owned"), "x", 0o600);
    std::os::unix::fs::chown(&owned, Some(777), Some(888)).unwrap();
    let before = files::snapshot(rootfs.path());
    let mut client = daemon.connect();
    let request = || warden_protocol::messages::CreateRequest {
        rootfs: Some(files::bytes(rootfs.path())),
        ..Default::default()
    };
    for uid in [10_000, 10_001] {
        let handle = client.create_with(request());
        assert_eq!(client.text(&handle, "id -u; id -g"), format!("{uid}\n{uid}\n"));
        if files::can_be_idmapped(rootfs.path()) {
            assert_eq!(client.text(&handle, "cat owned; stat -c %u:%g owned"), format!("x{uid}:{uid}\n"));
        }
    }
    assert_eq!(files::snapshot(rootfs.path()), before, "the image itself is not changed");
}

#[test]
fn hosts_hostname_and_resolv_conf_are_written() {
    let daemon = Daemon::with(&[("network.dns_servers", "[192.0.2.1, 192.0.2.53]")]);
    let mut client = daemon.connect();
    let (_rootfs, in_directory) = directory_container(&daemon, &mut client);
    let in_host_image = client.create();
    for handle in [in_directory, in_host_image] {
        let id = client.id(&handle);
        let ip = String::from_utf8(client.info(&handle).container_ip.unwrap()).unwrap();
        assert_eq!(client.text(&handle, "cat /etc/hostname"), format!("{id}\n"));
        assert_eq!(client.text(&handle, "cat /etc/hosts"), format!("127.0.0.1 localhost\n{ip} {id}\n"));
        assert_eq!(
            client.text(&handle, "cat /etc/resolv.conf"),
            "nameserver 192.0.2.1\nnameserver 192.0.2.53\n"
        );
    }
}

#[test]
fn resolv_conf_is_the_host_s_where_no_servers_are_configured() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let seen = client.text(&handle, "cat /etc/resolv.conf");
    if host.trim() == "nameserver 127.0.0.1" {
        let ip = String::from_utf8(client.info(&handle).host_ip.unwrap()).unwrap();
        assert_eq!(seen, format!("nameserver {ip}\n"));
    } else {
        assert_eq!(seen, host);
    }
}

#[test]
fn device_nodes_are_there_and_work_for_vcap() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let (_rootfs, in_directory) = directory_container(&daemon, &mut client);
    let in_host_image = client.create();
    for handle in [&in_directory, &in_host_image] {
        let stats = client.text(
            handle,
            "for n in null zero full random urandom tty; do stat -c '%n %t:%T %a %F' /dev/$n; done",
        );
        for (name, number) in [
            ("null", "1:3"),
            ("zero", "1:5"),
            ("full", "1:7"),
            ("random", "1:8"),
            ("urandom", "1:9"),
            ("tty", "5:0"),
        ] {
            assert!(stats.contains(&format!("/dev/{name} {number} 666 character special file")), "{stats}");
        }
        assert_eq!(
            client.text(handle, "echo x > /dev/null; cat /dev/null; read -rN 4 x < /dev/urandom; echo ok"),
            "ok\n"
        );
        let full = client.run(handle, "echo x > /dev/full");
        assert!(full.status != 0 && full.errors().contains("No space left"), "{}", full.errors());
        assert_eq!(client.text(handle, "cat <(echo substituted)"), "substituted\n");
        assert_eq!(
            client.text(handle, "echo x > /dev/shm/file; cat /dev/shm/file; stat -c %a /dev/shm /tmp"),
            "x\n1777\n1777\n"
        );
    }
    assert_eq!(
        client.text(&in_host_image, "head -c 100000 /dev/zero | wc -c; head -c 1000 /dev/urandom | wc -c"),
        "100000\n1000\n"
    );
    let pty = client.run(&in_host_image, "script -qec 'tty; echo on a terminal' /dev/null");
    assert!(
        pty.text().contains("/dev/pts/0") && pty.text().contains("on a terminal"),
        "{}{}",
        pty.text(),
        pty.errors()
    );
}

#[test]
fn vcap_may_open_its_own_streams_by_name() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(
        client.text(&handle, "echo one > /dev/stdout; echo two > /dev/fd/1; echo 3 | cat /dev/stdin"),
        "one\ntwo\n3\n"
    );
    let output = client.run(&handle, "echo problem > /dev/stderr; echo both | tee /dev/stderr");
    assert_eq!((output.text().as_str(), output.errors().as_str()), ("both\n", "problem\nboth\n"));
}

#[test]
fn other_devices_cannot_be_made_or_used() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    for (kind, number) in [("b", "8 0"), ("b", "254 0"), ("c", "1 1"), ("c", "10 232")] {
        let output = client.run_privileged(
            &handle,
            format!("mknod /tmp/node {kind} {number} && head -c 1 /tmp/node | wc -c"),
        );
        assert_ne!(output.text(), "1\n", "{kind} {number}");
        client.run_privileged(&handle, "rm -f /tmp/node");
    }
}

#[test]
fn proc_is_the_container_s_and_sys_read_only() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(client.text(&handle, "test -d /proc/self && test -d /sys/class && echo both"), "both\n");
    for path in ["/sys/kernel/mm/hole", "/sys/class/hole", "/sys/kernel/uevent_helper"] {
        assert_ne!(client.run_privileged(&handle, format!("echo x > {path}")).status, 0, "{path}");
    }
    let drop =
        client.run_privileged(&handle, "echo 1 > /proc/sys/vm/drop_caches || echo h > /proc/sysrq-trigger");
    assert_ne!(drop.status, 0, "the kernel's own switches are out of reach");
}

#[test]
fn what_is_written_inside_is_in_the_writable_layer_and_nowhere_else() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (rootfs, first) = directory_container(&daemon, &mut client);
    let before = files::snapshot(rootfs.path());
    let second = client.create_with(warden_protocol::messages::CreateRequest {
        rootfs: Some(files::bytes(rootfs.path())),
        ..Default::default()
    });
    client.text(&first, "echo mine > /home/vcap/file; echo tmp > /tmp/file");
    client.run_privileged(&first, "echo changed >> /etc/group; rm /bin/touch; echo x > /new");
    let id = client.id(&first);
    let layer = daemon.depot(&id).join("tmp/rootfs");
    assert_eq!(fs::read(layer.join("home/vcap/file")).unwrap(), b"mine\n");
    assert_eq!(fs::read(layer.join("new")).unwrap(), b"x\n");
    assert_eq!(
        client.text(&second, "ls /home/vcap /tmp; test -e /bin/touch && echo there"),
        "/home/vcap:\n\n/tmp:\nthere\n"
    );
    assert_eq!(files::snapshot(rootfs.path()), before);
}
