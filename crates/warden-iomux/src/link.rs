//! iomux-link, an operator's view of a job: its output from the first byte, as it comes, and its exit status. It reads
//! the job's files, so that it disturbs nobody; iomux tells when there is more, and is not needed for what has ended.

pub mod arguments;
mod follower;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::layout::Layout;
use crate::message::Exit;
use arguments::Arguments;
use follower::{Follower, Told};

/// The exit status where the job has none.
pub const NO_STATUS: u8 = 255;

/// Bytes copied at a time.
const CHUNK: usize = 64 * 1024;

/// Why there is no exit status of the job.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No such job is known.
    #[error("no job {job} in {}", .directory.display())]
    Unknown {
        /// The job.
        job: u32,
        /// The container's directory.
        directory: PathBuf,
    },
    /// iomux could not start it.
    #[error("job {0} could not be started")]
    NotStarted(u32),
    /// Its end is not known and never will be: iomux is gone.
    #[error("the end of job {0} is not known: nobody serves the container's run/iomux.sock")]
    Abandoned(u32),
    /// It was removed when another client had got its end.
    #[error("job {0} was removed, and its exit status with it")]
    Removed(u32),
    /// iomux speaks another version of the protocol.
    #[error("the container's iomux speaks version {0} of its protocol")]
    Version(u32),
    /// Who reads this process's output is gone.
    #[error("the output was closed")]
    Closed,
    /// Something could not be done to a file or socket.
    #[error("{action} {}: {source}", .object.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// What it was done to.
        object: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Failure {
    fn io(action: &'static str, object: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, object: object.to_path_buf(), source }
    }
}

/// Prints a job's output up to its end and gives its exit status.
pub fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let layout = Layout::new(&arguments.directory);
    let job = arguments.job;
    let mut output = JobOutput::open(&layout, job, io::stdout(), io::stderr())?;
    let exit = match end(&layout, job)? {
        Some(exit) => exit,
        None => follow(&layout, job, &mut output)?,
    };
    output.copy()?;
    Ok(u8::try_from(exit.cause.status()).unwrap_or(NO_STATUS))
}

/// Copies what comes until the job has ended.
fn follow<O: Write, E: Write>(
    layout: &Layout,
    job: u32,
    output: &mut JobOutput<O, E>,
) -> Result<Exit, Failure> {
    let Some(mut follower) = Follower::connect(layout, job)? else { return last_word(layout, job, output) };
    // It may have ended before iomux was asked.
    if let Some(exit) = end(layout, job)? {
        return Ok(exit);
    }
    if !layout.job(job).exists() {
        output.copy()?;
        return Err(Failure::Removed(job));
    }
    loop {
        output.copy()?;
        match follower.next()? {
            Told::More => {}
            Told::Ended(exit) => return Ok(exit),
            Told::NotStarted => return Err(Failure::NotStarted(job)),
            Told::Gone => return last_word(layout, job, output),
        }
    }
}

/// Without iomux, what is there is all that there will be.
fn last_word<O: Write, E: Write>(
    layout: &Layout,
    job: u32,
    output: &mut JobOutput<O, E>,
) -> Result<Exit, Failure> {
    output.copy()?;
    end(layout, job)?.ok_or(Failure::Abandoned(job))
}

/// How the job ended, if it has.
fn end(layout: &Layout, job: u32) -> Result<Option<Exit>, Failure> {
    let path = layout.exit(job);
    crate::file::read(&path).map_err(Failure::io("read", &path))
}

/// A job's files, open from the start (they stay readable when another client's link removes the job), and where they
/// are copied to.
struct JobOutput<O, E> {
    stdout: (File, O),
    stderr: (File, E),
    buffer: Vec<u8>,
}

impl<O: Write, E: Write> JobOutput<O, E> {
    fn open(layout: &Layout, job: u32, stdout: O, stderr: E) -> Result<Self, Failure> {
        let open = |path: PathBuf| match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Failure::Unknown { job, directory: layout.directory().to_path_buf() })
            }
            other => other.map_err(Failure::io("open", &path)),
        };
        let (out, err) = (open(layout.stdout(job))?, open(layout.stderr(job))?);
        Ok(Self { stdout: (out, stdout), stderr: (err, stderr), buffer: vec![0; CHUNK] })
    }

    /// Copies what the files hold by now and was not copied yet.
    fn copy(&mut self) -> Result<(), Failure> {
        copy(&mut self.stdout.0, &mut self.stdout.1, &mut self.buffer)?;
        copy(&mut self.stderr.0, &mut self.stderr.1, &mut self.buffer)
    }
}

fn copy(file: &mut File, out: &mut impl Write, buffer: &mut [u8]) -> Result<(), Failure> {
    loop {
        let got = file.read(buffer).map_err(Failure::io("read", Path::new("the job's output")))?;
        if got == 0 {
            return out.flush().map_err(written);
        }
        out.write_all(&buffer[..got]).map_err(written)?;
    }
}

fn written(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::io("write", Path::new("the output"))(error),
    }
}

#[cfg(test)]
mod tests;
