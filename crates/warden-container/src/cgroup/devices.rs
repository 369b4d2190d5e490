//! Which devices a container may use: a controller of version 1, a program on version 2.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;

use warden_linux::bpf::{Device, DeviceProgram};

use crate::error::{Context, Error};

/// Character devices that every container may read and write (null, zero, full, random, urandom, tty, ptmx, pts, fuse):
/// the original's list and 1:7; no minor number stands for all.
const DEVICES: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
    (10, Some(229)),
];

/// Denies every device but the listed ones, whose nodes nobody may make; `all` is for a Warden inside.
pub(super) fn allow_v1(directory: &Path, all: bool) -> Result<(), Error> {
    write_rules(&directory.join("devices.deny"), &["a".to_owned()])?;
    write_rules(&directory.join("devices.allow"), &rules_v1(all))
}

/// Writes rules to a file of the kernel, which takes one at a time.
fn write_rules(path: &Path, rules: &[String]) -> Result<(), Error> {
    let opened = OpenOptions::new().write(true).open(path);
    let mut file = opened.context(|| format!("opening {}", path.display()))?;
    rules.iter().try_for_each(|rule| {
        file.write_all(rule.as_bytes()).context(|| format!("writing '{rule}' to {}", path.display()))
    })
}

pub(super) fn rules_v1(all: bool) -> Vec<String> {
    if all {
        return vec!["a *:* rw".to_owned()];
    }
    let rule = |(major, minor): (u32, Option<u32>)| match minor {
        Some(minor) => format!("c {major}:{minor} rw"),
        None => format!("c {major}:* rw"),
    };
    DEVICES.map(rule).to_vec()
}

/// The same for version 2, by a program that is the same for all containers; it is loaded for the first of them.
#[derive(Debug, Default)]
pub(super) struct Program(OnceLock<DeviceProgram>);

impl Program {
    /// Denies every device but the listed ones. The builder is born in the group and makes the nodes of /dev there, so nodes
    /// of listed devices, which give nobody more than the list does, may be made; in a user namespace nobody can.
    pub(super) fn allow(&self, directory: &Path) -> Result<(), Error> {
        let attach = || self.program()?.attach(File::open(directory)?.as_fd());
        attach().context(|| format!("attaching the program of the devices to {}", directory.display()))
    }

    fn program(&self) -> io::Result<&DeviceProgram> {
        if let Some(program) = self.0.get() {
            return Ok(program);
        }
        let loaded = DeviceProgram::load(&DEVICES.map(|(major, minor)| Device { major, minor }))?;
        Ok(self.0.get_or_init(|| loaded))
    }
}
