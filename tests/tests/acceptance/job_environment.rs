//! What a job is started with: user, environment, directory, descriptors, signals, script.

use warden_protocol::messages::*;
use warden_tests::Daemon;

#[test]
fn the_environment_is_exactly_four_variables() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let script = "tr '\\0' '\\n' < /proc/$$/environ | sort";
    assert_eq!(
        client.text(&handle, script),
        "HOME=/home/vcap\nLANG=C.UTF-8\nPATH=/bin:/usr/bin\nUSER=vcap\n"
    );
    let root = client.run_privileged(&handle, script).text();
    assert_eq!(root, "HOME=/root\nLANG=C.UTF-8\nPATH=/sbin:/bin:/usr/sbin:/usr/bin\nUSER=root\n");
}

#[test]
fn a_job_runs_as_vcap_or_as_root_without_other_groups() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let script = "id -un; id -G | wc -w; grep ^Groups: /proc/self/status | tr -d '\\t '; pwd; umask";
    assert_eq!(client.text(&handle, script), "vcap\n1\nGroups:\n/home/vcap\n0022\n");
    let root = client.run_privileged(&handle, script);
    assert_eq!(root.text(), "root\n1\nGroups:\n/root\n0022\n", "{}", root.errors());
    assert_eq!(client.run(&handle, "test -w /etc/passwd").status, 1);
}

#[test]
fn a_job_has_a_session_of_its_own_and_no_terminal() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    // Fields of stat: 1 pid, 4 ppid, 5 pgrp, 6 session, 7 tty.
    assert_eq!(
        client.text(&handle, "set -- $(cat /proc/$$/stat); [ $1 = $5 ] && [ $1 = $6 ] && echo leader $4 $7"),
        "leader 1 0\n"
    );
    assert_ne!(client.run(&handle, "echo x > /dev/tty").status, 0);
}

#[test]
fn a_job_has_no_descriptors_but_three_and_no_blocked_or_ignored_signals() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(client.text(&handle, "ls /proc/$$/fd"), "0\n1\n2\n");
    let zero = "0000000000000000";
    assert_eq!(
        client.text(&handle, "grep -E '^Sig(Blk|Ign):' /proc/self/status | awk '{print $2}'"),
        format!("{zero}\n{zero}\n")
    );
    // A reader that goes away ends the writer, as everywhere.
    assert_eq!(client.text(&handle, "yes | head -n 1; echo ${PIPESTATUS[0]}"), "y\n141\n");
}

#[test]
fn the_script_is_the_shell_s_standard_input() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(client.text(&handle, "cat\necho never\n"), "echo never\n");
    assert_eq!(client.text(&handle, "read line\nthis is read\necho \"$line\""), "this is read\n");
    assert_eq!(client.text(&handle, "echo no newline at the end"), "no newline at the end\n");
    assert_eq!(client.text(&handle, "echo $0; echo $-"), "/bin/bash\nhBs\n");
}

#[test]
fn a_script_may_hold_any_bytes() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let output = client.run(&handle, b"cat <<'E'\n\xff\xfe \x01 \xc3\xbc\nE\n");
    assert_eq!(output.stdout, b"\xff\xfe \x01 \xc3\xbc\n");
}

#[test]
fn a_script_may_be_larger_than_a_pipe() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    for size in [65_535, 65_536, 65_537, 100_000, 1 << 20, 8 << 20] {
        let line = ": ".to_owned() + &"x".repeat(997) + "\n";
        let mut script = line.repeat(size / line.len());
        script += "echo end of the script; cat\n";
        script += &"r".repeat(size.saturating_sub(script.len()));
        let output = client.run(&handle, &script);
        assert_eq!(output.status, 0, "{size}: {}", output.errors());
        assert!(output.stdout.starts_with(b"end of the script\n"), "{size}");
    }
}

#[test]
fn discarded_output_is_gone_and_never_too_much() {
    let daemon = Daemon::with(&[("server.job_output_limit", "1000")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let request = RunRequest {
        handle: Some(handle.clone()),
        script: Some(b"head -c 5000000 /dev/zero; head -c 5000000 /dev/zero >&2; exit 3".to_vec()),
        discard_output: Some(true),
        ..RunRequest::default()
    };
    let output = client.run_with(request.clone());
    assert_eq!((output.status, output.stdout, output.stderr), (3, vec![], vec![]));
    assert!(output.info.unwrap().events.is_empty());
    let spawn = SpawnRequest {
        handle: request.handle,
        script: request.script,
        discard_output: Some(true),
        ..SpawnRequest::default()
    };
    let job = client.must(spawn).job_id.unwrap();
    let streamed = client.stream(&handle, job);
    assert_eq!((streamed.status, streamed.chunks), (3, 0));
}

#[test]
fn a_privileged_job_may_do_what_root_of_a_container_needs() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let script = "mkdir /opt/x && chown vcap /opt/x && chmod 700 /opt/x && stat -c '%U %a' /opt/x
mknod /opt/x/pipe p && echo made
su vcap -s /bin/sh -c 'id -un' 2>/dev/null || setpriv --reuid vcap --clear-groups id -un";
    let output = client.run_privileged(&handle, script);
    assert_eq!(output.text(), "vcap 700\nmade\nvcap\n", "{}", output.errors());
}
