//! Tells a service manager that clients are served, where one has asked to be told: sd_notify(3).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable with the manager's socket: a path, or an abstract name behind `@`.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Tells it; nobody to be told is no failure.
pub(crate) fn tell() {
    if let Some(address) = env::var_os(SOCKET)
        && let Err(error) = send(&address)
    {
        tracing::warn!(%error, "the service manager was not told that clients are served ({SOCKET})");
    }
}

fn send(address: &OsStr) -> io::Result<()> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_by_a_path_or_by_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("@{}", path.display());
        let by_name = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        let managers = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&by_name).unwrap()];
        for (manager, address) in managers.iter().zip([path.as_os_str(), name.as_ref()]) {
            send(address).unwrap();
            let mut told = [0; 16];
            let length = manager.recv(&mut told).unwrap();
            assert_eq!(&told[..length], b"READY=1");
        }
        assert!(send("/nonexistent/notify".as_ref()).is_err());
    }
}
