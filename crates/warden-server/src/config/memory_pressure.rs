//! The map `server.memory_pressure`: when the machine has no memory left for another container.

use warden_container::pressure::Thresholds;

use super::Notes;
use super::section::{ConfigError, Section};

/// Reads our own map `memory_pressure`.
pub(super) fn read(server: &mut Section, notes: &mut Notes) -> Result<Thresholds, ConfigError> {
    let mut section = server.section("memory_pressure")?;
    let thresholds = Thresholds {
        pressure: section.number("max_percent", 1, 100)?.unwrap_or(10),
        available: section.number("min_available", 0, i64::MAX.into())?.unwrap_or(64 << 20),
    };
    section.finish_strictly(notes)?;
    Ok(thresholds)
}
