//! What `net_out` writes to the kernel's log.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use warden_protocol::messages::net_out_request::Protocol;
use warden_protocol::messages::*;
use warden_tests::NOTHING_AHEAD;
use warden_tests::world::{INTERNET, World, python_as_root};

/// Whether the kernel logs what other network namespaces than the machine's first ask for; as it was when this is dropped.
struct OtherNamespaces(String);

const SWITCH: &str = "/proc/sys/net/netfilter/nf_log_all_netns";

impl OtherNamespaces {
    fn logged() -> Self {
        let before = fs::read_to_string(SWITCH).unwrap();
        fs::write(SWITCH, "1").unwrap();
        Self(before)
    }
}

impl Drop for OtherNamespaces {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, &self.0);
    }
}

/// The kernel's log from now on.
struct Log(File);

impl Log {
    fn open() -> Self {
        let mut file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg").unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        Self(file)
    }

    /// The lines since then that hold a text: each read gives one.
    fn lines(&mut self, part: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => lines.push(String::from_utf8_lossy(&record[..length]).into_owned()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Overwritten before it was read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) => panic!("{error}"),
            }
        }
        lines.retain(|line| line.contains(part));
        lines
    }
}

const O_NONBLOCK: i32 = 0o4000;

#[test]
fn a_connection_is_one_line_with_the_containers_id_answered_or_not() {
    let world = World::new(&[NOTHING_AHEAD]);
    let _logged = OtherNamespaces::logged();
    let mut client = world.daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let mut open = |protocol: Protocol, port, log| {
        client.must(NetOutRequest {
            handle: Some(handle.clone()),
            network: Some(INTERNET[0].into()),
            port: Some(port),
            protocol: Some(protocol.into()),
            log: Some(log),
            ..NetOutRequest::default()
        });
    };
    open(Protocol::Udp, 7001, true);
    open(Protocol::Udp, 7002, false);
    open(Protocol::Tcp, 7003, true);
    // What was opened last decides.
    open(Protocol::Udp, 7004, true);
    open(Protocol::Udp, 7004, false);
    let mut log = Log::open();
    let send = format!(
        r#"
import socket
def udp(port, times):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(times): s.sendto(b"x", ("{0}", port))
udp(7001, 3); udp(7001, 1); udp(7002, 2); udp(7004, 2); udp(7005, 1)
for port in (7003, 7006):
    try: socket.create_connection(("{0}", port), 1)
    except OSError: pass
"#,
        INTERNET[0]
    );
    python_as_root(&mut client, &handle, &send);
    let lines = log.lines(&format!("warden-i-{id} "));
    let ports: Vec<_> = lines
        .iter()
        .map(|line| line.split("DPT=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap())
        .collect();
    assert_eq!(ports, ["7001", "7001", "7003"], "{lines:#?}");
}
