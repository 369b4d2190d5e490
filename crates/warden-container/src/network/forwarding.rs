//! The kernel's switches for sending on what came for others.

use std::fs;
use std::path::Path;

use crate::error::{Context, Error};

const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
/// One directory for each interface, and two for all and for those to come.
const IPV6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Lets the host forward IPv4, and IPv6 where containers have it.
pub(super) fn allow(ipv6: bool) -> Result<(), Error> {
    switch_on(IPV4)?;
    if ipv6 && !is_on(IPV6)? {
        keep_router_advertisements();
        switch_on(IPV6)?;
    }
    Ok(())
}

fn is_on(switch: &str) -> Result<bool, Error> {
    let value = fs::read(switch).context(|| format!("reading {switch}"))?;
    Ok(value.trim_ascii() == b"1")
}

/// Switches on; where that cannot be written it must be so already.
fn switch_on(switch: &str) -> Result<(), Error> {
    if is_on(switch)? {
        return Ok(());
    }
    fs::write(switch, "1").context(|| format!("writing 1 to {switch}"))
}

/// A host that forwards IPv6 takes no more advice from routers, and forgets its default route if that came from one; but
/// where 2 is written it goes on as it did.
fn keep_router_advertisements() {
    for entry in fs::read_dir(IPV6_INTERFACES).into_iter().flatten().flatten() {
        let switch = entry.path().join("accept_ra");
        if is_for_all(&entry.path()) || fs::read(&switch).is_ok_and(|value| value.trim_ascii() != b"1") {
            continue;
        }
        if let Err(error) = fs::write(&switch, "2") {
            tracing::warn!(switch = %switch.display(), %error, "this interface may lose its default route of IPv6");
        }
    }
}

fn is_for_all(directory: &Path) -> bool {
    directory.ends_with("all") || directory.ends_with("default")
}
