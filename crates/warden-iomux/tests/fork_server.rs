//! The process that iomuxes are copied from, as wardend uses it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod support;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{helpers, wait_until};
use warden_iomux::Origin;
use warden_iomux::fork_server::{Answer, Order};
use warden_iomux::message::{MAX_PACKET, Request, VERSION};
use warden_linux::epoll::{Epoll, Interest};
use warden_linux::process;
use warden_linux::socket::PacketSocket;

struct Server {
    process: Child,
    socket: Option<PacketSocket>,
}

impl Server {
    fn start(room: usize) -> Self {
        let (ours, theirs) = PacketSocket::pair().unwrap();
        let mut command = Command::new(helpers().join("iomux"));
        command.args(["--fork-server", &" ".repeat(room)]).stdin(Stdio::from(OwnedFd::from(theirs)));
        Self { process: command.stderr(Stdio::null()).spawn().unwrap(), socket: Some(ours) }
    }

    /// Has it copied; gives the copy and the first client's end.
    fn copy(&self, spec: &Path) -> (process::Child, PacketSocket) {
        let (ours, theirs) = PacketSocket::pair().unwrap();
        let order = serde_json::to_vec(&Order { spec: spec.into(), origin: Origin::Built }).unwrap();
        let socket = self.socket.as_ref().unwrap();
        socket.send(&order, &[theirs.as_fd()]).unwrap();
        wait_for(socket);
        let mut packet = socket.receive(MAX_PACKET).unwrap();
        let Answer::Started(pid) = serde_json::from_slice(&packet.bytes).unwrap() else { panic!("refused") };
        (process::Child { pid, pidfd: packet.fds.pop().unwrap() }, ours)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.socket = None;
        assert!(self.process.wait().unwrap().success(), "it goes with its client");
    }
}

/// Waits until a descriptor is readable, or for ever.
fn wait_for(fd: impl AsFd) {
    let epoll = Epoll::new().unwrap();
    epoll.add(fd, 0, Interest::Read).unwrap();
    assert!(!epoll.wait(Some(support::PATIENCE)).unwrap().is_empty());
}

fn shown(pid: i32) -> String {
    String::from_utf8(fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).unwrap()
}

#[test]
fn a_copy_does_nothing_until_it_is_greeted_and_ends_with_who_does_not() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("spec.json"), "nonsense").unwrap();
    let spec = directory.path().join("spec.json");
    let server = Server::start(spec.as_os_str().len());
    let (silent, control) = server.copy(&spec);
    wait_until(|| shown(silent.pid).contains(spec.to_str().unwrap()));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no file is made");
    drop(control);
    wait_for(&silent.pidfd);

    // The next one is, and goes on when the server has gone.
    let (greeted, control) = server.copy(&spec);
    drop(server);
    control.send(&serde_json::to_vec(&Request::Hello { version: VERSION }).unwrap(), &[]).unwrap();
    wait_for(&greeted.pidfd);
    let log = fs::read_to_string(directory.path().join("run/iomux.log")).unwrap();
    assert!(log.contains("read the spec"), "{log}");
}

#[test]
fn a_spec_whose_path_has_no_room_among_the_arguments_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(1);
    let spec = directory.path().join("x".repeat(200));
    let (copy, control) = server.copy(&spec);
    wait_for(&copy.pidfd);
    assert!(control.is_closed());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
