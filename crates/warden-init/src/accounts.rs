//! /etc/passwd and /etc/group of a container, read and changed without any library of the host's accounts.

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

use std::io::{self, Read};
use std::path::Path;

use crate::byte_string::ByteString;
use crate::spec::User;

/// A user's id and that of its primary group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's id.
    pub user: u32,
    /// The group's id.
    pub group: u32,
}

/// What a job needs to know of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its ids.
    pub identity: Identity,
    /// Its home directory.
    pub home: ByteString,
    /// Its login shell; empty where the file names none.
    pub shell: ByteString,
}

/// An /etc/passwd that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its whole new content.
    pub passwd: Vec<u8>,
    /// The user's home directory.
    pub home: ByteString,
    /// The ids that the user had, if they were others.
    pub previous: Option<Identity>,
}

/// The longest /etc/passwd or /etc/group that is read, in bytes.
pub const LIMIT: u64 = 1 << 20;

/// Bytes that most of them are shorter than.
const FEW: usize = 4096;

const EFBIG: i32 = 27;

/// Reads such a file; a missing one is empty. Everything but a regular file is refused with `EINVAL` or `ELOOP`, and one
/// of more than [`LIMIT`] bytes with `EFBIG`: its content is the tenant's, and a pipe or an endless file would keep
/// the reader for ever.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = match warden_linux::file::open_regular(path) {
        Ok(file) => file.take(LIMIT + 1),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    // Most are shorter: one read, and one that finds the end.
    let mut content = Vec::with_capacity(FEW);
    match file.read_to_end(&mut content)? as u64 > LIMIT {
        true => Err(io::Error::from_raw_os_error(EFBIG)),
        false => Ok(content),
    }
}

/// Finds a user in the content of /etc/passwd: the first well-formed line of its name.
pub fn find(passwd: &[u8], name: &[u8]) -> Option<Account> {
    lines(passwd).filter(|line| is_of(line, name)).find_map(account)
}

fn account(line: &[u8]) -> Option<Account> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let [_name, _password, user, group, _gecos, home, rest @ ..] = fields.as_slice() else { return None };
    let identity = Identity { user: id(user)?, group: id(group)? };
    let shell = rest.first().copied().unwrap_or_default();
    Some(Account { identity, home: ByteString(home.to_vec()), shell: ByteString(shell.to_vec()) })
}

/// The most supplementary groups that a job gets.
const MOST_GROUPS: usize = 1024;

/// The ids of the groups of which a user is a member by the content of /etc/group.
pub fn groups_of(group: &[u8], name: &[u8]) -> Vec<u32> {
    let member = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [_name, _password, number, members] = fields.as_slice() else { return None };
        members.split(|byte| *byte == b',').any(|member| member == name).then(|| id(number)).flatten()
    };
    let found = if name.is_empty() { Vec::new() } else { lines(group).filter_map(member).collect() };
    let mut ids: Vec<u32> = found;
    ids.truncate(MOST_GROUPS);
    ids
}

/// An id in decimal digits; u32::MAX is none, since the kernel takes it for "leave as it is".
fn id(digits: &[u8]) -> Option<u32> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn is_of(line: &[u8], name: &[u8]) -> bool {
    !name.contains(&b':') && line.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&b':'))
}

/// Adds a user to the content of /etc/passwd, or changes its ids where it is there already.
pub fn with_user(passwd: &[u8], user: &User) -> Change {
    let present = find(passwd, user.name.as_bytes());
    let home = match &present {
        Some(account) if account.home.0.starts_with(b"/") => account.home.clone(),
        _ => ByteString(format!("/home/{}", user.name).into_bytes()),
    };
    let before = lines(passwd).find(|line| is_of(line, user.name.as_bytes())).unwrap_or_default();
    let mut fields = before.split(|byte| *byte == b':').skip(4);
    let gecos = fields.next().unwrap_or_default();
    let shell = fields.nth(1).filter(|shell| !shell.is_empty()).unwrap_or(b"/bin/bash");
    // "*" rather than "x": an image that has no line for the user in /etc/shadow would lock it out of su.
    let mut line = format!("{}:*:{}:{}:", user.name, user.id, user.id).into_bytes();
    for (field, end) in [(gecos, b':'), (home.0.as_slice(), b':'), (shell, b'\n')] {
        line.extend_from_slice(field);
        line.push(end);
    }
    let wanted = Identity { user: user.id, group: user.id };
    let previous = present.map(|account| account.identity).filter(|identity| *identity != wanted);
    Change { passwd: with_line(passwd, user.name.as_bytes(), &line), home, previous }
}

/// Adds a user's group to the content of /etc/group, or changes its id where it is there already.
pub fn with_group(group: &[u8], user: &User) -> Vec<u8> {
    let before = lines(group).find(|line| is_of(line, user.name.as_bytes())).unwrap_or_default();
    let members = before.split(|byte| *byte == b':').nth(3).unwrap_or_default();
    let mut line = format!("{}:x:{}:", user.name, user.id).into_bytes();
    line.extend_from_slice(members);
    line.push(b'\n');
    with_line(group, user.name.as_bytes(), &line)
}

/// Puts a line in the place of the first one of its name, dropping all others of that name, or at the end.
fn with_line(content: &[u8], name: &[u8], new: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(content.len().saturating_add(new.len()));
    let mut placed = false;
    for line in lines(content) {
        if !is_of(line, name) {
            result.extend_from_slice(line);
            result.push(b'\n');
        } else if !std::mem::replace(&mut placed, true) {
            result.extend_from_slice(new);
        }
    }
    if !placed {
        result.extend_from_slice(new);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/bash\nvc:x:1:1::/:\nvcap:x:1000:100:the user:/srv/vcap:/bin/dash\n";

    fn vcap(id: u32) -> User {
        User { name: "vcap".into(), id }
    }

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let account = find(PASSWD, b"vcap").unwrap();
        assert_eq!(account.identity, Identity { user: 1000, group: 100 });
        assert_eq!(
            (account.home.0.as_slice(), account.shell.0.as_slice()),
            (&b"/srv/vcap"[..], &b"/bin/dash"[..])
        );
        assert_eq!(find(PASSWD, b"vc").unwrap().shell.0, b"");
        assert_eq!(find(b"u:x:1:1::/", b"u").unwrap().shell.0, b"");
        for name in [&b"vca"[..], b"vcap:x", b"", b"nobody", b"vcap\n", b"root:x:0:0:root"] {
            assert_eq!(find(PASSWD, name), None, "{name:?}");
        }
    }

    #[test]
    fn supplementary_groups_are_those_with_the_user_among_their_members() {
        let group =
            b"vcap:x:5:\nadm:x:4:syslog,vcap\nvideo:x:44:vcap\nbad:x:-1:vcap\nshort:x:7\nvc:x:8:vcapx,vc\n";
        assert_eq!(groups_of(group, b"vcap"), [4, 44]);
        assert_eq!(groups_of(group, b"vc"), [8]);
        assert_eq!(groups_of(b"a:x:1:\n", b""), [0; 0]);
    }

    #[test]
    fn ids_are_plain_numbers_of_32_bits() {
        for (digits, expected) in
            [("0", Some(0)), ("70000", Some(70000)), ("4294967294", Some(4_294_967_294))]
        {
            let line = format!("u:x:{digits}:7::/:");
            assert_eq!(find(line.as_bytes(), b"u").map(|account| account.identity.user), expected);
        }
        for digits in ["", "-1", "+1", " 1", "4294967295", "4294967296", "0x1", "1a"] {
            assert_eq!(find(format!("u:x:{digits}:7::/:").as_bytes(), b"u"), None, "{digits}");
        }
        assert_eq!(find(b"u:x:1:1", b"u"), None);
        assert_eq!(find(b"u:x:x:1::/:\nu:x:2:2::/:", b"u").unwrap().identity.user, 2);
    }

    #[test]
    fn a_missing_user_is_added() {
        let change = with_user(b"root:x:0:0:root:/root:/bin/bash", &vcap(10001));
        assert_eq!(
            change.passwd,
            b"root:x:0:0:root:/root:/bin/bash\nvcap:*:10001:10001::/home/vcap:/bin/bash\n"
        );
        assert_eq!((change.home.0.as_slice(), change.previous), (&b"/home/vcap"[..], None));
        assert_eq!(with_group(b"", &vcap(5)), b"vcap:x:5:\n");
    }

    #[test]
    fn an_images_user_keeps_all_but_its_ids() {
        let change = with_user(PASSWD, &vcap(10001));
        let line = b"\nvcap:*:10001:10001:the user:/srv/vcap:/bin/dash\n";
        assert!(change.passwd.ends_with(line), "{}", String::from_utf8_lossy(&change.passwd));
        assert_eq!(change.previous, Some(Identity { user: 1000, group: 100 }));
        assert_eq!(change.home.0, b"/srv/vcap");
        assert_eq!(with_user(&change.passwd, &vcap(10001)).previous, None);
        assert_eq!(with_group(b"vcap:x:1:a,b\nz:x:2:\nvcap:x:3:\n", &vcap(5)), b"vcap:x:5:a,b\nz:x:2:\n");
    }

    #[test]
    fn only_a_bounded_regular_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        assert_eq!(read(&path).unwrap(), b"");
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path).unwrap(), b"1234");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(LIMIT + 1).unwrap();
        assert_eq!(read(&path).unwrap_err().raw_os_error(), Some(EFBIG));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read(&link).is_err());
        assert!(read(Path::new("/dev/zero")).is_err());
        assert!(read(directory.path()).is_err());
    }
}
