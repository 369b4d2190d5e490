//! The configuration: the original's YAML files, and keys of our own beside theirs.
//!
//! Each section is a shallow merge over its defaults. An unknown key of the original's sections is a warning, because
//! the original ignored it; inside maps of our own, such as `server.host_ids`, it is an error.

mod access;
mod confinement;
mod logging;
mod memory_pressure;
mod network;
mod section;
mod server;
mod settings;
mod value;

use std::fs;
use std::path::Path;

pub use access::{Access, AccessIds, Account};
pub use confinement::Restrictions;
pub use logging::{Format, Level, Logging};
pub use network::{Network, Ports, Users};
pub use section::ConfigError;
pub use server::{DepotImage, HostIds, Server};

use crate::failure::Failure;
use section::Section;
use value::Value;

/// The configuration that serves when no file is given; it documents every key.
pub const BUILT_IN: &str = include_str!("../../../config/wardend.yml");

/// Where the daemon finds the host's users.
const PASSWD: &str = "/etc/passwd";

/// And their groups.
const GROUP: &str = "/etc/group";

/// Everything that the configuration says, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Section `server`.
    pub server: Server,
    /// `health_check_server.port`: TCP port on 127.0.0.1; 0 lets the kernel choose.
    pub health_check_port: u16,
    /// Section `logging`.
    pub logging: Logging,
    /// Section `network`.
    pub network: Network,
    /// Section `port`.
    pub ports: Ports,
    /// Section `user`.
    pub users: Users,
}

impl Config {
    /// Reads a file, or the built-in configuration, with the warnings about it.
    pub fn load(path: Option<&Path>) -> Result<(Self, Vec<String>), Failure> {
        let [passwd, group] = [PASSWD, GROUP].map(|path| fs::read(path).unwrap_or_default());
        let (text, origin) = match path {
            None => (BUILT_IN.to_owned(), "built-in configuration".to_owned()),
            Some(path) => {
                let text =
                    fs::read_to_string(path).map_err(|source| ConfigError::unreadable(path, &source))?;
                (text, path.display().to_string())
            }
        };
        let parsed = Self::parse(&text).and_then(|(config, notes)| {
            config.users.check_host(config.server.user_namespace, &String::from_utf8_lossy(&passwd))?;
            config.server.access.look_up(&passwd, &group)?;
            Ok((config, notes.warnings))
        });
        Ok(parsed.map_err(|error| error.of(&origin))?)
    }

    /// Reads the text of a configuration file; looks at nothing else.
    pub fn parse(text: &str) -> Result<(Self, Notes), ConfigError> {
        let mut notes = Notes::default();
        let mut root = Section::root(Value::parse(text)?)?;
        let server = Server::read(&mut root, &mut notes)?;
        let config = Self {
            health_check_port: read_health(&mut root, &mut notes)?,
            logging: Logging::read(&mut root, &mut notes)?,
            network: Network::read(&mut root, &mut notes)?,
            ports: Ports::read(&mut root, &mut notes)?,
            users: Users::read(&mut root, &mut notes, server.user_namespace)?,
            server,
        };
        root.finish(&mut notes);
        Ok((config, notes))
    }
}

/// What was seen while reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    /// Sentences for the operator: unknown keys, and keys without effect.
    pub warnings: Vec<String>,
    /// Every key that the code knows, as `section.key`.
    pub known: Vec<String>,
}

/// Reads section `health_check_server`.
fn read_health(root: &mut Section, notes: &mut Notes) -> Result<u16, ConfigError> {
    let mut section = root.section("health_check_server")?;
    let port = section.number("port", 0, u16::MAX.into())?.unwrap_or(2345);
    section.finish(notes);
    Ok(port)
}

#[cfg(test)]
mod tests;
