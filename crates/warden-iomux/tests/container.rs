//! What a container is, seen from inside and from the host. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use support::{Container, VCAP, bind};
use warden_init::byte_string::ByteString;
use warden_init::confinement::Confinement;
use warden_init::spec::{Bind, Cgroup, InsideFile};
use warden_iomux::message::{Event, ExitCause};

fn status_field(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_namespace_is_the_containers_own() {
    let container = Container::new();
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        let link = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(link(container.init), link(std::process::id() as i32), "{namespace}");
    }
    let start = container.spec.ids.unwrap().host_start;
    let map = fs::read_to_string(format!("/proc/{}/uid_map", container.init)).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &start.to_string(), "65536"]);
    assert_eq!(status_field(container.init, "Uid:"), [start; 4].map(|id| id.to_string()).join(" "));
    assert_eq!(status_field(container.init, "Groups:"), "");
    assert_eq!(container.processes(), [container.init]);
}

#[test]
fn the_init_is_in_its_cgroups_and_sees_itself_at_their_root() {
    let mut container = Container::new();
    assert!(!container.spec.cgroups.is_empty());
    let outside = fs::read_to_string(format!("/proc/{}/cgroup", container.init)).unwrap();
    for cgroup in &container.spec.cgroups {
        let (Cgroup::V1(path) | Cgroup::V2(path)) = cgroup;
        let name = path.as_path().file_name().unwrap().to_str().unwrap();
        let prefix = match cgroup {
            Cgroup::V1(path) => {
                format!(":{}:", path.as_path().parent().unwrap().file_name().unwrap().display())
            }
            Cgroup::V2(_) => "0::".to_owned(),
        };
        let line = outside.lines().find(|line| line.contains(&prefix)).unwrap();
        assert!(line.ends_with(&format!("{prefix}/{name}")), "{line}");
        let members = fs::read_to_string(path.as_path().join("cgroup.procs")).unwrap();
        assert_eq!(members, format!("{}\n", container.init));
    }
    let inside = container.run("cat /proc/self/cgroup").stdout;
    for cgroup in &container.spec.cgroups {
        if let Cgroup::V1(path) = cgroup {
            let controller = path.as_path().parent().unwrap().file_name().unwrap().to_str().unwrap();
            assert!(inside.contains(&format!(":{controller}:/\n")), "{inside}");
        } else {
            assert!(inside.contains("0::/\n"), "{inside}");
        }
    }
}

#[test]
fn the_host_sees_no_mount_of_it_and_it_sees_no_path_of_the_host() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut container = Container::new();
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    let outcome = container.run("cat /proc/self/mounts /proc/self/mountinfo");
    let depot = container.directory.path().file_name().unwrap().to_str().unwrap();
    assert!(!outcome.stdout.contains(depot), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("staging"), "{}", outcome.stdout);
    container.kill();
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

#[test]
fn the_file_tree_is_that_of_a_container() {
    let mut container = Container::new();
    let script = r#"
        hostname; cat /etc/hostname
        stat -c '%n %a %F' /dev/null /dev/shm /dev/pts /proc /tmp
        readlink /dev/fd /dev/ptmx /dev/stdout
        stat -c '%n %U %a' /home/vcap
        grep vcap /etc/passwd /etc/group
        echo shm > /dev/shm/a && cat /dev/shm/a
        head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; echo gone > /dev/null
        echo full > /dev/full
        python3 -c 'import os; m, s = os.openpty(); print(os.ttyname(s))'
        touch /sys/a /usr/a /proc/sys/kernel/hostname 2>&1 | wc -l
    "#;
    let outcome = container.run(script);
    let expected = format!(
        "testcontain\ntestcontain\n/dev/null 666 character special file\n/dev/shm 1777 directory\n/dev/pts 755 directory\n\
         /proc 555 directory\n/tmp 1777 directory\n/proc/self/fd\npts/ptmx\n/proc/self/fd/1\n/home/vcap vcap 755\n\
         /etc/passwd:vcap:*:{VCAP}:{VCAP}::/home/vcap:/bin/bash\n/etc/group:vcap:x:{VCAP}:\nshm\n3\n3\n/dev/pts/0\n3\n"
    );
    assert_eq!(outcome.stdout, expected, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
}

#[test]
fn files_belong_to_mapped_ids_on_disk() {
    let mut container = Container::new();
    let outcome = container.run_as_root(
        "touch /root/r; echo > /home/vcap/v; chown vcap /home/vcap/v; stat -c %u /etc/ld.so.cache",
    );
    assert_eq!(outcome.stdout, "0\n", "{}", outcome.stderr);
    let start = container.spec.ids.unwrap().host_start;
    let upper = container.layout.directory().join("tmp/rootfs");
    assert_eq!(fs::metadata(upper.join("root/r")).unwrap().uid(), start);
    assert_eq!(fs::metadata(upper.join("home/vcap/v")).unwrap().uid(), start + VCAP);
}

#[test]
fn containers_share_a_lower_layer_and_not_what_they_write() {
    let mut first = Container::new();
    let lower = first.spec.root.lower.clone();
    let mut second = Container::with(|spec, _| spec.root.lower = lower);
    assert_eq!(first.run_as_root("echo mine > /var/a; rm /etc/ld.so.cache; ls /var").stdout, "a\n");
    assert_eq!(second.run_as_root("ls /var; stat -c %u /etc/ld.so.cache").stdout, "0\n");
}

#[test]
fn read_only_mounts_stay_read_only_for_the_containers_root() {
    let source = |directory: &Path| directory.join("shared");
    let mut container = Container::with(|spec, directory| {
        // What stands behind the capabilities and the filter.
        spec.confinement = Confinement::NONE;
        fs::create_dir(source(directory)).unwrap();
        fs::write(source(directory).join("file"), "host\n").unwrap();
        spec.binds.push(bind(source(directory), "/mnt/shared", false));
    });
    let script = r#"
        cat /mnt/shared/file; stat -c '%u %g' /mnt/shared/file
        for place in /mnt/shared /usr; do
            touch $place/new
            mount -o remount,rw $place; mount -o remount,rw,bind $place
            mkdir -p /tmp/again && mount --bind $place /tmp/again && mount -o remount,rw,bind /tmp/again
            touch /tmp/again/new; umount /tmp/again
            unshare -Urm sh -c "mount -o remount,rw,bind $place; touch $place/new"
            unshare -m sh -c "mount --rbind $place /tmp/again; mount -o remount,rw,bind /tmp/again; touch /tmp/again/new"
        done 2>/dev/null
        test -e /mnt/shared/new -o -e /usr/new && echo written
        cat /mnt/shared/file
    "#;
    let outcome = container.run_as_root(script);
    assert_eq!(outcome.stdout, "host\n0 0\nhost\n", "{}", outcome.stderr);
    assert!(!source(container.directory.path()).join("new").exists() && !Path::new("/usr/new").exists());
}

#[test]
fn writable_binds_are_the_hosts_own_files_without_its_powers() {
    let mut container = Container::with(|spec, directory| {
        // What stands behind the capabilities and the filter.
        spec.confinement = Confinement::NONE;
        let source = directory.join("open");
        fs::create_dir(&source).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o777)).unwrap();
        spec.binds.push(bind(source, "/data", true));
    });
    let script = "cp /bin/id /data/id && chmod u+s /data/id; stat -c %u /data/id; grep ' /data ' /proc/mounts | cut -d' ' -f4";
    let outcome = container.run_as_root(script);
    assert!(outcome.stdout.starts_with("0\nrw,nosuid,nodev"), "{outcome:?}");
    let file = fs::metadata(container.directory.path().join("open/id")).unwrap();
    assert_eq!(file.uid(), container.spec.ids.unwrap().host_start);
    let remount = container.run_as_root(
        "mount -o remount,bind,suid,dev /data 2>/dev/null; grep -c 'nosuid,nodev.* ' /proc/mounts",
    );
    assert!(remount.stdout.trim().parse::<u32>().unwrap() > 0);
    assert!(container.run_as_root("grep ' /data ' /proc/mounts").stdout.contains("nosuid,nodev"));
}

#[test]
fn binds_take_any_path_and_files_as_well() {
    let odd = b"a, b:c\\d\ne\xff'\"";
    let odd_path = |directory: &Path| directory.join(ByteString(odd.to_vec()).as_path());
    let mut container = Container::with(|spec, directory| {
        fs::create_dir(odd_path(directory)).unwrap();
        fs::write(odd_path(directory).join("x"), "odd\n").unwrap();
        fs::write(directory.join("file"), "file\n").unwrap();
        let destination = ByteString([b"/deep/er/", &odd[..]].concat());
        spec.binds.push(Bind { source: odd_path(directory).into(), destination, writable: false });
        spec.binds.push(bind(directory.join("file"), "/etc/new/file", false));
        spec.binds.push(bind(directory.join("file"), "/etc/group-", false));
    });
    let outcome = container.run("cat /deep/er/*/x /etc/new/file /etc/group-; echo > /etc/new/file");
    assert_eq!(outcome.stdout, "odd\nfile\nfile\n", "{}", outcome.stderr);
    assert_eq!(outcome.cause, ExitCause::Code(1));
}

#[test]
fn links_of_an_image_lead_nowhere_but_into_the_container() {
    let trap = |directory: &Path| directory.join("trap");
    let mut container = Container::with(|spec, directory| {
        fs::create_dir(trap(directory)).unwrap();
        fs::write(trap(directory).join("victim"), "unharmed").unwrap();
        let lower = spec.root.lower.as_path();
        for name in ["etc/known", "etc/mtab"] {
            symlink(trap(directory).join("victim"), lower.join(name)).unwrap();
        }
        symlink(trap(directory), lower.join("srv")).unwrap();
        symlink("/var", lower.join("inside")).unwrap();
        fs::remove_dir(lower.join("home")).unwrap();
        symlink("../../../../../../../../var", lower.join("home")).unwrap();
        let file = |path: &str| InsideFile { path: path.into(), mode: 0o640, content: "new\n".into() };
        spec.files.extend([file("/etc/known"), file("/inside/deep/file")]);
        spec.binds.push(bind(directory.join("lower"), "/inside/bound", false));
    });
    let outcome = container.run_as_root(
        "cat /etc/known /var/deep/file; ls /var/bound/etc/passwd; stat -c %a /etc/known; ls -d /var/vcap; readlink /etc/mtab",
    );
    assert_eq!(
        outcome.stdout, "new\nnew\n/var/bound/etc/passwd\n640\n/var/vcap\n/proc/self/mounts\n",
        "{}",
        outcome.stderr
    );
    assert_eq!(fs::read_dir(trap(container.directory.path())).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(trap(container.directory.path()).join("victim")).unwrap(), "unharmed");
}

/// Starts a container that cannot be built; gives what was said of it.
fn refused(change: impl FnOnce(&mut warden_init::spec::Spec, &Path)) -> (String, ByteString, i32) {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut container = Container::start(change);
    let said = container.client.until(|event| match event {
        Event::SetupFailed { step, object, errno } => {
            Some((String::from_utf8(step.0).unwrap(), object, errno))
        }
        _ => None,
    });
    assert_eq!(container.client.next(), None);
    assert!(!container.wait());
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    for cgroup in &container.spec.cgroups {
        let (Cgroup::V1(path) | Cgroup::V2(path)) = cgroup;
        assert_eq!(fs::read_to_string(path.as_path().join("cgroup.procs")).unwrap_or_default(), "");
    }
    said
}

#[test]
fn a_container_that_cannot_be_built_says_why_and_leaves_nothing() {
    const ENOENT: i32 = 2;
    const ENOTDIR: i32 = 20;
    let lower = refused(|spec, _| spec.root.lower = "/nowhere/lower".into());
    assert_eq!(lower, ("stage".into(), "/nowhere/lower".into(), ENOENT));
    let source = refused(|spec, _| spec.binds.push(bind("/nowhere/bind", "/a", false)));
    assert_eq!(source, ("stage".into(), "/nowhere/bind".into(), ENOENT));
    let place = refused(|spec, _| spec.binds.push(bind("/usr", "/etc/passwd/below", true)));
    assert_eq!(place, ("mount at".into(), "/etc/passwd/below".into(), ENOTDIR));
    let link = refused(|spec, _| {
        fs::remove_dir(spec.root.lower.as_path().join("proc")).unwrap();
        symlink("/etc", spec.root.lower.as_path().join("proc")).unwrap();
    });
    assert_eq!(link, ("mount at".into(), "/proc".into(), ENOTDIR));
    let cgroup = refused(|spec, _| spec.cgroups.push(Cgroup::V1("/nowhere/group".into())));
    assert_eq!(cgroup, ("join the cgroup".into(), "/nowhere/group".into(), ENOENT));
}

#[test]
fn an_images_own_vcap_gets_the_containers_id() {
    let mut container = Container::with(|spec, _| {
        let lower = spec.root.lower.as_path();
        let passwd = "root:x:0:0::/root:/bin/bash\nvcap:x:1000:1000:The User:/srv/home:/bin/sh\n";
        fs::write(lower.join("etc/passwd"), passwd).unwrap();
        fs::write(lower.join("etc/group"), "root:x:0:\nvcap:x:1000:daemon\n").unwrap();
        fs::create_dir_all(lower.join("srv/home/deep")).unwrap();
        for path in ["srv/home", "srv/home/deep"] {
            std::os::unix::fs::chown(lower.join(path), Some(1000), Some(1000)).unwrap();
        }
        symlink("/etc/passwd", lower.join("srv/home/link")).unwrap();
        std::os::unix::fs::lchown(lower.join("srv/home/link"), Some(1000), Some(1000)).unwrap();
    });
    let outcome =
        container.run("grep vcap /etc/passwd /etc/group; pwd; stat -c '%u %g' . deep link /etc/passwd");
    let owned = format!("{VCAP} {VCAP}\n").repeat(3);
    let expected = format!(
        "/etc/passwd:vcap:*:{VCAP}:{VCAP}:The User:/srv/home:/bin/sh\n/etc/group:vcap:x:{VCAP}:daemon\n/srv/home\n{owned}0 0\n"
    );
    assert_eq!(outcome.stdout, expected, "{}", outcome.stderr);
}

#[test]
fn without_a_user_namespace_ids_are_the_hosts() {
    let mut container = Container::with(|spec, _| spec.ids = None);
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    assert_eq!(fs::read_link(format!("/proc/{}/ns/user", container.init)).unwrap(), own);
    let outcome = container
        .run("id -u; touch /home/vcap/a; grep -c . /proc/mounts >/dev/null && echo seen; echo > /usr/a");
    assert_eq!(outcome.stdout, format!("{VCAP}\nseen\n"), "{}", outcome.stderr);
    let file = container.layout.directory().join("tmp/rootfs/home/vcap/a");
    assert_eq!(fs::metadata(file).unwrap().uid(), VCAP);
}

#[test]
fn a_source_that_cannot_be_idmapped_is_shown_with_the_owners_it_has() {
    // proc is one: it does not know idmapped mounts.
    let mut container =
        Container::with(|spec, _| spec.binds.push(bind("/proc/sys/kernel", "/mnt/kernel", false)));
    let outcome =
        container.run("stat -c %u /mnt/kernel/ostype; cat /mnt/kernel/ostype; echo > /mnt/kernel/ostype");
    assert_eq!(outcome.stdout, "65534\nLinux\n", "{}", outcome.stderr);
}

#[test]
fn the_init_is_out_of_reach_for_the_containers_root() {
    let mut container = Container::new();
    let script = r#"
        for file in mem maps exe fd environ root cwd ns/mnt stack syscall auxv; do
            head -c 1 /proc/1/$file && echo "read $file"; ls -l /proc/1/$file/. && echo "listed $file"
        done 2>/dev/null
        readlink /proc/1/exe && echo exe
        python3 - <<'END'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
for request in (PTRACE_ATTACH, PTRACE_SEIZE):
    if libc.ptrace(request, 1, 0, 0) == 0: print("traced")
pidfd = os.pidfd_open(1)
if libc.syscall(438, pidfd, 0, 0) >= 0: print("took a descriptor")
if libc.setns(pidfd, 0x20000) == 0: print("entered")
class Iovec(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
room = ctypes.create_string_buffer(8)
local, remote = Iovec(ctypes.addressof(room), 8), Iovec(0x400000, 8)
if libc.process_vm_readv(1, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) > 0: print("read memory")
END
        for signal in KILL STOP TERM INT HUP SEGV USR1 CONT; do kill -$signal 1; done
        sleep 0.1; echo alive
    "#;
    let outcome = container.run_as_root(script);
    assert_eq!(outcome.stdout, "alive\n", "{}", outcome.stderr);
    assert_eq!(container.run("echo still").stdout, "still\n");
}

#[test]
fn a_depot_may_be_deep() {
    let mut container = Container::with(|_, _| {});
    assert_eq!(container.run("echo near").stdout, "near\n");
    container.kill();
    let container = Container::start_in(&"long/".repeat(60), |_, _| {});
    let ready = |event| matches!(event, Event::Ready { .. }).then_some(());
    container.client.until(ready);
    container.connect().until(ready);
}

#[test]
fn a_container_can_be_started_by_hand_where_one_was_and_only_once() {
    let mut container = Container::new();
    assert_eq!(container.run_as_root("echo kept > /var/a").cause, ExitCause::Code(0));
    let pids = fs::read_to_string(container.layout.iomux_pid()).unwrap();
    assert!(container.start_twice().contains("listen on"));
    assert_eq!(container.run("cat /var/a").stdout, "kept\n");
    assert_eq!(fs::read_to_string(container.layout.iomux_pid()).unwrap(), pids);
    container.kill();
    container.start_again();
    assert_eq!(container.run("cat /var/a").stdout, "kept\n");
}
