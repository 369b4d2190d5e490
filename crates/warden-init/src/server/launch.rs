//! Starts the process of a job: its user, environment, limits and descriptors.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use warden_linux::limit::{self, Limit};
use warden_linux::process;
use warden_linux::spawn::{self, Memory, Program, Stage};

use super::job::Job;
use super::stdio::{Stdio, Wish};
use crate::accounts::{self, Account};
use crate::byte_string::ByteString;
use crate::confinement::Privileges;
use crate::message::{Process, Resource, SpawnStep};
use crate::score::Score;

/// What failed, and the kernel's answer.
pub(super) type Failure = (SpawnStep, i32);

const ENOENT: i32 = 2;
pub(super) const EIO: i32 = 5;
pub(super) const ENXIO: i32 = 6;
pub(super) const EBADF: i32 = 9;
pub(super) const EEXIST: i32 = 17;
const EINVAL: i32 = 22;

/// The limits of a job, as far as its client does not replace them; none on what is not listed.
const DEFAULT_LIMITS: [(Resource, u64); 15] = [
    (Resource::As, u64::MAX),
    (Resource::Core, 0),
    (Resource::Cpu, u64::MAX),
    (Resource::Data, u64::MAX),
    (Resource::Fsize, u64::MAX),
    (Resource::Locks, u64::MAX),
    (Resource::Memlock, 64 << 10),
    (Resource::Msgqueue, 819_200),
    (Resource::Nice, 0),
    (Resource::Nofile, 1024),
    (Resource::Nproc, 1024),
    (Resource::Rss, u64::MAX),
    (Resource::Rtprio, 0),
    (Resource::Sigpending, 1024),
    (Resource::Stack, 8 << 20),
];

/// A job that runs.
pub(super) struct Launched {
    pub(super) job: Job,
    /// For its client: copies of the read ends of its pipes; or the master side of its terminal, of which wshd keeps none, so
    /// that the client's end hangs it up.
    pub(super) outputs: Vec<OwnedFd>,
}

/// What every job of a container has in common.
pub(super) struct Container<'a> {
    /// Its devpts; none if it has none.
    pub(super) terminals: Option<BorrowedFd<'a>>,
    pub(super) privileges: Privileges,
    pub(super) score: &'a Score,
}

/// Starts it. `fds` are what its client sent.
///
/// The job inherits from this process what the container's confinement is made of: the bounded capabilities, the filter of
/// system calls and the session keyring. Only what differs between users is left to do here.
pub(super) fn launch(
    process: &Process,
    fds: Vec<OwnedFd>,
    wish: &Wish,
    container: &Container<'_>,
) -> Result<Launched, Failure> {
    let account = account(process)?;
    let stdio = Stdio::new(wish, fds, account.identity, container.terminals)?;
    let kind = match wish {
        Wish::Terminal(terminal) => Some(&terminal.kind),
        Wish::Given | Wish::Pipes => None,
    };
    let strings = Strings::of(process, &account, kind).ok_or((SpawnStep::Request, EINVAL))?;
    let program = Program {
        paths: &strings.paths,
        arguments: &strings.arguments,
        environment: &strings.environment,
        directory: &strings.home,
        stdio: stdio.inside.each_ref().map(AsFd::as_fd),
        in_terminal: stdio.terminal.is_some(),
        user: account.identity.user,
        group: account.identity.group,
        groups: &groups(process),
        no_new_privileges: account.identity.user != 0 && !container.privileges.new_privileges,
        limits: &limits(&process.rlimits),
        umask: 0o022,
    };
    let pid = container
        .score
        .lend(|| spawn::spawn(&program, memory()))
        .map_err(|error| (step(error.stage), error.source.raw_os_error().unwrap_or(EIO)))?;
    let (master, slave) = stdio.terminal.map(|pair| (pair.master, pair.slave)).unzip();
    let Stdio { readers: outputs, copies, pipes, .. } = stdio;
    let job = Job { pid, status: None, outputs, pipes, _terminal: slave, owner: None };
    Ok(Launched { job, outputs: master.map_or(copies, |master| vec![master]) })
}

/// What a new process runs on at first: where nothing else runs inside, nobody can stop it before it is its program.
fn memory() -> Memory {
    if process::has_children() { Memory::Copied } else { Memory::Borrowed }
}

fn account(process: &Process) -> Result<Account, Failure> {
    let passwd = accounts::read(Path::new("/etc/passwd"))
        .map_err(|error| (SpawnStep::User, error.raw_os_error().unwrap_or(EIO)))?;
    accounts::find(&passwd, &process.user.0).ok_or((SpawnStep::User, ENOENT))
}

/// The user's supplementary groups. An /etc/group that cannot be read, which root inside has made so, gives none: groups
/// only add rights.
fn groups(process: &Process) -> Vec<u32> {
    let group = accounts::read(Path::new("/etc/group")).unwrap_or_default();
    accounts::groups_of(&group, &process.user.0)
}

/// The strings that exec takes.
struct Strings {
    paths: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    home: CString,
}

impl Strings {
    /// None if one of them holds a zero byte. `kind` is the value of TERM in a terminal.
    fn of(process: &Process, account: &Account, kind: Option<&ByteString>) -> Option<Self> {
        let directories: &[u8] = match account.identity.user {
            0 => b"/sbin:/bin:/usr/sbin:/usr/bin",
            _ => b"/bin:/usr/bin",
        };
        let (paths, name) = program(&process.program.0, &account.shell.0, directories);
        let arguments = std::iter::once(name).chain(process.arguments.iter().map(|word| word.0.clone()));
        let mut variables: Vec<(&[u8], &[u8])> = vec![
            (b"HOME=", &account.home.0),
            (b"USER=", &process.user.0),
            (b"PATH=", directories),
            (b"LANG=", &process.lang.0),
        ];
        variables.extend(kind.map(|kind| (&b"TERM="[..], kind.0.as_slice())));
        Some(Self {
            paths: strings(paths)?,
            arguments: strings(arguments)?,
            environment: strings(variables.iter().map(|(name, value)| [*name, *value].concat()))?,
            home: CString::new(account.home.0.as_slice()).ok()?,
        })
    }
}

fn strings(all: impl IntoIterator<Item = Vec<u8>>) -> Option<Vec<CString>> {
    all.into_iter().map(|bytes| CString::new(bytes).ok()).collect()
}

/// Where a program may be, and the name that it gets.
fn program(wanted: &[u8], shell: &[u8], directories: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    if wanted.is_empty() {
        let shell = if shell.is_empty() { b"/bin/sh" } else { shell };
        let name = shell.rsplit(|byte| *byte == b'/').next().unwrap_or(shell);
        // The dash is how a shell is told that it is a login shell.
        return (vec![shell.to_vec()], [b"-", name].concat());
    }
    let paths = match wanted.contains(&b'/') {
        true => vec![wanted.to_vec()],
        false => directories.split(|byte| *byte == b':').map(|path| [path, b"/", wanted].concat()).collect(),
    };
    (paths, wanted.to_vec())
}

/// The default limits with a request's in their places; of several on one resource the last counts.
fn limits(requested: &[(Resource, u64)]) -> Vec<Limit> {
    let value = |resource, default| {
        requested.iter().rev().find(|(name, _)| *name == resource).map_or(default, |(_, value)| *value)
    };
    DEFAULT_LIMITS
        .iter()
        .map(|(resource, default)| {
            let value = value(*resource, *default);
            Limit { resource: number(*resource), soft: value, hard: value }
        })
        .collect()
}

fn number(resource: Resource) -> u32 {
    match resource {
        Resource::As => limit::RLIMIT_AS,
        Resource::Core => limit::RLIMIT_CORE,
        Resource::Cpu => limit::RLIMIT_CPU,
        Resource::Data => limit::RLIMIT_DATA,
        Resource::Fsize => limit::RLIMIT_FSIZE,
        Resource::Locks => limit::RLIMIT_LOCKS,
        Resource::Memlock => limit::RLIMIT_MEMLOCK,
        Resource::Msgqueue => limit::RLIMIT_MSGQUEUE,
        Resource::Nice => limit::RLIMIT_NICE,
        Resource::Nofile => limit::RLIMIT_NOFILE,
        Resource::Nproc => limit::RLIMIT_NPROC,
        Resource::Rss => limit::RLIMIT_RSS,
        Resource::Rtprio => limit::RLIMIT_RTPRIO,
        Resource::Sigpending => limit::RLIMIT_SIGPENDING,
        Resource::Stack => limit::RLIMIT_STACK,
    }
}

fn step(stage: Stage) -> SpawnStep {
    match stage {
        Stage::Clone | Stage::Session => SpawnStep::Fork,
        Stage::Descriptors => SpawnStep::Request,
        Stage::Terminal => SpawnStep::Pipe,
        Stage::Limits => SpawnStep::Rlimit,
        Stage::Ids => SpawnStep::Credentials,
        Stage::Directory => SpawnStep::Directory,
        Stage::Exec => SpawnStep::Exec,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Identity;

    fn process(user: &str) -> Process {
        Process {
            program: "/bin/bash".into(),
            arguments: vec!["-x".into()],
            user: user.into(),
            lang: "C".into(),
            rlimits: Vec::new(),
        }
    }

    fn account(id: u32) -> Account {
        let identity = Identity { user: id, group: id };
        Account { identity, home: "/home/a".into(), shell: "/usr/bin/zsh".into() }
    }

    fn strings(user: &str, id: u32) -> Strings {
        Strings::of(&process(user), &account(id), None).unwrap()
    }

    #[test]
    fn the_environment_is_four_variables() {
        let text = |strings: &[CString]| {
            strings.iter().map(|string| string.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let vcap = strings("vcap", 10000);
        assert_eq!(text(&vcap.environment), ["HOME=/home/a", "USER=vcap", "PATH=/bin:/usr/bin", "LANG=C"]);
        assert_eq!(text(&vcap.arguments), ["/bin/bash", "-x"]);
        assert_eq!(text(&strings("root", 0).environment)[2], "PATH=/sbin:/bin:/usr/sbin:/usr/bin");
    }

    #[test]
    fn a_zero_byte_is_refused() {
        let mut bad = process("vcap");
        bad.arguments.push(ByteString(b"a\0b".to_vec()));
        assert!(Strings::of(&bad, &account(1), None).is_none());
        let bad = ByteString(b"a\0b".to_vec());
        assert!(Strings::of(&process("vcap"), &account(1), Some(&bad)).is_none());
    }

    #[test]
    fn a_terminal_adds_a_fifth_variable() {
        let strings = Strings::of(&process("vcap"), &account(1), Some(&"dumb".into())).unwrap();
        assert_eq!(strings.environment[4..], [c"TERM=dumb".to_owned()]);
    }

    #[test]
    fn a_program_is_a_path_or_a_name_or_the_login_shell() {
        let text = |wanted: &str, shell: &str| {
            let (paths, name) = program(wanted.as_bytes(), shell.as_bytes(), b"/bin:/usr/bin");
            let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
            (paths.iter().map(text).collect::<Vec<_>>().join(" "), text(&name))
        };
        let pair = |paths: &str, name: &str| (paths.to_owned(), name.to_owned());
        assert_eq!(text("/bin/ls", ""), pair("/bin/ls", "/bin/ls"));
        assert_eq!(text("./ls", ""), pair("./ls", "./ls"));
        assert_eq!(text("ls", ""), pair("/bin/ls /usr/bin/ls", "ls"));
        assert_eq!(text("", "/usr/bin/zsh"), pair("/usr/bin/zsh", "-zsh"));
        assert_eq!(text("", ""), pair("/bin/sh", "-sh"));
    }

    #[test]
    fn requested_limits_replace_the_defaults_of_this_job_only() {
        let of = |requested: &[(Resource, u64)], resource| {
            limits(requested).into_iter().find(|limit| limit.resource == number(resource)).unwrap().hard
        };
        assert_eq!(of(&[], Resource::Nofile), 1024);
        assert_eq!(of(&[(Resource::Nofile, 5), (Resource::Nofile, 6)], Resource::Nofile), 6);
        assert_eq!(of(&[(Resource::Nofile, 5)], Resource::Stack), 8 << 20);
        assert_eq!(of(&[], Resource::Fsize), u64::MAX);
        assert_eq!(limits(&[]).len(), 15);
    }
}
