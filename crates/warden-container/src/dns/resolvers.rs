//! The name servers of a resolv.conf.

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

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

use crate::pool::lock;

/// The host's name servers.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The words that name servers, as the file has them.
fn servers(text: &[u8]) -> impl Iterator<Item = String> {
    let lines = text.split(|&byte| byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned());
    lines.filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().map(str::to_owned))?
    })
}

/// Whether a host's file names servers, and all of them on its loopback.
pub(crate) fn needs_forwarder(text: &[u8]) -> bool {
    let on_loopback = |server: String| server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    servers(text).next().is_some() && servers(text).all(on_loopback)
}

/// A host's file as containers need it: one server, at the host's end of their network, and the rest as it is.
pub(crate) fn inside(text: &[u8], host: Ipv4Addr) -> Vec<u8> {
    let is_server = |line: &&[u8]| line.trim_ascii_start().starts_with(b"nameserver");
    let rest = text.split_inclusive(|&byte| byte == b'\n').filter(|line| !is_server(line));
    let mut content = format!("nameserver {host}\n").into_bytes();
    content.extend(rest.flatten());
    content
}

/// The host's name servers at any moment.
#[derive(Debug, Default)]
pub(super) struct Resolvers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// What the file was when it was read: changed, length, device and number.
    version: Option<(i64, i64, u64, u64, u64)>,
    servers: Vec<IpAddr>,
}

impl Resolvers {
    /// Those that the file names now; it is read again when it has changed.
    pub(super) fn now(&self) -> Vec<IpAddr> {
        let found = fs::metadata(RESOLV_CONF).ok();
        let version = found.map(|file| (file.mtime(), file.mtime_nsec(), file.len(), file.dev(), file.ino()));
        let mut known = lock(&self.0);
        if known.version != version || version.is_none() {
            let text = fs::read(RESOLV_CONF).unwrap_or_default();
            known.servers = servers(&text).filter_map(|server| server.parse().ok()).collect();
            known.version = version;
        }
        known.servers.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarder_is_needed_where_all_servers_are_on_the_loopback() {
        for (text, needed) in [
            ("nameserver 127.0.0.1\n", true),
            ("# resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch x\n", true),
            ("nameserver ::1", true),
            ("  nameserver\t127.0.0.1 # comment\nnameserver ::1\n", true),
            ("nameserver 127.0.0.1\nnameserver 192.0.2.53\n", false),
            ("nameserver 192.0.2.53\n", false),
            ("nameserver fe80::1%eth0\n", false),
            ("nameserver\n", false),
            ("search x\n", false),
            ("", false),
        ] {
            assert_eq!(needs_forwarder(text.as_bytes()), needed, "{text}");
        }
    }

    #[test]
    fn the_inside_keeps_all_but_the_servers() {
        let host = "# by hand\nnameserver 127.0.0.53\noptions edns0\n nameserver ::1\nsearch a b";
        let expected = "nameserver 10.254.0.1\n# by hand\noptions edns0\nsearch a b";
        assert_eq!(inside(host.as_bytes(), Ipv4Addr::new(10, 254, 0, 1)), expected.as_bytes());
    }
}
