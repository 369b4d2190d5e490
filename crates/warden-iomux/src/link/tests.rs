use std::fs;

use super::*;
use crate::message::ExitCause;

const JOB: u32 = 3;

/// A container's directory with a job in it that has written something.
fn depot() -> (tempfile::TempDir, Layout) {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path());
    fs::create_dir_all(layout.job(JOB)).unwrap();
    fs::create_dir_all(layout.run()).unwrap();
    fs::write(layout.stdout(JOB), "out\n").unwrap();
    fs::write(layout.stderr(JOB), "err\n").unwrap();
    (directory, layout)
}

/// Follows the job; gives what was printed too.
fn print(layout: &Layout, job: u32) -> (Result<Exit, Failure>, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = JobOutput::open(layout, job, &mut out, &mut err)
        .and_then(|mut output| follow(layout, job, &mut output));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (exit, text(out), text(err))
}

#[test]
fn an_unknown_job_is_named() {
    let (directory, layout) = depot();
    let error = print(&layout, 4).0.unwrap_err();
    assert_eq!(error.to_string(), format!("no job 4 in {}", directory.path().display()));
}

#[test]
fn without_iomux_the_files_are_all_there_is() {
    let (_directory, layout) = depot();
    let (exit, out, err) = print(&layout, JOB);
    assert!(matches!(exit, Err(Failure::Abandoned(JOB))));
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    let exit = Exit { cause: ExitCause::Code(9), stdout: 4, stderr: 4 };
    crate::job::write_exit(&layout, JOB, &exit, None).unwrap();
    assert_eq!(print(&layout, JOB).0.unwrap(), exit);
    fs::write(layout.exit(JOB), "{").unwrap();
    assert!(print(&layout, JOB).0.unwrap_err().to_string().starts_with("read /"));
}

#[test]
fn a_reader_that_is_gone_is_told_from_a_failure() {
    let (_directory, layout) = depot();
    let (reader, writer) = warden_linux::file::pipe().unwrap();
    drop(reader);
    let mut output = JobOutput::open(&layout, JOB, File::from(writer), io::sink()).unwrap();
    assert!(matches!(output.copy(), Err(Failure::Closed)));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut output = JobOutput::open(&layout, JOB, full, io::sink()).unwrap();
    assert!(output.copy().unwrap_err().to_string().starts_with("write the output: No space left"));
}
