//! The files of a job that one iomux writes and another, or the daemon, reads: `job.json` and `exit.json`.
//!
//! Both are objects with a `version`; keys that a later version adds are passed over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failpoint;
use crate::message::{Exit, Output, VERSION, VERSIONS};

/// Content with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

/// The content of `job.json`.
pub type Order = Output;

/// The content of `exit.json`.
pub type End = Exit;

/// The text of a file.
pub fn encode<T: Serialize>(content: &T) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Versioned { version: VERSION, content })?)
}

/// Reads the text of a file.
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> io::Result<T> {
    let Versioned { version, content } = serde_json::from_slice(text)?;
    if !VERSIONS.contains(&version) {
        let reason = format!("its version is {version}, expected {VERSION}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(content)
}

/// Reads a file; `None` where there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => decode(&text?).map(Some),
    }
}

/// A file that nobody reads yet.
#[derive(Debug)]
pub(crate) struct New(File);

/// Makes a file that has no content and is not at its path yet.
pub(crate) fn begin(path: &Path) -> io::Result<New> {
    File::create(path.with_extension("json.new")).map(New)
}

impl New {
    /// Gives it its content and puts it at its path.
    pub(crate) fn finish<T: Serialize>(mut self, path: &Path, content: &T) -> io::Result<()> {
        self.0.write_all(&encode(content)?)?;
        failpoint::reach("rename");
        fs::rename(path.with_extension("json.new"), path)?;
        failpoint::reach("renamed");
        Ok(())
    }
}

/// Writes a file whole or not at all.
pub fn write<T: Serialize>(path: &Path, content: &T) -> io::Result<()> {
    begin(path)?.finish(path, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ExitCause;

    #[test]
    fn a_file_is_read_as_it_was_written_and_not_in_another_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("exit.json");
        assert_eq!(read::<End>(&path).unwrap(), None);
        let exit = Exit { cause: ExitCause::Signal(15), stdout: 1, stderr: u64::MAX };
        write(&path, &exit).unwrap();
        assert_eq!(read(&path).unwrap(), Some(exit));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let text = fs::read_to_string(&path).unwrap();
        let later = text.replacen("\"version\":1", "\"version\":9", 1);
        assert!(decode::<End>(later.as_bytes()).unwrap_err().to_string().contains("version is 9"));
        let more = text.replacen('{', "{\"new\":[1],", 1);
        assert_eq!(decode::<End>(more.as_bytes()).unwrap(), exit);
        for text in [&b""[..], b"{}", b"{\"version\":1}", b"\xff"] {
            assert!(decode::<End>(text).is_err());
        }
    }
}
