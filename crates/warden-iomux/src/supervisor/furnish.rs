//! What a container that was made ahead is given when somebody asks for it.

use std::path::Path;

use warden_init::build::{self, SetupError};
use warden_init::note::note;

use super::init::InitLink;
use super::{ESRCH, Supervisor};
use crate::message::Event;
use crate::start;

impl Supervisor {
    pub(super) fn furnish(&mut self) {
        let event = match self.try_furnish() {
            Ok(()) => Event::Furnished,
            Err(SetupError { step, object, errno }) => {
                Event::NotFurnished { step: step.as_str().into(), object, errno }
            }
        };
        self.tell(&event);
    }

    fn try_furnish(&self) -> Result<(), SetupError> {
        let wrong =
            |step: &str, errno| SetupError { step: step.into(), object: "the container".into(), errno };
        let spec = self.layout.spec();
        let spec = start::read_spec(&spec).map_err(|error| {
            note(format_args!("iomux: {error}"));
            wrong("read the spec of", EINVAL)
        })?;
        if !self.jobs.is_empty() || !self.copies.is_empty() {
            return Err(wrong("furnish, beside a job,", EBUSY));
        }
        let init = self.init.as_ref().map(InitLink::process).ok_or_else(|| wrong("furnish", ESRCH))?;
        let init = init.map_err(|error| wrong("hold", error.raw_os_error().unwrap_or(EINVAL)))?;
        build::furnish(&spec, Path::new("."), &init)
    }
}

const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
