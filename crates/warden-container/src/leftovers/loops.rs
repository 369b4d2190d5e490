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

use crate::error::{Context, Error};

/// Finds them.
pub(super) fn of(image: Option<&Path>, depot: &Path) -> Vec<PathBuf> {
    let image = image.and_then(|image| fs::metadata(image).ok());
    let mounted = fs::metadata(depot).map(|found| found.dev()).ok();
    let is_ours = |backing: &Path| {
        let is_image = |found: fs::Metadata| {
            image.as_ref().is_some_and(|image| (found.dev(), found.ino()) == (image.dev(), image.ino()))
        };
        backing.starts_with(depot) || fs::metadata(backing).is_ok_and(is_image)
    };
    let device = |entry: fs::DirEntry| {
        let backing = backing(&entry.path())?;
        let device = Path::new("/dev").join(entry.file_name());
        let number = number(&device);
        (is_ours(&backing) && (number.is_none() || number != mounted)).then_some(device)
    };
    fs::read_dir("/sys/block").into_iter().flatten().flatten().filter_map(device).collect()
}

/// Detaches one from its file, if nothing of it is mounted where that can be seen; tells whether it is free.
pub(super) fn release(device: &Path) -> Result<bool, Error> {
    let action = || format!("releasing {}", device.display());
    let table = fs::read_to_string("/proc/self/mountinfo").context(action)?;
    let number = fs::metadata(device).context(action)?.rdev();
    if is_mounted(&table, rustix::fs::major(number), rustix::fs::minor(number)) {
        return Ok(false);
    }
    loop_device::release(device).context(action)?;
    // Somebody may have it open, or mounted in a namespace of theirs: then it goes when they let go of it.
    let entry = Path::new("/sys/block").join(device.file_name().unwrap_or_default());
    Ok(backing(&entry).is_none())
}

/// The number of a device, as its file systems have it too.
fn number(device: &Path) -> Option<u64> {
    fs::metadata(device).map(|found| found.rdev()).ok()
}

/// The file of a loop device.
fn backing(entry: &Path) -> Option<PathBuf> {
    let text = fs::read(entry.join("loop/backing_file")).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(text.trim_ascii_end())))
}

fn is_mounted(table: &str, major: u32, minor: u32) -> bool {
    let number = format!("{major}:{minor}");
    table.lines().any(|line| line.split(' ').nth(2) == Some(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_mounted_where_its_number_is_in_the_table() {
        let table = "30 24 7:0 / /a rw - ext4 /dev/loop0 rw\n31 24 0:7 / /7:1 rw - tmpfs x rw\n";
        assert!(is_mounted(table, 7, 0));
        assert!(!is_mounted(table, 7, 1));
    }
}
