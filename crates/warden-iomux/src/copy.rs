//! A copy of files between the host and the container: two short-lived processes, one on each side of the border, with a
//! socket between them.
//!
//! The one inside has joined the container's namespaces and cgroups and is its unprivileged user without a capability:
//! whatever the container's file tree does to it, a link, a device, a file system that never answers, happens to a
//! process of the container. It is a copy of iomux without a program of its own, so its memory still belongs to the
//! host's user namespace, and nobody inside may trace it; nor can it be seen, for it has not joined the process ids.
//! The one outside trusts nothing that comes through the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use warden_copy::Totals;
use warden_copy::error::{CopyError, Step};
use warden_copy::receive::Treatment;
use warden_copy::{receive, send};
use warden_init::byte_string::ByteString;
use warden_init::confinement::Confinement;
use warden_init::note::note;
use warden_init::spec::{Cgroup, Spec, User};
use warden_linux::process::{self, Child, ForkOptions};
use warden_linux::socket::PacketSocket;
use warden_linux::{limit, namespace};

use crate::message::{CopyFailure, CopyOrder, Direction, Side};

/// How often a helper tells how far it is, at most.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// The longest path that is told: the longest that a program can name at once (PATH_MAX). A tree may be deeper.
const MAX_PATH: usize = 4096;

/// The longest report, in bytes: a path and some numbers; a path of bytes that are no text takes four for each.
const MAX_REPORT: usize = 64 * 1024;

/// What joining a container takes.
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    cgroups: Vec<Cgroup>,
    user: User,
    confinement: Confinement,
    /// Whether it has a user namespace of its own.
    mapped: bool,
}

impl From<&Spec> for Inside {
    fn from(spec: &Spec) -> Self {
        Self {
            cgroups: spec.cgroups.clone(),
            user: spec.user.clone(),
            confinement: spec.confinement,
            mapped: spec.ids.is_some(),
        }
    }
}

/// What a helper tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    Progress(Totals),
    Done(Totals),
    Failed { totals: Totals, step: Step, path: ByteString, errno: i32 },
}

/// One of the two processes.
struct Helper {
    side: Side,
    child: Child,
    reports: PacketSocket,
    /// Whether it has said its last word, and how it ended.
    outcome: Option<Result<(), CopyFailure>>,
}

/// A copy that goes on.
pub(crate) struct Copying {
    helpers: [Helper; 2],
    receiver: Side,
    /// What the receiving side has.
    totals: Totals,
}

/// What came of listening to a helper.
pub(crate) enum Heard {
    Nothing,
    Progress(Totals),
    /// Both have ended.
    Ended(Totals, Option<CopyFailure>),
}

impl Copying {
    /// Starts both helpers; `init` is the container's.
    pub(crate) fn start(order: &CopyOrder, inside: &Inside, init: BorrowedFd<'_>) -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        let sender = match order.direction {
            Direction::In => Side::Outside,
            Direction::Out => Side::Inside,
        };
        let maker = process::id();
        let start = |side: Side, stream: &UnixStream| {
            let task = Task { order, side, sends: side == sender, stream, maker };
            Helper::start(task, inside, init)
        };
        let outside = start(Side::Outside, &near)?;
        // Dropped on failure, which kills the first.
        let inside = start(Side::Inside, &far)?;
        let receiver = if sender == Side::Outside { Side::Inside } else { Side::Outside };
        Ok(Self { helpers: [outside, inside], receiver, totals: Totals::default() })
    }

    /// What to wait for: a helper's reports.
    pub(crate) fn reports(&self, side: Side) -> BorrowedFd<'_> {
        self.helper(side).reports.as_fd()
    }

    fn helper(&self, side: Side) -> &Helper {
        let [outside, inside] = &self.helpers;
        if side == Side::Outside { outside } else { inside }
    }

    /// What has arrived by now.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Ends both helpers; their ends are heard like others.
    pub(crate) fn cancel(&self) {
        for helper in &self.helpers {
            helper.kill();
        }
    }

    /// Takes one report.
    pub(crate) fn hear(&mut self, side: Side) -> Heard {
        let receives = side == self.receiver;
        let [outside, inside] = &mut self.helpers;
        let helper = if side == Side::Outside { outside } else { inside };
        let totals = match helper.hear() {
            None => return Heard::Nothing,
            Some(totals) => totals,
        };
        if let Some(totals) = totals.filter(|_| receives) {
            self.totals = totals;
        }
        // A side that failed by itself leaves the other nothing to do; it might wait for a file system for ever.
        if helper.outcome.as_ref().is_some_and(Result::is_err) {
            self.cancel();
        }
        if self.helpers.iter().all(|helper| helper.outcome.is_some()) {
            return Heard::Ended(self.totals, self.failure());
        }
        if receives { Heard::Progress(self.totals) } else { Heard::Nothing }
    }

    /// The reason for both ends: not the one that only says that the other side has gone.
    fn failure(&self) -> Option<CopyFailure> {
        let failures = || self.helpers.iter().filter_map(|helper| helper.outcome.clone()?.err());
        let reason = failures().find(|failure| failure.step.is_some_and(|step| step != Step::Stream));
        reason.or_else(|| failures().find(|failure| failure.step.is_some())).or_else(|| failures().next())
    }
}

impl Helper {
    fn start(task: Task<'_>, inside: &Inside, init: BorrowedFd<'_>) -> io::Result<Self> {
        let (reports, reporter) = PacketSocket::pair()?;
        let cgroup = match task.side {
            Side::Inside => unified_cgroup(inside)?,
            Side::Outside => None,
        };
        let options = ForkOptions { cgroup: cgroup.as_ref().map(AsFd::as_fd), ..ForkOptions::default() };
        let side = task.side;
        let child = process::fork(options, || task.run(&reporter, inside, init))?;
        Ok(Self { side, child, reports, outcome: None })
    }

    fn kill(&self) {
        // It fails for one that has ended, which is what is wanted.
        let _ = process::kill_by_pidfd(self.child.pidfd.as_fd());
    }

    /// Takes one report: nothing, or the totals that came with it.
    fn hear(&mut self) -> Option<Option<Totals>> {
        if self.outcome.is_some() {
            return None;
        }
        let packet = match self.reports.receive(MAX_REPORT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(_) => Vec::new(),
            Ok(packet) => packet.bytes,
        };
        let (totals, outcome) = match serde_json::from_slice(&packet) {
            Ok(Report::Progress(totals)) => return Some(Some(totals)),
            Ok(Report::Done(totals)) => (Some(totals), Ok(())),
            Ok(Report::Failed { totals, step, path, errno }) => {
                let path = shown(path.0);
                (Some(totals), Err(CopyFailure { side: self.side, step: Some(step), path, errno }))
            }
            // It was killed, by us, by the kernel for want of memory, or with its container.
            Err(_) => (
                None,
                Err(CopyFailure {
                    side: self.side,
                    step: None,
                    path: ByteString::default(),
                    errno: ECANCELED,
                }),
            ),
        };
        self.outcome = Some(outcome);
        self.bury();
        Some(totals)
    }

    /// Reaps it; its last word is its last act.
    fn bury(&self) {
        self.kill();
        if let Err(error) = process::wait(self.child.pidfd.as_fd()) {
            note(format_args!("iomux: reap a copy: {error}"));
        }
    }
}

impl Drop for Helper {
    /// Ends it without waiting: one that the kernel holds up must not hold up iomux, whose end buries it.
    fn drop(&mut self) {
        if self.outcome.is_none() {
            self.kill();
        }
    }
}

const ECANCELED: i32 = 125;

/// A path as it is told: how it begins, where it is too long.
fn shown(mut path: Vec<u8>) -> ByteString {
    const REST: &[u8] = b"...";
    if path.len() > MAX_PATH {
        path.truncate(MAX_PATH - REST.len());
        path.extend_from_slice(REST);
    }
    ByteString(path)
}

fn unified_cgroup(inside: &Inside) -> io::Result<Option<OwnedFd>> {
    let path = inside.cgroups.iter().find_map(|cgroup| match cgroup {
        Cgroup::V2(path) => Some(path),
        Cgroup::V1(_) => None,
    });
    path.map(|path| Ok(std::fs::File::open(path.as_path())?.into())).transpose()
}

/// One helper's work.
struct Task<'a> {
    order: &'a CopyOrder,
    side: Side,
    sends: bool,
    stream: &'a UnixStream,
    /// iomux.
    maker: i32,
}

impl Task<'_> {
    /// The helper's whole life; gives its exit status.
    fn run(&self, reporter: &PacketSocket, inside: &Inside, init: BorrowedFd<'_>) -> u8 {
        let mut totals = Totals::default();
        let prepared = self.prepare(reporter, inside, init);
        let (report, failed) = match prepared.and_then(|own| self.copy(reporter, &own, &mut totals)) {
            Ok(totals) => (Report::Done(totals), false),
            Err(CopyError { step, path, errno }) => {
                (Report::Failed { totals, step, path: shown(path), errno: errno.raw_os_error() }, true)
            }
        };
        u8::from(tell_surely(reporter, &report).is_err() || failed)
    }

    /// Lets go of everything of iomux and, inside, of every right on the host; gives this process's /proc/self/fd.
    fn prepare(
        &self,
        reporter: &PacketSocket,
        inside: &Inside,
        init: BorrowedFd<'_>,
    ) -> Result<OwnedFd, CopyError> {
        // The host's /proc, while that is what is seen.
        let own = send::own_descriptors()?;
        let kept = [self.stream.as_fd(), reporter.as_fd(), init, own.as_fd()];
        process::keep_only(&kept).map_err(|error| self.error(&error))?;
        match self.side {
            Side::Inside => enter(inside, init),
            // iomux works in the container's directory; a relative path of the host is none of there.
            Side::Outside => std::env::set_current_dir("/"),
        }
        .map_err(|error| self.error(&error))?;
        // After the ids were set, which would clear it.
        process::die_with(self.maker).map_err(|error| self.error(&error))?;
        Ok(own)
    }

    fn error(&self, error: &io::Error) -> CopyError {
        CopyError::new(Step::Enter, self.path().0.clone(), error)
    }

    /// The path on this side.
    fn path(&self) -> &ByteString {
        if self.sends { &self.order.source } else { &self.order.target }
    }

    /// Does it; `latest` is how far it came.
    fn copy(&self, reporter: &PacketSocket, own: &OwnedFd, latest: &mut Totals) -> Result<Totals, CopyError> {
        let mut last = Instant::now();
        let mut report = |totals: Totals| {
            *latest = totals;
            if last.elapsed() >= REPORT_INTERVAL {
                last = Instant::now();
                // A queue that is full holds a report of late anyway.
                let _ = tell(reporter, &Report::Progress(totals));
            }
        };
        let treatment = match self.side {
            // A program that a tenant chose must not run as the host's root: no set-id bits.
            Side::Outside => Treatment { owner: self.order.owner, modes: 0o1777 },
            Side::Inside => Treatment { owner: None, modes: 0o7777 },
        };
        if self.sends {
            send::send(&self.path().0, own.as_fd(), self.stream, &mut report)
        } else {
            receive::receive(&self.path().0, treatment, self.stream, &mut report)
        }
    }
}

/// Becomes the container's user.
fn enter(inside: &Inside, init: BorrowedFd<'_>) -> io::Result<()> {
    for cgroup in &inside.cgroups {
        if let Cgroup::V1(path) = cgroup {
            // 0 stands for the process that writes.
            std::fs::write(path.as_path().join("tasks"), "0")?;
        }
    }
    limit::raise_open_files()?;
    namespace::join_process(init, inside.mapped)?;
    // The container's root first: leaving it for another user drops what the namespace has granted.
    process::set_ids(0, 0)?;
    process::set_ids(inside.user.id, inside.user.id)?;
    process::drop_capabilities()?;
    inside.confinement.enter()?;
    process::set_umask(0o022);
    // Relative paths are the user's; without a home they are the root's.
    let home = format!("/home/{}", inside.user.name);
    std::env::set_current_dir(home).or_else(|_| std::env::set_current_dir("/"))
}

fn tell(reporter: &PacketSocket, report: &Report) -> io::Result<()> {
    reporter.send(&serde_json::to_vec(report)?, &[])
}

/// Tells the last word, when iomux has room for it.
fn tell_surely(reporter: &PacketSocket, report: &Report) -> io::Result<()> {
    loop {
        match tell(reporter, report) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1))
            }
            other => return other,
        }
    }
}
