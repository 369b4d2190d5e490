//! Map `server.confinement`: what the programs of containers may not do.

use warden_init::confinement::Confinement;

use super::Notes;
use super::section::{ConfigError, Section};

/// The switches; each is on unless it is turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restrictions {
    /// Those that the container's programs start with.
    pub confinement: Confinement,
    /// `devices`: the devices that a container may use are a fixed list.
    pub devices: bool,
}

impl Restrictions {
    /// Reads our own map.
    pub(super) fn read(server: &mut Section, notes: &mut Notes) -> Result<Self, ConfigError> {
        let mut section = server.section("confinement")?;
        let mut flag = |key| Ok(section.flag(key)?.unwrap_or(true));
        let restrictions = Self {
            confinement: Confinement {
                capabilities: flag("capabilities")?,
                no_new_privileges: flag("no_new_privileges")?,
                system_calls: flag("system_calls")?,
                masked_paths: flag("masked_paths")?,
                read_only_paths: flag("read_only_paths")?,
                keyring: flag("keyring")?,
            },
            devices: flag("devices")?,
        };
        section.finish_strictly(notes)?;
        Ok(restrictions)
    }

    /// What holds in a container: one in which a wardend may build its own has none of them, because the kernel gives
    /// namespaces, mounts, cgroups and devices to nobody who is restricted so.
    pub fn with_nested_warden(self, allowed: bool) -> Self {
        if allowed { Self { confinement: Confinement::NONE, devices: false } } else { self }
    }
}
