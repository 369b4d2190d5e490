//! iomux's start: its descriptors and files, the container, and then the supervisor's loop.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use warden_init::build::{self, Init, SetupError};
use warden_init::spec::{self, Spec};
use warden_linux::socket::{PacketListener, PacketSocket};
use warden_linux::{limit, process, signal};

use crate::copy::Inside;
use crate::layout::Layout;
use crate::supervisor::Supervisor;

/// The umask: files are the host root's alone from birth.
const PRIVATE: u32 = 0o077;

/// Why iomux ended otherwise than with its container.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something could not be done to a file, socket or process.
    #[error("{action} {}: {source}", .object.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// What it was done to.
        object: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The spec is none.
    #[error("read the spec {}: {reason}", .path.display())]
    Spec {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The container could not be built.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

fn failed(action: &'static str, object: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::Io { action, object: object.to_path_buf(), source }
}

/// How the container comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It is built.
    Built,
    /// It stands, and the iomux that has built it has died.
    Adopted,
}

/// Builds the container whose spec is at `path`, or takes it over, and supervises it until its end. The calling process must
/// have one thread.
///
/// It works in the container's directory and knows nothing there by its absolute path: the depot may be moved.
///
/// A packet socket as stdin is its first client. What it has to say to people goes to the container's log from the
/// moment at which that is open.
pub fn run(path: &Path, origin: Origin) -> Result<(), Failure> {
    let control = take_control().map_err(failed("take over", Path::new("stdin")))?;
    supervise(path, origin, control)
}

/// As [`run`], for the client `control`.
pub(crate) fn supervise(path: &Path, origin: Origin, control: Option<PacketSocket>) -> Result<(), Failure> {
    let path = fs::canonicalize(path).map_err(failed("find the spec", path))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::env::set_current_dir(directory).map_err(failed("work in", directory))?;
    let layout = Layout::new(Path::new("."));
    detach(&layout)?;
    let spec = read_spec(&path)?;
    let listener = listen(&layout.iomux_socket())?;
    // Only now: where another iomux listens, the file is its own.
    write_id(&layout.iomux_pid(), process::id())?;
    let mut supervisor = Supervisor::new(layout.clone(), Inside::from(&spec), listener, control)
        .map_err(failed("prepare to supervise", directory))?;
    let result = match origin {
        Origin::Built => start_init(&spec, directory, &layout, &mut supervisor),
        Origin::Adopted => adopt_init(&layout, &mut supervisor),
    };
    drop(spec);
    match result {
        Ok(()) => {
            process::trim_heap();
            supervisor.run().map_err(failed("supervise", directory))
        }
        Err(Failure::Setup(error)) => {
            supervisor.report_setup_failure(&error);
            Err(error.into())
        }
        Err(error) => Err(error),
    }
}

pub(crate) fn read_spec(path: &Path) -> Result<Spec, Failure> {
    let invalid = |reason: String| Failure::Spec { path: path.to_path_buf(), reason };
    let text = fs::read(path).map_err(failed("read the spec", path))?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    if spec::VERSIONS.contains(&spec.version) {
        Ok(spec)
    } else {
        Err(invalid(format!("version {}, expected {}", spec.version, spec::VERSION)))
    }
}

/// Takes the control socket, if stdin is a socket.
fn take_control() -> io::Result<Option<PacketSocket>> {
    let stdin = File::from(process::inherited(0)?);
    if !stdin.metadata()?.file_type().is_socket() {
        return Ok(None);
    }
    PacketSocket::adopt(OwnedFd::from(stdin)).map(Some)
}

/// Becomes independent of who started this process: session, signals, files and messages.
fn detach(layout: &Layout) -> Result<(), Failure> {
    signal::block_for_good().map_err(failed("block the signals of", layout.directory()))?;
    // It fails for the leader of a process group, which whoever starts iomux this way has wanted.
    let _ = process::new_session();
    process::set_umask(PRIVATE);
    let _ = limit::raise_open_files();
    for directory in [layout.run(), layout.jobs()] {
        fs::create_dir_all(&directory).map_err(failed("make the directory", &directory))?;
    }
    let log = OpenOptions::new().append(true).create(true).open(layout.log());
    let log = log.map_err(failed("open the log", &layout.log()))?;
    let null = Path::new("/dev/null");
    let nowhere = OpenOptions::new().read(true).write(true).open(null).map_err(failed("open", null))?;
    for (file, number) in [(&nowhere, 0), (&nowhere, 1), (&log, 2)] {
        process::place(file.as_fd(), number).map_err(failed("write to", &layout.log()))?;
    }
    Ok(())
}

/// Listens on a socket of mode 0600 from birth, in the place of one that nobody listens on any more.
fn listen(path: &Path) -> Result<PacketListener, Failure> {
    process::set_umask(PRIVATE | 0o100);
    let mut listener = PacketListener::bind(path);
    if listener.is_err() && is_abandoned(path) {
        listener = fs::remove_file(path).and_then(|()| PacketListener::bind(path));
    }
    process::set_umask(PRIVATE);
    listener.map_err(failed("listen on", path))
}

fn is_abandoned(socket: &Path) -> bool {
    PacketSocket::connect(socket).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Writes over what is there, which a full disk grants. Whoever reads it takes the first line.
fn write_id(path: &Path, id: i32) -> Result<(), Failure> {
    let text = format!("{id}\n");
    let write = || {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)
    };
    write().map_err(failed("write", path))
}

/// Builds the container and hands its init to the supervisor.
fn start_init(
    spec: &Spec,
    directory: &Path,
    layout: &Layout,
    supervisor: &mut Supervisor,
) -> Result<(), Failure> {
    let path = layout.wshd_socket();
    let listener = listen(&path)?;
    let init = build::build(spec, directory, listener.as_fd(), |pid| supervisor.announce(pid))?;
    let taken = write_id(&layout.wshd_pid(), init.pid).and_then(|()| {
        let socket = PacketSocket::connect(&path).map_err(failed("connect to", &path))?;
        supervisor.take_init(&init, socket).map_err(failed("supervise", &path))
    });
    if taken.is_err() {
        // Without a supervisor the container is of no use, and nobody would end it.
        let _ = process::kill_by_pidfd(init.pidfd.as_fd()).and_then(|()| process::wait(init.pidfd.as_fd()));
    }
    taken
}

/// Hands the init of an iomux that has died to the supervisor.
fn adopt_init(layout: &Layout, supervisor: &mut Supervisor) -> Result<(), Failure> {
    let path = layout.wshd_socket();
    match find_init(layout).map_err(failed("find the init of", &layout.wshd_pid()))? {
        Some((init, socket)) => supervisor.adopt_init(&init, socket).map_err(failed("supervise", &path)),
        None => {
            supervisor.bury_container();
            Ok(())
        }
    }
}

/// The container's init with a connection to it; none when it is dead.
fn find_init(layout: &Layout) -> io::Result<Option<(Init, PacketSocket)>> {
    let socket = match PacketSocket::connect(&layout.wshd_socket()) {
        Ok(socket) => socket,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = fs::read_to_string(layout.wshd_pid())?;
    let pid = text.lines().next().unwrap_or_default().parse().map_err(|_| io::ErrorKind::InvalidData)?;
    let pidfd = match process::open_pidfd(pid) {
        Err(error) if error.raw_os_error() == Some(ESRCH) => return Ok(None),
        other => other?,
    };
    // Looked at once it is held: the number may belong to somebody else by now.
    if !is_init(pid) {
        return Ok(None);
    }
    Ok(Some((Init { pid, pidfd }, socket)))
}

/// Whether a process is the first of a pid namespace below this one.
fn is_init(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    ids.split_whitespace().count() > 1 && ids.split_whitespace().next_back() == Some("1")
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

const ESRCH: i32 = 3;
