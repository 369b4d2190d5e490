//! What a container's programs have been denied, by the kernel's own view, with each switch on and off.

use std::fs;

use warden_protocol::messages::{CopyOutRequest, SpawnRequest};
use warden_tests::{Connection, Daemon, eventually, files, kernel};

/// Fields of /proc/self/status of a job.
fn status(client: &mut Connection, handle: &[u8], privileged: bool) -> String {
    let script = "for f in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp; do
        sed -n \"s/^$f:\\t/$f /p\" /proc/self/status; done";
    let output = if privileged { client.run_privileged(handle, script) } else { client.run(handle, script) };
    output.text()
}

fn expected(effective: &str, bounding: &str, no_new_privileges: u8, filter: u8) -> String {
    let none = "0000000000000000";
    format!(
        "CapInh {none}\nCapPrm {effective}\nCapEff {effective}\nCapBnd {bounding}\nCapAmb {none}\n\
         NoNewPrivs {no_new_privileges}\nSeccomp {filter}\n"
    )
}

const NONE: &str = "0000000000000000";
/// CapEff of `docker run`.
const DOCKER: &str = "00000000a80425fb";

#[test]
fn jobs_have_docker_s_capabilities_or_none_with_and_without_a_user_namespace() {
    for settings in [&[][..], &[("server.user_namespace", "false"), ("user.pool_start_uid", "34567")][..]] {
        let daemon = Daemon::with(settings);
        let mut client = daemon.connect();
        let handle = client.create();
        assert_eq!(status(&mut client, &handle, true), expected(DOCKER, DOCKER, 0, 2));
        assert_eq!(status(&mut client, &handle, false), expected(NONE, DOCKER, 1, 2));
    }
}

#[test]
fn each_switch_turns_off_its_own_restriction() {
    let state = |setting: &str| {
        let daemon = Daemon::with(&[("server.confinement", setting)]);
        let mut client = daemon.connect();
        let handle = client.create();
        let seen = status(&mut client, &handle, true) + &status(&mut client, &handle, false);
        let field = |name: &str| {
            let lines = seen.lines().filter_map(|line| line.strip_prefix(name));
            lines
                .map(|value| value.trim_start_matches(' ').trim_start_matches('0').to_owned())
                .collect::<Vec<_>>()
        };
        let mounts = client.text(&handle, "cat /proc/self/mounts");
        let mount = |path: &str| mounts.lines().any(|line| line.split(' ').nth(1) == Some(path));
        (
            field("CapEff")[0] == "a80425fb",
            field("NoNewPrivs")[1] == "1",
            field("Seccomp") == ["2", "2"],
            mount("/proc/keys") && mount("/sys/firmware"),
            mount("/proc/sys"),
        )
    };
    assert_eq!(state("{}"), (true, true, true, true, true));
    assert_eq!(state("{capabilities: false}"), (false, true, true, true, true));
    assert_eq!(state("{no_new_privileges: false}"), (true, false, true, true, true));
    assert_eq!(state("{system_calls: false}"), (true, true, false, true, true));
    assert_eq!(state("{masked_paths: false}"), (true, true, true, false, true));
    assert_eq!(state("{read_only_paths: false}"), (true, true, true, true, false));
}

#[test]
fn an_operator_s_command_is_confined_as_a_job_is() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let socket = daemon.depot(&client.id(&handle)).join("run/wshd.sock");
    for (user, effective, no_new_privileges) in [("root", DOCKER, "1"), ("vcap", NONE, "1")] {
        let mut command = std::process::Command::new(warden_tests::programs::find("wsh"));
        command.arg("--socket").arg(&socket).args(["--user", user, "cat", "/proc/self/status"]);
        let output = warden_tests::programs::output(&mut command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains(&format!("CapEff:\t{effective}\n")) && text.contains("Seccomp:\t2\n"),
            "{text}"
        );
        assert!(user == "root" || text.contains(&format!("NoNewPrivs:\t{no_new_privileges}\n")), "{text}");
    }
}

#[test]
fn a_user_s_supplementary_groups_are_those_of_the_container_s_own_file() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    client.run_privileged(&handle, "echo music:x:777:vcap >> /etc/group");
    assert_eq!(client.text(&handle, "id -Gn; umask"), "vcap music\n0022\n");
    assert_eq!(client.run_privileged(&handle, "id -G; umask").text(), "0\n0022\n");
}

#[test]
fn programs_of_32_bits_run_and_are_filtered() {
    // write(1, "ok\n", 3); exit(-mount(...))
    let code: &[u8] = b"\xb8\x04\0\0\0\xbb\x01\0\0\0\xb9\x85\x80\x04\x08\xba\x03\0\0\0\xcd\x80\
        \xb8\x15\0\0\0\x31\xdb\x31\xc9\x31\xd2\xcd\x80\xf7\xd8\x89\xc3\xb8\x01\0\0\0\xcd\x80\x90\x90\x90ok\n";
    let mut elf =
        b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0\x54\x80\x04\x08\x34\0\0\0".to_vec();
    elf.extend(b"\0\0\0\0\0\0\0\0\x34\0\x20\0\x01\0\0\0\0\0\0\0");
    let size = (84 + code.len()) as u32;
    for word in [1, 0, 0x0804_8000, 0x0804_8000, size, size, 5, 0x1000] {
        elf.extend(u32::to_le_bytes(word));
    }
    elf.extend(code);
    let base = files::directory();
    let program = files::write(&base.path().join("program"), &elf, 0o755);
    let host = warden_tests::programs::output(&mut std::process::Command::new(&program));
    assert_eq!(host.stdout, b"ok\n", "this kernel runs no 32-bit programs");
    assert_eq!(host.status.code(), Some(14), "on the host, mount looks at its arguments: EFAULT");
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let script = format!(
        "printf %b '{}' > p; chmod 755 p; ./p",
        elf.iter().map(|b| format!("\\0{b:03o}")).collect::<String>()
    );
    let output = client.run_privileged(&handle, script);
    assert_eq!((output.text().as_str(), output.status), ("ok\n", 1), "{}", output.errors());
}

/// Held up by a file system that never answers, which is mounted with the capabilities turned off.
#[test]
fn a_copy_s_process_in_the_container_is_confined_and_out_of_its_reach() {
    let daemon = Daemon::with(&[("server.confinement", "{capabilities: false}")]);
    let mut client = daemon.connect();
    let handle = client.create();
    let job = client.must(SpawnRequest {
        handle: Some(handle.clone()),
        script: Some(warden_tests::fuse::silent("/tmp/fuse").into_bytes()),
        privileged: Some(true),
        ..SpawnRequest::default()
    });
    let job = job.job_id.unwrap();
    let id = client.id(&handle);
    let output = daemon.depot(&id).join(format!("jobs/{job}/stdout"));
    eventually("the file system is there", 10, || fs::read(&output).is_ok_and(|text| text == b"mounted\n"));
    let to = files::directory();
    let mut copying = daemon.connect();
    copying.send(CopyOutRequest {
        handle: Some(handle.clone()),
        src_path: Some(b"/tmp/fuse/file".to_vec()),
        dst_path: Some(files::bytes(to.path())),
        ..CopyOutRequest::default()
    });
    let helper = || {
        let mut inside = kernel::processes_in_cgroup(&id);
        inside.retain(|process| process.command.contains("iomux"));
        inside
            .first()
            .map(|process| process.pid)
            .filter(|pid| kernel::status_field(*pid, "Seccomp").is_some_and(|mode| mode.trim() == "2"))
    };
    eventually("the copy's process is in the container, confined", 10, || helper().is_some());
    let pid = helper().unwrap();
    let field = |name: &str| kernel::status_field(pid, name).unwrap().trim().to_owned();
    assert_eq!(
        (field("CapEff"), field("CapPrm"), field("NoNewPrivs")),
        (NONE.into(), NONE.into(), "1".into())
    );
    // Nobody may trace it: what belongs to such a process is shown as root's, not as its user's.
    let owner = |name: &str| {
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/{name}")).unwrap())
    };
    assert_eq!(owner("mem"), 0);
    assert_ne!(field("Uid").split_whitespace().next().unwrap(), "0");
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap().display().to_string();
        let harmless = ["socket:", "anon_inode:", "/proc", "/dev/null", "/tmp"]
            .iter()
            .any(|kind| target.starts_with(kind));
        assert!(harmless, "it holds {target}");
    }
    // By no number inside is it there to be seen or traced, by root with every capability either.
    let names = client.run_privileged(&handle, "cat /proc/[0-9]*/comm | sort -u").text();
    assert!(!names.contains("iomux"), "{names}");
    assert_ne!(client.run_privileged(&handle, format!("kill -0 {pid}")).status, 0);
    client.kill(&handle);
}
