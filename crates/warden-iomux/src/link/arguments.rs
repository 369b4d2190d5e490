//! The command line of iomux-link.

use std::ffi::OsString;
use std::path::PathBuf;

/// What `--help` prints.
pub const HELP: &str = "\
Print a job's output from its first byte, as it comes, also while wardend is down.

usage: iomux-link DIR JOB

  DIR     the container's directory in the depot
  JOB     the job's number
  --help  print this and exit

The job's stdout goes to stdout, its stderr to stderr. The exit status is the job's, or 255 when it has none: it was
killed, or its end is not known.
";

/// What the command line asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// The container's directory.
    pub directory: PathBuf,
    /// The job's number.
    pub job: u32,
}

/// A command line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Not two words.
    #[error("a directory and a job are needed")]
    Count,
    /// A job that is no number.
    #[error("no number of a job: {}", .0.display())]
    Job(OsString),
}

impl Arguments {
    /// Reads the words after the program's name; there is nothing when they ask for help.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, UsageError> {
        let words: Vec<OsString> = words.into_iter().collect();
        if words.iter().any(|word| word == "--help") {
            return Ok(None);
        }
        let [directory, job] = <[OsString; 2]>::try_from(words).map_err(|_| UsageError::Count)?;
        let number = job.to_str().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        let number = number.and_then(|digits| digits.parse().ok());
        Ok(Some(Self { directory: directory.into(), job: number.ok_or(UsageError::Job(job))? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>, UsageError> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_directory_and_a_job_are_read() {
        assert_eq!(parse("/d/x 12"), Ok(Some(Arguments { directory: "/d/x".into(), job: 12 })));
        assert_eq!(parse("a --help b"), Ok(None));
        for line in ["", "/d", "/d 1 2", "-w c /d"] {
            assert_eq!(parse(line), Err(UsageError::Count), "{line}");
        }
        for job in ["x", "-1", "+1", "4294967296", "jobs/1"] {
            assert_eq!(parse(&format!("/d {job}")), Err(UsageError::Job(job.into())));
        }
    }
}
