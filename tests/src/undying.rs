//! Processes that do not die on any kernel: they wait for a file system that has taken their question and never answers.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStdout, Command, Stdio};

use crate::connection::Connection;
use crate::daemon::Daemon;
use crate::world::{Kept, PYTHON};

/// Mounts itself, answers the kernel's greeting, takes one question and keeps it. Who has asked can be killed until the
/// question is taken, and from then on not before the answer or the file system's end.
const FILE_SYSTEM: &str = r#"
import ctypes, os, struct, time
os.makedirs('/tmp/undying')
fd = os.open('/dev/fuse', os.O_RDWR)
options = f'fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other'.encode()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b'undying', b'/tmp/undying', b'fuse', 0, options) == 0, os.strerror(ctypes.get_errno())
unique = struct.unpack_from('<Q', os.read(fd, 1 << 17), 8)[0]
greeting = struct.pack('<IIIIHHIIHH32x', 7, 31, 0, 0, 9, 9, 4096, 1, 1, 0)
os.write(fd, struct.pack('<IiQ', 16 + len(greeting), 0, unique) + greeting)
print('ready', flush=True)
os.read(fd, 1 << 17)
print('taken', flush=True)
time.sleep(1000)
"#;

/// A job that does not die before this is dropped. What holds it runs outside of the container, as root of its namespaces.
#[derive(Debug)]
pub struct Undying {
    _holding: Kept,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Undying {
    /// Starts a job in a container, and waits until nothing can kill it.
    #[track_caller]
    pub fn start(daemon: &Daemon, client: &mut Connection, handle: &[u8]) -> Self {
        let init = fs::read_to_string(daemon.depot(&client.id(handle)).join("run/wshd.pid")).unwrap();
        let mut command = Command::new("nsenter");
        command.args(["--user", "--mount", "--target", init.trim(), PYTHON, "-c", FILE_SYSTEM]);
        let mut holding = Kept(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut output = BufReader::new(holding.0.stdout.take().unwrap()).lines();
        assert_eq!(output.next().unwrap().unwrap(), "ready");
        client.spawn(handle, "exec cat /tmp/undying/file");
        assert_eq!(output.next().unwrap().unwrap(), "taken");
        Self { _holding: holding, _output: output }
    }
}
