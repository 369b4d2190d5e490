//! What must not leak into a container: descriptors, sockets' names, what masks hide, settings of the kernel.
//!
//! As in `escapes.rs`, each is looked for with everything on, and where what keeps it out is left out.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::StatVfsMountFlags;
use warden_tests::attempt::{self, HOST_IDS, NO_CAPABILITIES, rounds};
use warden_tests::{Connection, Daemon, programs};

/// Of the container's init.
fn init(daemon: &Daemon, client: &mut Connection, handle: &[u8]) -> String {
    let id = client.id(handle);
    fs::read_to_string(daemon.depot(&id).join("run/wshd.pid")).unwrap().trim().to_owned()
}

/// Looks for a way out through every descriptor and through the working directory, which may be one that is reached by a
/// descriptor's name only.
const A_WAY_OUT: &str = "
own = os.stat('/')
directories = ['/proc/self/cwd'] + [f'/proc/self/fd/{n}' for n in range(1024)]
for path in directories:
    try:
        os.chdir(path)
        os.chdir('../' * 20)
        there = os.stat('.')
        if (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            escaped()
    except OSError:
        pass
print('nothing')";

/// Speaks to a container's wshd as iomux does, and hands over the descriptors that iomux never would: the host's root for
/// a job's stdin. Its two arguments are the socket and what the job runs.
const A_CARELESS_CLIENT: &str = r#"
import json, os, socket, sys, tempfile
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
s.settimeout(20)
s.send(json.dumps({"hello": {"version": 1}}).encode())
# Python itself takes no directory for its stdin.
words = ["-c", "exec 9<&0 </dev/null; exec python3 -c \"$0\"", sys.argv[2]]
process = {"program": "/bin/sh", "arguments": words, "user": "root", "lang": "C", "rlimits": []}
output = tempfile.TemporaryFile()
root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
request = {"spawn": {"job": 1 << 20, "process": process, "outputs_given": True}}
socket.send_fds(s, [json.dumps(request).encode()], [root, output.fileno(), output.fileno()])
while True:
    reply = json.loads(s.recv(65536))
    if "spawn_failed" in reply: sys.exit(str(reply))
    if "exited" in reply: break
s.send(json.dumps({"release": {"job": 1 << 20}}).encode())
output.seek(0)
print(output.read().decode())
"#;

#[test]
fn a_descriptor_of_the_host_s_root() {
    rounds(
        A_WAY_OUT,
        &[(&[], "nothing", "init's care for its descriptors"), (&HOST_IDS, "nothing", "the same")],
    );
    // Without that care, and with everything else on, the same program in the same container is out.
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let socket = daemon.depot(&client.id(&handle)).join("run/wshd.sock");
    let arguments = ["-c", A_CARELESS_CLIENT, socket.to_str().unwrap(), &attempt::source(A_WAY_OUT)];
    assert_eq!(programs::host("python3", &arguments).trim(), "ESCAPED");
    // wsh does not hand a directory over, and keeps the others of its own descriptors to itself.
    let wsh = |standard_input: Stdio| {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" --socket \"$1\" python3 -c \"$2\" 7</"]);
        command.arg(programs::find("wsh")).arg(&socket).arg(attempt::source(A_WAY_OUT)).stdin(standard_input);
        let output = command.current_dir("/").output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
    };
    assert_eq!(wsh(Stdio::null()).trim(), "nothing");
    let refused = wsh(File::open("/").unwrap().into());
    assert!(refused.contains("is a directory, which is not handed to a container"), "{refused}");
}

/// As containerd's, which a container in the host's network namespace could talk to.
#[test]
fn an_abstract_socket_of_the_host() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let daemon = Daemon::own();
    let name = format!("{}-abstract", daemon.mark());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let script = format!(
        "
s = socket.socket(socket.AF_UNIX)
step('connect', lambda: s.connect('\\0{name}'))
escaped()"
    );
    let mut client = daemon.connect();
    let handle = client.create();
    assert_eq!(client.run_privileged(&handle, attempt::inside(&script)).text(), "connect: ECONNREFUSED\n");
    // In every namespace of the container but for its network.
    let init = init(&daemon, &mut client, &handle);
    let but_network =
        ["--target", &init, "--user", "--mount", "--pid", "--ipc", "--uts", "--cgroup", "python3", "-c"];
    let said = programs::host("nsenter", &[&but_network[..], &[&attempt::source(&script)]].concat());
    assert_eq!(said.trim(), "ESCAPED", "it is the network namespace that keeps the name away");
}

#[test]
fn what_the_masks_hide() {
    // Of files that everybody may read, and of one for root, and of a directory: what this kernel has.
    let script = "
seen = [path for path in ('/proc/interrupts', '/proc/keys', '/proc/timer_list')
    if os.path.exists(path) and os.access(path, os.R_OK) and open(path).read(1)]
seen += [path for path in ('/sys/firmware',) if os.listdir(path)]
print(*seen)";
    let unmasked = ("server.confinement", "{masked_paths: false}");
    rounds(
        script,
        &[
            (&[], "", "the masks"),
            (&HOST_IDS, "", "the masks"),
            (
                &[unmasked],
                "/proc/interrupts /proc/keys /sys/firmware or /proc/interrupts /sys/firmware",
                "the user namespace, for one",
            ),
            (
                &[HOST_IDS[0], HOST_IDS[1], unmasked],
                "/proc/interrupts /proc/keys /proc/timer_list /sys/firmware or /proc/interrupts /proc/keys /sys/firmware",
                "nothing",
            ),
        ],
    );
}

/// Every way around a mask for a root that has all capabilities and all system calls.
#[test]
fn masks_and_read_only_paths_stay_where_root_may_unmount() {
    let script = "
def tried(name, action):
    try:
        action()
        print(name, flush=True)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL, errno.EACCES, errno.EROFS): print(name, error)
os.makedirs('/tmp/place')
below = os.open('/proc', os.O_RDONLY)
setting = '/proc/sys/kernel/hostname'
for path in (b'/proc/keys', b'/proc/interrupts', b'/sys/firmware', b'/proc/sys'):
    for flags in (0, 2):
        tried(f'umount {path} {flags}', lambda: result(libc.umount2(path, flags)))
    tried(f'move {path}', lambda: result(libc.mount(path, b'/tmp/place', None, 8192, None)))
tried('remount', lambda: result(libc.mount(None, b'/proc/sys', None, 32 | 4096, None)))
tried('bind what is below', lambda: result(libc.mount(b'/proc', b'/tmp/place', None, 4096, None)))
tried('open_tree', lambda: call(428, -100, b'/proc', 1))
tried('another proc', lambda: result(libc.mount(b'none', b'/tmp/place', b'proc', 0, None)))
tried('another sysfs', lambda: result(libc.mount(b'none', b'/tmp/place', b'sysfs', 0, None)))
if os.fork() == 0:
    tried('nested', lambda: result(libc.unshare(0x10000000 | 0x20000)) and None)
    tried('nested umount', lambda: result(libc.umount2(b'/proc/interrupts', 2)))
    tried('nested proc', lambda: result(libc.mount(b'none', b'/tmp/place', b'proc', 0, None)))
    os._exit(0)
os.wait()
# All of it goes away together, or nothing of it.
result(libc.umount2(b'/proc', 2))
tried('another proc without the first', lambda: result(libc.mount(b'none', b'/tmp/place', b'proc', 0, None)))
read = os.open('interrupts', os.O_RDONLY, dir_fd=below)
if os.read(read, 1): print('below')
";
    let said = |settings: &[(&str, &str)]| {
        let daemon = Daemon::with(settings);
        let mut client = daemon.connect();
        let handle = client.create();
        let output = client.run_privileged(&handle, attempt::inside(script));
        assert_eq!(output.errors(), "");
        output.text()
    };
    assert_eq!(said(&[("server.confinement", "{capabilities: false, system_calls: false}")]), "nested\n");
    let open = said(&[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES]);
    for way in ["umount b'/proc/keys' 0", "another proc", "another sysfs"] {
        assert!(open.contains(way), "without a user namespace they are not locked: {open}");
    }
}

/// Of a file of sysfs that is there on every machine; what it holds is written back.
#[test]
fn writing_to_sysfs() {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let path = if Path::new(path).exists() { path } else { "/sys/kernel/profiling" };
    let attempt = format!(
        "
path = '{path}'
was = open(path).read()
was = was[was.index('[') + 1:was.index(']')] if '[' in was else was
file = step('open', lambda: os.open(path, os.O_WRONLY))
step('write', lambda: os.write(file, was.encode()))
escaped()"
    );
    let again = format!(
        "\nstep('remount', lambda: result(libc.mount(None, b'/sys', None, 32 | 4096, None))){attempt}"
    );
    rounds(
        &attempt,
        &[(&[], "open: EACCES", "the user namespace"), (&HOST_IDS, "open: EROFS", "the read-only mount")],
    );
    rounds(
        &again,
        &[
            (&[], "remount: EPERM", "the filter"),
            (&HOST_IDS, "remount: EPERM", "the filter"),
            (&[NO_CAPABILITIES], "remount: EPERM", "the lock"),
            (&[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES], "ESCAPED", "nothing"),
        ],
    );
}

#[test]
fn addresses_in_the_kernel() {
    let script = "
first = open('/proc/kallsyms').readline().split()[0]
step('look', lambda: (_ for _ in ()).throw(OSError(errno.EPERM, '')) if int(first, 16) == 0 else None)
escaped()";
    rounds(
        script,
        &[
            (&[], "look: EPERM", "the capabilities"),
            (&[NO_CAPABILITIES], "look: EPERM", "the user namespace"),
            (
                &[HOST_IDS[0], HOST_IDS[1], NO_CAPABILITIES],
                "ESCAPED or look: EPERM",
                "kernel.kptr_restrict of 2",
            ),
        ],
    );
}

/// A job's pipes are its own; a script's text, which came from the client, is no file of the host's that it could reach.
#[test]
fn a_job_has_three_pipes_and_nothing_else() {
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    for privileged in [true, false] {
        let script = "readlink /proc/$$/fd/*";
        let output =
            if privileged { client.run_privileged(&handle, script) } else { client.run(&handle, script) };
        let text = output.text();
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.starts_with("pipe:[")), "{text}");
    }
}

/// Not what a tenant made of a program decides whether init can be reached, but what init executes it as: CVE-2019-5736's
/// trick, a program that asks to be run by whoever runs it.
#[test]
fn a_program_that_asks_to_be_run_by_init_s_own() {
    let script = "
import signal, subprocess, time
os.makedirs('/tmp/t', exist_ok=True)
open('/tmp/t/asks', 'w').write('#!/proc/1/exe\\n')
os.chmod('/tmp/t/asks', 0o755)
os.symlink('/proc/1/exe', '/tmp/t/links')
for way in ('/tmp/t/asks', '/tmp/t/links'):
    try:
        subprocess.run([way], timeout=5)
        print('ran', way)
    except OSError as error:
        print(errno.errorcode[error.errno])
for flags in (os.O_RDONLY, os.O_WRONLY, 0o10000000):
    try:
        os.open('/proc/1/exe', flags)
        print('opened')
    except OSError as error:
        print(errno.errorcode[error.errno])";
    let daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let output = client.run_privileged(&handle, attempt::inside(script));
    assert_eq!(output.text(), "EACCES\n".repeat(5), "{}", output.errors());
}

/// As CVE-2019-5736: a job whose program is a script that asks for /proc/self/exe runs init's own, iomux, which is a file of
/// the host's. Root inside finds it by that, and writes to it: init runs it, too, and from a read-only mount.
#[test]
fn the_host_s_program_by_one_who_runs_it() {
    let script = "
import signal, time
def runs(pid):
    try:
        return open(f'/proc/{pid}/comm').read() == 'iomux\\n'
    except FileNotFoundError:
        return False
asks = [pid for pid in os.listdir('/proc') if pid.isdigit() and runs(pid)]
assert len(asks) == 1, asks
place = os.open(f'/proc/{asks[0]}/exe', os.O_PATH)
os.kill(int(asks[0]), signal.SIGKILL)
while os.path.exists(f'/proc/{asks[0]}'): time.sleep(0.01)
step('write', lambda: os.open(f'/proc/self/fd/{place}', os.O_WRONLY))
escaped()";
    for (settings, refusal) in [(&[][..], "write: EACCES\n"), (&HOST_IDS, "write: ETXTBSY\n")] {
        let daemon = Daemon::with(settings);
        let mut client = daemon.connect();
        let handle = client.create();
        // With another option it would read the script, and end.
        client.text(&handle, "printf '#!/proc/self/exe --fork-server\n' >/tmp/asks; chmod 755 /tmp/asks");
        let socket = daemon.depot(&client.id(&handle)).join("run/wshd.sock");
        let mut command = Command::new(programs::find("wsh"));
        command.arg("--socket").arg(&socket).args(["--user", "root", "/tmp/asks"]).stdin(Stdio::piped());
        let mut asking = command.spawn().unwrap();
        let waits = "until [ \"$(cat /proc/[0-9]*/comm | grep -c '^iomux$')\" = 1 ]; do sleep 0.01; done";
        client.run_privileged(&handle, waits);
        let output = client.run_privileged(&handle, attempt::inside(script));
        assert_eq!(output.text(), refusal, "{}", output.errors());
        assert!(!asking.wait().unwrap().success());
        let program = File::open(format!("/proc/{}/exe", init(&daemon, &mut client, &handle))).unwrap();
        assert!(rustix::fs::fstatvfs(program).unwrap().f_flag.contains(StatVfsMountFlags::RDONLY));
        assert_eq!(client.text(&handle, "echo still here"), "still here\n");
    }
}

#[test]
fn a_user_of_the_host_reaches_no_file_of_a_tenant() {
    // With an image its file system's own root is the depot.
    let limited = warden_tests::disk::Limited::with_image(&[]);
    for daemon in [&Daemon::with(&HOST_IDS), &limited.daemon] {
        let mut client = daemon.connect();
        let handle = client.create();
        client.run_privileged(&handle, "cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id");
        let program = daemon.depot(&client.id(&handle)).join("tmp/rootfs/tmp/id");
        let depot = daemon.depot("");
        // Through a shell: setpriv itself keeps its rights until it has become the program.
        let tried = |script: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]);
            programs::output(command.arg(&program))
        };
        let open = || tried("exec $0").status.success() || tried("ls ${0%/*/*/*/*/*}").status.success();
        assert!(!open());
        // It is the depot's mode that keeps them out.
        warden_tests::files::set_mode(&depot, 0o755);
        let reached = tried("exec $0 -u");
        warden_tests::files::set_mode(&depot, 0o700);
        // An image is mounted without set-user-id bits.
        let is_image = daemon.depot("") == limited.daemon.depot("");
        assert_eq!(String::from_utf8(reached.stdout).unwrap(), if is_image { "65534\n" } else { "0\n" });
    }
}
