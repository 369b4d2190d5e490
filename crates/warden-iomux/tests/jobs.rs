//! Jobs: their output, ends and processes, however they behave. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod support;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Client, Container, VCAP, bash, stdin, stored, wait_until};
use warden_init::message::{Resource, SpawnStep};
use warden_iomux::message::{Event, Exit, ExitCause, Output, Request, Step, Syslog};

const ENOENT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

#[test]
fn a_job_starts_in_a_clean_state() {
    let mut container = Container::new();
    let script = r#"
        env | grep -Ev '^(PWD|SHLVL|_)=' | sort
        pwd; umask; id -u; id -g; id -G
        for limit in c l q e n u r i s f v d; do ulimit -H$limit; done | paste -sd' '
        ls /proc/$$/fd > fds; paste -sd' ' fds
        grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2 | paste -sd' '
        ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo leader
        cat
    "#;
    let outcome = container.run(&format!("{script}\nthe rest of stdin"));
    let expected = format!(
        "HOME=/home/vcap\nLANG=C.UTF-8\nPATH=/bin:/usr/bin\nUSER=vcap\n/home/vcap\n0022\n{VCAP}\n{VCAP}\n{VCAP}\n\
         0 64 819200 0 1024 1024 0 1024 8192 unlimited unlimited unlimited\n0 1 2\n\
         0000000000000000 0000000000000000\nleader\n    \nthe rest of stdin"
    );
    assert_eq!(outcome.stdout, expected, "{}", outcome.stderr);
    let root = container.run_as_root("echo $HOME $PATH; id -G; grep CapEff /proc/self/status | cut -f2");
    assert!(
        root.stdout.starts_with("/root /sbin:/bin:/usr/sbin:/usr/bin\n0\n00000000a80425fb\n"),
        "{root:?}"
    );
}

#[test]
fn limits_of_a_request_are_those_of_its_job_alone() {
    let mut container = Container::new();
    let mut limited = bash("vcap");
    limited.rlimits = vec![(Resource::Nofile, 77), (Resource::Core, u64::MAX), (Resource::Nice, u64::MAX)];
    let script = "ulimit -Hn; ulimit -Sn; ulimit -c >&2";
    container.client.spawn(500, limited, stored(1000), script);
    assert_eq!(container.finish(500).stdout, "77\n77\n");
    assert_eq!(container.run(script).stdout, "1024\n1024\n");
}

#[test]
fn every_byte_of_both_streams_arrives() {
    let mut container = Container::new();
    let script = "head -c 5000000 /dev/urandom > a; cat a & cat a >&2; wait; sha256sum a >> a.sum; cat a.sum";
    let job = container.spawn(script);
    let exit = container.client.end(job);
    let stdout = fs::read(container.layout.stdout(job)).unwrap();
    let stderr = fs::read(container.layout.stderr(job)).unwrap();
    assert_eq!((exit.cause, exit.stderr), (ExitCause::Code(0), 5_000_000));
    assert!(stdout[..5_000_000] == stderr[..] && stdout.len() as u64 == exit.stdout);
    let file = container.layout.directory().join("tmp/rootfs/home/vcap/a");
    assert!(fs::read(file).unwrap() == stderr);
    let mode = fs::metadata(container.layout.stdout(job)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn ends_are_told_as_they_were() {
    let mut container = Container::new();
    for (script, cause) in [
        ("exit 0", ExitCause::Code(0)),
        ("exit 255", ExitCause::Code(255)),
        ("kill -9 $$", ExitCause::Signal(SIGKILL)),
        ("kill -TERM $$; sleep 10", ExitCause::Signal(SIGTERM)),
        ("exec sh -c 'kill -SEGV $$'", ExitCause::Signal(11)),
        ("exec > /dev/null 2>&1 < /dev/null; exec 1>&- 2>&-; sleep 0.1; exit 4", ExitCause::Code(4)),
        ("no-such-command", ExitCause::Code(127)),
        ("if", ExitCause::Code(2)),
    ] {
        assert_eq!(container.run(script).cause, cause, "{script}");
    }
}

#[test]
fn a_job_that_cannot_start_says_at_which_step_and_leaves_nothing() {
    let container = Container::new();
    let refused = |job: u32, change: &dyn Fn(&mut warden_init::message::Process)| {
        let mut process = bash("vcap");
        change(&mut process);
        container.client.spawn(job, process, stored(1000), "");
        let said = container.client.until(|event| match event {
            Event::SpawnFailed { job: failed, step, errno } if failed == job => Some((step, errno)),
            _ => None,
        });
        assert!(!container.layout.job(job).exists());
        said
    };
    let inside = |step| Step::Inside(step);
    assert_eq!(refused(1, &|p| p.user = "nobody-here".into()), (inside(SpawnStep::User), ENOENT));
    assert_eq!(refused(2, &|p| p.program = "/bin/nothing".into()), (inside(SpawnStep::Exec), ENOENT));
    assert_eq!(refused(3, &|p| p.lang = "a\0b".into()), (inside(SpawnStep::Request), 22));
    container.client.spawn(4, bash("root"), stored(1000), "mv /home/vcap /home/moved");
    container.client.end(4);
    assert_eq!(refused(5, &|_| {}), (inside(SpawnStep::Directory), ENOENT));
    container.client.spawn(6, bash("root"), stored(1000), "rm /etc/passwd; mkfifo /etc/passwd");
    container.client.end(6);
    assert_eq!(refused(7, &|_| {}), (inside(SpawnStep::User), 22));
    container.client.ask(&Request::Spawn { job: 8, process: bash("vcap"), output: stored(1) });
    let said = container.client.until(|event| match event {
        Event::SpawnFailed { job: 8, step, errno } => Some((step, errno)),
        _ => None,
    });
    assert_eq!(said, (inside(SpawnStep::Request), 9));
}

#[test]
fn a_number_is_given_once() {
    let container = Container::new();
    container.client.spawn(1, bash("vcap"), stored(1000), "echo first; read < /dev/tty; sleep 0.3");
    container.client.spawn(1, bash("vcap"), stored(1000), "echo second");
    let refused = |event| match event {
        Event::SpawnFailed { job: 1, step, errno } => Some((step, errno)),
        _ => None,
    };
    assert_eq!(container.client.until(refused), (Step::Files, 17));
    assert_eq!(container.finish(1).stdout, "first\n");
    container.client.spawn(1, bash("vcap"), stored(1000), "echo third");
    assert_eq!(container.client.until(refused), (Step::Files, 17));
    assert_eq!(fs::read_to_string(container.layout.stdout(1)).unwrap(), "first\n");
}

#[test]
fn a_hundred_jobs_at_once_keep_their_outputs_and_ends_apart() {
    let mut container = Container::new();
    let jobs: Vec<u32> = (0..100)
        .map(|n| {
            container.spawn(&format!(
                "read -t 0.5 <> <(:); for i in 1 2 3; do echo {n}; echo {n} >&2; done; exit {n}"
            ))
        })
        .collect();
    let mut ended = std::collections::BTreeMap::new();
    while ended.len() < jobs.len() {
        container.client.until(|event| match event {
            Event::Ended { job, exit } => ended.insert(job, exit).is_none().then_some(()),
            Event::SpawnFailed { .. } => panic!("{event:?}"),
            _ => None,
        });
    }
    for (n, job) in jobs.iter().enumerate() {
        assert_eq!(ended[job].cause, ExitCause::Code(n as u8));
        for path in [container.layout.stdout(*job), container.layout.stderr(*job)] {
            assert_eq!(fs::read_to_string(path).unwrap(), format!("{n}\n").repeat(3));
        }
    }
    container.wait_for_processes(1);
}

#[test]
fn output_is_told_while_it_grows() {
    let mut container = Container::new();
    let job =
        container.spawn("echo one; read -t 5 < <(sleep 0.2); echo two >&2; sleep 0.2; echo three; sleep 0.2");
    assert_eq!(container.client.next(), Some(Event::Spawned { job }));
    for (stdout, stderr) in [(4, 0), (4, 4), (10, 4)] {
        assert_eq!(container.client.next(), Some(Event::Output { job, stdout, stderr }));
    }
    let exit = Exit { cause: ExitCause::Code(0), stdout: 10, stderr: 4 };
    assert_eq!(container.client.next(), Some(Event::Ended { job, exit }));
}

#[test]
fn a_background_process_neither_delays_an_end_nor_dies_with_it() {
    let mut container = Container::new();
    let begin = Instant::now();
    let outcome = container.run("(while :; do echo noise; sleep 0.01; done) & echo $!; exit 5");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(outcome.cause, ExitCause::Code(5));
    // Its pipe has lost its readers by now, so its next line ends it.
    container.wait_for_processes(1);
    let outcome = container.run("sleep 1000 > /dev/null 2>&1 & echo $!");
    let alive = container.run(&format!("kill -0 {} && echo alive", outcome.stdout.trim()));
    assert_eq!(alive.stdout, "alive\n");
}

#[test]
fn a_job_that_writes_more_than_its_limit_is_killed_whole() {
    let mut container = Container::new();
    let script = "setsid yes stderr >&2 & (setsid sh -c 'yes & yes & wait' &) ; sleep 1000 & yes";
    let job = container.spawn_as("vcap", script, stored(1_000_000));
    let outcome = container.finish(job);
    assert_eq!(outcome.cause, ExitCause::OutputLimit);
    assert_eq!(outcome.stdout.len() + outcome.stderr.len(), 1_000_000);
    container.wait_for_processes(1);
    let job = container.spawn_as("vcap", "head -c 1000 /dev/zero; echo -n", stored(1000));
    assert_eq!(container.finish(job).cause, ExitCause::Code(0));
    let job = container.spawn_as("vcap", "head -c 1001 /dev/zero", stored(1000));
    let outcome = container.finish(job);
    assert_eq!((outcome.cause, outcome.stdout.len()), (ExitCause::OutputLimit, 1000));
}

#[test]
fn discarded_output_is_neither_stored_nor_limited() {
    let mut container = Container::new();
    let output = Output { limit: 10, discard: true, log: None };
    let job = container.spawn_as(
        "vcap",
        "head -c 3000000 /dev/zero; echo e >&2; readlink /proc/$$/fd/1; exit 3",
        output,
    );
    let outcome = container.finish(job);
    assert_eq!(
        (outcome.cause, outcome.stdout.as_str(), outcome.stderr.as_str()),
        (ExitCause::Code(3), "", "")
    );
}

#[test]
fn lines_go_to_the_log_beside_or_instead_of_the_files() {
    let mut container = Container::new();
    let path = container.directory.path().join("log");
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let next = || {
        let mut space = [0; 4096];
        let got = receiver.recv(&mut space).unwrap();
        String::from_utf8(space[..got].to_vec()).unwrap()
    };
    let log = |socket: &Path| Some(Syslog { tag: "app.1".into(), socket: socket.into() });
    for discard in [false, true] {
        let output = Output { limit: 1000, discard, log: log(&path) };
        let job =
            container.spawn_as("vcap", "echo one; sleep 0.1; echo two >&2; sleep 0.1; printf three", output);
        assert_eq!(container.finish(job).stdout, if discard { "" } else { "one\nthree" });
        for (priority, line) in [(14, "one"), (11, "two"), (14, "three")] {
            let message = next();
            assert!(message.starts_with(&format!("<{priority}>")), "{message}");
            assert!(message.ends_with(&format!(" warden.app.1: {line}")), "{message}");
        }
    }
    // Nobody reads this one, which its sender must not notice.
    let job =
        container.spawn_as("vcap", "seq 20000", Output { limit: 1 << 20, discard: false, log: log(&path) });
    assert_eq!(container.finish(job).stdout.lines().count(), 20_000);
    let output = Output { limit: 1000, discard: false, log: log(Path::new("/nowhere/log")) };
    let job = container.spawn_as("vcap", "echo one", output);
    assert_eq!(container.finish(job).stdout, "one\n");
}

#[test]
fn a_fork_bomb_ends_with_its_container() {
    let mut container = Container::new();
    container.spawn("bomb() { bomb | bomb & }; bomb; sleep 1000");
    wait_until(|| container.processes().len() > 300);
    let init = container.init;
    container.kill();
    assert!(container.processes().is_empty() && !Path::new(&format!("/proc/{init}")).exists());
}

#[test]
fn a_fork_bomb_over_its_output_limit_is_killed() {
    let mut container = Container::new();
    let job = container.spawn_as(
        "vcap",
        // The shell itself only prints: where it cannot fork any more, it would end by itself.
        "bomb() { echo boom; bomb | bomb & }; (bomb 2> /dev/null) & while :; do echo boom; done",
        stored(100_000),
    );
    assert_eq!(container.finish(job).cause, ExitCause::OutputLimit);
    container.client.ask(&Request::SignalAll { signal: SIGKILL });
    container.client.until(|event| (event == Event::Idle).then_some(()));
    assert_eq!(container.processes(), [container.init]);
    assert_eq!(container.run("echo alive").stdout, "alive\n");
}

#[test]
fn signals_reach_every_process_until_none_is_left() {
    let mut container = Container::new();
    container.client.ask(&Request::SignalAll { signal: SIGTERM });
    container.client.until(|event| (event == Event::Idle).then_some(()));
    let deaf = container.spawn("trap '' TERM; (setsid setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' &) ; sleep 0.2; echo up; while :; do sleep 0.1; done");
    let soft = container.spawn("exec sleep 1000");
    container.client.until(|event| matches!(event, Event::Output { job, .. } if job == deaf).then_some(()));
    container.client.ask(&Request::SignalAll { signal: SIGTERM });
    assert_eq!(container.client.end(soft).cause, ExitCause::Signal(SIGTERM));
    container.client.ask(&Request::SignalAll { signal: SIGKILL });
    // Each SignalAll has an Idle, and both come after every job's end.
    let mut events = Vec::new();
    while events.iter().filter(|event| **event == Event::Idle).count() < 2 {
        events.push(container.client.next().unwrap());
    }
    let ended = |event: &&Event| matches!(event, Event::Ended { job, .. } if *job == deaf);
    let end = events.iter().position(|event| ended(&event)).unwrap();
    assert!(end < events.iter().position(|event| *event == Event::Idle).unwrap());
    assert_eq!(container.processes(), [container.init]);
    assert_eq!(container.run("echo alive").stdout, "alive\n");
}

#[test]
fn a_job_that_kills_what_it_can_see_harms_only_its_container() {
    let mut container = Container::new();
    let victim = container.spawn("echo up; sleep 1000");
    container.client.until(|event| matches!(event, Event::Output { job, .. } if job == victim).then_some(()));
    let killer = container.spawn_as("root", "kill -9 -1; exit 6", stored(1000));
    let mut causes = std::collections::BTreeMap::new();
    while causes.len() < 2 {
        let (job, exit) = container.client.until(|event| match event {
            Event::Ended { job, exit } => Some((job, exit)),
            _ => None,
        });
        causes.insert(job, exit.cause);
    }
    assert_eq!(causes[&victim], ExitCause::Signal(SIGKILL));
    assert_eq!(causes[&killer], ExitCause::Code(6));
    assert_eq!(container.run("echo alive").stdout, "alive\n");
}

#[test]
fn the_death_of_the_init_ends_every_job_and_iomux() {
    let mut container = Container::new();
    let job = container.spawn("echo before; sleep 1000");
    container.client.until(|event| matches!(event, Event::Output { .. }).then_some(()));
    warden_linux::process::kill(container.init, SIGKILL).unwrap();
    let outcome = container.finish(job);
    assert_eq!((outcome.cause, outcome.stdout.as_str()), (ExitCause::InitDied, "before\n"));
    assert_eq!((container.client.next(), container.client.next()), (Some(Event::Gone), None));
    assert!(container.wait());
}

#[test]
fn the_next_daemon_learns_of_every_job() {
    let mut container = Container::new();
    let ended = container.spawn("echo ended; exit 3");
    container.finish(ended);
    let removed = container.spawn("echo removed");
    container.finish(removed);
    fs::remove_dir_all(container.layout.job(removed)).unwrap();
    let running = container.spawn("echo running; read -t 1000 < <(sleep 1000)");
    container
        .client
        .until(|event| matches!(event, Event::Output { job, .. } if job == running).then_some(()));
    container.client = container.connect();
    let client = &container.client;
    assert_eq!(client.next(), Some(Event::Hello { version: 1 }));
    let exit = Exit { cause: ExitCause::Code(3), stdout: 6, stderr: 0 };
    assert_eq!(client.next(), Some(Event::Ended { job: ended, exit }));
    assert_eq!(client.next(), Some(Event::Output { job: running, stdout: 8, stderr: 0 }));
    assert_eq!(client.next(), Some(Event::Ready { init_pid: container.init }));
    client.spawn(900, bash("vcap"), stored(1000), "echo new");
    assert_eq!(container.finish(900).stdout, "new\n");
}

#[test]
fn clients_disturb_neither_each_other_nor_the_jobs() {
    let mut container = Container::new();
    let mode = fs::metadata(container.layout.iomux_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let silent = container.connect();
    let mad: Vec<Client> = ["", "{", "{\"hello\":{\"version\":9}}", "\"kill\"x", "[1,2,3]"]
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| {
            let client = container.connect();
            client.send_raw(text.as_bytes());
            client
        })
        .collect();
    // Thousands of events, of which `silent` reads none.
    for _ in 0..3 {
        let job = container.spawn("for ((i = 0; i < 3000; i++)); do echo $i; done");
        assert_eq!(container.finish(job).stdout.lines().count(), 3000);
    }
    for client in mad {
        let mut events = 0;
        while client.next().is_some() {
            events += 1;
        }
        // Its greeting, and what it may have heard before its nonsense was read; not the thousands that followed.
        assert!(events < 100, "{events}");
    }
    silent.until(|event| matches!(event, Event::Ended { .. }).then_some(()));
}

#[test]
fn iomux_ends_by_request_only() {
    let mut container = Container::new();
    for signal in [1, 2, 3, 13, SIGTERM, 10, 12, 17] {
        warden_linux::process::kill(container.iomux_pid(), signal).unwrap();
    }
    assert_eq!(container.run("echo alive").stdout, "alive\n");
    for number in [0, 1] {
        let link = fs::read_link(format!("/proc/{}/fd/{number}", container.iomux_pid())).unwrap();
        assert_eq!(link, Path::new("/dev/null"));
    }
    let read = |path| fs::read_to_string(path).unwrap();
    assert_eq!(read(container.layout.iomux_pid()), format!("{}\n", container.iomux_pid()));
    assert_eq!(read(container.layout.wshd_pid()), format!("{}\n", container.init));
    container.kill();
}

#[test]
fn a_job_reads_its_own_stdin() {
    let container = Container::new();
    let mut process = bash("vcap");
    process.program = "/bin/cat".into();
    process.arguments = vec!["-".into()];
    let request = Request::Spawn { job: 1, process, output: stored(100) };
    container.client.ask_with(&request, &[stdin("to and fro")]);
    assert_eq!(container.finish(1).stdout, "to and fro");
}

#[test]
fn descriptors_do_not_pile_up() {
    let mut container = Container::new();
    let count = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    container.run("echo warm");
    let before = (count(container.iomux_pid()).unwrap(), count(container.init).unwrap());
    for _ in 0..20 {
        container.run("echo x; sleep 0.01 &");
    }
    let after = || -> io::Result<_> { Ok((count(container.iomux_pid())?, count(container.init)?)) };
    // What the first job left may still have been open when it was counted.
    wait_until(|| after().is_ok_and(|(iomux, init)| iomux <= before.0 && init <= before.1));
}
