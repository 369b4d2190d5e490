//! A group's limits of reading and writing one device.

use std::fs;
use std::io;
use std::path::Path;

use crate::cgroup::hierarchy::Version;
use crate::cgroup::write_existing;
use crate::device::Device;
use crate::settings::IoLimits;

/// Limits a group; what is absent is not limited.
pub(super) fn limit(version: Version, directory: &Path, device: Device, limits: &IoLimits) -> io::Result<()> {
    for (file, text) in writes(version, device, limits) {
        match write_existing(&directory.join(file), &text) {
            // A parent that was not allowed to pass the controller on (logged there).
            Err(error) if version == Version::V2 && error.kind() == io::ErrorKind::NotFound => {}
            written => written?,
        }
    }
    Ok(())
}

/// What is written, and into which files.
fn writes(version: Version, device: Device, limits: &IoLimits) -> Vec<(&'static str, String)> {
    let all = [
        ("blkio.throttle.read_bps_device", "rbps", limits.read_bytes),
        ("blkio.throttle.write_bps_device", "wbps", limits.write_bytes),
        ("blkio.throttle.read_iops_device", "riops", limits.read_operations),
        ("blkio.throttle.write_iops_device", "wiops", limits.write_operations),
    ];
    let set = all.into_iter().filter_map(|(file, key, limit)| Some((file, key, limit?)));
    match version {
        Version::V1 => set.map(|(file, _, limit)| (file, format!("{device} {limit}"))).collect(),
        Version::V2 => {
            let keys: String = set.map(|(_, key, limit)| format!(" {key}={limit}")).collect();
            if keys.is_empty() { Vec::new() } else { vec![("io.max", format!("{device}{keys}"))] }
        }
    }
}

/// Whether a group can be limited at all: kernels may lack the throttle of their controller.
pub(super) fn is_there(version: Version, parent: &Path) -> bool {
    let file = match version {
        Version::V1 => "blkio.throttle.read_bps_device",
        Version::V2 => "io.max",
    };
    fs::exists(parent.join(file)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_own_files() {
        let device = Device { major: 8, minor: 16 };
        let limits = IoLimits { read_bytes: Some(1_000), write_operations: Some(20), ..IoLimits::default() };
        let v1 = [
            ("blkio.throttle.read_bps_device", "8:16 1000".to_owned()),
            ("blkio.throttle.write_iops_device", "8:16 20".to_owned()),
        ];
        assert_eq!(writes(Version::V1, device, &limits), v1);
        assert_eq!(writes(Version::V2, device, &limits), [("io.max", "8:16 rbps=1000 wiops=20".to_owned())]);
        assert!(writes(Version::V2, device, &IoLimits::default()).is_empty());
    }
}
