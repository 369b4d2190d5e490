//! The depot's device, where reading and writing it shall be limited.

use std::path::Path;

use warden_container::device::Device;
use warden_container::settings::IoLimits;

use super::Item;
use crate::config::Config;

/// Looks at it, if the configuration limits it.
pub(super) fn items(config: &Config) -> Vec<Item> {
    let server = &config.server;
    if server.io_limits == IoLimits::default() { Vec::new() } else { vec![device(&server.depot)] }
}

fn device(depot: &Path) -> Item {
    let what = "server.io_limits";
    // A depot that is not there yet is made where its nearest parent is.
    let there = depot.ancestors().find(|path| path.exists()).unwrap_or(depot);
    match Device::of(there) {
        Ok(Some(device)) => Item::ok(what, format!("the depot is on device {device}")),
        Ok(None) => Item::missing(what, "no limits: the depot is on no block device"),
        Err(error) => {
            Item::missing(what, format!("no limits: the device of {} is not known: {error}", there.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depot_on_no_device_cannot_be_limited() {
        let text = device(Path::new("/proc/none/yet")).to_string();
        assert_eq!(text, "missing  server.io_limits: no limits: the depot is on no block device");
        let config = |text| Config::parse(text).unwrap().0;
        assert!(items(&config("")).is_empty());
        assert_eq!(items(&config("{server: {io_limits: {read_bps: 1}}}")).len(), 1);
    }
}
