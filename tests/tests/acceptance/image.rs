//! The built-in image: the host's programs work, the host's secrets are absent; and directories that cannot be images.

use std::fs;
use std::os::unix::fs::symlink;

use warden_protocol::messages::CreateRequest;
use warden_tests::{Connection, Daemon, files, image, programs};

#[test]
fn awk_perl_python_and_the_shell_s_companions_work() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let cases = [
        ("echo 1 2 3 | awk '{print $1+$3}'", "4\n"),
        ("LC_ALL=C perl -MPOSIX -e 'print floor(2.7), qq(\\n)'", "2\n"),
        ("/usr/bin/python3 -c 'import json, hashlib, sqlite3; print(json.dumps([1]))'", "[1]\n"),
        ("printf 'b\\na\\n' | sort | tr a-z A-Z", "A\nB\n"),
        ("echo x > f; tar cf - f | tar tf -", "f\n"),
        ("getent hosts localhost | awk '{print $1}'", "127.0.0.1\n"),
        ("getent passwd vcap | cut -d: -f1; getent group vcap | cut -d: -f1", "vcap\nvcap\n"),
        ("getent services http | awk '{print $2}'", "80/tcp\n"),
        ("sh -c 'echo sh'; /bin/bash -c 'echo bash'", "sh\nbash\n"),
        ("ps -o comm= -p 1", "wshd\n"),
    ];
    for (script, expected) in cases {
        assert_eq!(client.text(&handle, script), expected, "{script}");
    }
}

#[test]
fn the_certificates_of_the_host_are_trusted_inside() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let count = "/usr/bin/python3 -c 'import ssl; print(len(ssl.create_default_context().get_ca_certs()))'";
    let outside = programs::host("bash", &["-c", count]);
    assert_eq!(client.text(&handle, count), outside);
    assert!(outside.trim().parse::<u32>().unwrap() > 0, "the host has certificates");
    assert_eq!(
        client.text(&handle, "openssl version > /dev/null && ls /etc/ssl/certs/ca-certificates.crt"),
        "/etc/ssl/certs/ca-certificates.crt\n"
    );
}

#[test]
fn locales_and_time_are_the_host_s() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(client.text(&handle, "LC_ALL=C.UTF-8 locale charmap"), "UTF-8\n");
    assert_eq!(client.text(&handle, "LC_ALL=C.UTF-8 perl -e 'print qq(quiet\\n)'"), "quiet\n");
    assert_eq!(client.text(&handle, "locale -a"), programs::host("locale", &["-a"]));
    assert_eq!(client.text(&handle, "date -d @0 +%Z%z"), programs::host("date", &["-d", "@0", "+%Z%z"]));
}

#[test]
fn nothing_secret_of_the_host_is_inside_even_for_root() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let listed = client.run_privileged(
        &handle,
        "ls -A /root /home; echo; ls -d /etc/ssh /etc/ssl/private /etc/sudoers /var/lib/dpkg 2>/dev/null",
    );
    assert_eq!(listed.text(), "/home:\nvcap\n\n/root:\n\n", "{}", listed.errors());
    let shadow = client.run_privileged(&handle, "cat /etc/shadow /etc/gshadow 2>/dev/null").text();
    assert!(!shadow.contains("$y$") && !shadow.contains("$6$"), "{shadow}");
    let passwd = client.text(&handle, "cat /etc/passwd");
    for line in fs::read_to_string("/etc/passwd").unwrap().lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let person = fields[2].parse::<u32>().is_ok_and(|uid| (1000..65534).contains(&uid));
        assert!(
            !person || !passwd.contains(&format!("{}:", fields[0])),
            "{} is a person of the host",
            fields[0]
        );
    }
    let keys = client.run_privileged(&handle, "find / -xdev \\( -name 'id_*' -o -name '*_key' -o -name .ssh -o -name shadow \\) -path '/[!up]*' 2>/dev/null");
    assert_eq!(keys.text(), "");
    assert_eq!(
        client
            .run_privileged(&handle, "ls /tmp /var/tmp /srv /opt /mnt /media /run 2>/dev/null | grep warden")
            .text(),
        ""
    );
}

#[test]
fn a_secret_that_only_root_may_read_is_not_copied_into_the_image() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let inside = client.run_privileged(&handle, "cd /etc && find . -type f").text();
    for name in inside.lines() {
        let Ok(metadata) = fs::metadata(fs::canonicalize("/etc").unwrap().join(name)) else { continue };
        let mode = std::os::unix::fs::MetadataExt::mode(&metadata);
        assert!(mode & 0o004 != 0, "/etc/{name} is not readable for everybody on the host, but is inside");
    }
    assert!(inside.lines().count() > 10, "{inside}");
}

#[test]
fn alternatives_lead_to_programs() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let broken = client.text(&handle, "for l in /etc/alternatives/*; do test -e \"$l\" || echo \"$l\"; done");
    for link in broken.lines() {
        assert!(!fs::exists(link).unwrap_or(false), "{link} works on the host, but not inside");
    }
}

fn with_rootfs(client: &mut Connection, path: &std::path::Path) -> Result<Vec<u8>, String> {
    let request = CreateRequest { rootfs: Some(files::bytes(path)), ..CreateRequest::default() };
    client.ask(request).map(|answer| answer.handle.unwrap())
}

#[test]
fn a_missing_rootfs_is_refused_with_the_original_s_text() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let refused = with_rootfs(&mut client, "/nonexistent/root fs".as_ref()).unwrap_err();
    assert_eq!(refused, "rootfs /nonexistent/root fs not found");
    assert!(client.list().is_empty());
}

#[test]
fn an_unusable_rootfs_is_refused_with_its_path_and_a_reason() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let base = files::directory();
    let empty = files::make_directory(&base.path().join("empty"), 0o755);
    let file = files::write(&base.path().join("file"), "", 0o644);
    for path in [empty, file] {
        let refused = with_rootfs(&mut client, &path).unwrap_err();
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
        assert!(refused.len() > path.to_str().unwrap().len() + 10, "no reason is given: {refused}");
    }
    client.create();
}

#[test]
fn the_rootfs_of_the_configuration_is_used() {
    let rootfs = files::directory();
    image::fill(rootfs.path());
    files::write(&rootfs.path().join("marker"), "from the configuration\n", 0o644);
    let daemon = Daemon::with(&[("server.container_rootfs_path", rootfs.path().to_str().unwrap())]);
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(client.text(&handle, "cat /marker"), "from the configuration\n");
}

#[test]
fn a_rootfs_may_have_odd_characters_and_be_a_link() {
    let daemon = Daemon::any();
    let base = files::directory();
    for name in [&b"comma,colon:back\\slash new\nline '\""[..], b"\xff\xfe"] {
        let path = base.path().join(files::path(name));
        image::fill(&path);
        let mut client = daemon.connect();
        let handle = with_rootfs(&mut client, &path).unwrap();
        assert_eq!(client.text(&handle, "echo works"), "works\n");
        let link = base.path().join("link");
        symlink(&path, &link).unwrap();
        let handle = with_rootfs(&mut client, &link).unwrap();
        assert_eq!(client.text(&handle, "echo works"), "works\n");
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn an_image_without_a_usable_shell_at_run_time_is_an_error_that_names_it() {
    let daemon = Daemon::any();
    let rootfs = files::directory();
    image::fill(rootfs.path());
    let mut client = daemon.connect();
    let handle = with_rootfs(&mut client, rootfs.path()).unwrap();
    client.run_privileged(&handle, "rm /bin/bash");
    let request = warden_protocol::messages::RunRequest {
        handle: Some(handle.clone()),
        script: Some(b"true".to_vec()),
        ..Default::default()
    };
    let refused = client.ask(request).unwrap_err();
    assert!(refused.contains("/bin/bash"), "{refused}");
    assert_eq!(client.state(&handle), "active");
}
