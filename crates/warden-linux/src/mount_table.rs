//! The mounts of this process's mount namespace, as /proc/self/mountinfo tells them (proc(5)).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub point: PathBuf,
    /// The type of its file system.
    pub kind: String,
    /// What is mounted: a device, or a name that means nothing.
    pub source: PathBuf,
    /// Options of the file system, not of the mount, separated by commas.
    pub options: String,
}

/// Reads the table, in the order of the mounts; of several at one place the last is seen.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// Reads the lines of such a table; those that are none are passed over.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = path(fields.nth(4)?);
    // As many optional fields as there are end with a dash.
    fields.find(|field| *field == b"-")?;
    let text = |field| String::from_utf8_lossy(field).into_owned();
    Some(Mount {
        point,
        kind: text(fields.next()?),
        source: path(fields.next()?),
        options: text(fields.next()?),
    })
}

/// Undoes the kernel's `\ooo` for spaces, tabs, newlines and backslashes.
fn path(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            (&byte, _) => bytes.push(byte),
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_any_number_of_optional_fields_and_names_of_any_bytes() {
        let table =
            b"30 24 7:0 / /a\\040b\\134c\\9\\04 rw shared:9 master:1 - ext4 /dev/\\134x rw,prjquota\n\
            31 24 0:7 /x / rw - tmpfs none rw\n";
        let mount = |point: &str, kind: &str, source: &str, options: &str| Mount {
            point: point.into(),
            kind: kind.to_owned(),
            source: source.into(),
            options: options.to_owned(),
        };
        let expected =
            [mount("/a b\\c\\9\\04", "ext4", "/dev/\\x", "rw,prjquota"), mount("/", "tmpfs", "none", "rw")];
        assert_eq!(parse(table), expected);
    }

    #[test]
    fn what_is_no_line_of_a_table_is_passed_over() {
        for table in ["", "\n\n", "x", "1 2 3", "1 2 3 4 5 6 - ext4 a", "1 2 3 4 5 6 ext4 a rw"] {
            assert_eq!(parse(table.as_bytes()), [], "{table:?}");
        }
    }

    #[test]
    fn this_process_has_a_root_and_proc() {
        let table = read().unwrap();
        let is_there = |point: &str| table.iter().any(|mount| mount.point.as_os_str() == point);
        assert!(is_there("/") && is_there("/proc"));
    }
}
