//! Parts of the kernel that a container's root asks for: sockets, modules, mounts of its own, limits, its own init.
//!
//! As in `escapes.rs`, each is tried with everything on, and with what stops it turned off. What this machine's kernel
//! does not have is told from what is refused by the error: ENOSYS, ENOENT or EAFNOSUPPORT rather than EPERM.

use warden_tests::attempt::{self, HOST_IDS, NO_CAPABILITIES, NO_FILTER, rewrites, rounds};
use warden_tests::{Connection, Daemon};

const UNCONFINED: (&str, &str) =
    ("server.confinement", "{capabilities: false, system_calls: false, read_only_paths: false}");

/// Sockets by which programs left their containers, or reach past them: the ciphers, AFS's calls, the hypervisor's.
#[test]
fn families_of_sockets() {
    for (family, kind, protocol) in [(38, 5, 0), (33, 2, 2), (40, 1, 0)] {
        let script = format!(
            "
step('socket', lambda: call(41, {family}, {kind}, {protocol}))
escaped()"
        );
        rounds(
            &script,
            &[
                (&[], "socket: EPERM", "the filter"),
                (&[NO_CAPABILITIES], "socket: EPERM", "the filter"),
                (&[NO_FILTER], "ESCAPED or socket: EAFNOSUPPORT", "nothing but a kernel without it"),
            ],
        );
    }
}

#[test]
fn code_for_the_kernel_and_another_kernel() {
    // Arguments that no call takes: who may make it is told that they are wrong.
    let script = "
said = []
for name, number, arguments in (('module', 313, (-1, b'', 0)), ('unload', 176, (b'not-there', 0)), ('kexec', 246, (0, -1, 0, 0))):
    try:
        call(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    except OSError as error:
        said.append(errno.errorcode[error.errno])
print(*said)";
    let missing = "ENOSYS ENOSYS ENOSYS";
    let refused = "EPERM EPERM EPERM";
    let or_missing = &format!("{refused} or {missing} or ENOSYS ENOSYS EPERM or EPERM EPERM ENOSYS");
    // Linux, by the order in which it looks, tells of wrong arguments or of what is not there.
    let possible = "EBADF ENOENT EINVAL or EBADF ENOENT ENOSYS or ENOSYS ENOSYS EINVAL";
    let possible = &format!("{possible} or {missing}");
    rounds(
        script,
        &[
            (&[], refused, "the filter"),
            (&[NO_FILTER], or_missing, "the capabilities, or a kernel without"),
            (&[UNCONFINED], or_missing, "the user namespace, or a kernel without"),
            (&[HOST_IDS[0], HOST_IDS[1], UNCONFINED], possible, "nothing"),
        ],
    );
}

#[test]
fn what_exploits_win_races_and_find_addresses_with() {
    let script = "
step('userfaultfd', lambda: call(323, 1))
escaped()";
    let off = "ESCAPED or userfaultfd: EPERM or userfaultfd: ENOSYS";
    rounds(
        script,
        &[(&[], "userfaultfd: EPERM", "the filter"), (&[NO_FILTER], off, "nothing, or the host's sysctl")],
    );
    let script = "
attributes = ctypes.create_string_buffer(struct.pack('IIQ', 1, 128, 0) + bytes(112))
step('perf', lambda: call(298, attributes, 0, -1, -1, 0))
escaped()";
    let off = "ESCAPED or perf: EACCES or perf: EPERM or perf: ENOENT";
    rounds(
        script,
        &[
            (&[], "perf: EPERM", "the filter"),
            (&[NO_FILTER], off, "the host's kernel.perf_event_paranoid"),
            (&[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES], "ESCAPED or perf: ENOENT", "nothing"),
        ],
    );
}

/// The kernel's code for file systems, which only administrators reach, and who has a user namespace of his own.
#[test]
fn a_file_system_in_a_namespace_of_its_own() {
    let script = "
step('unshare', lambda: result(libc.unshare(0x10000000 | 0x20000)))
step('mount', lambda: result(libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)))
escaped()";
    rounds(script, &[(&[], "unshare: EPERM", "the filter"), (&[NO_FILTER], "ESCAPED", "nothing")]);
}

/// Of its own network, of which root inside is no administrator.
#[test]
fn settings_of_the_network() {
    let script = &rewrites("/proc/sys/net/ipv4/ip_forward");
    let writable = ("server.confinement", "{read_only_paths: false}");
    rounds(
        script,
        &[
            (&[], "open: EACCES", "the capabilities"),
            (&[writable], "open: EACCES", "the capabilities"),
            (&[NO_CAPABILITIES], "open: EROFS", "the read-only path"),
            (&[UNCONFINED], "ESCAPED", "nothing: they are its own"),
        ],
    );
}

#[test]
fn raising_its_own_limits() {
    let script = "
kind, options, name = (b'cgroup', b'memory', 'memory.limit_in_bytes')
if not any(line.split()[0] == 'memory' and line.split()[1] != '0' for line in open('/proc/cgroups').readlines()[1:]):
    kind, options, name = (b'cgroup2', None, 'memory.max')
step('mount', lambda: result(libc.mount(b'none', b'/mnt', kind, 0, options)))
step('open', lambda: os.open('/mnt/' + name, os.O_WRONLY))
escaped()";
    rounds(
        script,
        &[
            (&[], "mount: EPERM", "the filter"),
            (&[NO_FILTER], "mount: EPERM", "the capabilities"),
            (&[NO_CAPABILITIES], "open: EACCES", "the user namespace"),
            (&[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES], "ESCAPED", "nothing"),
        ],
    );
    // And without the attempt nothing of it is in sight.
    rounds(
        "print(os.listdir('/sys/fs/cgroup'), {line.split(':')[2] for line in open('/proc/self/cgroup')})",
        &[(&[], r"[] {'/\n'}", "nothing is mounted there, and the names are the container's own")],
    );
}

/// Everything that root inside may do to its own init: it goes on, and tells of the ends of jobs.
#[test]
fn init_goes_on_whatever_is_sent_to_it() {
    let script = "
for number in range(1, 65):
    try: os.kill(1, number)
    except OSError as error: print(number, errno.errorcode[error.errno])
count = 0
try:
    while count < 200000: os.kill(1, 34); count += 1
except OSError as error: print(errno.errorcode[error.errno])
other = os.pidfd_open(1)
for number in (9, 19, 17, 15): call(424, other, number, 0, 0)
def refused(name, action):
    try: print(name, action())
    except OSError: pass
refused('priority', lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))
refused('scheduler', lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))
refused('affinity', lambda: os.sched_setaffinity(1, {0}))
refused('descriptor', lambda: call(438, other, 0, 0))
refused('memory', lambda: call(310, 1, ctypes.create_string_buffer(16), 0, 0, 0, 0) or None)
refused('madvise', lambda: call(440, other, 0, 0, 8, 0))
refused('release', lambda: call(448, other, 0))
print('done')";
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let output = client.run_privileged(&handle, attempt::inside(script));
    assert!(output.text().ends_with("done\n"), "{}{}", output.text(), output.errors());
    assert!(output.text().lines().count() <= 2, "{}", output.text());
    for round in 0..20 {
        let output = client.run(&handle, format!("echo {round}; sleep 0.01 & exit {round}"));
        assert_eq!((output.text(), output.status), (format!("{round}\n"), round));
    }
    client.destroy(&handle);
}

/// What the kernel counts for a user, it counts for whoever made the user's namespace, too: were that the host's root for
/// all, one container that takes everything would leave nothing to the others and to the host.
#[test]
fn what_the_kernel_counts_for_users_is_each_container_s_own() {
    // Holds on to what it got until its input ends.
    let take = "
libc.mq_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
def all_of(limit, action):
    count = 0
    try:
        while count < limit:
            action(count)
            count += 1
    except OSError: pass
    return count
queue = ctypes.create_string_buffer(struct.pack('llll', 0, 10, 8192, 0) + bytes(32))
got = [all_of(limits[0], lambda n: result(libc.inotify_init1(0))),
    all_of(limits[1], lambda n: result(libc.mq_open(f'/{os.getpid()}-{n}'.encode(), os.O_CREAT | os.O_RDWR, 0o600, queue)))]
print(*got, flush=True)";
    let everything = attempt::inside(&format!("limits = (900, 100){take}\nimport time\ntime.sleep(1000)"));
    let one = attempt::inside(&format!("limits = (1, 1){take}"));
    let taken = |client: &mut Connection, daemon: &Daemon, handle: &[u8]| {
        let job = client.spawn(handle, &everything);
        let output = daemon.depot(&client.id(handle)).join(format!("jobs/{job}/stdout"));
        let read = || std::fs::read_to_string(&output).unwrap_or_default();
        warden_tests::eventually("it has taken all", 20, || read().ends_with('\n'));
        read()
    };
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let (greedy, other) = (client.create(), client.create());
    let got = taken(&mut client, &daemon, &greedy);
    let counts: Vec<u32> = got.split_whitespace().map(|count| count.parse().unwrap()).collect();
    assert!(counts[0] >= 16 && counts[0] < 900 && counts[1] > 0 && counts[1] < 100, "limits stop it: {got}");
    assert_eq!(client.run(&greedy, &one).text(), "0 0\n", "nothing is left to it");
    assert_eq!(client.run(&other, &one).text(), "1 1\n", "the neighbour has its own");
    client.kill(&greedy);
    // The test's own harness, in which two namespaces are made by the same user: there the second one gets nothing.
    let both = "import subprocess, sys
def start(program):
    words = ['unshare', '--user', '--map-root-user', '--ipc', '/usr/bin/python3', '-c', program]
    return subprocess.Popen(words, stdout=subprocess.PIPE)
greedy = start(sys.argv[1])
greedy.stdout.readline()
print(start(sys.argv[2]).communicate()[0].decode())
greedy.kill()";
    let [greedy, other] = ["limits = (900, 100)", "limits = (1, 1)"].map(|limits| {
        let hold = if limits.contains("900") { "\nimport time\ntime.sleep(1000)" } else { "" };
        attempt::source(&format!("{limits}{take}{hold}"))
    });
    // By a user whom nothing else on this machine has.
    let user = (2_000_000_000 + std::process::id()).to_string();
    let words = [
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        both,
        &greedy,
        &other,
    ];
    let said = warden_tests::programs::host("setpriv", &words);
    assert!(said.starts_with("0 "), "two namespaces of one user share what is counted: {said}");
}

/// The process of a job is its user's before it is the job: others of that user may stop it there, and whoever waits for it
/// as vfork does waits for ever. Unprotected, about one start in ten hangs.
#[test]
fn who_stops_all_its_processes_keeps_no_others_from_being_started() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    for _ in 0..2 {
        client.spawn(&handle, attempt::inside("while True: libc.kill(-1, 19)"));
    }
    for _ in 0..40 {
        client.spawn(&handle, "true");
    }
    let output = client.run_privileged(&handle, "echo root is not kept waiting");
    assert_eq!(output.text(), "root is not kept waiting\n");
    client.kill(&handle);
}
