//! The same limits on XFS, whose project quotas the kernels of distributions have: run in the virtual machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use warden_protocol::messages::*;
use warden_tests::xfs::Xfs;
use warden_tests::{Connection, Daemon, NOTHING_AHEAD, eventually, programs};

const MIB: u64 = 1 << 20;
/// What XFS says to a full project, where others speak of quotas.
const FULL: &str = "No space left on device";

fn on(disk: &Xfs) -> Daemon {
    let depot = disk.path("depot").display().to_string();
    Daemon::with(&[("server.container_depot_path", depot.as_str()), NOTHING_AHEAD])
}

fn limit(client: &mut Connection, handle: &[u8], asked: LimitDiskRequest) -> LimitDiskResponse {
    client.must(LimitDiskRequest { handle: Some(handle.to_vec()), ..asked })
}

fn layer(client: &mut Connection, handle: &[u8]) -> PathBuf {
    let path = client.info(handle).container_path.unwrap();
    Path::new(&String::from_utf8(path).unwrap()).join("tmp")
}

#[test]
fn space_is_limited_and_counted_and_a_full_container_is_felt_by_itself_alone() {
    let disk = Xfs::mount("prjquota");
    let daemon = on(&disk);
    assert!(daemon.log().contains("disk limits: project quotas of XFS"), "{}", daemon.log());
    let mut client = daemon.connect();
    let (handle, other) = (client.create(), client.create());
    let before = client.info(&handle).disk_stat.unwrap();
    assert_eq!(before.backend.unwrap(), b"xfs");
    let kept = limit(&mut client, &handle, LimitDiskRequest { byte: Some(8 * MIB), ..Default::default() });
    assert_eq!((kept.byte, kept.block, kept.inode), (Some(8 * MIB), Some(8192), Some(0)));

    client.text(&handle, "head -c 4M /dev/zero > f; for i in 1 2 3 4 5; do : > n$i; done; sync f");
    let after = client.info(&handle).disk_stat.unwrap();
    let grown = after.bytes_used.unwrap() - before.bytes_used.unwrap();
    assert!((4 * MIB..5 * MIB).contains(&grown), "{grown}");
    let grown = after.inodes_used.unwrap() - before.inodes_used.unwrap();
    assert!((6..40).contains(&grown), "{grown}");

    let output = client.run(&handle, "head -c 16M /dev/zero > f; stat -c %s f");
    assert!(output.errors().contains(FULL), "{}", output.errors());
    let stored: u64 = output.text().trim().parse().unwrap();
    assert!((4 * MIB..=8 * MIB).contains(&stored), "{stored}");
    let output = client.run_privileged(&handle, "head -c 8M /dev/zero > /root/f");
    assert!(output.errors().contains(FULL), "{}", output.errors());
    assert_eq!(client.text(&other, "head -c 16M /dev/zero > f; stat -c %s f"), format!("{}\n", 16 * MIB));
    fs::write(disk.path("written-by-the-host"), vec![0; 1 << 20]).unwrap();
    // What was full can be emptied, and then holds something again.
    let again = "rm -f /root/f /home/vcap/f; head -c 2M /dev/zero > /root/g; stat -c %s /root/g";
    let output = client.run_privileged(&handle, again);
    assert_eq!(output.text(), format!("{}\n", 2 * MIB), "{}", output.errors());
}

#[test]
fn files_are_limited_softly_and_hard_and_all_is_lifted_again() {
    let disk = Xfs::mount("prjquota");
    let daemon = on(&disk);
    let mut client = daemon.connect();
    let (handle, other) = (client.create(), client.create());
    let asked = LimitDiskRequest {
        inode: Some(60),
        inode_soft: Some(50),
        block_soft: Some(4096),
        ..Default::default()
    };
    let kept = limit(&mut client, &handle, asked);
    assert_eq!(
        (kept.inode, kept.inode_soft, kept.block, kept.block_soft),
        (Some(60), Some(50), Some(0), Some(4096))
    );
    assert_eq!(limit(&mut client, &handle, LimitDiskRequest::default()), kept);
    let fill = "for i in $(seq 100); do : > n$i || break; done; echo $i";
    let output = client.run(&handle, fill);
    assert!(output.errors().contains(FULL), "{}", output.errors());
    assert_eq!(client.text(&other, fill), "100\n");
    let lifted =
        LimitDiskRequest { inode: Some(0), inode_soft: Some(0), block_soft: Some(0), ..Default::default() };
    let kept = limit(&mut client, &handle, lifted);
    assert_eq!((kept.inode, kept.inode_soft, kept.byte_soft), (Some(0), Some(0), Some(0)));
    assert_eq!(client.text(&handle, fill), "100\n");
}

#[test]
fn limits_outlive_the_daemon_and_go_with_the_container() {
    let disk = Xfs::mount("prjquota");
    let mut daemon = on(&disk);
    let mut client = daemon.connect();
    let handle = client.create();
    let kept = limit(&mut client, &handle, LimitDiskRequest { byte: Some(8 * MIB), ..Default::default() });
    for signal in [Signal::TERM, Signal::KILL] {
        daemon.signal(signal);
        daemon.wait();
        daemon.restart();
        client = daemon.connect();
        assert_eq!(limit(&mut client, &handle, LimitDiskRequest::default()), kept);
        let output = client.run(&handle, "head -c 16M /dev/zero > f");
        assert!(output.errors().contains(FULL), "{}", output.errors());
    }
    let layer = layer(&mut client, &handle);
    let project = programs::host("lsattr", &["-pd", layer.to_str().unwrap()]);
    let project = project.split_whitespace().next().unwrap();
    let size = |path: &Path| rustix::fs::statfs(path).unwrap().f_blocks;
    let whole = size(&disk.path(""));
    assert!(size(&layer) < whole, "the kernel tells the limit for the size");
    client.destroy(&handle);
    let again = disk.path("again");
    fs::create_dir(&again).unwrap();
    programs::host("chattr", &["-p", project, "+P", again.to_str().unwrap()]);
    // Nobody waits for it.
    eventually("its project has no limit any more", 30, || size(&again) == whole);
}

#[test]
fn without_the_mount_option_nothing_is_limited_and_that_is_told() {
    let disk = Xfs::mount("noquota");
    let daemon = on(&disk);
    assert!(daemon.log().contains("disk limits: none: XFS is not mounted with prjquota"), "{}", daemon.log());
    let mut check = Command::new(programs::find("wardend"));
    check.arg("--check").arg("--config").arg(daemon.directory().join("wardend.yml"));
    let told = String::from_utf8(programs::output(&mut check).stdout).unwrap();
    assert!(told.contains("missing  disk limits: none: XFS is not mounted with prjquota"), "{told}");
    let mut client = daemon.connect();
    let handle = client.create();
    let asked = LimitDiskRequest { byte: Some(MIB), ..Default::default() };
    assert_eq!(limit(&mut client, &handle, asked), LimitDiskResponse::default());
    assert_eq!(client.text(&handle, "head -c 4M /dev/zero > f; stat -c %s f"), format!("{}\n", 4 * MIB));
    assert_eq!(client.info(&handle).disk_stat, None);
}
