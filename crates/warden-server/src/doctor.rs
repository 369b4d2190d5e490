//! `wardend doctor`: prints what is left over, one line each, and removes it when that is asked for.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;
use warden_container::error::Error;
use warden_container::leftovers::{Doctor, Kind, Leftover};

use crate::config::Config;
use crate::failure::Failure;

/// What became of a leftover.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is there.
    Found,
    Removed,
    /// It is not the doctor's to remove.
    LeftAlone,
    Failed(String),
}

/// Succeeds when nothing is left over, or when all of it was removed.
pub(crate) fn run(config: &Config, repair: bool, json: bool) -> Result<ExitCode, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::NotRoot);
    }
    let doctor = Doctor::visit(config.settings()?)?;
    let found = doctor.examine()?;
    let told: Vec<_> = if repair {
        doctor.repair(found).into_iter().map(|(leftover, outcome)| (leftover, became(outcome))).collect()
    } else {
        found.into_iter().map(|leftover| (leftover, Outcome::Found)).collect()
    };
    let text: String = told.iter().map(|(leftover, outcome)| line(leftover, outcome, json)).collect();
    // A reader that has seen enough is no failure of the examination.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(exit_code(&told))
}

fn became(outcome: Result<bool, Error>) -> Outcome {
    match outcome {
        Ok(true) => Outcome::Removed,
        Ok(false) => Outcome::LeftAlone,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn line(leftover: &Leftover, outcome: &Outcome, json: bool) -> String {
    let (word, why) = match outcome {
        Outcome::Found => ("found", None),
        Outcome::Removed => ("removed", None),
        Outcome::LeftAlone => ("left alone", None),
        Outcome::Failed(why) => ("failed", Some(why)),
    };
    let (kind, name) = (leftover.kind.to_string(), &leftover.name);
    if json {
        let mut object = json!({ "kind": kind, "name": name, "outcome": word });
        if let (Some(why), Some(object)) = (why, object.as_object_mut()) {
            object.insert("error".to_owned(), json!(why));
        }
        return format!("{object}\n");
    }
    match why {
        Some(why) => format!("{word:<10} {kind:<11} {name}: {why}\n"),
        None => format!("{word:<10} {kind:<11} {name}\n"),
    }
}

fn exit_code(told: &[(Leftover, Outcome)]) -> ExitCode {
    let is_well = |(leftover, outcome): &(Leftover, Outcome)| {
        *outcome == Outcome::Removed || leftover.kind == Kind::Unknown
    };
    if told.iter().all(is_well) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
