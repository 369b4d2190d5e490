//! The block device that a directory is stored on.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use warden_linux::mount_table::{self, Mount};

/// The numbers of a whole block device: its partitions share its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The driver's number.
    pub major: u32,
    /// The device's number.
    pub minor: u32,
}

impl Device {
    /// Finds the device of a directory; none where its file system is on no single device, as tmpfs, overlay or NFS.
    pub fn of(directory: &Path) -> io::Result<Option<Self>> {
        let number = match fs::metadata(directory)?.dev() {
            // A number that the file system made up; the mount table may name a device all the same (btrfs).
            made_up if rustix::fs::major(made_up) == 0 => match source_of(directory)? {
                Some(number) => number,
                None => return Ok(None),
            },
            number => number,
        };
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        whole(Path::new("/sys/dev/block"), Self { major, minor }).map(Some)
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The device that a partition is part of.
fn whole(devices: &Path, device: Device) -> io::Result<Device> {
    let directory = devices.join(device.to_string());
    if !fs::exists(directory.join("partition"))? {
        return Ok(device);
    }
    let text = fs::read_to_string(directory.canonicalize()?.join("../dev"))?;
    Device::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The number of the block device that the mount table names for a directory.
fn source_of(directory: &Path) -> io::Result<Option<u64>> {
    let directory = directory.canonicalize()?;
    let table = mount_table::read()?;
    let Some(source) = source(&table, &directory) else { return Ok(None) };
    Ok(fs::metadata(source)
        .ok()
        .filter(|found| found.file_type().is_block_device())
        .map(|found| found.rdev()))
}

/// What is mounted on the nearest mount point above a directory; of several there the last one is seen.
fn source<'a>(table: &'a [Mount], directory: &Path) -> Option<&'a Path> {
    let above = table.iter().filter(|mount| directory.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.components().count()).map(|mount| mount.source.as_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_point_decides() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:40 / /var rw - btrfs /dev/sdb rw\n\
            3 1 0:41 / /var/lib rw shared:1 - tmpfs tmpfs rw\n4 1 0:42 / /var rw - btrfs /dev/sdc rw\n\
            5 1 0:43 / /a\\040b rw - btrfs /dev/sdd rw\n";
        let table = mount_table::parse(table);
        for (directory, expected) in [
            ("/var/log", "/dev/sdc"),
            ("/var/lib/x", "tmpfs"),
            ("/variety", "/dev/sda1"),
            ("/", "/dev/sda1"),
            ("/a b/c", "/dev/sdd"),
        ] {
            assert_eq!(source(&table, Path::new(directory)), Some(Path::new(expected)), "{directory}");
        }
        assert_eq!(source(&[], Path::new("/")), None);
    }

    #[test]
    fn a_partition_stands_for_its_disk() {
        let top = tempfile::tempdir().unwrap();
        let partition = top.path().join("disk/part");
        fs::create_dir_all(&partition).unwrap();
        fs::write(top.path().join("disk/dev"), "8:0\n").unwrap();
        fs::write(partition.join("partition"), "1\n").unwrap();
        std::os::unix::fs::symlink(&partition, top.path().join("8:1")).unwrap();
        std::os::unix::fs::symlink(top.path().join("disk"), top.path().join("8:0")).unwrap();
        let disk = Device { major: 8, minor: 0 };
        assert_eq!(whole(top.path(), Device { major: 8, minor: 1 }).unwrap(), disk);
        assert_eq!(whole(top.path(), disk).unwrap(), disk);
    }

    #[test]
    fn a_file_system_without_a_device_has_none() {
        assert_eq!(Device::of(Path::new("/proc")).unwrap(), None);
        assert!(Device::of(Path::new("/no/such/directory")).is_err());
    }
}
