//! Starts the process of a job: its user, environment, limits and descriptors.

use std::ffi::CString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use warden_linux::limit::{self, Limit};
use warden_linux::spawn::{Program, Stage};

use super::job::Job;
use crate::accounts::{self, Account, Identity};
use crate::message::{Process, Resource, SpawnStep};

/// What failed, and the kernel's answer.
type Failure = (SpawnStep, i32);

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EBADF: i32 = 9;
pub(super) const EEXIST: i32 = 17;
const EINVAL: i32 = 22;

/// Thousandths of the container's memory that count as used by a job on top of what it uses. A fifth is far more than
/// this process ever has, also in a small container, and, where the whole machine runs out, prefers jobs to the machine's
/// own programs without making a small job the first victim.
const VICTIM_SCORE: &str = "200";

/// Microseconds between attempts to give a job its score; 23 ms together where it cannot be given.
const VICTIM_PAUSES: [u64; 9] = [20, 50, 100, 200, 400, 800, 1_600, 6_400, 12_800];

/// The longest /etc/passwd that is read, in bytes.
const MAX_PASSWD: u64 = 1 << 20;

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

/// Starts it; `fds` are its stdin and, with `outputs_given`, its stdout and stderr.
pub(super) fn launch(process: &Process, fds: Vec<OwnedFd>, outputs_given: bool) -> Result<Job, Failure> {
    let account = account(process)?;
    let (stdin, outputs) = match <[OwnedFd; 3]>::try_from(fds) {
        Ok([stdin, stdout, stderr]) if outputs_given => (stdin, Outputs::given(stdout, stderr)),
        Ok(_) => return Err((SpawnStep::Request, EBADF)),
        Err(fds) => match (<[OwnedFd; 1]>::try_from(fds), outputs_given) {
            (Ok([stdin]), false) => (stdin, Outputs::pipes(account.identity)?),
            _ => return Err((SpawnStep::Request, EBADF)),
        },
    };
    let strings = Strings::of(process, &account).ok_or((SpawnStep::Request, EINVAL))?;
    let program = Program {
        path: &strings.program,
        arguments: &strings.arguments,
        environment: &strings.environment,
        directory: &strings.home,
        stdio: [stdin.as_fd(), outputs.writers[0].as_fd(), outputs.writers[1].as_fd()],
        user: account.identity.user,
        group: account.identity.group,
        limits: &limits(&process.rlimits),
        umask: 0o022,
    };
    let pid = warden_linux::spawn::spawn(&program)
        .map_err(|error| (step(error.stage), error.source.raw_os_error().unwrap_or(EIO)))?;
    prefer_as_victim(pid);
    Ok(Job { pid, status: None, outputs: outputs.readers, pipes: outputs.pipes })
}

/// Has the kernel end a job before this process where memory runs out.
///
/// From here and only now: this process, which its container cannot trace, cannot write its own score either, and nor
/// can its copy before it is another program. What the job starts inherits the score; a child that was quicker has none,
/// which changes the order in which jobs are killed, and nothing else.
fn prefer_as_victim(pid: i32) {
    let path = format!("/proc/{pid}/oom_score_adj");
    for pause in VICTIM_PAUSES {
        match std::fs::write(&path, VICTIM_SCORE) {
            // The kernel lets us go on a moment before the job's memory is known to be its own.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                std::thread::sleep(Duration::from_micros(pause))
            }
            // Else it has its score, or has ended already and needs none.
            _ => return,
        }
    }
}

fn account(process: &Process) -> Result<Account, Failure> {
    let passwd = accounts::read(Path::new("/etc/passwd"), MAX_PASSWD)
        .map_err(|error| (SpawnStep::User, error.raw_os_error().unwrap_or(EIO)))?;
    accounts::find(&passwd, &process.user.0).ok_or((SpawnStep::User, ENOENT))
}

/// Where a job writes to.
struct Outputs {
    writers: [OwnedFd; 2],
    readers: Vec<OwnedFd>,
    pipes: Vec<u64>,
}

impl Outputs {
    fn given(stdout: OwnedFd, stderr: OwnedFd) -> Self {
        Self { writers: [stdout, stderr], readers: Vec::new(), pipes: Vec::new() }
    }

    /// Two new pipes, the job's user's own, so that it may open /dev/stdout; only the read ends never wait, for a program
    /// expects a stdout that does.
    fn pipes(owner: Identity) -> Result<Self, Failure> {
        let make = || {
            let (stdout, stdout_writer) = warden_linux::file::pipe()?;
            let (stderr, stderr_writer) = warden_linux::file::pipe()?;
            for reader in [&stdout, &stderr] {
                warden_linux::file::set_nonblocking(reader)?;
                warden_linux::file::give(reader, owner.user, owner.group)?;
            }
            let pipes = vec![warden_linux::file::inode(&stdout)?, warden_linux::file::inode(&stderr)?];
            Ok(Self { writers: [stdout_writer, stderr_writer], readers: vec![stdout, stderr], pipes })
        };
        make().map_err(|error: std::io::Error| (SpawnStep::Pipe, error.raw_os_error().unwrap_or(EIO)))
    }
}

/// The strings that exec takes.
struct Strings {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    home: CString,
}

impl Strings {
    /// None if one of them holds a zero byte.
    fn of(process: &Process, account: &Account) -> Option<Self> {
        let path: &[u8] = match account.identity.user {
            0 => b"/sbin:/bin:/usr/sbin:/usr/bin",
            _ => b"/bin:/usr/bin",
        };
        let string = |bytes: &[u8]| CString::new(bytes).ok();
        let program = string(&process.program.0)?;
        let rest = process.arguments.iter().map(|argument| string(&argument.0));
        let variables: [(&[u8], &[u8]); 4] = [
            (b"HOME=", &account.home.0),
            (b"USER=", &process.user.0),
            (b"PATH=", path),
            (b"LANG=", &process.lang.0),
        ];
        Some(Self {
            arguments: std::iter::once(Some(program.clone())).chain(rest).collect::<Option<_>>()?,
            environment: variables
                .iter()
                .map(|(name, value)| string(&[*name, *value].concat()))
                .collect::<Option<_>>()?,
            home: string(&account.home.0)?,
            program,
        })
    }
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
        Stage::Limits => SpawnStep::Rlimit,
        Stage::Ids => SpawnStep::Credentials,
        Stage::Directory => SpawnStep::Directory,
        Stage::Exec => SpawnStep::Exec,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::byte_string::ByteString;

    fn process(user: &str) -> Process {
        Process {
            program: "/bin/bash".into(),
            arguments: vec!["-x".into()],
            user: user.into(),
            lang: "C".into(),
            rlimits: Vec::new(),
        }
    }

    fn strings(user: &str, id: u32) -> Strings {
        let account = Account { identity: Identity { user: id, group: id }, home: "/home/a".into() };
        Strings::of(&process(user), &account).unwrap()
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
        let account = Account { identity: Identity { user: 1, group: 1 }, home: "/".into() };
        let mut bad = process("vcap");
        bad.arguments.push(ByteString(b"a\0b".to_vec()));
        assert!(Strings::of(&bad, &account).is_none());
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
