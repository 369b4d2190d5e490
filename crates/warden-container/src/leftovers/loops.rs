//! Loop devices of the depot's image, and of files in the depot, other than the one that is mounted as the depot.
//!
//! The daemon's own go by themselves with their last user. What is found here somebody else has attached, or a kernel has
//! kept: in `--repair` it is told to go, unless it is mounted somewhere.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use warden_linux::loop_device;
use warden_linux::mount_table::{self, Mount};

use crate::error::{Context, Error};

/// Finds them.
pub(super) fn of(image: Option<&Path>, depot: &Path) -> Vec<PathBuf> {
    let image = image.and_then(|image| fs::metadata(image).ok());
    let table = mount_table::read().unwrap_or_default();
    let is_ours = |backing: &Path| {
        let is_image = |found: fs::Metadata| {
            image.as_ref().is_some_and(|image| (found.dev(), found.ino()) == (image.dev(), image.ino()))
        };
        backing.starts_with(depot) || fs::metadata(backing).is_ok_and(is_image)
    };
    let device = |entry: fs::DirEntry| {
        let backing = backing(&entry.path())?;
        let device = Path::new("/dev").join(entry.file_name());
        (is_ours(&backing) && !places(&table, &device).contains(&depot.to_owned())).then_some(device)
    };
    fs::read_dir("/sys/block").into_iter().flatten().flatten().filter_map(device).collect()
}

/// Detaches one from its file, if nothing of it is mounted where that can be seen; tells whether it is free.
pub(super) fn release(device: &Path) -> Result<bool, Error> {
    let action = || format!("releasing {}", device.display());
    let table = mount_table::read().context(action)?;
    if !places(&table, device).is_empty() {
        return Ok(false);
    }
    loop_device::release(device).context(action)?;
    // Somebody may have it open, or mounted in a namespace of theirs: then it goes when they let go of it.
    let entry = Path::new("/sys/block").join(device.file_name().unwrap_or_default());
    Ok(backing(&entry).is_none())
}

/// Where a device is mounted. By its name: file systems like btrfs have a number of their own.
fn places(table: &[Mount], device: &Path) -> Vec<PathBuf> {
    table.iter().filter(|mount| mount.source == device).map(|mount| mount.point.clone()).collect()
}

/// The file of a loop device.
fn backing(entry: &Path) -> Option<PathBuf> {
    let text = fs::read(entry.join("loop/backing_file")).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(text.trim_ascii_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_mounted_where_the_table_has_its_name_as_the_source() {
        let table = b"30 24 7:0 / /a\\040b rw shared:9 - ext4 /dev/loop0 rw\n\
            31 24 0:7 / /dev/loop1 rw - btrfs /dev/loop0 rw\n32 24 0:8 / /c rw - tmpfs none rw\n\n1 2";
        let table = mount_table::parse(table);
        let found = |device: &str| places(&table, Path::new(device));
        assert_eq!(found("/dev/loop0"), [Path::new("/a b"), Path::new("/dev/loop1")]);
        assert!(found("/dev/loop1").is_empty() && found("/dev/loop").is_empty());
    }
}
