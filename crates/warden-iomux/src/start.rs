//! iomux's start: its descriptors and files, the container, and then the supervisor's loop.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use warden_init::build::{self, SetupError};
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

/// Builds the container whose spec is at `path` and supervises it until its end. The calling process must have one thread.
///
/// A packet socket as stdin is its first client. What it has to say to people goes to the container's log from the
/// moment at which that is open.
pub fn run(path: &Path) -> Result<(), Failure> {
    let path = fs::canonicalize(path).map_err(failed("find the spec", path))?;
    let spec = read_spec(&path)?;
    let layout = Layout::new(path.parent().unwrap_or(Path::new("/")));
    let control = take_control().map_err(failed("take over", Path::new("stdin")))?;
    detach(&layout)?;
    let listener = listen(&layout.iomux_socket())?;
    // Only now: where another iomux listens, the file is its own.
    write_id(&layout.iomux_pid(), process::id())?;
    let mut supervisor = Supervisor::new(layout.clone(), Inside::from(&spec), listener, control)
        .map_err(failed("prepare to supervise", layout.directory()))?;
    let result = start_init(&spec, &layout, &mut supervisor);
    match result {
        Ok(()) => supervisor.run().map_err(failed("supervise", layout.directory())),
        Err(Failure::Setup(error)) => {
            supervisor.report_setup_failure(&error);
            Err(error.into())
        }
        Err(error) => Err(error),
    }
}

fn read_spec(path: &Path) -> Result<Spec, Failure> {
    let invalid = |reason: String| Failure::Spec { path: path.to_path_buf(), reason };
    let text = fs::read(path).map_err(failed("read the spec", path))?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    match spec.version {
        spec::VERSION => Ok(spec),
        other => Err(invalid(format!("version {other}, expected {}", spec::VERSION))),
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
    for directory in [layout.run(), layout.jobs(), layout.staging()] {
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

fn write_id(path: &Path, id: i32) -> Result<(), Failure> {
    fs::write(path, format!("{id}\n")).map_err(failed("write", path))
}

/// Builds the container and hands its init to the supervisor.
fn start_init(spec: &Spec, layout: &Layout, supervisor: &mut Supervisor) -> Result<(), Failure> {
    let path = layout.wshd_socket();
    let listener = listen(&path)?;
    let init = build::build(spec, layout.directory(), listener.as_fd())?;
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
