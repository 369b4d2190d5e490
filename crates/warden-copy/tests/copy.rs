//! Copies between two directories through a socket, as the two sides of a container's border do it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tempfile::TempDir;
use warden_copy::Totals;
use warden_copy::error::{CopyError, Step};
use warden_copy::receive::{Owner, Treatment, receive};
use warden_copy::record::Record;
use warden_copy::send::{own_descriptors, send};

/// All permission bits, and the receiver's own user.
const AS_SENT: Treatment = Treatment { owner: None, modes: 0o7777 };

struct World {
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("from")).unwrap();
        fs::create_dir(dir.path().join("to")).unwrap();
        Self { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn text(&self, path: &str) -> Vec<u8> {
        format!("{}/{path}", self.dir.path().display()).into_bytes()
    }

    fn file(&self, path: &str, content: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Copies; the paths are relative to the world and keep a "/" at their end.
    fn copy(&self, from: &str, to: &str) -> (Result<Totals, CopyError>, Result<Totals, CopyError>) {
        let (out, input) = UnixStream::pair().unwrap();
        let (from, to) = (self.text(from), self.text(to));
        let sender =
            std::thread::spawn(move || send(&from, own_descriptors().unwrap().as_fd(), out, &mut |_| ()));
        let received = receive(&to, AS_SENT, input, &mut |_| ());
        (sender.join().unwrap(), received)
    }

    fn copied(&self, from: &str, to: &str) -> Totals {
        let (sent, received) = self.copy(from, to);
        let (sent, received) = (sent.unwrap(), received.unwrap());
        assert_eq!((sent.bytes, sent.skipped), (received.bytes, received.skipped));
        received
    }
}

/// Receives records that a hostile sender made up.
fn receive_records(to: &Path, records: &[Record], content: &[u8]) -> Result<Totals, CopyError> {
    let mut bytes = Vec::new();
    for record in records {
        record.write(&mut bytes).unwrap();
        if let Record::Data { .. } = record {
            bytes.write_all(content).unwrap();
        }
    }
    receive(to.as_os_str().as_bytes(), AS_SENT, bytes.as_slice(), &mut |_| ())
}

#[test]
fn a_file_goes_into_a_directory_or_becomes_the_target() {
    let world = World::new();
    world.file("from/a", b"one");
    world.copied("from/a", "to");
    world.copied("from/a", "to/b");
    world.copied("from/a", "to/new/");
    assert_eq!(world.read("to/a"), b"one");
    assert_eq!(world.read("to/b"), b"one");
    assert_eq!(world.read("to/new/a"), b"one");
}

#[test]
fn a_directory_goes_whole_and_with_a_slash_its_content_goes() {
    let world = World::new();
    world.file("from/d/e/f", b"deep");
    world.copied("from/d", "to");
    assert_eq!(world.read("to/d/e/f"), b"deep");
    world.copied("from/d/", "to");
    assert_eq!(world.read("to/e/f"), b"deep");
    world.copied("from/d/", "to/fresh");
    assert_eq!(world.read("to/fresh/e/f"), b"deep");
    world.copied("from/d", "to/other");
    assert_eq!(world.read("to/other/d/e/f"), b"deep");
}

#[test]
fn a_directory_that_is_made_for_what_is_copied_can_be_entered_by_all_and_has_its_owner() {
    let world = World::new();
    world.file("from/d/f", b"x");
    for (from, to) in [("from/d", "to/new"), ("from/d/f", "to/other/")] {
        let (out, input) = UnixStream::pair().unwrap();
        let (from, target) = (world.text(from), world.text(to));
        let sender =
            std::thread::spawn(move || send(&from, own_descriptors().unwrap().as_fd(), out, &mut |_| ()));
        let owner = Some(Owner { user: Some(1000), group: Some(1001) });
        receive(&target, Treatment { owner, modes: 0o7777 }, input, &mut |_| ()).unwrap();
        sender.join().unwrap().unwrap();
        let made = fs::metadata(world.path(to)).unwrap();
        assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o755, 1000, 1001), "{to}");
    }
}

#[test]
fn a_target_that_stands_for_a_closed_directory_is_closed_from_the_beginning() {
    let world = World::new();
    let begun = [Record::Directory { mode: 0o755, name: Vec::new() }];
    let target = world.path("to/new");
    assert!(receive_records(&target, &begun, b"").is_err(), "it is cut off");
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn an_empty_directory_is_replaced_by_a_file_or_a_link_and_a_full_one_is_not() {
    let world = World::new();
    world.file("from/d/file", b"x");
    symlink("/nowhere", world.path("from/d/link")).unwrap();
    for name in ["file", "link"] {
        fs::create_dir(world.path("to").join(name)).unwrap();
    }
    world.copied("from/d/", "to");
    assert_eq!(world.read("to/file"), b"x");
    assert_eq!(fs::read_link(world.path("to/link")).unwrap(), Path::new("/nowhere"));
    world.file("full/file/kept", b"y");
    let error = world.copy("from/d/", "full").1.unwrap_err();
    assert_eq!((error.step, error.errno), (Step::Rename, Errno::NOTEMPTY));
    assert_eq!(world.read("full/file/kept"), b"y");
    assert_eq!(fs::read_dir(world.path("full/file")).unwrap().count(), 1);
}

#[test]
fn only_one_level_of_the_target_is_made() {
    let world = World::new();
    world.file("from/a", b"x");
    let (_, received) = world.copy("from/a", "to/no/where");
    let error = received.unwrap_err();
    assert_eq!(error.errno, Errno::NOENT);
    assert!(error.to_string().contains("to/no/where"), "{error}");
    let (sent, _) = world.copy("from/missing", "to");
    let error = sent.unwrap_err();
    assert_eq!((error.step, error.errno), (Step::Open, Errno::NOENT));
    assert!(error.to_string().ends_with("from/missing: No such file or directory (os error 2)"), "{error}");
}

#[test]
fn permissions_links_and_names_of_any_bytes_are_kept() {
    let world = World::new();
    world.file("from/d/script", b"#!/bin/sh\n");
    fs::set_permissions(world.path("from/d/script"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("/nowhere/at all", world.path("from/d/link")).unwrap();
    let odd = world.path("from/d").join(OsStr::from_bytes(b"\xff\n 'x'"));
    fs::write(&odd, b"odd").unwrap();
    let long = "n".repeat(255);
    world.file(&format!("from/d/{long}"), b"long");
    fs::create_dir(world.path("from/d/closed")).unwrap();
    world.file("from/d/closed/inner", b"inner");
    fs::set_permissions(world.path("from/d/closed"), fs::Permissions::from_mode(0o500)).unwrap();
    world.copied("from/d", "to");
    assert_eq!(fs::metadata(world.path("to/d/script")).unwrap().mode() & 0o7777, 0o4751);
    assert_eq!(fs::read_link(world.path("to/d/link")).unwrap(), Path::new("/nowhere/at all"));
    assert_eq!(fs::read(world.path("to/d").join(OsStr::from_bytes(b"\xff\n 'x'"))).unwrap(), b"odd");
    assert_eq!(world.read(&format!("to/d/{long}")), b"long");
    assert_eq!(fs::metadata(world.path("to/d/closed")).unwrap().mode() & 0o7777, 0o500);
    assert_eq!(world.read("to/d/closed/inner"), b"inner");
}

#[test]
fn hard_links_become_files() {
    let world = World::new();
    world.file("from/d/a", b"same");
    fs::hard_link(world.path("from/d/a"), world.path("from/d/b")).unwrap();
    world.copied("from/d/", "to");
    assert_ne!(
        fs::metadata(world.path("to/a")).unwrap().ino(),
        fs::metadata(world.path("to/b")).unwrap().ino()
    );
    assert_eq!(world.read("to/b"), b"same");
}

#[test]
fn holes_stay_holes() {
    let world = World::new();
    let file = fs::File::create(world.path("from/sparse")).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"end", 1 << 33).unwrap();
    file.set_len((1 << 33) + (1 << 20)).unwrap();
    let totals = world.copied("from/sparse", "to");
    let copy = fs::metadata(world.path("to/sparse")).unwrap();
    assert_eq!(copy.len(), (1 << 33) + (1 << 20));
    assert!(copy.blocks() * 512 < 1 << 20, "{} blocks", copy.blocks());
    assert!(totals.bytes < 1 << 20, "{} bytes", totals.bytes);
    let mut end = [0; 3];
    fs::File::open(world.path("to/sparse")).unwrap().read_exact_at(&mut end, 1 << 33).unwrap();
    assert_eq!(&end, b"end");
}

#[test]
fn what_is_neither_file_directory_nor_link_is_left_out_and_never_opened() {
    let world = World::new();
    world.file("from/d/a", b"a");
    rustix::fs::mkfifoat(rustix::fs::CWD, world.path("from/d/fifo"), rustix::fs::Mode::RWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.path("from/d/socket")).unwrap();
    // Opening the pipe would wait for a writer for ever.
    let totals = world.copied("from/d/", "to");
    assert_eq!((totals.skipped, totals.entries), (2, 2));
    assert!(!world.path("to/fifo").exists());
    let (sent, _) = world.copy("from/d/fifo", "to");
    assert_eq!(sent.unwrap_err().errno, Errno::NOTSUP);
}

#[test]
fn a_link_in_the_targets_tree_is_replaced_not_followed() {
    let world = World::new();
    world.file("from/d/etc/passwd", b"new");
    world.file("outside/passwd", b"precious");
    fs::create_dir_all(world.path("to/d")).unwrap();
    symlink(world.path("outside"), world.path("to/d/etc")).unwrap();
    world.copied("from/d", "to");
    assert_eq!(world.read("outside/passwd"), b"precious");
    assert_eq!(world.read("to/d/etc/passwd"), b"new");

    world.file("from/file", b"new");
    symlink(world.path("outside/passwd"), world.path("to/file")).unwrap();
    world.copied("from/file", "to");
    assert_eq!(world.read("outside/passwd"), b"precious");
    assert_eq!(world.read("to/file"), b"new");
}

#[test]
fn copies_into_one_directory_at_the_same_time_do_not_touch_each_other() {
    let world = World::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.file(&format!("from/{name}"), name.repeat(3 << 20).as_bytes());
        world.file(&format!("tree/{name}/same"), name.as_bytes());
    }
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d", "e", "f"] {
            let world = &world;
            scope.spawn(move || {
                world.copied(&format!("from/{name}"), "to");
                world.copied(&format!("tree/{name}/"), "to");
            });
        }
    });
    for name in ["a", "b", "c", "d", "e", "f"] {
        assert!(world.read(&format!("to/{name}")) == name.repeat(3 << 20).as_bytes(), "{name} is another's");
    }
    assert_eq!(world.read("to/same").len(), 1);
    assert_eq!(fs::read_dir(world.path("to")).unwrap().count(), 7, "nothing unfinished is left");
}

#[test]
fn set_id_bits_are_left_out_where_they_are_not_allowed() {
    let world = World::new();
    world.file("from/shell", b"#!/bin/sh\n");
    fs::set_permissions(world.path("from/shell"), fs::Permissions::from_mode(0o6755)).unwrap();
    let (out, input) = UnixStream::pair().unwrap();
    let (from, to) = (world.text("from/shell"), world.text("to"));
    let sender =
        std::thread::spawn(move || send(&from, own_descriptors().unwrap().as_fd(), out, &mut |_| ()));
    receive(&to, Treatment { owner: None, modes: 0o1777 }, input, &mut |_| ()).unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(fs::metadata(world.path("to/shell")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_directory_swapped_for_a_link_while_it_is_read_never_leads_outside() {
    let world = World::new();
    world.file("secret/token", b"precious");
    world.file("from/d/sub/token", b"harmless");
    let (sub, aside, secret) = (world.path("from/d/sub"), world.path("from/aside"), world.path("secret"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                fs::rename(&sub, &aside).unwrap();
                symlink(&secret, &sub).unwrap();
                fs::remove_file(&sub).unwrap();
                fs::rename(&aside, &sub).unwrap();
            }
        });
        for round in 0..300 {
            let target = format!("to/{round}");
            let _ = world.copy("from/d/", &target);
            if let Ok(token) = fs::read(world.path(&target).join("sub/token")) {
                // Read through the copy: a link that was copied as a link points at the secret, and is not a copy of it.
                let copied = fs::symlink_metadata(world.path(&target).join("sub")).unwrap();
                assert!(copied.is_symlink() || token == b"harmless");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn what_is_received_belongs_to_the_owner_that_is_named_and_links_are_not_followed_for_it() {
    let world = World::new();
    world.file("outside", b"precious");
    world.file("from/d/sub/file", b"x");
    fs::set_permissions(world.path("from/d/sub/file"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink(world.path("outside"), world.path("from/d/link")).unwrap();
    let (out, input) = UnixStream::pair().unwrap();
    let (from, to) = (world.text("from/d"), world.text("to"));
    let owner = warden_copy::receive::Owner { user: Some(12_345), group: Some(54_321) };
    let sender =
        std::thread::spawn(move || send(&from, own_descriptors().unwrap().as_fd(), out, &mut |_| ()));
    receive(&to, Treatment { owner: Some(owner), modes: 0o7777 }, input, &mut |_| ()).unwrap();
    sender.join().unwrap().unwrap();
    for path in ["to/d", "to/d/sub", "to/d/sub/file", "to/d/link"] {
        let metadata = fs::symlink_metadata(world.path(path)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (12_345, 54_321), "{path}");
    }
    assert_eq!(fs::metadata(world.path("to/d/sub/file")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(world.path("outside")).unwrap().uid(), 0);
    assert_eq!(fs::metadata(world.path("to")).unwrap().uid(), 0);
}

#[test]
fn names_that_a_hostile_sender_makes_up_are_refused() {
    let world = World::new();
    for name in [&b".."[..], b".", b"../x", b"/etc/x", b"a/b", b"a\0b"] {
        for record in [
            Record::File { mode: 0o644, name: name.to_vec() },
            Record::Directory { mode: 0o755, name: name.to_vec() },
            Record::Link { name: name.to_vec(), target: b"x".to_vec() },
        ] {
            let top = Record::Directory { mode: 0o755, name: Vec::new() };
            let error = receive_records(&world.path("to"), &[top, record.clone()], b"").unwrap_err();
            assert_eq!(error.step, Step::Protocol, "{record:?}");
            let error = receive_records(&world.path("to"), std::slice::from_ref(&record), b"").unwrap_err();
            assert!(matches!(error.step, Step::Protocol | Step::Open), "{record:?}: {error}");
        }
    }
    assert_eq!(fs::read_dir(world.path("to")).unwrap().count(), 0);
}

#[test]
fn records_out_of_order_are_refused() {
    let world = World::new();
    let end = Record::End { length: 0 };
    for records in [
        vec![Record::Up],
        vec![end.clone()],
        vec![Record::Done],
        vec![Record::File { mode: 0o644, name: b"a".to_vec() }, Record::Up],
        vec![Record::Directory { mode: 0o755, name: Vec::new() }, end],
        vec![Record::Directory { mode: 0o755, name: Vec::new() }, Record::Up, Record::Up],
    ] {
        assert_eq!(
            receive_records(&world.path("to"), &records, b"").unwrap_err().step,
            Step::Protocol,
            "{records:?}"
        );
    }
    assert_eq!(fs::read_dir(world.path("to")).unwrap().count(), 0);
}

#[test]
fn an_offset_beyond_what_a_file_can_hold_is_an_error() {
    let world = World::new();
    let records = [
        Record::File { mode: 0o644, name: b"a".to_vec() },
        Record::Data { offset: u64::MAX - 1, length: 4 },
        Record::End { length: 4 },
    ];
    let error = receive_records(&world.path("to"), &records, b"abcd").unwrap_err();
    assert!(matches!(error.step, Step::Write | Step::Protocol), "{error}");
    assert_eq!(fs::read_dir(world.path("to")).unwrap().count(), 0);
}

#[test]
fn a_sender_that_vanishes_leaves_no_unfinished_file() {
    let world = World::new();
    let records =
        [Record::File { mode: 0o644, name: b"a".to_vec() }, Record::Data { offset: 0, length: 100 }];
    let error = receive_records(&world.path("to"), &records, b"abcd").unwrap_err();
    assert!(error.is_interruption(), "{error}");
    assert_eq!(fs::read_dir(world.path("to")).unwrap().count(), 0);
}

#[test]
fn a_name_too_long_and_a_tree_too_deep_name_the_path() {
    let world = World::new();
    world.file("from/a", b"x");
    let (_, received) = world.copy("from/a", &format!("to/{}", "n".repeat(256)));
    assert_eq!(received.unwrap_err().errno, Errno::NAMETOOLONG);
}

#[test]
fn ten_thousand_small_files_arrive() {
    let world = World::new();
    for number in 0..10_000 {
        world.file(&format!("from/d/{}/{number}", number % 100), format!("{number}").as_bytes());
    }
    let totals = world.copied("from/d/", "to");
    assert_eq!(totals.entries, 10_000 + 101);
    for number in 0..10_000 {
        assert_eq!(world.read(&format!("to/{}/{number}", number % 100)), format!("{number}").as_bytes());
    }
}
