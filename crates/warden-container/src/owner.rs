//! Who shall own the files of a copy: names of the host as ids.

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

use std::path::Path;

use warden_copy::receive::Owner;

use crate::error::{Context, Error, blocking};

/// Finds an owner in the host's /etc/passwd and /etc/group, as chown(1) reads it.
pub(crate) async fn find(text: Vec<u8>) -> Result<Owner, Error> {
    blocking(move || {
        let read = |path: &'static str| {
            warden_init::accounts::read(Path::new(path)).context(|| format!("reading {path}"))
        };
        resolve(&text, &read("/etc/passwd")?, &read("/etc/group")?).ok_or(Error::NoOwner(text))
    })
    .await
}

/// `user`, `user:group`, `user:` (with the user's login group) or `:group`; names before numbers.
fn resolve(text: &[u8], passwd: &[u8], group: &[u8]) -> Option<Owner> {
    let (user, group_text) = match text.iter().position(|byte| *byte == b':') {
        Some(colon) => (text.get(..colon)?, text.get(colon.saturating_add(1)..)),
        None => (text, None),
    };
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok().filter(|id| *id != u32::MAX);
    let account = field(passwd, user, 2);
    let group = match group_text {
        None => None,
        Some(b"") if user.is_empty() => return None,
        Some(b"") => Some(number(field(passwd, user, 3)?)?),
        Some(name) => Some(number(field(group, name, 2).unwrap_or(name))?),
    };
    let user = if user.is_empty() && group.is_some() { None } else { Some(number(account.unwrap_or(user))?) };
    Some(Owner { user, group })
}

/// The field of the line that begins with a name.
fn field<'a>(lines: &'a [u8], name: &[u8], index: usize) -> Option<&'a [u8]> {
    if name.is_empty() {
        return None;
    }
    let mut lines = lines.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        (fields.next()? == name).then(|| fields.nth(index.saturating_sub(1))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_as_chown_reads_them() {
        let passwd =
            b"root:x:0:0:root:/root:/bin/bash\nann:x:1001:1002::/home/ann:/bin/sh\n77:x:5:6::/:/bin/sh\n";
        let group = b"root:x:0:\nstaff:x:50:ann\n";
        let of = |text: &str| resolve(text.as_bytes(), passwd, group);
        let owner = |user, group| Some(Owner { user, group });
        assert_eq!(of("ann"), owner(Some(1001), None));
        assert_eq!(of("ann:staff"), owner(Some(1001), Some(50)));
        assert_eq!(of("ann:"), owner(Some(1001), Some(1002)));
        assert_eq!(of(":staff"), owner(None, Some(50)));
        assert_eq!(of("1234"), owner(Some(1234), None));
        assert_eq!(of("1234:99"), owner(Some(1234), Some(99)));
        assert_eq!(of("77"), owner(Some(5), None));
        for wrong in [
            "",
            ":",
            "bob",
            "ann:nobody",
            "1234:",
            "-1",
            "4294967295",
            "4294967296",
            "ann:staff:x",
            "root:x:0",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
