//! One container's iomux: how it is started, found again, replaced, and how one that an earlier daemon left is ended.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use warden_init::byte_string::ByteString;
use warden_iomux::Origin;
use warden_iomux::message::{Event, Request, VERSION, VERSIONS};
use warden_linux::socket::PacketSocket;

use crate::error::{Context, Error};
use crate::fork_server::ForkServer;
use crate::link::{Link, Lost};
use crate::process::Process;

/// How long building a container may take.
const START_TIME: Duration = Duration::from_secs(30);
const BUILDING: &str = "building the container";
/// How long a killed iomux may take to be gone.
const END_OTHER_TIME: Duration = Duration::from_secs(5);
const END_TIME: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A running iomux with a container that stands, or is about to.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) link: Link,
    pub(crate) process: Process,
    /// The container's init; 0 when it is dead.
    pub(crate) init: i32,
    /// What it told of earlier events before it was ready.
    pub(crate) told: Vec<Event>,
    /// Whether it has said that the container stands.
    pub(crate) stands: bool,
}

impl Supervisor {
    /// Starts one on the `spec.json` of a container's directory, and waits until the container's init has its namespaces.
    pub(crate) async fn start(server: &ForkServer, spec: &Path) -> Result<Self, Error> {
        let (link, process) = launch(server, spec, Origin::Built).await?;
        Self::await_start(link, process, spec, BUILDING, Stage::Born).await
    }

    /// Waits until the container stands.
    pub(crate) async fn stand(&mut self, spec: &Path) -> Result<(), Error> {
        if self.stands {
            return Ok(());
        }
        let stood = tokio::time::timeout(START_TIME, hear(&mut self.link, &mut self.told, Stage::Ready));
        match stood.await {
            Ok(Ok((init, _))) => {
                (self.init, self.stands) = (init, true);
                Ok(())
            }
            Ok(Err(Failure::Refused(error))) => Err(error),
            Ok(Err(Failure::Lost(lost))) => Err(explain(&lost, spec, BUILDING)),
            Err(_) => Err(Error::TimedOut { action: BUILDING.to_owned(), seconds: START_TIME.as_secs() }),
        }
    }

    /// Starts one in the place of an iomux that has died, and waits until it has told what that one left.
    pub(crate) async fn take_over(server: &ForkServer, spec: &Path) -> Result<Self, Error> {
        let (link, process) = launch(server, spec, Origin::Adopted).await?;
        Self::await_start(link, process, spec, "taking the container over", Stage::Ready).await
    }

    /// Finds the iomux of a container that an earlier daemon has made; none when it is dead, or is ended because it says
    /// what is not understood.
    pub(crate) async fn find(spec: &Path) -> Result<Option<Self>, Error> {
        let path = spec.with_file_name("run").join("iomux.sock");
        let socket = match PacketSocket::connect(&path) {
            Err(error) if is_absence(&error) => return Ok(None),
            connected => connected.context(|| format!("connecting to {}", path.display()))?,
        };
        let pid = socket.peer().context(|| format!("asking for the peer of {}", path.display()))?;
        let process = Process::open(pid.unsigned_abs()).context(|| format!("watching iomux {pid}"));
        let mut link = greet(socket)?;
        match tokio::time::timeout(START_TIME, greeted(&mut link, Stage::Ready)).await {
            // It spoke after it was held: the number was its own.
            Ok(Ok((init, stands, told))) => Ok(Some(Self { link, process: process?, init, told, stands })),
            Ok(Err(Failure::Lost(Lost::Closed))) => Ok(None),
            Ok(Err(Failure::Lost(lost @ Lost::Garbage(_)))) => {
                tracing::error!(pid, error = %lost, "iomux is ended");
                let process = process?;
                process.kill();
                match tokio::time::timeout(END_OTHER_TIME, process.end()).await {
                    Ok(()) => Ok(None),
                    Err(_) => Err(lost).context(|| format!("asking iomux {pid}, which cannot be killed")),
                }
            }
            Ok(Err(Failure::Lost(lost))) => Err(lost).context(|| format!("asking iomux {pid}")),
            Ok(Err(Failure::Refused(error))) => Err(error),
            Err(_) => {
                Err(Error::TimedOut { action: format!("asking iomux {pid}"), seconds: START_TIME.as_secs() })
            }
        }
    }

    async fn await_start(
        mut link: Link,
        process: Process,
        spec: &Path,
        action: &'static str,
        until: Stage,
    ) -> Result<Self, Error> {
        let started = tokio::time::timeout(START_TIME, greeted(&mut link, until)).await;
        let failure = match started {
            Ok(Ok((init, stands, told))) => return Ok(Self { link, process, init, told, stands }),
            Ok(Err(Failure::Refused(error))) => error,
            Ok(Err(Failure::Lost(lost))) => explain(&lost, spec, action),
            Err(_) => Error::TimedOut { action: action.to_owned(), seconds: START_TIME.as_secs() },
        };
        // It may have ended by itself.
        process.kill();
        process.end().await;
        Err(failure)
    }
}

async fn launch(server: &ForkServer, spec: &Path, origin: Origin) -> Result<(Link, Process), Error> {
    let (ours, theirs) = PacketSocket::pair().context(|| "making the socket of iomux".to_owned())?;
    let process = server.start(spec, origin, theirs).await?;
    Ok((greet(ours)?, process))
}

/// Whether nobody listens on a socket.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

fn greet(socket: PacketSocket) -> Result<Link, Error> {
    let mut link = Link::new(socket).context(|| "watching the socket of iomux".to_owned())?;
    link.send(&Request::Hello { version: VERSION }, None).context(|| "greeting iomux".to_owned())?;
    Ok(link)
}

enum Failure {
    Refused(Error),
    Lost(Lost),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its init has its namespaces.
    Born,
    /// It stands.
    Ready,
}

/// Hears iomux's greeting, and then as [`hear`]; gives what it told before that, too.
async fn greeted(link: &mut Link, until: Stage) -> Result<(i32, bool, Vec<Event>), Failure> {
    match link.next().await? {
        Event::Hello { version } if VERSIONS.contains(&version) => {}
        Event::Hello { version } => {
            return Err(Lost::Version(version).into());
        }
        other => return Err(Lost::Garbage(format!("{other:?} before its greeting")).into()),
    }
    let mut told = Vec::new();
    let (init, stands) = hear(link, &mut told, until).await?;
    Ok((init, stands, told))
}

/// Hears iomux until the container has come this far; gives its init, and whether it stands already. A container
/// whose init has died does not stand, and is told all the same.
async fn hear(link: &mut Link, told: &mut Vec<Event>, until: Stage) -> Result<(i32, bool), Failure> {
    loop {
        match link.next().await? {
            Event::Born { init_pid } if until == Stage::Born => return Ok((init_pid, false)),
            Event::Born { .. } => {}
            Event::Ready { init_pid } => return Ok((init_pid, true)),
            Event::Gone => {
                told.push(Event::Gone);
                return Ok((0, true));
            }
            Event::SetupFailed { step, object, errno } => {
                return Err(Failure::Refused(refusal(&step, &object, errno)));
            }
            Event::Hello { .. } => return Err(Lost::Garbage("a second greeting".to_owned()).into()),
            other => told.push(other),
        }
    }
}

/// What iomux could not do.
pub(crate) fn refusal(step: &ByteString, object: &ByteString, errno: i32) -> Error {
    let [step, object] = [step, object].map(|text| String::from_utf8_lossy(&text.0));
    Error::Failed {
        action: format!("{step} {object}").trim_end().to_owned(),
        source: io::Error::from_raw_os_error(errno),
    }
}

/// Says why iomux was lost before the container stood, with its own last words.
fn explain(lost: &Lost, spec: &Path, action: &str) -> Error {
    let log = fs::read(spec.with_file_name("run").join("iomux.log")).unwrap_or_default();
    let words = String::from_utf8_lossy(&log);
    let words = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    Error::Failed {
        action: action.to_owned(),
        source: io::Error::other(format!("{lost}: {words}").trim_end_matches(": ").to_owned()),
    }
}

/// Kills the iomux of a container, if one runs; it is known by its pid file and its command line.
pub(crate) fn end(spec: &Path) -> Result<(), Error> {
    let file = spec.with_file_name("run").join("iomux.pid");
    let Some(pid) = read_pid(&file) else { return Ok(()) };
    let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // Looked at once it is held: the number may belong to somebody else by now.
    if !runs_on(pid, spec) {
        return Ok(());
    }
    let action = || format!("killing iomux {} of {}", pid.as_raw_nonzero(), spec.display());
    match rustix::process::pidfd_send_signal(&process, Signal::KILL) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        sent => sent.context(action)?,
    }
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    match rustix::event::poll(&mut ended, Some(&END_TIME)).context(action)? {
        0 => Err(Error::TimedOut { action: action(), seconds: END_TIME.tv_sec.unsigned_abs() }),
        _ => Ok(()),
    }
}

fn read_pid(file: &Path) -> Option<Pid> {
    let text = fs::read_to_string(file).ok()?;
    Pid::from_raw(text.lines().next()?.parse().ok()?)
}

/// Tells whether this process was started on this spec: in the container's directory, wherever the depot was then.
fn runs_on(pid: Pid, spec: &Path) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let container = |spec: &Path| spec.parent().and_then(Path::file_name).map(OsStr::to_owned);
    let mut arguments =
        line.split(|&byte| byte == 0).skip(1).map(|bytes| Path::new(OsStr::from_bytes(bytes)));
    arguments.any(|argument| argument.ends_with("spec.json") && container(argument) == container(spec))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::fork_server::tests::stand_in;

    fn container() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("run")).unwrap();
        let spec = directory.path().join("spec.json");
        (directory, spec)
    }

    /// What is told of an iomux that says what a script says.
    async fn refusal(script: &str) -> String {
        let (directory, spec) = container();
        let program = directory.path().join("iomux");
        stand_in(&program, script);
        Supervisor::start(&ForkServer::new(program, 100), &spec).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn an_early_end_is_told_with_its_last_words() {
        let refused = refusal("echo why >&2; exit 3").await;
        assert_eq!(refused, "building the container: iomux has closed its socket: why");
    }

    #[tokio::test]
    async fn a_refusal_names_the_step_the_object_and_the_reason() {
        let refused = refusal(
            r#"printf '{"hello":{"version":1}}' >&0
               printf '{"setup_failed":{"step":"mounting","object":"/x","errno":16}}' >&0"#,
        )
        .await;
        assert_eq!(refused, "mounting /x: Device or resource busy (os error 16)");
    }

    #[tokio::test]
    async fn another_version_or_garbage_is_told() {
        let refused = refusal(r#"printf '{"hello":{"version":2}}' >&0; sleep 10"#).await;
        assert!(refused.contains("version 2 instead of 1"), "{refused}");
        let refused = refusal("printf nonsense >&0; sleep 10").await;
        assert!(refused.contains("unexpected"), "{refused}");
        let refused = refusal(r#"printf '"idle"' >&0; sleep 10"#).await;
        assert!(refused.contains("before its greeting"), "{refused}");
    }

    #[test]
    fn only_the_process_of_this_container_is_killed() {
        let (directory, spec) = container();
        end(&spec).unwrap();
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "exec sleep 100", "/other/spec.json"])
            .spawn()
            .unwrap();
        fs::write(directory.path().join("run/iomux.pid"), child.id().to_string()).unwrap();
        end(&spec).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        end(&spec).unwrap();
    }
}
