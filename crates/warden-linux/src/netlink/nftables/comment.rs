//! The comment of a table: what programs may keep with it, in the form in which `nft` shows it.

use super::{INET, Refusal, Requests, SUBSYSTEM, Socket, attribute, header, text};

const GET_TABLE: u16 = SUBSYSTEM | 1;
/// What `nft` takes for a comment among a table's data (`NFTNL_UDATA_TABLE_COMMENT` of libnftnl).
const COMMENT: u8 = 0;
/// The most that the kernel keeps with a table, in bytes (`NFT_USERDATA_MAXLEN`).
const LARGEST: usize = 256;

/// Tells the comment of a table of the family inet; nothing where there is no table, or none with a comment.
pub fn table_comment(socket: &mut Socket, table: &str) -> Result<Option<String>, Refusal> {
    let mut request = Requests::default();
    let action = format!("looking at the table {table}");
    request.push(action, GET_TABLE, 0, &header(INET, 0), |attributes| {
        attributes.text(1, table);
    });
    let mut found = None;
    let asked = socket.ask(request, |body| {
        found = attribute(body.get(4..).unwrap_or_default(), 6).and_then(read);
    });
    match asked {
        Err(refusal) if !refusal.is_absence() => Err(refusal),
        _ => Ok(found),
    }
}

/// A comment as a table's data: type, length, text with its zero.
pub(super) fn write(comment: &str) -> Option<Vec<u8>> {
    let length = u8::try_from(comment.len() + 1).ok()?;
    let data = [&[COMMENT, length], comment.as_bytes(), &[0]].concat();
    (data.len() <= LARGEST && !comment.contains('\0')).then_some(data)
}

fn read(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        data = rest.get(value.len()..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_as_it_was_written_and_no_longer_than_fits() {
        for comment in ["", "depot /var/lib/warden", &"x".repeat(253)] {
            assert_eq!(read(&write(comment).unwrap()).as_deref(), Some(comment));
        }
        assert_eq!(write(&"x".repeat(254)), None);
        assert_eq!(write("a\0b"), None);
    }

    #[test]
    fn what_others_keep_with_a_table_is_passed_over_and_what_is_cut_off_is_nothing() {
        assert_eq!(read(b"\x01\x02ab\x00\x02c\x00").as_deref(), Some("c"));
        for data in [&b""[..], b"\0", b"\0\x05abc", b"\x01\x01a", b"\x01\x09a"] {
            assert_eq!(read(data), None, "{data:?}");
        }
    }
}
