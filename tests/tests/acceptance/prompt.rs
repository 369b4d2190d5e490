//! The prompt of `warden` on a terminal, with a real daemon behind it: the session that the project began from.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use warden_tests::{Daemon, eventually, programs};

/// `warden` on a terminal of its own (script(1) makes it), and what it has printed.
struct Prompt {
    script: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
    /// How much of the screen was read.
    seen: usize,
}

impl Prompt {
    fn start(daemon: &Daemon, options: &str) -> Self {
        let command = format!(
            "exec {} --socket {} {options}",
            programs::find("warden").display(),
            daemon.socket().display()
        );
        let mut script = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--echo", "never", "--command", &command, "/dev/null"])
            .env("HOME", daemon.directory())
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut output, shared) = (script.stdout.take().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(got @ 1..) = output.read(&mut buffer) {
                shared.lock().unwrap().extend_from_slice(&buffer[..got]);
            }
        });
        let keys = script.stdin.take().unwrap();
        let mut prompt = Self { script, keys, screen, seen: 0 };
        prompt.until("warden> ");
        prompt
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a text behind what was seen, and gives what is before it, without the editor's control sequences.
    fn until(&mut self, text: &str) -> String {
        let mut before = String::new();
        eventually(&format!("the screen shows {text:?}"), 20, || {
            let screen = self.screen.lock().unwrap();
            let new = String::from_utf8_lossy(&screen[self.seen..]).into_owned();
            let Some(at) = new.find(text) else { return false };
            before = new[..at].to_owned();
            self.seen += at + text.len();
            true
        });
        before
    }

    /// Types a line; gives what is printed up to the next prompt.
    fn command(&mut self, line: &str) -> String {
        self.press(&format!("{line}\r"));
        // The editor shows what is typed piece by piece; the line's end is printed once.
        self.until("\n");
        self.until("warden> ")
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        let _ = self.keys.write_all(b"\x04");
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn the_published_session_can_be_replayed_on_a_terminal() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handles: Vec<String> = (0..3).map(|_| String::from_utf8(client.create()).unwrap()).collect();
    let mut prompt = Prompt::start(&daemon, "--trace");

    let list = prompt.command("list");
    for (number, handle) in handles.iter().enumerate() {
        assert!(list.contains(&format!("handles[{number}] : {handle}\r\n")), "{list:?}");
    }
    let handle = &handles[2];
    let processes = prompt.command(&format!("run --handle {handle} --script \"ps xf\""));
    assert!(processes.contains(&format!("+ run --handle {handle}")), "{processes:?}");
    assert!(processes.contains("PID TTY") && processes.contains("/bin/bash"), "{processes:?}");
    let info = prompt.command(&format!("info --handle {handle}"));
    for field in ["state : active\r\n", "host_ip : 10.254.", "memory_stat.rss : ", "cpu_stat.usage : "] {
        assert!(info.contains(field), "{field}: {info:?}");
    }
    prompt
        .press(&format!("run --handle {handle} --script \"while true; do echo 'here'; sleep 0.1; done\"\r"));
    prompt.until("here\r\nhere\r\n");
    // Ctrl-C leaves the stream, not the prompt, and the job goes on.
    prompt.press("\x03");
    prompt.until("warden> ");
    assert!(prompt.command(&format!("info {handle}")).contains("job_ids[0] : "));

    // An error is one line; after a restart of the server the next command works.
    assert!(prompt.command("info nobody").contains("unknown handle"));
    for handle in &handles {
        client.destroy(handle.as_bytes());
    }
    daemon.signal(Signal::TERM);
    daemon.wait();
    daemon.restart();
    assert!(!prompt.command("ping").contains("rror"));
    assert!(prompt.command("create").contains("handle : "));
    prompt.press("\x04");
    let status = prompt.script.wait().unwrap();
    assert_eq!(status.code(), Some(0));
}
