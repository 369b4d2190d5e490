//! The operator's tools on a real container, with and without its daemon.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use warden_tests::{Daemon, files, programs};

#[test]
fn rsync_copies_over_wsh_also_while_the_daemon_is_down() {
    let mut daemon = Daemon::own();
    let mut client = daemon.connect();
    let handle = client.create();
    let id = client.id(&handle);
    let socket = daemon.depot(&id).join("run/wshd.sock");
    let shell = format!("{} --socket {} --rsh", programs::find("wsh").display(), socket.display());
    let source = files::directory();
    fs::create_dir(source.path().join("tree with spaces")).unwrap();
    fs::write(source.path().join("tree with spaces/it's $HOME"), "content").unwrap();

    let rsync = |from: &str, to: &str| {
        let copied = programs::output(Command::new("rsync").args(["-e", &shell, "-r", from, to]));
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    };
    rsync(source.path().join("tree with spaces").to_str().unwrap(), "vcap@container:");
    let inside = client.text(&handle, "cat 'tree with spaces/it'\\''s $HOME'; stat -c %U 'tree with spaces'");
    assert_eq!(inside, "contentvcap\n");

    drop(client);
    daemon.signal(Signal::TERM);
    daemon.wait();
    let target = files::directory();
    rsync("vcap@container:tree with spaces", target.path().to_str().unwrap());
    assert_eq!(fs::read(target.path().join("tree with spaces/it's $HOME")).unwrap(), b"content");
    daemon.restart();
}
