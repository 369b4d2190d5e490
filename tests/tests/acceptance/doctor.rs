//! What is left over is found and removed; what only looks like it is nobody's business.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use warden_protocol::messages::*;
use warden_tests::{Config, Daemon, eventually, files, kernel, programs};

/// The id of a container that never was.
const ID: &str = "00000000001";

fn doctor(daemon: &Daemon, options: &[&str]) -> Output {
    let options = [&["doctor"], options].concat();
    wardend(daemon, &options, &daemon.directory().join("wardend.yml"))
}

/// Has it repair in a mount namespace of its own, after a script with its own arguments from $2 on.
fn doctor_behind_mounts(daemon: &Daemon, script: &str, arguments: &[&Path]) -> Output {
    let script = format!("{script} && exec $0 doctor --repair --config $1");
    let mut command = daemon.in_its_network("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(programs::find("wardend"));
    programs::output(command.arg(daemon.directory().join("wardend.yml")).args(arguments))
}

/// Runs wardend to its end beside a daemon, with a configuration.
fn wardend(daemon: &Daemon, options: &[&str], config: &Path) -> Output {
    let wardend = programs::find("wardend");
    let mut command = daemon.in_its_network(wardend.to_str().unwrap());
    programs::output(command.args(options).arg("--config").arg(config))
}

/// Kind and name of everything that is told.
fn told(output: &Output) -> Vec<(String, String)> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let object = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| value[key].as_str().unwrap().to_owned();
        (text("kind"), text("name"))
    };
    text.lines().map(object).collect()
}

fn ip(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = programs::output(daemon.in_its_network("ip").args(arguments));
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn has_link(daemon: &Daemon, name: &str) -> bool {
    ip(daemon, &["-o", "link"]).contains(&format!(" {name}:"))
}

/// The group of a container's interface.
fn group(daemon: &Daemon, id: &str) -> String {
    let links: Value =
        serde_json::from_str(&ip(daemon, &["-j", "link", "show", &format!("w-{id}-0")])).unwrap();
    let group = &links[0]["group"];
    group.as_str().map_or_else(|| group.to_string(), str::to_owned)
}

/// A process that is called like a supervisor, on a spec that is not there.
fn supervisor(spec: PathBuf) -> Child {
    let mut command = Command::new("bash");
    command.arg0("iomux").args(["-c", "read x; true", "x"]).arg(spec).stdin(Stdio::piped()).spawn().unwrap()
}

/// The same, of one that was being removed.
const TRASHED: &str = "00000000003";

/// Things that are left over, and others that only look like them.
struct Planted {
    supervisors: [Child; 2],
    /// Control groups of others.
    groups: Vec<PathBuf>,
    mount: PathBuf,
}

impl Planted {
    fn new(daemon: &Daemon, group: &str) -> Self {
        for (name, group) in
            [(format!("w-{ID}-2"), group), ("w-00000000002-0".to_owned(), "0"), ("w-abc-0".to_owned(), group)]
        {
            ip(daemon, &["link", "add", &name, "group", group, "type", "ifb"]);
        }
        let parent = kernel::cgroup_roots()
            .into_iter()
            .map(|root| root.join(daemon.mark()))
            .find(|path| path.exists());
        let parent = parent.unwrap();
        fs::create_dir(parent.join(format!("instance-{ID}"))).unwrap();
        let elsewhere = parent.with_file_name(format!("{}-other", daemon.mark()));
        let groups = vec![parent.join("instance-abc"), elsewhere.join(format!("instance-{ID}")), elsewhere];
        groups.iter().for_each(|group| fs::create_dir_all(group).unwrap());
        for name in [".trash/left", "backup"] {
            fs::create_dir(daemon.depot(name)).unwrap();
            fs::write(daemon.depot(name).join("file"), "text").unwrap();
        }
        let mount = daemon.depot(".trash").join(TRASHED);
        fs::create_dir(&mount).unwrap();
        programs::host("mount", &["-t", "tmpfs", "none", mount.to_str().unwrap()]);
        let spec = |depot: PathBuf| depot.join(ID).join("spec.json");
        let supervisors =
            [supervisor(spec(daemon.depot(""))), supervisor(spec(daemon.directory().join("depot2")))];
        eventually("both are called iomux", 10, || {
            supervisors
                .iter()
                .all(|child| fs::read(format!("/proc/{}/cmdline", child.id())).unwrap().starts_with(b"iomux"))
        });
        Self { supervisors, groups, mount }
    }

    /// What must be told, and removed.
    fn expected(&self, daemon: &Daemon) -> Vec<(String, String)> {
        let mut expected = vec![
            ("process".to_owned(), format!("{} (iomux)", self.supervisors[0].id())),
            ("interface".to_owned(), format!("w-{ID}-2")),
            ("cgroup".to_owned(), format!("instance-{ID}")),
            ("mount".to_owned(), fs::canonicalize(&self.mount).unwrap().display().to_string()),
            ("trash".to_owned(), TRASHED.to_owned()),
            ("trash".to_owned(), "left".to_owned()),
            ("unknown".to_owned(), "backup".to_owned()),
        ];
        assert!(daemon.depot("backup").exists());
        expected.sort();
        expected
    }

    fn assert_only_lookalikes_are_left(&mut self, daemon: &Daemon) {
        assert!(self.supervisors[0].try_wait().unwrap().is_some());
        assert!(self.supervisors[1].try_wait().unwrap().is_none(), "another depot's");
        assert!(!has_link(daemon, &format!("w-{ID}-2")));
        assert!(has_link(daemon, "w-00000000002-0") && has_link(daemon, "w-abc-0"));
        assert!(self.groups.iter().all(|group| group.exists()));
        let trash = || fs::read_dir(daemon.depot(".trash")).unwrap().count();
        eventually("the trash is emptied, while clients are served", 10, || trash() == 0);
        assert!(daemon.depot("backup/file").exists());
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        for child in &mut self.supervisors {
            let _ = child.kill();
            let _ = child.wait();
        }
        for group in &self.groups {
            let _ = fs::remove_dir(group);
        }
        let _ = rustix::mount::unmount(&self.mount, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir_all(self.mount.parent().unwrap().with_file_name("backup"));
    }
}

fn limited(daemon: &Daemon) -> (Vec<u8>, String) {
    let mut client = daemon.connect();
    let handle = client.create();
    let (rate, burst) = (Some(1_000_000), Some(100_000));
    client.must(LimitBandwidthRequest { handle: Some(handle.clone()), rate, burst });
    let id = client.id(&handle);
    (handle, id)
}

#[test]
fn beside_a_daemon_only_what_is_left_over_is_found_and_removed() {
    let daemon = Daemon::own();
    let (handle, id) = limited(&daemon);
    assert!(doctor(&daemon, &[]).status.success());
    let mut planted = Planted::new(&daemon, &group(&daemon, &id));
    let found = doctor(&daemon, &["--json"]);
    assert!(!found.status.success());
    let mut names = told(&found);
    names.sort();
    // A container in the trash is a daemon's concern, as long as there is one.
    let mut expected = planted.expected(&daemon);
    expected.retain(|found| *found != ("trash".to_owned(), TRASHED.to_owned()));
    assert_eq!(names, expected);
    let repaired = doctor(&daemon, &["--repair"]);
    let text = String::from_utf8(repaired.stdout).unwrap();
    assert!(repaired.status.success(), "{text}");
    assert!(text.contains(&format!("removed    interface   w-{ID}-2\n")), "{text}");
    assert!(text.contains("left alone unknown     backup\n"), "{text}");
    fs::remove_dir(daemon.depot(".trash").join(TRASHED)).unwrap();
    planted.assert_only_lookalikes_are_left(&daemon);
    assert_eq!(told(&doctor(&daemon, &["--json"])), [("unknown".to_owned(), "backup".to_owned())]);
    let mut client = daemon.connect();
    assert_eq!(client.text(&handle, "echo $((6 * 7))"), "42\n");
    assert!(has_link(&daemon, &format!("w-{id}-2")));
}

#[test]
fn a_start_removes_what_is_left_over() {
    let mut daemon = Daemon::own();
    let (handle, id) = limited(&daemon);
    let mut planted = Planted::new(&daemon, &group(&daemon, &id));
    daemon.signal(Signal::KILL);
    daemon.wait();
    daemon.restart();
    planted.assert_only_lookalikes_are_left(&daemon);
    assert!(daemon.log().contains("removed what was left over"));
    assert_eq!(daemon.connect().text(&handle, "echo $((6 * 7))"), "42\n");
}

#[test]
fn a_running_daemon_removes_what_is_left_over_by_itself() {
    let daemon = Daemon::with(&[("server.reconcile_interval", "1")]);
    let (handle, id) = limited(&daemon);
    let mut planted = Planted::new(&daemon, &group(&daemon, &id));
    // All that was planted but the unknown directory.
    let count = planted.expected(&daemon).len() - 1;
    let lines = || daemon.log().matches("removed what was left over").count();
    eventually("it is removed", 30, || lines() >= count);
    planted.assert_only_lookalikes_are_left(&daemon);
    assert_eq!(daemon.connect().text(&handle, "echo $((6 * 7))"), "42\n");
}

#[test]
fn without_a_daemon_dead_containers_are_found_and_removed_and_living_ones_are_not() {
    let mut daemon = Daemon::own();
    let [(living, living_id), (_, dead_id)] = [limited(&daemon), limited(&daemon)];
    daemon.signal(Signal::KILL);
    daemon.wait();
    for helper in ["iomux", "wshd"] {
        let file = daemon.depot(&dead_id).join("run").join(format!("{helper}.pid"));
        let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
        kernel::signal(pid, Signal::KILL);
        eventually("it is dead", 10, || !kernel::is_alive(pid));
    }
    let dead = ("container".to_owned(), format!("{dead_id}: its init is dead"));
    assert_eq!(told(&doctor(&daemon, &["--json"])), std::slice::from_ref(&dead));
    let repaired = doctor(&daemon, &["--repair", "--json"]);
    assert_eq!(told(&repaired), [dead]);
    assert!(repaired.status.success(), "{}", String::from_utf8_lossy(&repaired.stdout));
    assert!(!daemon.depot(&dead_id).exists() && daemon.depot(&living_id).exists());
    assert!(
        !kernel::cgroups_of(daemon.mark()).iter().any(|path| path.ends_with(format!("instance-{dead_id}")))
    );
    daemon.restart();
    let mut client = daemon.connect();
    assert_eq!(client.list(), std::slice::from_ref(&living));
    assert_eq!(client.text(&living, "echo $((6 * 7))"), "42\n");
    assert!(!has_link(&daemon, &format!("w-{dead_id}-2")));
}

/// The packet filter's rules, without what changes by itself.
fn ruleset(daemon: &Daemon) -> String {
    nft(daemon, &["list", "ruleset"])
}

fn nft(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = programs::output(daemon.in_its_network("nft").args(arguments));
    assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_the_table_holds_of_nobody_is_removed_and_nothing_of_others() {
    let mut daemon = Daemon::own();
    let (living, _) = limited(&daemon);
    let mut client = daemon.connect();
    client.must(NetInRequest { handle: Some(living.clone()), ..NetInRequest::default() });
    client.must(NetOutRequest {
        handle: Some(living.clone()),
        network: Some(b"192.0.2.0/24".to_vec()),
        ..NetOutRequest::default()
    });
    daemon.signal(Signal::KILL);
    daemon.wait();
    nft(&daemon, &["add", "table", "inet", "other"]);
    nft(&daemon, &["add", "chain", "inet", "other", "out-10.254.0.10"]);
    nft(&daemon, &["add", "rule", "inet", "other", "out-10.254.0.10", "accept"]);
    let before = ruleset(&daemon);
    let tables = nft(&daemon, &["list", "tables"]);
    let table = tables.lines().filter_map(|line| line.strip_prefix("table inet "));
    let table = table.filter(|name| *name != "other").min_by_key(|name| name.len()).unwrap();
    let interface = format!("w-{ID}-0");
    // The chains of the next addresses are made with that of the first; the last is nobody's.
    for chain in ["out-10.254.0.10", "out-10.254.0.14"] {
        nft(&daemon, &["add", "rule", "inet", table, chain, "ip", "daddr", "192.0.2.1", "accept"]);
    }
    for (set, element) in [
        ("interfaces", format!("{{ {interface} }}")),
        ("members", format!("{{ {interface} . 10.254.0.10 }}")),
        ("forwards", "{ tcp . 7001 : 10.254.0.10 . 80 }".to_owned()),
        ("forwards", "{ tcp . 7002 : 10.254.3.6 . 80 }".to_owned()),
    ] {
        nft(&daemon, &["add", "element", "inet", table, set, &element]);
    }
    let expected = [
        ("rules".to_owned(), format!("inet {table} {interface}")),
        ("rules".to_owned(), format!("inet {table} out-10.254.0.14")),
        ("rules".to_owned(), format!("inet {table} forwards 6:7002")),
    ];
    assert_eq!(told(&doctor(&daemon, &["--json"])), expected);
    let repaired = doctor(&daemon, &["--repair"]);
    let text = String::from_utf8(repaired.stdout).unwrap();
    assert!(repaired.status.success(), "{text}");
    assert_eq!(text.matches("removed    rules").count(), 3, "{text}");
    assert_eq!(ruleset(&daemon), before);
    assert!(told(&doctor(&daemon, &["--json"])).is_empty());
    nft(&daemon, &["delete", "table", "inet", "other"]);
    daemon.restart();
    assert_eq!(daemon.connect().text(&living, "echo $((6 * 7))"), "42\n");
}

#[test]
fn a_loop_device_of_the_depots_image_that_nobody_uses_is_removed_and_one_in_use_is_not() {
    let mut limited = warden_tests::disk::Limited::with_image(&[]);
    let image = limited.image();
    assert!(doctor(&limited.daemon, &[]).status.success(), "the daemon's own");
    limited.daemon.signal(Signal::TERM);
    assert!(limited.daemon.wait().success());
    let attached = || programs::host("losetup", &["--associated", image.to_str().unwrap()]);
    // What another test starts may have been born with the daemon's mount, and holds it until it has a root of its own.
    eventually("the daemon's own is gone with it", 10, || attached().is_empty());
    let device = programs::host("losetup", &["--find", "--show", image.to_str().unwrap()]).trim().to_owned();
    let found = [("loop-device".to_owned(), device.clone())];
    assert_eq!(told(&doctor(&limited.daemon, &["--json"])), found);
    let mounted = files::directory();
    let repaired =
        doctor_behind_mounts(&limited.daemon, "mount -o ro $2 $3", &[device.as_ref(), mounted.path()]);
    let text = String::from_utf8(repaired.stdout).unwrap();
    assert!(text.contains(&format!("left alone loop-device {device}\n")), "{text}");
    assert!(attached().contains(&device));
    let repaired = doctor(&limited.daemon, &["--repair"]);
    let text = String::from_utf8(repaired.stdout).unwrap();
    assert!(text.contains(&format!("removed    loop-device {device}\n")), "{text}");
    assert_eq!(attached(), "");
}

#[test]
fn the_table_of_another_depots_containers_is_refused_and_nothing_is_taken_from_them() {
    let mut daemon = Daemon::with(&[("server.warm_pool_size", "0")]);
    let handle = daemon.connect().create();
    let id = std::str::from_utf8(&handle).unwrap();
    let elsewhere = files::directory();
    let config = elsewhere.path().join("wardend.yml");
    let parent = format!("{}-elsewhere", daemon.mark());
    let mut settings = Config::new(elsewhere.path(), &parent);
    fs::write(&config, settings.set("health_check_server.port", "0").text()).unwrap();
    let before = ruleset(&daemon);
    let refused = |daemon: &Daemon| {
        for options in [&[][..], &["doctor"], &["doctor", "--repair"]] {
            let output = wardend(daemon, options, &config);
            let text = String::from_utf8(output.stderr).unwrap();
            let depot = fs::canonicalize(daemon.depot("")).unwrap();
            let why = format!(
                "using the packet filter's table warden: it belongs to the containers of the depot {}",
                depot.display()
            );
            assert!(!output.status.success() && text.contains(&why), "{options:?}: {text}");
        }
        ip(daemon, &["link", "show", &format!("w-{id}-0")]);
        assert!(kernel::cgroup_roots().iter().all(|root| !root.join(&parent).exists()));
    };
    refused(&daemon);
    assert_eq!(ruleset(&daemon), before);
    daemon.signal(Signal::KILL);
    daemon.wait();
    // The container lives, and has nobody to speak for it.
    refused(&daemon);
    daemon.restart();
    assert_eq!(daemon.connect().text(&handle, "cat /sys/class/net/w-*-1/operstate"), "up\n");
    daemon.connect().destroy(&handle);
    daemon.signal(Signal::KILL);
    daemon.wait();
    let examined = wardend(&daemon, &["doctor", "--repair"], &config);
    let text = String::from_utf8(examined.stdout).unwrap();
    assert_eq!(text, "removed    table       inet warden\n", "no container needs it any more");
    daemon.restart();
}

#[test]
fn a_container_whose_interface_was_deleted_is_named_in_the_log_of_the_next_start() {
    let mut daemon = Daemon::with(&[("server.warm_pool_size", "0")]);
    let mut client = daemon.connect();
    let mut create = || String::from_utf8(client.create()).unwrap();
    let (whole, cut_off) = (create(), create());
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    ip(&daemon, &["link", "delete", &format!("w-{cut_off}-0")]);
    daemon.restart();
    let log = daemon.log();
    let told = |id: &str| {
        log.lines()
            .any(|line| line.contains(id) && line.contains("its interface was deleted by another program"))
    };
    assert!(told(&cut_off) && !told(&whole), "{log}");
}

#[test]
fn a_doctor_who_cannot_see_the_depot_s_image_refuses_to_judge_what_runs_in_it() {
    let limited = warden_tests::disk::Limited::with_image(&[]);
    let mut client = limited.daemon.connect();
    let handle = client.create();
    let blind = doctor_behind_mounts(&limited.daemon, "umount --lazy $2", &[&limited.daemon.depot("")]);
    let text = String::from_utf8(blind.stderr).unwrap();
    assert!(!blind.status.success() && blind.stdout.is_empty(), "{text}");
    let why = format!("{} is not mounted there, and its containers run", limited.image().display());
    assert!(text.contains(&why), "{text}");
    assert_eq!(client.text(&handle, "echo alive"), "alive\n");
}

#[test]
fn a_container_of_a_newer_daemon_is_none_to_be_removed() {
    let mut daemon = Daemon::with(&[("server.warm_pool_size", "0")]);
    let handle = daemon.connect().create();
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    let snapshot = daemon.depot(std::str::from_utf8(&handle).unwrap()).join("snapshot.json");
    let whole = fs::read_to_string(&snapshot).unwrap();
    let mut newer: Value = serde_json::from_str(&whole).unwrap();
    newer["version"] = 99.into();
    fs::write(&snapshot, newer.to_string()).unwrap();
    for options in [&["doctor"][..], &["doctor", "--repair"], &[]] {
        let refused = wardend(&daemon, options, &daemon.directory().join("wardend.yml"));
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && text.contains("version 99, of another wardend"), "{text}");
    }
    fs::write(&snapshot, whole).unwrap();
    daemon.restart();
    assert_eq!(daemon.connect().text(&handle, "echo alive"), "alive\n");
}
