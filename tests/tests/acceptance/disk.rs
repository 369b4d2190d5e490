//! Limits of what containers store, by project quotas of ext4 or by quota groups of btrfs, whichever this machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use warden_protocol::messages::*;
use warden_tests::disk::{Limited, temporary_files_have_quotas};
use warden_tests::{Connection, Daemon, NOTHING_AHEAD, eventually, kernel, programs};

const MIB: u64 = 1 << 20;

fn ask(client: &mut Connection, handle: &[u8], asked: LimitDiskRequest) -> Result<LimitDiskResponse, String> {
    client.ask(LimitDiskRequest { handle: Some(handle.to_vec()), ..asked })
}

fn read(client: &mut Connection, handle: &[u8]) -> LimitDiskResponse {
    ask(client, handle, LimitDiskRequest::default()).unwrap()
}

fn space(bytes: u64) -> LimitDiskRequest {
    LimitDiskRequest { byte: Some(bytes), ..LimitDiskRequest::default() }
}

/// What is answered for these hard and soft limits, under each name.
fn answer(blocks: (u64, u64), inodes: (u64, u64)) -> LimitDiskResponse {
    let (hard, soft) = (Some(blocks.0), Some(blocks.1));
    let (inode, inode_soft) = (Some(inodes.0), Some(inodes.1));
    LimitDiskResponse {
        block_limit: hard,
        block: hard,
        block_soft: soft,
        block_hard: hard,
        inode_limit: inode,
        inode,
        inode_soft,
        inode_hard: inode,
        byte_limit: Some(blocks.0 * 1024),
        byte: Some(blocks.0 * 1024),
        byte_soft: Some(blocks.1 * 1024),
        byte_hard: Some(blocks.0 * 1024),
    }
}

/// The layer of a container, as the host sees it.
fn layer(client: &mut Connection, handle: &[u8]) -> PathBuf {
    let path = client.info(handle).container_path.unwrap();
    Path::new(&String::from_utf8(path).unwrap()).join("tmp")
}

#[test]
fn a_full_disk_is_felt_by_its_own_container_alone_and_by_root_in_it_too() {
    let limited = Limited::with(&[]);
    let mut client = limited.daemon.connect();
    let (handle, other) = (client.create(), client.create());
    ask(&mut client, &handle, space(8 * MIB)).unwrap();
    let output = client.run(&handle, "head -c 16M /dev/zero > f; stat -c %s f");
    assert!(output.errors().contains("Disk quota exceeded"), "{}", output.errors());
    let stored: u64 = output.text().trim().parse().unwrap();
    assert!((4 * MIB..=8 * MIB).contains(&stored), "{stored}");
    let output = client.run_privileged(&handle, "head -c 4M /dev/zero > /root/f");
    assert!(output.errors().contains("Disk quota exceeded"), "{}", output.errors());
    assert_eq!(client.text(&other, "head -c 16M /dev/zero > f; stat -c %s f"), format!("{}\n", 16 * MIB));
    fs::write(limited.daemon.depot(".written-by-the-host"), vec![0; 1 << 20]).unwrap();
    // The container goes on: what was full can be emptied, and then holds something again.
    let again = "rm f; sync .; head -c 2M /dev/zero > g; stat -c %s g";
    let output = client.run_privileged(&handle, format!("cd /home/vcap; rm -f /root/f; {again}"));
    assert_eq!(output.text(), format!("{}\n", 2 * MIB), "{}", output.errors());
}

#[test]
fn info_tells_what_is_stored_and_what_counts_it() {
    let limited = Limited::with(&[]);
    let mut client = limited.daemon.connect();
    let handle = client.create();
    let before = client.info(&handle).disk_stat.unwrap();
    let backend = if limited.counts_files() { "ext4" } else { "btrfs" };
    assert_eq!(before.backend.unwrap(), backend.as_bytes());
    client.text(&handle, "head -c 4M /dev/zero > f; for i in 1 2 3 4 5; do : > n$i; done; sync f");
    let after = client.info(&handle).disk_stat.unwrap();
    let grown = after.bytes_used.unwrap() - before.bytes_used.unwrap();
    assert!((4 * MIB..5 * MIB).contains(&grown), "{grown}");
    if limited.counts_files() {
        let grown = after.inodes_used.unwrap() - before.inodes_used.unwrap();
        assert!((6..40).contains(&grown), "{grown}");
    } else {
        assert_eq!(after.inodes_used, None);
    }
}

#[test]
fn limits_are_set_read_and_lifted_under_every_name() {
    let limited = Limited::with(&[]);
    let files = limited.counts_files();
    let mut client = limited.daemon.connect();
    let handle = client.create();
    let blank = LimitDiskRequest::default();
    assert_eq!(read(&mut client, &handle), answer((0, 0), (0, 0)));
    let seen = |blocks: (u64, u64), inodes| {
        if files { answer(blocks, inodes) } else { answer((blocks.0, 0), (0, 0)) }
    };
    for (asked, blocks, inodes) in [
        (LimitDiskRequest { byte_limit: Some(8 * MIB), ..blank.clone() }, (8192, 0), (0, 0)),
        (LimitDiskRequest { byte: Some(1), byte_limit: Some(9), ..blank.clone() }, (1, 0), (0, 0)),
        (LimitDiskRequest { byte_hard: Some(2049), byte: Some(1), ..blank.clone() }, (3, 0), (0, 0)),
        (LimitDiskRequest { block_limit: Some(7), byte_hard: Some(1), ..blank.clone() }, (7, 0), (0, 0)),
        (LimitDiskRequest { block: Some(8), block_limit: Some(7), ..blank.clone() }, (8, 0), (0, 0)),
        (LimitDiskRequest { block_hard: Some(9), block: Some(8), ..blank.clone() }, (9, 0), (0, 0)),
        (LimitDiskRequest { byte_soft: Some(1025), ..blank.clone() }, (9, 2), (0, 0)),
        (LimitDiskRequest { block_soft: Some(4), byte_soft: Some(1), ..blank.clone() }, (9, 4), (0, 0)),
        (LimitDiskRequest { inode_limit: Some(100), ..blank.clone() }, (9, 4), (100, 0)),
        (LimitDiskRequest { inode: Some(101), inode_limit: Some(1), ..blank.clone() }, (9, 4), (101, 0)),
        (LimitDiskRequest { inode_hard: Some(102), inode: Some(1), ..blank.clone() }, (9, 4), (102, 0)),
        (LimitDiskRequest { inode_soft: Some(50), ..blank.clone() }, (9, 4), (102, 50)),
        (LimitDiskRequest { block: Some(0), block_soft: Some(0), ..blank.clone() }, (0, 0), (102, 50)),
        (LimitDiskRequest { inode: Some(0), inode_soft: Some(0), ..blank.clone() }, (0, 0), (0, 0)),
    ] {
        let text = format!("{asked:?}");
        assert_eq!(ask(&mut client, &handle, asked).unwrap(), seen(blocks, inodes), "{text}");
        assert_eq!(read(&mut client, &handle), seen(blocks, inodes), "{text}");
    }
    client.must(StopRequest { handle: Some(handle.clone()), kill: Some(true), background: None });
    assert_eq!(ask(&mut client, &handle, space(MIB)).unwrap(), seen((1024, 0), (0, 0)), "also when stopped");
}

#[test]
fn a_limit_that_cannot_be_is_named_and_changes_nothing() {
    let limited = Limited::with(&[]);
    let mut client = limited.daemon.connect();
    let handle = client.create();
    ask(&mut client, &handle, space(8 * MIB)).unwrap();
    let before = read(&mut client, &handle);
    // Wherever a value is wrong, the right one beside it has no effect either.
    let right = LimitDiskRequest { inode: Some(77), block_soft: Some(5), ..LimitDiskRequest::default() };
    let largest = u64::MAX;
    for (asked, value) in [
        (LimitDiskRequest { byte_limit: Some(largest), ..right.clone() }, largest),
        (LimitDiskRequest { byte: Some(largest), ..right.clone() }, largest),
        (LimitDiskRequest { byte_hard: Some(1 << 60), ..right.clone() }, 1 << 60),
        (LimitDiskRequest { block_limit: Some(largest), ..right.clone() }, largest),
        (LimitDiskRequest { block: Some(1 << 54), ..right.clone() }, 1 << 54),
        (LimitDiskRequest { block_hard: Some((1 << 54) + 1), ..right.clone() }, (1 << 54) + 1),
        (LimitDiskRequest { block_soft: Some(largest), ..right.clone() }, largest),
        (LimitDiskRequest { block_soft: None, byte_soft: Some(largest), ..right.clone() }, largest),
        (LimitDiskRequest { block_soft: Some(9000), ..right.clone() }, 9000 * 1024),
        (LimitDiskRequest { inode: None, inode_limit: Some(largest), ..right.clone() }, largest),
        (LimitDiskRequest { inode: Some(1 << 32), ..right.clone() }, 1 << 32),
        (LimitDiskRequest { inode_hard: Some(largest), ..right.clone() }, largest),
        (LimitDiskRequest { inode_soft: Some(largest), ..right.clone() }, largest),
        (LimitDiskRequest { inode_soft: Some(78), ..right.clone() }, 78),
    ] {
        let text = format!("{asked:?}");
        let refused = ask(&mut client, &handle, asked).unwrap_err();
        assert!(refused.starts_with(&format!("Failed setting disk limit: {value}: ")), "{text}: {refused}");
        assert_eq!(read(&mut client, &handle), before, "{text}");
    }
    for wrong in ["-1", "18446744073709551616", "1.5", "ten", ""] {
        let handle = String::from_utf8(handle.clone()).unwrap();
        let mut command = limited.daemon.client();
        let output = programs::output(command.args(["limit_disk", "--handle", &handle, "--byte", wrong]));
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(wrong) && told.contains("byte"), "{wrong}: {told}");
    }
    assert_eq!(read(&mut client, &handle), before);
}

#[test]
fn the_number_of_files_is_limited_where_it_is_counted() {
    let limited = Limited::with(&[]);
    let mut client = limited.daemon.connect();
    let (handle, other) = (client.create(), client.create());
    let asked = LimitDiskRequest { inode: Some(60), byte: Some(32 * MIB), ..LimitDiskRequest::default() };
    let kept = ask(&mut client, &handle, asked).unwrap();
    let fill = "for i in $(seq 100); do : > n$i || break; done; echo $i";
    let output = client.run(&handle, fill);
    if limited.counts_files() {
        assert_eq!(kept, answer((32_768, 0), (60, 0)));
        assert!(output.errors().contains("Disk quota exceeded"), "{}", output.errors());
        assert_eq!(client.text(&other, fill), "100\n");
    } else {
        assert_eq!(kept, answer((32_768, 0), (0, 0)));
        assert_eq!(output.text(), "100\n");
        assert!(limited.daemon.log().contains("btrfs has no limits of files"), "the log says so");
    }
}

#[test]
fn root_of_the_host_inside_is_limited_too() {
    let limited = Limited::with(&[("server.user_namespace", "false")]);
    let mut client = limited.daemon.connect();
    let handle = client.create();
    ask(&mut client, &handle, space(8 * MIB)).unwrap();
    let output = client.run_privileged(&handle, "head -c 16M /dev/zero > /root/f");
    assert!(output.errors().contains("Disk quota exceeded"), "{}", output.errors());
}

#[test]
fn a_container_that_is_gone_leaves_no_limit() {
    let limited = Limited::with(&[NOTHING_AHEAD]);
    let mut client = limited.daemon.connect();
    let handle = client.create();
    ask(&mut client, &handle, space(8 * MIB)).unwrap();
    client.text(&handle, "head -c 4M /dev/zero > f");
    let layer = layer(&mut client, &handle);
    if !limited.counts_files() {
        let groups = quota_groups(&layer);
        assert_eq!(groups.len(), 1, "{groups:?}");
        client.destroy(&handle);
        // The kernel removes the group when it has freed the space, which it does by and by.
        eventually("the quota group is gone", 60, || {
            programs::host("btrfs", &["filesystem", "sync", limited.daemon.depot("").to_str().unwrap()]);
            !groups[0].exists()
        });
        return;
    }
    let project = project_of(&layer);
    let size = |path: &Path| rustix::fs::statfs(path).unwrap().f_blocks;
    let whole = size(&limited.daemon.depot(""));
    assert!(size(&layer) < whole, "the kernel tells the limit for the size");
    client.destroy(&handle);
    let directory = limited.daemon.depot(".again");
    fs::create_dir(&directory).unwrap();
    programs::host("chattr", &["-p", &project, "+P", directory.to_str().unwrap()]);
    // Nobody waits for it.
    eventually("its project has no limit any more", 30, || size(&directory) == whole);
}

/// The number of a directory's project.
fn project_of(directory: &Path) -> String {
    let text = programs::host("lsattr", &["-pd", directory.to_str().unwrap()]);
    text.split_whitespace().next().unwrap().to_owned()
}

/// The quota groups of the subvolumes on the file system of a layer.
fn quota_groups(layer: &Path) -> Vec<PathBuf> {
    let text = programs::host(
        "btrfs",
        &["filesystem", "show", layer.parent().unwrap().parent().unwrap().to_str().unwrap()],
    );
    let id = text.split("uuid: ").nth(1).unwrap().split_whitespace().next().unwrap();
    let groups = fs::read_dir(Path::new("/sys/fs/btrfs").join(id).join("qgroups")).unwrap().flatten();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    // 0_5 is the top of the file system.
    groups
        .map(|entry| entry.path())
        .filter(|path| name(path).starts_with("0_") && name(path) != "0_5")
        .collect()
}

#[test]
fn what_limits_is_in_the_log_and_without_it_the_answer_is_empty() {
    let quotas = temporary_files_have_quotas();
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let (log, check) = (daemon.log(), check(&daemon));
    if quotas {
        assert!(log.contains("disk limits: project quotas of ext4"), "{log}");
        assert!(check.contains("ok       disk limits: project quotas of ext4"), "{check}");
        assert_eq!(read(&mut client, &handle), answer((0, 0), (0, 0)));
    } else {
        assert!(log.contains("disk limits: none: "), "{log}");
        assert!(check.contains("missing  disk limits: none: "), "{check}");
        assert_eq!(ask(&mut client, &handle, space(u64::MAX)).unwrap(), LimitDiskResponse::default());
        assert_eq!(client.info(&handle).disk_stat, None);
    }
    let off = Daemon::with(&[("server.quota", "{disk_quota_enabled: false}")]);
    let mut client = off.connect();
    let handle = client.create();
    assert_eq!(ask(&mut client, &handle, space(1)).unwrap(), LimitDiskResponse::default());
    assert_eq!(client.text(&handle, "echo not limited > f; cat f"), "not limited\n");
    assert_eq!(client.info(&handle).disk_stat, None);
    assert!(off.log().contains("disk limits: turned off by server.quota"), "{}", off.log());
}

fn check(daemon: &Daemon) -> String {
    let mut command = Command::new(programs::find("wardend"));
    command.arg("--check").arg("--config").arg(daemon.directory().join("wardend.yml"));
    String::from_utf8(programs::output(&mut command).stdout).unwrap()
}

#[test]
fn an_image_of_the_depot_is_made_once_and_mounted_while_it_is_used() {
    let mut limited = Limited::with_image(&[]);
    let image = limited.image();
    let mounts = |daemon: &Daemon| kernel::mounts_of(daemon.mark());
    assert_eq!(mounts(&limited.daemon).len(), 1, "{:?}", mounts(&limited.daemon));
    let mut client = limited.daemon.connect();
    let handle = client.create();
    assert_ne!(read(&mut client, &handle), LimitDiskResponse::default());
    assert!(check(&limited.daemon).contains("ok       depot image "));
    client.destroy(&handle);
    drop(client);
    fs::write(limited.daemon.depot(".kept"), "kept").unwrap();

    limited.daemon.signal(Signal::TERM);
    assert!(limited.daemon.wait().success());
    assert!(mounts(&limited.daemon).is_empty(), "{:?}", mounts(&limited.daemon));
    eventually("the loop device is free", 30, || loop_devices(&image).is_empty());

    limited.daemon.restart();
    assert_eq!(fs::read_to_string(limited.daemon.depot(".kept")).unwrap(), "kept", "not formatted again");
    // Another daemon must not use it at the same time, nor must one daemon mount it twice.
    let second = second_daemon(&limited, &image);
    assert!(second.contains("another wardend uses it") && second.contains("depot.img"), "{second}");

    limited.daemon.signal(Signal::KILL);
    limited.daemon.wait();
    assert_eq!(mounts(&limited.daemon).len(), 1, "nobody could unmount it");
    limited.daemon.restart();
    assert_eq!(mounts(&limited.daemon).len(), 1, "it is taken over: {:?}", mounts(&limited.daemon));
    assert_eq!(loop_devices(&image).len(), 1);
    let mut client = limited.daemon.connect();
    let handle = client.create();
    assert_eq!(client.text(&handle, "echo alive"), "alive\n");
}

/// The loop devices of an image.
fn loop_devices(image: &Path) -> Vec<PathBuf> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path());
    let backing = |path: &PathBuf| fs::read_to_string(path.join("loop/backing_file")).unwrap_or_default();
    devices.filter(|path| Path::new(backing(path).trim()) == image).collect()
}

/// What a daemon with a depot of its own says that is given the same image.
fn second_daemon(limited: &Limited, image: &Path) -> String {
    let directory = warden_tests::files::directory();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let config = format!(
        "server:\n  unix_domain_path: {}\n  container_depot_path: {}\n  depot_image: {{path: {}, size: 536870912}}\n\
         network:\n  table: {}\nhealth_check_server: {{port: 0}}\n",
        path("w.sock"),
        path("depot"),
        image.display(),
        "warden-second",
    );
    fs::write(path("wardend.yml"), config).unwrap();
    let mut command = limited.daemon.in_its_network("timeout");
    command.arg("60").arg(programs::find("wardend")).arg("--config").arg(path("wardend.yml"));
    let output = programs::output(&mut command);
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_file_that_is_no_image_is_left_alone() {
    let directory = warden_tests::files::directory();
    let image = directory.path().join("letter");
    fs::write(&image, "Dear reader").unwrap();
    let limited = Limited::with(&[]);
    let refused = second_daemon(&limited, &image);
    assert!(refused.contains("it holds neither ext4 nor btrfs") && refused.contains("letter"), "{refused}");
    assert_eq!(fs::read_to_string(&image).unwrap(), "Dear reader");
}

#[test]
fn limits_outlive_the_daemon() {
    let mut limited = Limited::with(&[]);
    let mut client = limited.daemon.connect();
    let handle = client.create();
    let kept = ask(&mut client, &handle, space(8 * MIB)).unwrap();
    drop(client);
    for signal in [Signal::TERM, Signal::KILL] {
        limited.daemon.signal(signal);
        limited.daemon.wait();
        limited.daemon.restart();
        let mut client = limited.daemon.connect();
        assert_eq!(read(&mut client, &handle), kept);
        let output = client.run(&handle, "head -c 16M /dev/zero > f");
        assert!(output.errors().contains("Disk quota exceeded"), "{}", output.errors());
    }
}
