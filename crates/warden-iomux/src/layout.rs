//! Where things are in a container's directory.

use std::path::{Path, PathBuf};

/// A container's directory in the depot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout(PathBuf);

impl Layout {
    /// The layout of a container's directory.
    pub fn new(directory: &Path) -> Self {
        Self(directory.to_path_buf())
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// What the container consists of.
    pub fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    /// The directory of sockets, process ids and the log.
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The socket on which iomux listens.
    pub fn iomux_socket(&self) -> PathBuf {
        self.run().join("iomux.sock")
    }

    /// The socket on which wshd listens.
    pub fn wshd_socket(&self) -> PathBuf {
        self.run().join("wshd.sock")
    }

    /// The file that holds iomux's process id.
    pub fn iomux_pid(&self) -> PathBuf {
        self.run().join("iomux.pid")
    }

    /// The file that holds wshd's process id, on the host.
    pub fn wshd_pid(&self) -> PathBuf {
        self.run().join("wshd.pid")
    }

    /// What iomux has to say to people.
    pub fn log(&self) -> PathBuf {
        self.run().join("iomux.log")
    }

    /// The directory of all jobs.
    pub fn jobs(&self) -> PathBuf {
        self.0.join("jobs")
    }

    /// The directory of one job.
    pub fn job(&self, number: u32) -> PathBuf {
        self.jobs().join(number.to_string())
    }

    /// What a job has written to its stdout.
    pub fn stdout(&self, number: u32) -> PathBuf {
        self.job(number).join("stdout")
    }

    /// What a job has written to its stderr.
    pub fn stderr(&self, number: u32) -> PathBuf {
        self.job(number).join("stderr")
    }

    /// What is to be done with a job's output: a [`file::Order`](crate::file::Order); written before the job is started.
    pub fn order(&self, number: u32) -> PathBuf {
        self.job(number).join("job.json")
    }

    /// Says that a job's end and output have been delivered: what is left of its directory is to be removed.
    pub fn delivered(&self, number: u32) -> PathBuf {
        self.job(number).join("delivered")
    }

    /// How a job ended: a [`file::End`](crate::file::End); there only once it has.
    pub fn exit(&self, number: u32) -> PathBuf {
        self.job(number).join("exit.json")
    }
}
