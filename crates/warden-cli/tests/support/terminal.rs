//! A program on a pseudo-terminal of its own, and what it shows there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Longer than anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";
pub(crate) const UP: &str = "\x1b[A";

/// A program on a pseudo-terminal; it is killed when the value is dropped.
pub(crate) struct Terminal {
    child: Child,
    master: File,
    shown: Arc<Mutex<Vec<u8>>>,
    /// How much of what was shown has been expected.
    position: usize,
}

impl Terminal {
    /// Starts a program with a home directory and a new terminal as its controlling one.
    pub(crate) fn start<A: AsRef<OsStr>>(program: &Path, home: &Path, arguments: &[A]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 50, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = || rustix::fs::open(&name, flags, Mode::empty()).unwrap();
        // setsid executes the program in its own place, so the child is the program.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(program)
            .args(arguments)
            .env("HOME", home)
            .env("TERM", "xterm")
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, of_thread) = (master.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut part = [0; 4096];
            // Reading fails when the last process has closed the terminal.
            while let Ok(length @ 1..) = reader.read(&mut part) {
                of_thread.lock().unwrap().extend_from_slice(&part[..length]);
            }
        });
        Self { child, master, shown, position: 0 }
    }

    /// Types keys.
    pub(crate) fn enter(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Types a command and its Enter once there is a prompt.
    pub(crate) fn command(&mut self, line: &str) {
        self.expect("warden> ");
        self.enter(&format!("{line}\r"));
    }

    /// Waits for a text to be shown after the last one that was expected, and returns what came between.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.shown();
            let new = &shown[self.position..];
            if let Some(at) = new.find(text) {
                self.position += at + text.len();
                return new[..at].to_owned();
            }
            assert!(
                Instant::now() < deadline,
                "{text:?} does not come after {:?}",
                &shown[..self.position].len()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What was shown, without the sequences that move the cursor or change the colour.
    pub(crate) fn shown(&self) -> String {
        plain(&String::from_utf8_lossy(&self.shown.lock().unwrap()))
    }

    /// Waits for the end of the program, and returns its exit status and what it showed since the last expected text.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.shown());
            thread::sleep(Duration::from_millis(5));
        };
        thread::sleep(Duration::from_millis(20));
        (status.code(), self.shown()[self.position..].to_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the terminal showed: {:?}", self.shown());
        }
    }
}

/// Removes control sequences; one that has not come to its end is removed too.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' if rest.clone().next() == Some('[') => {
                rest.next();
                let _ = rest.find(|c| ('@'..='~').contains(c));
            }
            '\x07' => {}
            c => plain.push(c),
        }
    }
    plain
}
