use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use super::*;
use crate::message::ExitCause;

struct Fixture {
    _directory: tempfile::TempDir,
    layout: Layout,
    job: Job,
    writers: [File; 2],
    scratch: Scratch,
}

fn fixture(limit: u64, discard: bool) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path());
    fs::create_dir(layout.jobs()).unwrap();
    let output = Output { limit, discard, log: None };
    Job::prepare(&layout, 1, &output).unwrap();
    let mut job = Job::create(&layout, 1, &output).unwrap();
    let pipe = || {
        let (read, write) = warden_linux::file::pipe().unwrap();
        warden_linux::file::set_nonblocking(&read).unwrap();
        (read, File::from(write))
    };
    let pipes: [(OwnedFd, File); 2] = [pipe(), pipe()];
    let [(stdout, stdout_writer), (stderr, stderr_writer)] = pipes;
    job.connect([stdout, stderr]);
    Fixture {
        _directory: directory,
        layout,
        job,
        writers: [stdout_writer, stderr_writer],
        scratch: Scratch::new(CHUNK),
    }
}

#[test]
fn what_the_pipes_hold_is_kept_although_others_keep_them_open() {
    let Fixture { mut job, mut writers, mut scratch, layout, _directory, .. } = fixture(1 << 20, false);
    writers[0].write_all(&[b'o'; 50_000]).unwrap();
    writers[1].write_all(b"err").unwrap();
    assert_eq!(job.advance_by(1000, Channel::Stdout, &mut scratch), Moved::Some);
    assert_eq!(job.lengths(), (1000, 0));
    assert!(!job.drain(&mut Scratch::new(999)));
    assert_eq!(job.advance(Channel::Stdout, &mut scratch), Moved::Nothing);
    let exit = job.finish(Some(WaitStatus::Code(3)));
    assert_eq!(exit, Exit { cause: ExitCause::Code(3), stdout: 50_000, stderr: 3 });
    assert_eq!(fs::read(layout.stdout(1)).unwrap(), [b'o'; 50_000]);
    assert_eq!(fs::read(layout.stderr(1)).unwrap(), b"err");
}

#[test]
fn exactly_the_limit_is_kept_of_both_streams_together() {
    let Fixture { mut job, mut writers, mut scratch, .. } = fixture(10, false);
    writers[0].write_all(b"123456").unwrap();
    writers[1].write_all(b"7890").unwrap();
    assert_eq!(job.advance(Channel::Stdout, &mut scratch), Moved::Some);
    assert_eq!(job.advance(Channel::Stderr, &mut scratch), Moved::Some);
    assert_eq!(job.lengths(), (6, 4));
    writers[1].write_all(b"x").unwrap();
    assert_eq!(job.advance(Channel::Stderr, &mut scratch), Moved::Fatal);
    assert!(job.take_pipe(Channel::Stdout).is_some());
    assert_eq!(job.advance(Channel::Stdout, &mut scratch), Moved::Closed);
    let exit = job.finish(Some(WaitStatus::Signal(9)));
    assert_eq!(exit, Exit { cause: ExitCause::OutputLimit, stdout: 6, stderr: 4 });
}

#[test]
fn too_much_found_at_the_end_is_too_much_as_well() {
    let Fixture { mut job, mut writers, mut scratch, .. } = fixture(3, false);
    writers[0].write_all(b"12345").unwrap();
    assert!(job.drain(&mut scratch));
    assert_eq!(
        job.finish(Some(WaitStatus::Code(0))),
        Exit { cause: ExitCause::OutputLimit, stdout: 3, stderr: 0 }
    );
}

#[test]
fn discarded_output_counts_nothing() {
    let Fixture { mut job, mut writers, mut scratch, .. } = fixture(3, true);
    assert!(!piped(&Output { limit: 3, discard: true, log: None }));
    writers[0].write_all(b"12345").unwrap();
    assert_eq!(job.advance(Channel::Stdout, &mut scratch), Moved::Some);
    assert_eq!(job.finish(None), Exit { cause: ExitCause::InitDied, stdout: 0, stderr: 0 });
}

#[test]
fn a_full_disk_is_the_cause_of_the_end() {
    let Fixture { mut job, mut writers, mut scratch, .. } = fixture(1 << 20, false);
    let full = File::options().write(true).open("/dev/full").unwrap();
    job.streams[0] = Stream::new(Store::File(full), 0, None);
    job.streams[0].pipe = Some({
        let (read, write) = warden_linux::file::pipe().unwrap();
        writers[0] = File::from(write);
        File::from(read)
    });
    writers[0].write_all(b"12345").unwrap();
    assert_eq!(job.advance(Channel::Stdout, &mut scratch), Moved::Fatal);
    assert_eq!(
        job.finish(Some(WaitStatus::Signal(9))),
        Exit { cause: ExitCause::OutputFailed(28), stdout: 0, stderr: 0 }
    );
}

#[test]
fn a_job_needs_the_directory_of_jobs() {
    let Fixture { layout, .. } = fixture(1, false);
    let again = Job::prepare(&layout, 1, &Output { limit: 1, discard: false, log: None });
    assert_eq!(again.err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
}

#[test]
fn a_job_whose_files_could_not_be_made_ends_of_it_when_it_writes() {
    let Fixture { mut writers, mut scratch, job, .. } = fixture(10, false);
    let mut broken = Job::without_files(
        &Output { limit: 10, discard: false, log: None },
        &io::Error::from_raw_os_error(28),
    );
    broken.connect(job.streams.map(|stream| stream.pipe.unwrap().into()));
    assert_eq!(broken.advance(Channel::Stdout, &mut scratch), Moved::Nothing);
    writers[1].write_all(b"x").unwrap();
    assert_eq!(broken.advance(Channel::Stderr, &mut scratch), Moved::Fatal);
    let exit = broken.finish(Some(WaitStatus::Signal(9)));
    assert_eq!(exit, Exit { cause: ExitCause::OutputFailed(28), stdout: 0, stderr: 0 });
}

#[test]
fn another_iomux_makes_the_files_that_are_not_there_yet() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path());
    fs::create_dir(layout.jobs()).unwrap();
    Job::prepare(&layout, 1, &Output { limit: 10, discard: false, log: None }).unwrap();
    assert_eq!(Job::reopen(&layout, 1).unwrap().lengths(), (0, 0));
    assert!(layout.stdout(1).exists() && layout.stderr(1).exists());
}

#[test]
fn the_end_is_written_whole_and_never_replaced_by_another_job() {
    let Fixture { layout, _directory, mut job, .. } = fixture(1, false);
    let exit = Exit { cause: ExitCause::Signal(15), stdout: 1, stderr: 2 };
    write_exit(&layout, 1, &exit, job.take_end()).unwrap();
    assert_eq!(
        fs::read_to_string(layout.exit(1)).unwrap(),
        r#"{"version":1,"cause":{"signal":15},"stdout":1,"stderr":2}"#
    );
    let again = Job::prepare(&layout, 1, &Output { limit: 1, discard: false, log: None });
    assert_eq!(again.err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists));
    assert!(layout.exit(1).exists());
}
