//! One container, as its clients' requests see it.

use std::sync::Arc;

use crate::error::Error;
use crate::info::Info;
use crate::job::Job;
use crate::request::{Run, Stop};

/// A container; the requests on it are answered by its actor.
#[derive(Debug)]
pub struct Container {}

impl Container {
    /// Tells its state (active or stopped containers only).
    pub async fn info(&self) -> Result<Info, Error> {
        unimplemented!()
    }

    /// Tells its state whatever it is: the last one known when it is gone.
    pub async fn last_info(&self) -> Info {
        unimplemented!()
    }

    /// Starts a job.
    pub async fn spawn(&self, _run: Run) -> Result<Arc<Job>, Error> {
        unimplemented!()
    }

    /// Finds a job, or refuses with "no such job".
    pub async fn job(&self, _id: u32) -> Result<Arc<Job>, Error> {
        unimplemented!()
    }

    /// Ends all its jobs; answers when none runs any more.
    pub async fn stop(&self, _stop: Stop) -> Result<(), Error> {
        unimplemented!()
    }

    /// Ends it and all it owns.
    pub async fn destroy(&self) -> Result<(), Error> {
        unimplemented!()
    }
}
