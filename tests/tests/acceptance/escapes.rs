//! Known ways out of containers, tried as the container's root.
//!
//! Each attempt is made with everything on, and again with what stops it turned off: then it succeeds, or stops at the
//! next barrier, which the table names. An attempt that nothing could let through would show nothing.
//! docs/threat-model.md lists them with their CVEs.

use warden_tests::attempt::{HOST_IDS, NO_CAPABILITIES, NO_FILTER, rewrites, rounds};
use warden_tests::{Daemon, attempt};

#[test]
fn mounting() {
    let script = "
step('mount', lambda: result(libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)))
escaped()";
    rounds(
        script,
        &[
            (&[], "mount: EPERM", "the filter"),
            (&[NO_FILTER], "mount: EPERM", "the capabilities"),
            (&[NO_CAPABILITIES], "ESCAPED", "nothing: it mounts in its own mount namespace"),
        ],
    );
}

#[test]
fn a_user_namespace_of_its_own() {
    let script = "
step('unshare', lambda: result(libc.unshare(0x10000000)))
escaped()";
    rounds(script, &[(&[], "unshare: EPERM", "the filter"), (&[NO_FILTER], "ESCAPED", "nothing")]);
}

#[test]
fn cgroup_release_agent() {
    let alone = "
step('unshare', lambda: result(libc.unshare(0x10000000 | 0x20000)))";
    let attempt = "
kind = next((line.split()[0] for line in open('/proc/cgroups') if line.split()[0] in ('cpu', 'pids')), 'cpu')
step('mount', lambda: result(libc.mount(b'none', b'/mnt', b'cgroup', 0, kind.encode())))
step('release_agent', lambda: os.open('/mnt/release_agent', os.O_WRONLY))
escaped()";
    let no_version_1 = "mount: EINVAL or mount: EBUSY or mount: ENODEV";
    let next = format!("{no_version_1} or mount: EPERM or release_agent: EACCES or release_agent: ENOENT");
    rounds(
        &format!("{alone}{attempt}"),
        &[
            (&[], "unshare: EPERM", "the filter"),
            (&[NO_FILTER], &next, "the cgroup namespace, whose root has no agent, and the user namespace"),
        ],
    );
    // No switch turns the namespaces off: without any, the same program gets to the agent, where there is version 1.
    let host = ["--mount", "--propagation", "private", "python3", "-c", &attempt::source(attempt)];
    let said = warden_tests::programs::host("unshare", &host);
    let expected = format!("ESCAPED or {no_version_1}");
    assert!(expected.split(" or ").any(|expected| said.trim() == expected), "{said}");
}

#[test]
fn opening_files_by_their_handles() {
    let script = "
handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128))
mount = ctypes.c_int()
# Without user namespaces /usr is an overlay that has no handles.
mapped = open('/proc/self/uid_map').read().split()[1] != '0'
place, inner = ('/usr', b'/usr/bin') if mapped else ('/dev', b'/dev/shm')
step('name', lambda: call(303, -100, inner, handle, ctypes.byref(mount), 0))
directory = os.open(place, os.O_RDONLY)
step('open', lambda: call(304, directory, handle, os.O_RDONLY))
escaped()";
    rounds(
        script,
        &[
            (&[], "open: EPERM", "the filter"),
            (&[NO_FILTER], "open: EPERM", "the capabilities"),
            (&[NO_CAPABILITIES], "open: EPERM", "the user namespace"),
            (&[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES], "ESCAPED", "nothing"),
        ],
    );
}

#[test]
fn writing_to_the_kernel_s_settings() {
    let script = &rewrites("/proc/sys/kernel/core_pattern");
    let writable = ("server.confinement", "{read_only_paths: false}");
    rounds(
        script,
        &[
            (&[], "open: EACCES", "the user namespace"),
            (&HOST_IDS, "open: EROFS", "the read-only path"),
            (&[HOST_IDS[0], HOST_IDS[1], writable], "ESCAPED", "nothing"),
        ],
    );
}

#[test]
fn sysrq_trigger() {
    let script = "
step('open', lambda: os.open('/proc/sysrq-trigger', os.O_WRONLY))
escaped()";
    let writable = ("server.confinement", "{read_only_paths: false}");
    rounds(
        script,
        &[
            (&[], "open: EACCES or open: ENOENT", "the user namespace"),
            (&HOST_IDS, "open: EROFS or open: ENOENT", "the read-only path"),
            (&[HOST_IDS[0], HOST_IDS[1], writable], "ESCAPED or open: ENOENT", "nothing"),
        ],
    );
}

#[test]
fn the_kernel_s_memory() {
    let script = "
file = step('open', lambda: os.open('/proc/kcore', os.O_RDONLY))
if step('read', lambda: os.read(file, 4)) == b'':
    print('empty')
    sys.exit()
escaped()";
    let unmasked = ("server.confinement", "{masked_paths: false}");
    let also_capable = ("server.confinement", "{masked_paths: false, capabilities: false}");
    rounds(
        script,
        &[
            (&[], "empty or open: ENOENT", "the masked path"),
            (&[unmasked], "open: EACCES or open: EPERM or open: ENOENT", "the user namespace"),
            (&[HOST_IDS[0], HOST_IDS[1], unmasked], "open: EPERM or open: ENOENT", "the capabilities"),
            (&[HOST_IDS[0], HOST_IDS[1], also_capable], "ESCAPED or open: ENOENT", "nothing"),
        ],
    );
}

#[test]
fn uncovering_a_masked_path() {
    let script = "
step('umount', lambda: result(libc.umount2(b'/proc/keys', 2)))
step('open', lambda: os.open('/proc/keys', os.O_RDONLY))
escaped()";
    rounds(
        script,
        &[
            (&[], "umount: EPERM", "the filter"),
            (&[NO_FILTER], "umount: EPERM", "the capabilities"),
            (&[NO_CAPABILITIES], "umount: EINVAL", "the lock"),
            (&[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES], "ESCAPED", "nothing"),
        ],
    );
}

#[test]
fn the_program_of_init() {
    let script = "
step('open', lambda: os.open('/proc/1/exe', os.O_RDONLY))
escaped()";
    rounds(
        script,
        &[
            (&[], "open: EACCES", "init, which nobody inside can trace"),
            (&[NO_CAPABILITIES], "open: EACCES", "the same"),
            (&HOST_IDS, "open: EACCES", "the capabilities, of which init has more"),
            (&[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES], "ESCAPED", "nothing"),
        ],
    );
}

#[test]
fn tracing_init() {
    let script = "
step('seize', lambda: call(101, 0x4206, 1, 0, 0))
escaped()";
    rounds(
        script,
        &[
            (&[], "seize: EPERM", "init, which nobody inside can trace"),
            (&[NO_CAPABILITIES], "seize: EPERM", "the same"),
            (&HOST_IDS, "seize: EPERM", "the capabilities, of which init has more"),
            (&[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES], "ESCAPED", "nothing"),
        ],
    );
}

/// Of the device that makes disks out of the host's files, which is there on every machine and harms none when it is opened.
#[test]
fn the_host_s_devices_by_a_node_of_its_own() {
    let script = "
step('mknod', lambda: os.mknod('/dev/disks', 0o20600, os.makedev(10, 237)))
step('open', lambda: os.open('/dev/disks', os.O_RDONLY))
escaped()";
    let all_devices = ("server.confinement", "{devices: false}");
    rounds(
        script,
        &[
            (&[], "mknod: EPERM", "the user namespace"),
            (&HOST_IDS, "mknod: EPERM or open: EPERM", "the devices controller"),
            (&[HOST_IDS[0], HOST_IDS[1], all_devices], "ESCAPED", "nothing"),
        ],
    );
}

#[test]
fn typing_into_a_terminal() {
    let script = "
import fcntl, pty, termios
master, slave = pty.openpty()
if os.fork():
    os.wait()
    sys.exit()
os.setsid()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
step('type', lambda: fcntl.ioctl(slave, 0x5412, b'x'))
escaped()";
    rounds(
        script,
        &[
            (&[], "type: EPERM", "the filter"),
            (&[NO_FILTER], "ESCAPED or type: EIO", "nothing, or dev.tty.legacy_tiocsti of Linux 6.2"),
        ],
    );
}

#[test]
fn io_uring() {
    let script = "
step('setup', lambda: call(425, 1, ctypes.create_string_buffer(120)))
escaped()";
    let off = "ESCAPED or setup: ENOSYS or setup: EPERM";
    rounds(
        script,
        &[(&[], "setup: EPERM", "the filter"), (&[NO_FILTER], off, "nothing, or the host's sysctl")],
    );
}

#[test]
fn programs_for_the_kernel() {
    let script = "
step('bpf', lambda: call(321, 0, ctypes.create_string_buffer(struct.pack('IIIII', 2, 4, 4, 1, 0) + bytes(100)), 120))
escaped()";
    rounds(
        script,
        &[
            (&[], "bpf: EPERM", "the filter"),
            (&[HOST_IDS[0], HOST_IDS[1], NO_FILTER], "bpf: EPERM or ESCAPED", "unprivileged_bpf_disabled"),
            (&[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES], "ESCAPED", "nothing"),
        ],
    );
}

/// acct(2) stands for what only the machine's administrator may do, because a call of it can be made that changes nothing.
#[test]
fn administration_of_the_machine() {
    let script = "
step('acct', lambda: result(libc.acct(b'/nowhere/at/all')))
escaped()";
    rounds(
        script,
        &[
            (&[], "acct: EPERM", "the filter"),
            (&[NO_FILTER], "acct: EPERM", "the capabilities"),
            (&[NO_CAPABILITIES], "acct: EPERM", "the user namespace"),
            (
                &[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES],
                "acct: ENOENT or acct: ENOSYS",
                "nothing but the path",
            ),
        ],
    );
}

#[test]
fn what_the_filter_refuses_and_what_it_does_not_know() {
    let script = "
refused = {'mount': 165, 'umount2': 166, 'pivot_root': 155, 'setns': 308, 'unshare': 272, 'open_tree': 428,
  'move_mount': 429, 'fsopen': 430, 'mount_setattr': 442, 'kexec_load': 246, 'kexec_file_load': 320, 'init_module': 175,
  'finit_module': 313, 'delete_module': 176, 'swapon': 167, 'swapoff': 168, 'reboot': 169, 'settimeofday': 164,
  'keyctl': 250, 'add_key': 248, 'request_key': 249, 'perf_event_open': 298, 'userfaultfd': 323, 'io_uring_setup': 425,
  'iopl': 172, 'syslog': 103, 'quotactl': 179, 'move_pages': 279, 'pidfd_getfd': 438, 'kcmp': 312}
# x32's getpid, clone3, and a call of a later kernel.
unknown = {'x32': 0x40000000 + 39, 'clone3': 435, 'later': 600}
for names, wanted in ((refused, errno.EPERM), (unknown, errno.ENOSYS)):
    for name, number in names.items():
        ctypes.set_errno(0)
        # Arguments that no call takes.
        value = libc.syscall(ctypes.c_long(number), -1, -1, -1, -1, -1, -1)
        if value != -1 or ctypes.get_errno() != wanted:
            print(name, value, errno.errorcode.get(ctypes.get_errno()))
# A personality without protection.
for name, number, argument in (('personality', 135, 0x0040000),):
    if libc.syscall(ctypes.c_long(number), argument, 1, 0) != -1 or ctypes.get_errno() != errno.EPERM:
        print(name)
print(open('/proc/self/status').read().split('Seccomp:')[1].split()[0])";
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    for privileged in [true, false] {
        let script = attempt::inside(script);
        let output =
            if privileged { client.run_privileged(&handle, script) } else { client.run(&handle, script) };
        assert_eq!(output.text(), "2\n", "privileged: {privileged}: {}", output.errors());
    }
    rounds(
        "print(open('/proc/self/status').read().split('Seccomp:')[1].split()[0])",
        &[(&[NO_FILTER], "0", "")],
    );
}

#[test]
fn the_keyring_of_who_started_the_daemon() {
    // The numbers of the session keyrings of two containers: the same if both are the daemon's.
    let script = attempt::inside("print(call(250, 0, ctypes.c_int(-3), 0))");
    for (settings, own) in [("{system_calls: false}", true), ("{system_calls: false, keyring: false}", false)]
    {
        // Without user namespaces, whose users have their own default.
        let daemon = Daemon::with(&[HOST_IDS[0], HOST_IDS[1], ("server.confinement", settings)]);
        let mut client = daemon.connect();
        let (one, other) = (client.create(), client.create());
        let rings = [one, other].map(|handle| client.run_privileged(&handle, &script).text());
        assert!(rings[0].trim().parse::<i64>().is_ok(), "{rings:?}");
        assert_eq!(rings[0] != rings[1], own, "{settings}: {rings:?}");
    }
}

#[test]
fn tasks_without_end() {
    let script = "
import signal
children = []
try:
    while len(children) < 400:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError as error:
    print(errno.errorcode[error.errno], len(children) // 64)
for child in children:
    os.kill(child, signal.SIGKILL)";
    // The number is how many times 64 were started: another limit lets more be.
    rounds(
        script,
        &[
            (&[("server.max_tasks", "64")], "EAGAIN 0", "the limit of tasks"),
            (&[("server.max_tasks", "140")], "EAGAIN 2", "a higher one"),
        ],
    );
}
