//! wsh: shells and commands of an operator, in a terminal and in pipes. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod support;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Container, PATIENCE, VCAP, helpers, wait_until};
use warden_init::message::{self as inside, MAX_PACKET, Reply, VERSION, WaitStatus};
use warden_iomux::message::{Event, ExitCause, Request};
use warden_linux::epoll::{Epoll, Interest};
use warden_linux::process::{self, Ending};
use warden_linux::socket::PacketSocket;
use warden_linux::spawn::{self, Memory, Program};
use warden_linux::terminal::{self, Pair, Size};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// A terminal with wsh in it, as an operator has it.
struct Operator {
    pair: Pair,
    pid: i32,
    pidfd: OwnedFd,
    seen: Vec<u8>,
    modes: String,
    waited: bool,
}

impl Operator {
    /// Starts wsh in a terminal of 33 lines of 111 characters.
    fn start(container: &Container, words: &[&str]) -> Self {
        Self::start_with(container, words, None)
    }

    /// The same, but for its stdout.
    fn start_with(container: &Container, words: &[&str], stdout: Option<&File>) -> Self {
        let pair = terminal::open_pair(File::open("/dev/pts").unwrap().as_fd()).unwrap();
        terminal::set_size(&pair.master, Size { rows: 33, columns: 111 }).unwrap();
        warden_linux::file::set_nonblocking(&pair.master).unwrap();
        let modes = modes(&pair);
        let program = helpers().join("wsh").into_os_string().into_string().unwrap();
        let socket = container.layout.wshd_socket().into_os_string().into_string().unwrap();
        let words = [program.as_str(), "--socket", &socket].into_iter().chain(words.iter().copied());
        let tty = pair.slave.as_fd();
        let program = Program {
            paths: &[CString::new(program.as_str()).unwrap()],
            arguments: &words.map(|word| CString::new(word).unwrap()).collect::<Vec<_>>(),
            environment: &[c"TERM=xterm-color".into(), c"LANG=C.UTF-8".into()],
            directory: c"/",
            stdio: [tty, stdout.map_or(tty, AsFd::as_fd), tty],
            in_terminal: true,
            user: 0,
            group: 0,
            groups: &[],
            no_new_privileges: false,
            limits: &[],
            umask: 0o022,
        };
        let pid = spawn::spawn(&program, Memory::Copied).unwrap();
        let pidfd = process::open_pidfd(pid).unwrap();
        Self { pair, pid, pidfd, seen: Vec::new(), modes, waited: false }
    }

    fn send(&self, keys: &str) {
        File::from(self.pair.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen shows a text; forgets what came up to its end.
    fn expect(&mut self, text: &str) {
        let epoll = Epoll::new().unwrap();
        epoll.add(&self.pair.master, 0, Interest::Read).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut master = File::from(self.pair.master.try_clone().unwrap());
        loop {
            let found = self.seen.windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(place) = found {
                self.seen.drain(..place + text.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let screen = String::from_utf8_lossy(&self.seen);
            assert!(!left.is_zero(), "no {text:?} on the screen: {screen:?}");
            epoll.wait(Some(left.min(Duration::from_millis(100)))).unwrap();
            let mut buffer = [0; 4096];
            if let Ok(got) = master.read(&mut buffer) {
                self.seen.extend_from_slice(&buffer[..got]);
            }
        }
    }

    /// Waits for the end of wsh, after which the terminal must be as it was; gives the exit status.
    fn end(&mut self) -> u8 {
        let epoll = Epoll::new().unwrap();
        epoll.add(&self.pidfd, 0, Interest::Read).unwrap();
        assert!(!epoll.wait(Some(PATIENCE)).unwrap().is_empty(), "wsh does not end");
        self.waited = true;
        let Ending::Code(code) = process::wait(self.pidfd.as_fd()).unwrap() else { panic!("wsh was killed") };
        assert_eq!(modes(&self.pair), self.modes, "the terminal was not restored");
        code
    }

    fn is_raw(&self) -> bool {
        modes(&self.pair) != self.modes
    }

    /// Whether a process of the container has this terminal open.
    fn is_reached_from(&self, container: &Container) -> bool {
        let terminal = File::from(self.pair.slave.try_clone().unwrap()).metadata().unwrap();
        container.processes().iter().any(|pid| {
            let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
            let files = fds.filter_map(|fd| fs::metadata(fd.unwrap().path()).ok());
            files.into_iter().any(|file| (file.dev(), file.ino()) == (terminal.dev(), terminal.ino()))
        })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if !self.waited {
            let _ = process::kill_by_pidfd(self.pidfd.as_fd());
            let _ = process::wait(self.pidfd.as_fd());
        }
    }
}

/// A terminal's modes, in the words of stty.
fn modes(pair: &Pair) -> String {
    let stdin = Stdio::from(pair.slave.try_clone().unwrap());
    let output = Command::new("stty").arg("-g").stdin(stdin).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// wsh without a terminal.
fn wsh(container: &Container, words: &[&str]) -> Command {
    let mut command = Command::new(helpers().join("wsh"));
    command.arg("--socket").arg(container.layout.wshd_socket()).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(container: &Container, words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = wsh(container, words).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn told(code: i32, stdout: &str, stderr: &str) -> (Option<i32>, String, String) {
    (Some(code), stdout.into(), stderr.into())
}

#[test]
fn a_shell_has_a_terminal_of_its_own() {
    let container = Container::new();
    let mut operator = Operator::start(&container, &["bash", "--norc", "-i"]);
    operator.expect("# ");
    assert!(operator.is_raw());
    operator.send("echo $TERM $((40+2)); stty size; tty\r");
    operator.expect("xterm-color 42\r\n33 111\r\n/dev/pts/0\r\n");
    terminal::set_size(&operator.pair.master, Size { rows: 44, columns: 99 }).unwrap();
    // The signal takes its way through wsh.
    operator.send("until [ \"$(stty size)\" = '44 99' ]; do sleep 0.05; done; echo re''sized\r");
    operator.expect("resized\r\n");
    operator.send("sleep 1000\r");
    // By then the shell has given it the terminal.
    wait_until(|| {
        let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        container.processes().iter().any(|pid| name(pid) == "sleep\n")
    });
    operator.send("\x03");
    container.wait_for_processes(2);
    operator.send("echo alive$?\r");
    operator.expect("alive130\r\n");
    assert!(!operator.is_reached_from(&container));
    operator.send("exit 7\r");
    assert_eq!(operator.end(), 7);
    container.wait_for_processes(1);
}

#[test]
fn without_a_command_it_is_the_users_login_shell() {
    let mut container = Container::new();
    let mut operator = Operator::start(&container, &["--user", "vcap"]);
    operator.expect("$ ");
    operator.send("echo $0 $USER $HOME $PATH; id -u; echo mi''ne > $(tty)\r");
    operator.expect(&format!("-bash vcap /home/vcap /bin:/usr/bin\r\n{VCAP}\r\nmine\r\n"));
    operator.send("exit\r");
    assert_eq!(operator.end(), 0);
    container.run_as_root("sed -i 's|/bin/bash$||' /etc/passwd");
    let mut command = wsh(&container, &["--user", "vcap"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"echo $0; ulimit -n; exit 5").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), &b"-sh\n1024\n"[..]));
}

#[test]
fn pipes_pass_every_byte() {
    let container = Container::new();
    let script = "cat; echo problem >&2; exit 3";
    let mut child = wsh(&container, &["sh", "-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn({
        let sent = sent.clone();
        move || stdin.write_all(&sent).unwrap()
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.stdout == sent);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(3), &b"problem\n"[..]));
}

#[test]
fn the_exit_status_is_the_commands_or_255() {
    let container = Container::new();
    assert_eq!(run(&container, &["true"]), told(0, "", ""));
    assert_eq!(run(&container, &["/bin/sh", "-c", "exit 254"]), told(254, "", ""));
    assert_eq!(run(&container, &["sh", "-c", "kill -9 $$"]), told(255, "", ""));
    let missing = "No such file or directory (os error 2)\n";
    assert_eq!(run(&container, &["nothing"]), told(255, "", &format!("wsh: start nothing: {missing}")));
    let denied = "wsh: start /etc/passwd: Permission denied (os error 13)\n";
    assert_eq!(run(&container, &["/etc/passwd"]), told(255, "", denied));
    let nobody = format!("wsh: find the user nobody-here in the container's /etc/passwd: {missing}");
    assert_eq!(run(&container, &["--user", "nobody-here", "ls"]), told(255, "", &nobody));
    let output = Command::new(helpers().join("wsh")).args(["--socket", "/nowhere"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("wsh: connect to /nowhere: {missing}"));
    assert_eq!(output.status.code(), Some(255));
    let directory = wsh(&container, &["ls"]).stdin(File::open("/").unwrap()).output().unwrap();
    assert_eq!((directory.status.code(), directory.stdout.as_slice()), (Some(255), &b""[..]));
}

#[test]
fn a_command_has_the_environment_of_a_job() {
    let container = Container::new();
    let script = "env | grep -Ev '^(PWD|SHLVL|_)=' | sort; pwd; id -u; ulimit -n";
    let mut command = wsh(&container, &["--user", "vcap", "bash", "-c", script]);
    let output = command.env("LANG", "de_DE.UTF-8").env("SECRET", "x").output().unwrap();
    let expected = format!(
        "HOME=/home/vcap\nLANG=de_DE.UTF-8\nPATH=/bin:/usr/bin\nUSER=vcap\n/home/vcap\n{VCAP}\n1024\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn it_can_be_called_as_rsh() {
    let container = Container::new();
    let words = ["--rsh", "-l", "vcap", "host", "printf", "%s,", "a\\ b", "'c  d'", "$USER;", "exit", "4"];
    assert_eq!(run(&container, &words), told(4, "a b,c  d,vcap,", ""));
}

#[test]
fn jobs_of_others_neither_see_nor_lose_anything() {
    let mut container = Container::new();
    let job = container.spawn("until [ -e /tmp/go ]; do sleep 0.02; done; echo done");
    assert_eq!(run(&container, &["touch", "/tmp/go"]), told(0, "", ""));
    let outcome = container.finish(job);
    assert_eq!((outcome.cause, outcome.stdout.as_str()), (ExitCause::Code(0), "done\n"));
    let other = container.connect();
    let job = container.spawn("true");
    let told = other.until(|event| match event {
        Event::Spawned { job } | Event::Ended { job, .. } if job > 2 => panic!("{event:?}"),
        Event::Ended { job: ended, .. } => (ended == job).then_some(ended),
        _ => None,
    });
    assert_eq!(told, 2);
}

#[test]
fn other_clients_of_wshd_are_told_nothing_of_it() {
    let mut container = Container::new();
    let mut child = wsh(&container, &["sleep", "1000"]).spawn().unwrap();
    container.wait_for_processes(2);
    let job = container.spawn("sleep 1000");
    container.wait_for_processes(4);
    let other = PacketSocket::connect(&container.layout.wshd_socket()).unwrap();
    let epoll = Epoll::new().unwrap();
    epoll.add(&other, 0, Interest::Read).unwrap();
    let next = || {
        assert!(!epoll.wait(Some(PATIENCE)).unwrap().is_empty(), "wshd says nothing");
        serde_json::from_slice::<Reply>(&other.receive(MAX_PACKET).unwrap().bytes).unwrap()
    };
    other.send(&serde_json::to_vec(&inside::Request::Hello { version: VERSION }).unwrap(), &[]).unwrap();
    assert_eq!(next(), Reply::Hello { version: VERSION });
    assert!(matches!(next(), Reply::Spawned { job: spawned, .. } if spawned == job));
    assert_eq!(next(), Reply::Told);
    container.client.ask(&Request::SignalAll { signal: SIGKILL });
    assert_eq!(next(), Reply::Exited { job, status: WaitStatus::Signal(SIGKILL) });
    assert_eq!(child.wait().unwrap().code(), Some(255));
    assert_eq!(run(&container, &["true"]), told(0, "", ""));
    assert_eq!(other.receive(MAX_PACKET).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn it_works_while_iomux_is_dead() {
    let container = Container::new();
    process::kill(container.iomux_pid(), SIGKILL).unwrap();
    wait_until(|| PacketSocket::connect(&container.layout.iomux_socket()).is_err());
    assert_eq!(run(&container, &["--user", "vcap", "id", "-u"]), told(0, &format!("{VCAP}\n"), ""));
    let mut operator = Operator::start(&container, &["cat"]);
    operator.send("echoed\r");
    operator.expect("echoed\r\nechoed\r\n");
    operator.send("\x04");
    assert_eq!(operator.end(), 0);
}

#[test]
fn no_one_inside_gets_the_operators_terminal() {
    let container = Container::new();
    let out = tempfile::tempfile().unwrap();
    let mut operator = Operator::start_with(&container, &["sh", "-c", "echo now >&2; cat"], Some(&out));
    operator.expect("now\r\n");
    assert!(!operator.is_raw() && !operator.is_reached_from(&container));
    operator.send("typed\r\x04");
    assert_eq!(operator.end(), 0);
    let mut text = String::new();
    let mut out = out;
    io::Seek::rewind(&mut out).unwrap();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "typed\n");

    let mut operator = Operator::start(&container, &["bash", "--norc", "-i"]);
    operator.expect("# ");
    // What root inside types for its own terminal (TIOCSTI, where the kernel still has it) stays there.
    operator.send("perl -e 'ioctl(STDIN, 0x5412, $_) for split //, \"true\\n\"'; echo tri''ed\r");
    operator.expect("tried\r\n");
    assert!(!operator.is_reached_from(&container));
    operator.send("exit\r");
    assert_eq!(operator.end(), 0);
}

#[test]
fn the_terminal_is_restored_however_wsh_ends() {
    let mut container = Container::new();
    let mut operator = Operator::start(&container, &["sleep", "1000"]);
    container.wait_for_processes(2);
    wait_until(|| operator.is_raw());
    process::kill(operator.pid, SIGTERM).unwrap();
    assert_eq!(operator.end(), 255);
    container.wait_for_processes(1);
    let mut operator = Operator::start(&container, &["sleep", "1000"]);
    wait_until(|| operator.is_raw());
    container.kill();
    assert_eq!(operator.end(), 255);
    operator.expect("wsh: the container has ended");
}

#[test]
fn a_vanished_wsh_hangs_its_job_up() {
    let container = Container::new();
    let operator = Operator::start(&container, &["sleep", "1000"]);
    container.wait_for_processes(2);
    drop(operator);
    container.wait_for_processes(1);
    let mut child = wsh(&container, &["sleep", "1000"]).spawn().unwrap();
    container.wait_for_processes(2);
    child.kill().unwrap();
    child.wait().unwrap();
    container.wait_for_processes(1);
}

#[test]
fn a_background_process_keeps_no_one_waiting() {
    let container = Container::new();
    let mut operator =
        Operator::start(&container, &["bash", "-c", "(trap '' HUP; exec sleep 1000) & seq 20000; exit 6"]);
    operator.expect("\r\n20000\r\n");
    assert_eq!(operator.end(), 6);
}

#[test]
fn output_up_to_the_last_byte_reaches_the_screen() {
    let container = Container::new();
    for _ in 0..20 {
        let mut operator = Operator::start(&container, &["sh", "-c", "seq 3000; printf last; exit 9"]);
        operator.expect("\r\n3000\r\nlast");
        assert_eq!(operator.end(), 9);
    }
}
