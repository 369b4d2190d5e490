//! Reads keys out of a map, with an error that names the key, the value and what was expected.

// What arrives here may be anything: no length, index or sum may be taken on trust.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::Notes;
use super::value::{SHOWN, Value};

/// Why a configuration cannot be used: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", .origin.as_ref().map(|origin| format!("{origin}: ")).unwrap_or_default())]
pub struct ConfigError {
    origin: Option<String>,
    message: String,
}

impl ConfigError {
    /// A sentence about the configuration as a whole.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { origin: None, message: message.into() }
    }

    /// A key with a value that it cannot have.
    pub(super) fn value(key: &str, value: &dyn fmt::Display, expected: &str) -> Self {
        Self::new(format!("{key} is {value}: expected {expected}"))
    }

    /// Text that is not YAML.
    pub(super) fn syntax(message: &str) -> Self {
        let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Self::new(format!("not a YAML document: {line}"))
    }

    /// A file that cannot be read.
    pub(super) fn unreadable(path: &Path, source: &io::Error) -> Self {
        Self::new(format!("reading {}: {source}", path.display()))
    }

    /// Says which file it is about.
    pub(super) fn of(self, origin: &str) -> Self {
        Self { origin: Some(origin.to_owned()), ..self }
    }
}

/// A map whose keys are taken out one by one; what remains at the end is unknown.
#[derive(Debug)]
pub(super) struct Section {
    name: String,
    entries: BTreeMap<String, Value>,
    asked: Vec<String>,
}

impl Section {
    /// The document itself.
    pub(super) fn root(document: Value) -> Result<Self, ConfigError> {
        let entries = match document {
            Value::Null => BTreeMap::new(),
            Value::Map(entries) => entries,
            other => return Err(ConfigError::value("the document", &other, "a map of sections")),
        };
        Ok(Self { name: String::new(), entries, asked: Vec::new() })
    }

    /// Takes a section; an absent or empty one has no keys.
    pub(super) fn section(&mut self, key: &str) -> Result<Self, ConfigError> {
        let name = self.path(key);
        let entries = match self.entries.remove(key) {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(Value::Map(entries)) => entries,
            Some(other) => return Err(ConfigError::value(&name, &other, "a map")),
        };
        Ok(Self { name, entries, asked: Vec::new() })
    }

    /// Whether the key is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The name of a key of this section, as the operator knows it.
    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Takes a key that `read` understands; `expected` completes the sentence when it does not.
    pub(super) fn read<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let path = self.path(key);
        self.asked.push(path.clone());
        let Some(value) = self.entries.remove(key) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| ConfigError::value(&path, &value, expected))
    }

    /// Takes a whole number.
    pub(super) fn number<T: TryFrom<i128>>(
        &mut self,
        key: &str,
        least: i128,
        most: i128,
    ) -> Result<Option<T>, ConfigError> {
        let expected = format!("a whole number from {least} to {most}");
        self.read(key, &expected, |value| integer(value, least, most))
    }

    /// Takes true or false.
    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// Takes a path; an empty key is an absent one.
    pub(super) fn optional_path(&mut self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        let read = |value: &Value| match value {
            Value::Null => Some(None),
            other => text(other).map(|path| Some(PathBuf::from(path))),
        };
        Ok(self.read(key, "a path", read)?.flatten())
    }

    /// Takes a list of texts that `read` understands.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        self.values(key, expected, |value| text(value).and_then(&read))
    }

    /// Takes a list of whatever `read` understands.
    pub(super) fn values<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let whole = format!("a list, each item {expected}");
        let items = self.read(key, &whole, |value| match value {
            Value::List(items) => Some(items.clone()),
            _ => None,
        })?;
        let path = self.path(key);
        let item = |(index, value): (usize, &Value)| {
            read(value).ok_or_else(|| ConfigError::value(&format!("{path}[{index}]"), value, expected))
        };
        items.unwrap_or_default().iter().enumerate().map(item).collect()
    }

    /// Ends a section of the original's: what was not asked for is unknown, and told to the operator.
    pub(super) fn finish(self, notes: &mut Notes) {
        for key in self.entries.keys() {
            notes.warnings.push(format!("{} is unknown and has no effect", self.path(&shown(key))));
        }
        notes.known.extend(self.asked);
    }

    /// Ends a map of our own: what was not asked for is an error.
    pub(super) fn finish_strictly(self, notes: &mut Notes) -> Result<(), ConfigError> {
        if let Some(key) = self.entries.keys().next() {
            return Err(ConfigError::new(format!("{} is unknown", self.path(&shown(key)))));
        }
        notes.known.extend(self.asked);
        Ok(())
    }
}

/// A key that nobody knows, on one line and not at length.
fn shown(key: &str) -> String {
    key.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

/// A whole number in a range; a flag, a text or a fraction is none.
pub(super) fn integer<T: TryFrom<i128>>(value: &Value, least: i128, most: i128) -> Option<T> {
    match value {
        Value::Integer(number) if (least..=most).contains(number) => T::try_from(*number).ok(),
        _ => None,
    }
}

/// A text that can be a path or a name.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) if !text.is_empty() && !text.contains('\0') => Some(text),
        _ => None,
    }
}
