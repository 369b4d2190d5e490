//! What a job prints, and how much of that its client has to get.
//!
//! | killed meanwhile | promised |
//! |---|---|
//! | wardend, iomux, both | every byte, and the job's own status |
//! | a process of the job; it was stopped | every byte up to then, and the status of who was killed |
//! | wshd, alone or with iomux | every byte up to then, and 255 |
//!
//! Bytes are compared by SHA-256: of what came, and of as many as the job would have printed.

use sha2::{Digest, Sha256};

/// The status of a job that did not end by itself.
const UNKNOWN: u32 = 255;

/// A job: lines to its standard output, then lines to its standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) tag: usize,
    /// Of each stream.
    pub(crate) lines: [usize; 2],
    /// Before it prints anything, and between the two.
    pub(crate) pauses: [&'static str; 2],
}

/// What has befallen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing that it could notice.
    Undisturbed,
    /// One of its processes was killed, or may have been.
    Hurt,
    /// Its container's init was killed, or may have been.
    InitKilled,
}

/// What its client got of it.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// Of each stream.
    pub(crate) output: [Vec<u8>; 2],
    pub(crate) status: Option<u32>,
}

/// How much that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    UpToItsEnd,
}

impl Script {
    /// The text for bash.
    pub(crate) fn text(&self) -> String {
        let Self { tag, lines: [out, err], pauses: [first, second] } = self;
        // Whoever is killed ends all of it, and bash has nothing to say about it.
        format!(
            "set -e; exec 3>&2 2>/dev/null; {first} seq -f 'x{tag}-%.0f' {out}; {second} seq -f 'y{tag}-%.0f' {err} >&3"
        )
    }

    /// What a stream is to be, up to some length.
    fn expected(&self, stream: usize, length: usize) -> Vec<u8> {
        let (tag, letter) = (self.tag, ['x', 'y'][stream]);
        let mut text = Vec::with_capacity(length);
        for line in 1..=self.lines[stream] {
            if text.len() >= length {
                break;
            }
            text.extend(format!("{letter}{tag}-{line}\n").bytes());
        }
        text.truncate(length);
        text
    }

    /// Whether a stream is whole, or at least begins so; says what is wrong.
    fn compare(&self, stream: usize, found: &[u8]) -> Result<bool, String> {
        let name = ["stdout", "stderr"][stream];
        let expected = self.expected(stream, found.len());
        if Sha256::digest(&expected) != Sha256::digest(found) {
            let place = expected.iter().zip(found).take_while(|(expected, found)| expected == found).count();
            return Err(format!(
                "{name}: {} bytes, other than those expected from byte {place} on",
                found.len()
            ));
        }
        // One more would have come.
        Ok(self.expected(stream, found.len() + 1).len() == found.len())
    }

    /// Whether a client got what it was promised.
    pub(crate) fn judge(&self, fate: Fate, got: &Got) -> Result<Extent, String> {
        let whole = [0, 1].map(|stream| self.compare(stream, &got.output[stream]));
        let [out, err] = whole;
        let (out, err) = (out?, err?);
        let lengths = got.output.each_ref().map(Vec::len);
        let refused =
            |what: &str| Err(format!("{what}: {lengths:?} bytes, status {:?}, {fate:?}", got.status));
        match (got.status, fate) {
            (None, _) => refused("no status"),
            (Some(0), _) if out && err => Ok(Extent::Whole),
            (Some(0), _) => refused("it ended well, and not all is there"),
            (Some(_), Fate::Undisturbed) => refused("nothing has disturbed it"),
            // What the pipes of a dead container held is lost with its iomux, of each stream by itself.
            (Some(_), Fate::Hurt) if !out && lengths[1] > 0 => {
                refused("what came before the last is missing")
            }
            (Some(status), Fate::InitKilled) if status != UNKNOWN => refused("a status of its own"),
            (Some(_), _) => Ok(Extent::UpToItsEnd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: Script = Script { tag: 5, lines: [3, 2], pauses: ["", "sleep 1;"] };

    fn got(out: &str, err: &str, status: impl Into<Option<u32>>) -> Got {
        Got { output: [out, err].map(|text| text.as_bytes().to_vec()), status: status.into() }
    }

    const OUT: &str = "x5-1\nx5-2\nx5-3\n";
    const ERR: &str = "y5-1\ny5-2\n";

    #[test]
    fn a_script_prints_what_is_expected_of_it() {
        let output = std::process::Command::new("bash").args(["-c", &SCRIPT.text()]).output().unwrap();
        assert_eq!((output.stdout, output.stderr), (OUT.into(), ERR.into()));
    }

    #[test]
    fn what_is_whole_is_well_whatever_was_killed() {
        for fate in [Fate::Undisturbed, Fate::Hurt, Fate::InitKilled] {
            assert_eq!(SCRIPT.judge(fate, &got(OUT, ERR, 0)), Ok(Extent::Whole));
        }
    }

    #[test]
    fn every_byte_and_the_status_are_promised_to_what_nobody_has_disturbed() {
        let missing = [(&OUT[..14], ERR, 0), (OUT, &ERR[..9], 0), ("", "", 0), (OUT, "", 255), (OUT, ERR, 1)];
        for (out, err, status) in missing {
            assert!(SCRIPT.judge(Fate::Undisturbed, &got(out, err, status)).is_err(), "{out:?} {err:?}");
        }
        assert!(SCRIPT.judge(Fate::Undisturbed, &got(OUT, ERR, None)).is_err());
    }

    #[test]
    fn a_byte_that_is_another_or_too_many_is_found_whatever_was_killed() {
        let wrong = [
            ("x5-1\nx5-2\nx5-4\n", ERR),
            ("x5-1\nx5-1\nx5-2\nx5-3\n", ERR),
            ("x5-1\nx5-3\n", ERR),
            (OUT, "y5-1\ny5-2\ny"),
            (OUT, "x5-1\n"),
        ];
        for (out, err) in wrong {
            for fate in [Fate::Undisturbed, Fate::Hurt, Fate::InitKilled] {
                for status in [0, 137, 255] {
                    assert!(SCRIPT.judge(fate, &got(out, err, status)).is_err(), "{out:?} {err:?} {fate:?}");
                }
            }
        }
    }

    #[test]
    fn what_was_killed_has_printed_all_up_to_then() {
        for (out, err) in [("", ""), (&OUT[..7], ""), (OUT, ""), (OUT, &ERR[..3])] {
            assert_eq!(SCRIPT.judge(Fate::Hurt, &got(out, err, 137)), Ok(Extent::UpToItsEnd));
            assert_eq!(SCRIPT.judge(Fate::InitKilled, &got(out, err, 255)), Ok(Extent::UpToItsEnd));
            assert!(SCRIPT.judge(Fate::InitKilled, &got(out, err, 137)).is_err());
            assert!(SCRIPT.judge(Fate::Hurt, &got("", "y5-1\n", 137)).is_err());
            for fate in [Fate::Hurt, Fate::InitKilled] {
                assert!(SCRIPT.judge(fate, &got(out, err, 0)).is_err(), "the end is missing");
                assert!(SCRIPT.judge(fate, &got(out, err, None)).is_err());
            }
        }
    }
}
