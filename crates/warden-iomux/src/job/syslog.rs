//! Lines of a job's output as datagrams for a syslog daemon.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::SystemTime;

use warden_linux::clock::{LocalTime, local_time};

use crate::message::Syslog;

/// Longer lines are sent in pieces of this many bytes.
const MAX_LINE: usize = 1024;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Cuts a stream into lines and sends each; a receiver that is slow or absent loses lines and delays nobody.
pub(super) struct LineLog {
    socket: UnixDatagram,
    receiver: Syslog,
    priority: u8,
    line: Vec<u8>,
}

impl LineLog {
    pub(super) fn new(receiver: &Syslog, priority: u8) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, receiver: receiver.clone(), priority, line: Vec::new() })
    }

    /// Takes the stream's next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            self.extend(text);
            if ended {
                self.send();
            }
        }
    }

    /// Sends what no newline has ended.
    pub(super) fn finish(&mut self) {
        if !self.line.is_empty() {
            self.send();
        }
    }

    fn extend(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            if self.line.len() == MAX_LINE {
                self.send();
            }
            let (head, rest) = text.split_at(text.len().min(MAX_LINE - self.line.len()));
            self.line.extend_from_slice(head);
            text = rest;
        }
    }

    fn send(&mut self) {
        let head = header(self.priority, local_time(SystemTime::now()), &self.receiver.tag.0);
        let message = [head, std::mem::take(&mut self.line)].concat();
        let _ = self.socket.send_to(&message, self.receiver.socket.as_path());
    }
}

/// The head of a local syslog message in RFC 3164's form.
fn header(priority: u8, time: LocalTime, tag: &[u8]) -> Vec<u8> {
    let month = MONTHS.get(usize::from(time.month)).unwrap_or(&MONTHS[0]);
    let LocalTime { day, hour, minute, second, .. } = time;
    let mut head =
        format!("<{priority}>{month} {day:>2} {hour:02}:{minute:02}:{second:02} warden.").into_bytes();
    // A control character in a tag could end the line and begin a forged one.
    head.extend(tag.iter().map(|byte| if byte.is_ascii_control() { b'?' } else { *byte }));
    head.extend_from_slice(b": ");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_that_of_rfc_3164() {
        let time = LocalTime { month: 10, day: 4, hour: 3, minute: 2, second: 1 };
        assert_eq!(header(14, time, b"a\nb"), b"<14>Nov  4 03:02:01 warden.a?b: ");
    }

    #[test]
    fn lines_are_cut_at_newlines_and_at_their_longest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let to = Syslog { tag: "t".into(), socket: path.as_path().into() };
        let mut log = LineLog::new(&to, 11).unwrap();
        let next = || {
            let mut space = [0; 4096];
            let got = receiver.recv(&mut space).ok()?;
            let text = String::from_utf8(space[..got].to_vec()).unwrap();
            assert!(text.starts_with("<11>"), "{text}");
            Some(text.split_once(" warden.t: ").unwrap().1.to_owned())
        };
        log.push(b"on");
        assert_eq!(next(), None);
        log.push(b"e\n\ntw");
        assert_eq!((next().as_deref(), next().as_deref(), next()), (Some("one"), Some(""), None));
        log.push(&[b'x'; 2 * MAX_LINE]);
        assert_eq!(next().unwrap().len(), MAX_LINE);
        log.push(b"\n");
        assert_eq!((next().unwrap().len(), next().unwrap()), (MAX_LINE, "xx".to_owned()));
        log.push(b"end");
        log.finish();
        assert_eq!((next().as_deref(), next()), (Some("end"), None));
        log.finish();
        assert_eq!(next(), None);
        drop(receiver);
        log.push(b"nobody listens\n");
    }
}
