//! Section `logging`.

use std::path::PathBuf;

use super::Notes;
use super::section::{ConfigError, Section};
use super::value::Value;

/// What is logged, how and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// The least severe lines that are written.
    pub level: Level,
    /// The file that lines are appended to; absent: standard error.
    pub file: Option<PathBuf>,
    /// How a line looks.
    pub format: Format,
}

/// The original's levels: each writes its own lines and those of the levels before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the original's")]
pub enum Level {
    Off,
    Fatal,
    Error,
    Warn,
    Info,
    Debug,
    Debug1,
    Debug2,
    All,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object, with the original's keys.
    Json,
    /// For people.
    Text,
}

impl Level {
    /// Reads a level's name.
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "off" => Self::Off,
            "fatal" => Self::Fatal,
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "debug1" => Self::Debug1,
            "debug2" => Self::Debug2,
            "all" => Self::All,
            _ => return None,
        })
    }
}

impl Logging {
    /// Reads the section.
    pub(super) fn read(root: &mut Section, notes: &mut Notes) -> Result<Self, ConfigError> {
        let mut section = root.section("logging")?;
        let level =
            section.read("level", "off, fatal, error, warn, info, debug, debug1, debug2 or all", level)?;
        let format = section.read("format", "json or text", format)?;
        let file = section.optional_path("file")?;
        if section.optional_path("syslog")?.is_some() {
            notes
                .warnings
                .push("logging.syslog has no effect: lines go to logging.file or standard error".to_owned());
        }
        section.finish(notes);
        Ok(Self { level: level.unwrap_or(Level::Debug2), file, format: format.unwrap_or(Format::Json) })
    }
}

/// YAML 1.1 reads an unquoted `off` as false.
fn level(value: &Value) -> Option<Level> {
    match value {
        Value::Text(name) => Level::from_name(name),
        Value::Bool(false) => Some(Level::Off),
        _ => None,
    }
}

fn format(value: &Value) -> Option<Format> {
    match value {
        Value::Text(name) if name == "json" => Some(Format::Json),
        Value::Text(name) if name == "text" => Some(Format::Text),
        _ => None,
    }
}
