//! The records of the stream: what is sent for each entry of the tree.
//!
//! A record is a kind (one byte), its fields (little-endian integers), and for names and targets a length (four bytes)
//! and the bytes. A file's content follows its `File` record as `Data` records and their bytes, then `End`.

use std::io::{self, Read, Write};

/// The longest name of an entry, in bytes (Linux' NAME_MAX).
pub const MAX_NAME: usize = 255;

/// The longest target of a symbolic link, in bytes (Linux' PATH_MAX).
pub const MAX_TARGET: usize = 4096;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A directory; its entries follow, then [`Record::Up`]. Only the first record may have an empty name: "the content of".
    Directory {
        /// Permission bits.
        mode: u32,
        /// Its name.
        name: Vec<u8>,
    },
    /// The end of a directory's entries.
    Up,
    /// A regular file; its content follows.
    File {
        /// Permission bits.
        mode: u32,
        /// Its name.
        name: Vec<u8>,
    },
    /// A piece of content: this many bytes follow, for this offset.
    Data {
        /// Where in the file, in bytes.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
    /// The end of a file's content.
    End {
        /// The file's length, in bytes; what no `Data` covered is a hole.
        length: u64,
    },
    /// A symbolic link.
    Link {
        /// Its name.
        name: Vec<u8>,
        /// What it points to.
        target: Vec<u8>,
    },
    /// An entry that is left out: a device, a socket, a pipe.
    Skipped,
    /// Everything was sent.
    Done,
}

impl Record {
    /// Writes the record.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Directory { mode, name } => {
                out.write_all(b"d")?;
                out.write_all(&mode.to_le_bytes())?;
                write_bytes(out, name)
            }
            Self::Up => out.write_all(b"u"),
            Self::File { mode, name } => {
                out.write_all(b"f")?;
                out.write_all(&mode.to_le_bytes())?;
                write_bytes(out, name)
            }
            Self::Data { offset, length } => {
                out.write_all(b"b")?;
                out.write_all(&offset.to_le_bytes())?;
                out.write_all(&length.to_le_bytes())
            }
            Self::End { length } => {
                out.write_all(b"e")?;
                out.write_all(&length.to_le_bytes())
            }
            Self::Link { name, target } => {
                out.write_all(b"l")?;
                write_bytes(out, name)?;
                write_bytes(out, target)
            }
            Self::Skipped => out.write_all(b"s"),
            Self::Done => out.write_all(b"."),
        }
    }

    /// Reads the next record; `InvalidData` for what no sender sends.
    pub fn read(input: &mut impl Read) -> io::Result<Self> {
        Ok(match array::<1>(input)? {
            [b'd'] => Self::Directory { mode: number(input)?, name: read_bytes(input, MAX_NAME)? },
            [b'u'] => Self::Up,
            [b'f'] => Self::File { mode: number(input)?, name: read_bytes(input, MAX_NAME)? },
            [b'b'] => Self::Data { offset: u64::from_le_bytes(array(input)?), length: number(input)? },
            [b'e'] => Self::End { length: u64::from_le_bytes(array(input)?) },
            [b'l'] => {
                Self::Link { name: read_bytes(input, MAX_NAME)?, target: read_bytes(input, MAX_TARGET)? }
            }
            [b's'] => Self::Skipped,
            [b'.'] => Self::Done,
            _ => return Err(io::Error::from(io::ErrorKind::InvalidData)),
        })
    }
}

/// Whether a name may be created in a directory: one component, neither the directory itself nor its parent.
pub fn is_entry_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

fn read_bytes(input: &mut impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let length = number(input)? as usize;
    if length > limit {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(input: &mut impl Read) -> io::Result<u32> {
    Ok(u32::from_le_bytes(array(input)?))
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_record_survives() {
        let records = [
            Record::Directory { mode: 0o755, name: b"d".to_vec() },
            Record::Directory { mode: 0o7777, name: Vec::new() },
            Record::File { mode: 0o600, name: b"\xff\n".to_vec() },
            Record::Data { offset: u64::MAX, length: u32::MAX },
            Record::End { length: 1 << 40 },
            Record::Link { name: b"l".to_vec(), target: b"../../etc".to_vec() },
            Record::Skipped,
            Record::Up,
            Record::Done,
        ];
        let mut bytes = Vec::new();
        for record in &records {
            record.write(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        for record in &records {
            assert_eq!(&Record::read(&mut input).unwrap(), record);
        }
        assert!(input.is_empty());
    }

    #[test]
    fn lengths_beyond_the_kernels_are_refused_before_they_are_allocated() {
        let mut name = vec![b'f', 0, 0, 0, 0];
        name.extend(u32::MAX.to_le_bytes());
        assert_eq!(Record::read(&mut name.as_slice()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &[b'x'; 256]] {
            assert!(!is_entry_name(name), "{name:?}");
        }
        for name in [&b"a"[..], b"...", b"\xff", b"a\nb", &[b'x'; 255]] {
            assert!(is_entry_name(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut input = bytes.as_slice();
            while Record::read(&mut input).is_ok() {}
        }
    }
}
