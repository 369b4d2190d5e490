//! What a container sees of the host, and what it can do to its own init: nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, Signal};
use rustix::thread::CpuSet;
use warden_tests::{ALL_PRIVILEGES, Connection, Daemon, eventually, kernel, within};

/// The pid on the host of a container's PID 1.
fn init_pid(daemon: &Daemon, client: &mut Connection, handle: &[u8]) -> i32 {
    let id = client.id(handle);
    fs::read_to_string(daemon.depot(&id).join("run/wshd.pid")).unwrap().trim().parse().unwrap()
}

/// Inside start, host start and count of a map.
fn map(text: &str) -> Vec<u32> {
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

#[test]
fn every_container_has_its_own_65536_host_ids() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handles: Vec<_> = (0..3).map(|_| client.create()).collect();
    let mut starts = Vec::new();
    for handle in &handles {
        let uids = map(&client.text(handle, "cat /proc/self/uid_map"));
        assert_eq!(uids, map(&client.text(handle, "cat /proc/self/gid_map")));
        assert_eq!((uids.len(), uids[0], uids[2]), (3, 0, 65536), "{uids:?}");
        assert!(uids[1] >= 524_288 && uids[1] <= 1_879_048_191 - 65_535, "{uids:?}");
        starts.push(uids[1]);
    }
    starts.sort_unstable();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 65_536), "{starts:?}");
}

#[test]
fn the_host_sees_a_job_with_a_mapped_id() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let start = map(&client.text(&handle, "cat /proc/self/uid_map"))[1];
    client.spawn(&handle, "exec sleep 999");
    let sleeper = || {
        kernel::processes_in_cgroup(&id).into_iter().find(|process| process.command.starts_with("sleep 999"))
    };
    eventually("the job runs", 5, || sleeper().is_some());
    let uids = kernel::status_field(sleeper().unwrap().pid, "Uid").unwrap();
    assert!(uids.split_whitespace().all(|uid| uid == (start + 10_000).to_string()), "{uids}");
    let init = kernel::status_field(init_pid(&daemon, &mut client, &handle), "Uid").unwrap();
    assert!(init.split_whitespace().all(|uid| uid == start.to_string()), "{init}");
}

#[test]
fn without_user_namespaces_ids_are_the_host_s() {
    let daemon = Daemon::with(&[("server.user_namespace", "false"), ("user.pool_start_uid", "34567")]);
    let base = warden_tests::files::directory();
    let mut client = daemon.connect();
    let handle = client.create_with(warden_protocol::messages::CreateRequest {
        bind_mounts: vec![warden_protocol::messages::BindMount {
            src_path: Some(warden_tests::files::bytes(base.path())),
            dst_path: Some(b"/shared".to_vec()),
            mode: Some(1),
        }],
        ..Default::default()
    });
    assert_eq!(map(&client.text(&handle, "cat /proc/self/uid_map")), [0, 0, u32::MAX]);
    assert_eq!(client.text(&handle, "id -u; id -un"), "34567\nvcap\n");
    assert_eq!(client.run_privileged(&handle, "id -u; touch /shared/by-root").text(), "0\n");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(base.path().join("by-root")).unwrap());
    assert_eq!(owner, 0);
}

#[test]
fn all_namespaces_are_the_container_s_own() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (one, other) = (client.create(), client.create());
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        let script = format!("readlink /proc/self/ns/{namespace}");
        let host = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        let (first, second) = (client.text(&one, &script), client.text(&other, &script));
        assert_ne!(first, second, "{namespace}");
        assert_ne!(first.trim(), host.to_str().unwrap(), "{namespace}");
    }
}

#[test]
fn nothing_but_wshd_and_the_job_runs_inside() {
    let daemon = Daemon::any();
    let mut client = daemon.connect();
    let handle = client.create();
    let script = "for p in /proc/[0-9]*; do read -r pid name rest < $p/stat; echo \"$name\"; done";
    assert_eq!(client.text(&handle, script), "(wshd)\n(bash)\n");
    assert_eq!(client.text(&handle, "cat /proc/1/comm"), "wshd\n");
}

#[test]
fn the_hostname_is_the_id_and_changing_it_inside_stays_inside() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    assert_eq!(client.text(&handle, "hostname; cat /etc/hostname"), format!("{id}\n{id}\n"));
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    client.run_privileged(&handle, "hostname elsewhere");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

#[test]
fn root_inside_can_neither_kill_nor_read_nor_trace_wshd() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let attempts = [
        "kill -9 1; kill -TERM 1; kill -HUP 1; kill -STOP 1; false",
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "head -c 1 /proc/1/mem",
        "ls -l /proc/1/fd/",
        "readlink /proc/1/exe",
        "readlink /proc/1/root",
        "head -c 1 /proc/1/exe",
        "nsenter -t 1 -m true",
    ];
    for attempt in attempts {
        let output = client.run_privileged(&handle, attempt);
        assert_ne!(output.status, 0, "{attempt}: {}", output.text());
    }
    assert_eq!(client.text(&handle, "echo still here"), "still here\n");
}

#[test]
fn kill_all_inside_reaches_the_job_and_nothing_else() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (handle, other) = (client.create(), client.create());
    let neighbour = client.spawn(&other, "sleep 2; echo untouched");
    let init = init_pid(&daemon, &mut client, &handle);
    for privileged in [false, true] {
        let waiting = client.spawn(&handle, "sleep 1000");
        let script = "trap '' TERM; kill -9 -1; echo survived";
        let output =
            if privileged { client.run_privileged(&handle, script) } else { client.run(&handle, script) };
        // kill(-1) spares its caller.
        assert_eq!((output.status, output.text().as_str()), (0, "survived\n"));
        assert_eq!(client.link(&handle, waiting).status, 255);
    }
    assert!(kernel::is_alive(init) && kernel::is_alive(daemon.pid()));
    assert_eq!(client.link(&other, neighbour).text(), "untouched\n");
}

#[test]
fn mounts_inside_tell_nothing_of_the_host_s_paths() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    for file in ["/proc/self/mounts", "/etc/mtab", "/proc/self/mountinfo"] {
        let table = client.text(&handle, format!("cat {file}"));
        assert!(!table.contains(daemon.mark()), "{file}: {table}");
    }
    let mounts = client.text(&handle, "cut -d' ' -f2 /etc/mtab");
    for expected in ["/", "/proc", "/sys", "/dev", "/dev/pts"] {
        assert!(mounts.lines().any(|mount| mount == expected), "{expected}: {mounts}");
    }
    assert!(kernel::mounts_of(daemon.mark()).is_empty(), "the host's table shows nothing of the container");
}

#[test]
fn the_host_s_processes_are_not_to_be_seen_or_signalled() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let target = std::process::id();
    let output = client.run_privileged(&handle, format!("kill -0 {target} && cat /proc/{target}/cmdline"));
    assert_ne!(output.status, 0, "{}", output.text());
    let id = client.id(&handle);
    let inside = kernel::processes_in_cgroup(&id);
    assert!(inside.iter().all(|process| kernel::parent_of(process.pid) != Some(daemon.pid())), "{inside:?}");
    kernel::signal(init_pid(&daemon, &mut client, &handle), Signal::TERM);
    assert_eq!(client.text(&handle, "echo wshd ignores TERM"), "wshd ignores TERM\n");
}

#[test]
fn users_of_the_host_can_reach_neither_output_nor_sockets_of_a_container() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.spawn(&handle, "echo secret");
    eventually("the job has ended", 5, || client.info(&handle).job_ids.is_empty());
    let directory = daemon.depot(&client.id(&handle));
    for name in [&*format!("jobs/{job}/stdout"), "run/iomux.sock", "run/wshd.sock", "run/iomux.log"] {
        let path = directory.join(name);
        assert!(path.exists(), "{}", path.display());
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "stat"]).arg(&path);
        let output = warden_tests::programs::output(&mut command);
        assert!(!output.status.success(), "{} can be reached by nobody", path.display());
    }
}

#[test]
fn a_container_s_processes_hold_no_descriptor_of_the_host_s_files() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    client.run(&handle, "true");
    let pid = init_pid(&daemon, &mut client, &handle);
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let path = entry.unwrap().path();
        let target = fs::read_link(&path).unwrap().display().to_string();
        let device = |path: &std::path::Path| fs::metadata(path).unwrap().dev();
        // Of the container's own terminals, not of the host's.
        let own_terminals = target == "/dev/pts" && device(&path) != device("/dev/pts".as_ref());
        let harmless = ["socket:", "pipe:", "anon_inode:", "/dev/null", "/proc"]
            .iter()
            .any(|kind| target.starts_with(kind));
        // Of the host's /proc, which it had before its own: a file and not a directory, from which nothing else is reached.
        let own_score = target == format!("/{pid}/oom_score_adj") && fs::metadata(&path).unwrap().is_file();
        assert!(harmless || own_terminals || own_score, "wshd holds {target}");
    }
    for link in ["cwd", "root"] {
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/{link}")).unwrap(),
            std::path::Path::new("/"),
            "{link}"
        );
    }
}

#[test]
fn orphans_are_reaped() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    client.run(&handle, "for i in $(seq 40); do (setsid true &); (sleep 0.$i &); done");
    eventually("nothing is left of them, not even a zombie", 5, || {
        kernel::processes_in_cgroup(&id).len() == 1
    });
    let init = init_pid(&daemon, &mut client, &handle);
    let children =
        kernel::processes().into_iter().filter(|process| kernel::parent_of(process.pid) == Some(init));
    assert_eq!(children.count(), 0);
}

#[test]
fn root_inside_that_breaks_its_own_container_cannot_keep_it_from_ending() {
    let daemon = Daemon::with(&[ALL_PRIVILEGES]);
    let mut client = daemon.connect();
    let breakages = [
        "prlimit --pid 1 --nofile=3:3 --nproc=1:1 --data=0:0",
        "umount -l /proc; umount -l /dev; umount -l /sys",
        "mount -t tmpfs none /proc; mount -t tmpfs none /dev; mount -t tmpfs none /usr",
        "rm -rf /etc /home /bin /lib64",
        "python3 -c 'import ctypes
libc = ctypes.CDLL(None)
for i in range(2000): assert libc.mount(b\"none\", b\"/mnt\", b\"tmpfs\", 0, None) == 0'",
        "for i in $(seq 60); do setsid sleep 1000 & done; kill -STOP -1",
    ];
    for breakage in breakages {
        let handle = client.create();
        let id = client.id(&handle);
        client.spawn(&handle, "trap '' TERM; while :; do sleep 1; done");
        let request = warden_protocol::messages::SpawnRequest {
            handle: Some(handle.clone()),
            script: Some(breakage.as_bytes().to_vec()),
            privileged: Some(true),
            ..Default::default()
        };
        let job = client.must(request).job_id.unwrap();
        let (_, _) = within(30.0, breakage, || client.link(&handle, job));
        // Another job is started or refused, in bounded time.
        let run = warden_protocol::messages::RunRequest {
            handle: Some(handle.clone()),
            script: Some(b"true".to_vec()),
            ..Default::default()
        };
        let _ = within(10.0, breakage, || client.ask(run));
        // One that has ended by itself may have nothing left to stop.
        let stop = warden_protocol::messages::StopRequest {
            handle: Some(handle.clone()),
            kill: Some(true),
            ..Default::default()
        };
        let _ = within(10.0, breakage, || client.ask(stop));
        within(10.0, breakage, || client.destroy(&handle));
        assert!(kernel::processes_in_cgroup(&id).is_empty(), "{breakage}");
    }
}

/// Whoever has started it reads what it writes, however early it does so.
#[test]
fn a_job_that_leaves_init_no_descriptor_is_a_job_all_the_same() {
    let daemon = Daemon::with(&[ALL_PRIVILEGES]);
    let mut client = daemon.connect();
    for _ in 0..20 {
        let handle = client.create();
        // On one processor the job, once it runs, comes before init, which still has to tell of it.
        let (mut first, init) = (CpuSet::new(), init_pid(&daemon, &mut client, &handle));
        first.set(0);
        rustix::thread::sched_setaffinity(Pid::from_raw(init), &first).unwrap();
        let output = client.run_privileged(&handle, "exec prlimit --pid 1 --nofile=3:3 --verbose");
        assert!(output.text().contains("NOFILE"), "{} {}", output.text(), output.errors());
        client.destroy(&handle);
    }
}

#[test]
fn without_user_namespaces_root_inside_cannot_write_to_the_hosts_programs() {
    let ids = [("server.user_namespace", "false"), ("user.pool_start_uid", "34567")];
    // What stands behind the capabilities that mounting takes, too.
    let daemon = Daemon::with(&[&ids[..], &[ALL_PRIVILEGES]].concat());
    let mut client = daemon.connect();
    let handle = client.create();
    let mark = format!("/usr/.{}", daemon.directory().file_name().unwrap().display());
    let attempt = format!(
        "for way in remount,bind,rw remount,rw; do mount -o $way /usr; touch {mark}; done
         umount /usr; mount -o remount,bind,rw /usr; touch {mark}; ls -d /usr >/dev/null"
    );
    client.run_privileged(&handle, &attempt);
    let written = std::path::Path::new(&mark).exists();
    let _ = fs::remove_file(&mark);
    assert!(!written, "the host's /usr was written to");
    // It is there for reading.
    let other = client.create();
    assert_eq!(client.text(&other, "test -x /usr/bin/env && perl -e 'print 6 * 7'"), "42");
}
