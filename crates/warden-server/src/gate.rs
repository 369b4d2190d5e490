//! Who is at the other end of a connection, and whether that is somebody who may use the server.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use tokio::net::UnixStream;
use warden_linux::peer::peer_groups;

use crate::config::{Access, AccessIds, ConfigError};

/// The process that connected, as the kernel knew it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its process id.
    pub(crate) pid: i32,
    /// Its effective user.
    pub(crate) user: u32,
    /// Its effective group, and the supplementary ones.
    groups: Vec<u32>,
}

impl Peer {
    /// Asks the kernel.
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(stream.as_fd())?;
        let mut groups = peer_groups(stream.as_fd())?;
        groups.push(credentials.gid.as_raw());
        Ok(Self { pid: credentials.pid.as_raw_nonzero().get(), user: credentials.uid.as_raw(), groups })
    }
}

/// The users and groups that may use the server; without any, whoever the socket's permissions let in.
#[derive(Debug)]
pub(crate) struct Gate(AccessIds);

impl Gate {
    /// Looks the configured names up in the host's files.
    pub(crate) fn of(access: &Access) -> Result<Self, ConfigError> {
        let read = |path| fs::read(path).unwrap_or_default();
        access.look_up(&read("/etc/passwd"), &read("/etc/group")).map(Self)
    }

    /// Whether a peer may use the server; root always may.
    pub(crate) fn admits(&self, peer: &Peer) -> bool {
        let AccessIds { users, groups } = &self.0;
        let is_open = users.is_empty() && groups.is_empty();
        is_open
            || peer.user == 0
            || users.contains(&peer.user)
            || peer.groups.iter().any(|group| groups.contains(group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(user: u32, groups: &[u32]) -> Peer {
        Peer { pid: 1, user, groups: groups.to_vec() }
    }

    fn gate(users: &[u32], groups: &[u32]) -> Gate {
        Gate(AccessIds { users: users.to_vec(), groups: groups.to_vec() })
    }

    #[test]
    fn without_a_list_everybody_is_admitted() {
        assert!(gate(&[], &[]).admits(&peer(1000, &[1000])));
    }

    #[test]
    fn with_a_list_only_who_is_on_it_and_root() {
        for (users, groups, admitted) in [
            (&[1000][..], &[][..], true),
            (&[1001], &[], false),
            (&[], &[50], true),
            (&[], &[51], false),
            (&[1001], &[50], true),
            (&[50], &[1000], false),
        ] {
            let gate = gate(users, groups);
            assert_eq!(gate.admits(&peer(1000, &[50, 7])), admitted, "{gate:?}");
            assert!(gate.admits(&peer(0, &[0])));
        }
    }

    #[tokio::test]
    async fn the_kernel_tells_who_connected() {
        let (server, _client) = UnixStream::pair().unwrap();
        let peer = Peer::of(&server).unwrap();
        assert_eq!(peer.pid, rustix::process::getpid().as_raw_nonzero().get());
        assert_eq!(peer.user, rustix::process::geteuid().as_raw());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
    }
}
