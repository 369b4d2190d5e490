//! The map `server.access`: who may use the socket, beside its permissions.

use super::Notes;
use super::section::{ConfigError, Section};
use super::value::Value;

/// The users and groups that may use the socket; with neither, its permissions alone decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Users.
    pub users: Vec<Account>,
    /// Groups.
    pub groups: Vec<Account>,
}

/// A user or a group, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// By its name in the host's /etc/passwd or /etc/group.
    Name(String),
    /// By its number.
    Id(u32),
}

/// The same as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessIds {
    /// Ids of users.
    pub users: Vec<u32>,
    /// Ids of groups.
    pub groups: Vec<u32>,
}

impl Access {
    /// Reads our own map `access`.
    pub(super) fn read(server: &mut Section, notes: &mut Notes) -> Result<Self, ConfigError> {
        let mut section = server.section("access")?;
        let access =
            Self { users: accounts(&mut section, "users")?, groups: accounts(&mut section, "groups")? };
        section.finish_strictly(notes)?;
        Ok(access)
    }

    /// Looks the names up in the texts of /etc/passwd and /etc/group; one that is not there is an error.
    pub fn look_up(&self, passwd: &[u8], group: &[u8]) -> Result<AccessIds, ConfigError> {
        Ok(AccessIds {
            users: ids("server.access.users", &self.users, passwd, "/etc/passwd")?,
            groups: ids("server.access.groups", &self.groups, group, "/etc/group")?,
        })
    }
}

fn accounts(section: &mut Section, key: &str) -> Result<Vec<Account>, ConfigError> {
    section.values(key, "a name or a number", |value| match value {
        Value::Text(name) if !name.is_empty() => Some(Account::Name(name.clone())),
        // 2^32 - 1 is no id.
        Value::Integer(id) => u32::try_from(*id).ok().filter(|id| *id != u32::MAX).map(Account::Id),
        _ => None,
    })
}

fn ids(key: &str, accounts: &[Account], file: &[u8], path: &str) -> Result<Vec<u32>, ConfigError> {
    let id = |account: &Account| match account {
        Account::Id(id) => Ok(*id),
        Account::Name(name) => find(file, name.as_bytes()).ok_or_else(|| {
            ConfigError::value(key, &Value::Text(name.clone()), &format!("names of {path}, or numbers"))
        }),
    };
    accounts.iter().map(id).collect()
}

/// The third field of the line that begins with a name: the id in both files.
fn find(file: &[u8], name: &[u8]) -> Option<u32> {
    let mut lines = file.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        if fields.next()? != name {
            return None;
        }
        std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\nann:x:1001:1002::/home/ann:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nplatform:x:50:ann\n";

    #[test]
    fn names_are_looked_up_and_numbers_taken() {
        let access = Access {
            users: vec![Account::Name("ann".into()), Account::Id(7)],
            groups: vec![Account::Name("platform".into())],
        };
        let ids = access.look_up(PASSWD, GROUP).unwrap();
        assert_eq!(ids, AccessIds { users: vec![1001, 7], groups: vec![50] });
    }

    #[test]
    fn an_unknown_name_is_an_error_that_tells_it() {
        let access = Access { users: vec![Account::Name("bob".into())], groups: Vec::new() };
        let refused = access.look_up(PASSWD, GROUP).unwrap_err().to_string();
        assert_eq!(refused, "server.access.users is \"bob\": expected names of /etc/passwd, or numbers");
        let access = Access { users: Vec::new(), groups: vec![Account::Name("ann".into())] };
        assert!(access.look_up(PASSWD, GROUP).is_err());
    }
}
