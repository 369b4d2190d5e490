//! Moving much output through a daemon, with proof that it arrived whole.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use warden_protocol::messages::{RunRequest, StreamRequest};

use crate::connection::{Connection, Streamed, run_request};
use crate::daemon::Daemon;

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// How many bytes.
    pub length: usize,
    /// Their SHA-256, in hexadecimal digits.
    pub hash: String,
    /// How long it took from the request to the last byte of the answer.
    pub time: Duration,
}

/// The command whose output is moved; its answer may be read in one piece or by and by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `run`.
    Run,
    /// `spawn` and `stream`.
    Stream,
}

/// Makes a file `data` of random bytes inside a container, and gives its SHA-256.
#[track_caller]
pub fn prepare(client: &mut Connection, handle: &[u8], length: usize) -> String {
    let line = client.text(handle, format!("head -c {length} /dev/urandom > data; sha256sum < data"));
    line.split(' ').next().unwrap().to_owned()
}

/// Moves the file `data` out of a container.
#[track_caller]
pub fn receive(client: &mut Connection, handle: &[u8], way: Way) -> Transfer {
    let start = Instant::now();
    let bytes = match way {
        Way::Run => {
            client.send(run_request(handle, "cat data"));
            let answer = client.receive_of::<RunRequest>().unwrap();
            assert_eq!(answer.exit_status, Some(0));
            answer.stdout.unwrap()
        }
        Way::Stream => streamed(client, handle),
    };
    let time = start.elapsed();
    Transfer { length: bytes.len(), hash: sha256(&bytes), time }
}

#[track_caller]
fn streamed(client: &mut Connection, handle: &[u8]) -> Vec<u8> {
    let job = client.spawn(handle, "cat data");
    client.send(StreamRequest { handle: Some(handle.to_vec()), job_id: Some(job) });
    let (mut bytes, mut streamed) = (Vec::new(), Streamed::default());
    while let Some((name, data)) = client.next_chunk(&mut streamed).unwrap() {
        assert_eq!(name, b"stdout");
        bytes.extend_from_slice(&data);
    }
    assert_eq!(streamed.status, 0);
    bytes
}

/// The SHA-256 of bytes, by the host's own program.
pub fn sha256(bytes: &[u8]) -> String {
    let mut command = Command::new("sha256sum");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sha256sum starts");
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// Does something while eight connections run short jobs, each checked; gives its result and how many jobs there were.
#[track_caller]
pub fn beside_eight_jobs<T>(daemon: &Daemon, handle: &[u8], action: impl FnOnce() -> T) -> (T, usize) {
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let result = thread::scope(|scope| {
        for number in 0..8 {
            let (done, count) = (&done, &count);
            scope.spawn(move || {
                let mut client = daemon.connect();
                while !done.load(Ordering::Relaxed) {
                    run_one(&mut client, handle, number);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action));
        done.store(true, Ordering::Relaxed);
        result
    });
    (result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), count.into_inner())
}

fn run_one(client: &mut Connection, handle: &[u8], number: u32) {
    let length = usize::try_from(number).unwrap() * 1000;
    let script = format!("echo {number}; head -c {length} /dev/zero >&2; sleep 0.1; exit {number}");
    let output = client.run(handle, script);
    assert_eq!((output.status, output.text(), output.stderr.len()), (number, format!("{number}\n"), length));
}
