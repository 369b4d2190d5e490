//! Where the containers' iomuxes come from: one small process, which is copied for each.
//!
//! A program that wardend starts itself would cost it a copy of its table of descriptors, which grows with the number of
//! containers, and the kernel a new image (docs/adr/0007).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use warden_iomux::Origin;
use warden_iomux::fork_server::{Answer, Order};
use warden_iomux::message::MAX_PACKET;
use warden_linux::socket::PacketSocket;

use crate::error::{Context, Error};
use crate::link;
use crate::process::Process;

/// How long a copy may take: the server does nothing else.
const TIME: Duration = Duration::from_secs(30);

/// Has the C library keep no cache of freed memory for each thread: there it would stay, in pages that each idle container
/// keeps in both of its processes.
const ALLOCATOR: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");

/// The process, and the program that it is started from.
#[derive(Debug)]
pub(crate) struct ForkServer {
    program: PathBuf,
    /// Bytes of the longest path of a spec.
    room: usize,
    /// Not while it is asked for something: what is not waited for to the end ends it.
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    socket: AsyncFd<PacketSocket>,
    process: Child,
}

impl ForkServer {
    /// Will start `program` when it is first needed, for specs whose paths have at most `room` bytes.
    pub(crate) fn new(program: PathBuf, room: usize) -> Self {
        Self { program, room, running: Mutex::new(None) }
    }

    /// Starts an iomux on a spec, with `control` as its first client.
    pub(crate) async fn start(
        &self,
        spec: &Path,
        origin: Origin,
        control: PacketSocket,
    ) -> Result<Process, Error> {
        let order = serde_json::to_vec(&Order { spec: spec.into(), origin }).map_err(io::Error::from);
        let order = order.context(|| format!("asking for an iomux of {}", spec.display()))?;
        let mut place = self.running.lock().await;
        let asked = match place.take().map(|running| running.ask(&order, &control)) {
            None => self.launch()?.ask(&order, &control),
            Some(Err(error)) => {
                tracing::warn!(%error, "the process that iomuxes are copied from is replaced");
                self.launch()?.ask(&order, &control)
            }
            Some(Ok(running)) => Ok(running),
        };
        // What it has copied but not told of ends: nobody greets it.
        let answer = match asked {
            Ok(mut running) => running.answer().await.map(|answer| (running, answer)),
            Err(error) => Err(error),
        };
        let (running, process) = answer.context(|| format!("copying {}", self.program.display()))?;
        *place = Some(running);
        process.context(|| "starting an iomux".to_owned())
    }

    fn launch(&self) -> Result<Running, Error> {
        let (ours, theirs) = PacketSocket::pair().context(|| "making a socket".to_owned())?;
        let mut command = Command::new(&self.program);
        command.env_clear().envs([ALLOCATOR]);
        #[cfg(feature = "failpoints")]
        command
            .envs(std::env::var_os("WARDEN_IOMUX_FAILPOINT").map(|point| ("WARDEN_IOMUX_FAILPOINT", point)));
        let process = command
            .args(["--fork-server", &" ".repeat(self.room)])
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context(|| format!("starting {}", self.program.display()))?;
        let socket = link::watch(ours).context(|| "watching a socket".to_owned())?;
        Ok(Running { socket, process })
    }
}

impl Running {
    /// Asks for a copy; one that has died is not asked.
    fn ask(self, order: &[u8], control: &PacketSocket) -> io::Result<Self> {
        // It waits for nothing else, so that there is room.
        self.socket.get_ref().send(order, &[control.as_fd()])?;
        Ok(self)
    }

    /// Waits for what came of it.
    async fn answer(&mut self) -> io::Result<io::Result<Process>> {
        let hearing = async {
            loop {
                let mut readable = self.socket.readable().await?;
                if let Ok(packet) = readable.try_io(|socket| socket.get_ref().receive(MAX_PACKET)) {
                    return packet;
                }
            }
        };
        let packet = tokio::time::timeout(TIME, hearing).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if packet.bytes.is_empty() {
            let id = self.process.id().unwrap_or_default();
            return Err(io::Error::other(format!("process {id} has ended")));
        }
        Ok(match (serde_json::from_slice(&packet.bytes)?, packet.fds.into_iter().next()) {
            (Answer::Started(pid), Some(pidfd)) => Process::new(pid.unsigned_abs(), pidfd),
            (Answer::Started(_), None) => Err(io::ErrorKind::InvalidData.into()),
            (Answer::Refused(errno), _) => Err(io::Error::from_raw_os_error(errno)),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program at `path` that stands in for the fork server: what it starts is a script of a shell each time, whose stdin
    /// is the socket, and whose stderr the log in the container's `run`.
    pub(crate) fn stand_in(path: &Path, script: &str) {
        let server = format!(
            r#"#!/usr/bin/python3
import json, os, socket, subprocess
wardend = socket.socket(fileno=0)
wardend.setblocking(True)
while True:
    data, fds, _, _ = socket.recv_fds(wardend, 65536, 4)
    if not data:
        break
    log = open(os.path.dirname(json.loads(data)["spec"]) + "/run/iomux.log", "a")
    child = subprocess.Popen(["/bin/sh", "-c", {script:?}], stdin=fds[0], stderr=log)
    socket.send_fds(wardend, [json.dumps({{"started": child.pid}}).encode()], [os.pidfd_open(child.pid)])
    os.close(fds[0])
"#
        );
        fs::write(path, server).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    fn world(script: &str) -> (tempfile::TempDir, ForkServer, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("run")).unwrap();
        let program = directory.path().join("iomux");
        stand_in(&program, script);
        let spec = directory.path().join("spec.json");
        (directory, ForkServer::new(program, 100), spec)
    }

    async fn start(server: &ForkServer, spec: &Path) -> Result<(Process, PacketSocket), Error> {
        let (ours, theirs) = PacketSocket::pair().unwrap();
        Ok((server.start(spec, Origin::Built, theirs).await?, ours))
    }

    fn server_id(server: &ForkServer) -> u32 {
        server.running.try_lock().unwrap().as_ref().unwrap().process.id().unwrap()
    }

    #[tokio::test]
    async fn one_process_is_copied_again_and_again_and_replaced_when_it_has_died() {
        let (_directory, server, spec) = world("exec sleep 1000");
        let (first, _one) = start(&server, &spec).await.unwrap();
        let id = server_id(&server);
        let (second, _two) = start(&server, &spec).await.unwrap();
        assert_eq!(server_id(&server), id);
        assert_ne!(first.id(), second.id());
        let pid = rustix::process::Pid::from_raw(id.cast_signed()).unwrap();
        let watched = Process::open(id).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        watched.end().await;
        let (third, _three) = start(&server, &spec).await.unwrap();
        assert_ne!(server_id(&server), id);
        for copy in [first, second, third] {
            assert!(!copy.has_ended().unwrap(), "what was started before goes on");
            copy.kill();
            copy.end().await;
        }
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_not_asked_again() {
        let (directory, server, spec) = world("exec sleep 1000");
        fs::write(directory.path().join("iomux"), "#!/bin/sh\nexec sleep 1000\n").unwrap();
        let late = tokio::time::timeout(Duration::from_millis(100), start(&server, &spec)).await;
        assert!(late.is_err());
        assert!(server.running.try_lock().unwrap().is_none());
        stand_in(&directory.path().join("iomux"), "exec sleep 1000");
        let (process, _ours) = start(&server, &spec).await.unwrap();
        process.kill();
    }

    #[tokio::test]
    async fn a_missing_program_is_named_and_one_that_ends_at_once_too() {
        let server = ForkServer::new("/no/iomux".into(), 1);
        let refused = start(&server, Path::new("/x")).await.unwrap_err().to_string();
        assert_eq!(refused, "starting /no/iomux: No such file or directory (os error 2)");
        let server = ForkServer::new("/bin/true".into(), 1);
        let refused = start(&server, Path::new("/x")).await.unwrap_err().to_string();
        assert!(refused.starts_with("copying /bin/true: "), "{refused}");
    }
}
