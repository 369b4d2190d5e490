//! What would limit what containers store.

use std::fs;
use std::path::Path;

use warden_container::disk::{Backend, Reason};

use super::Item;
use crate::config::{DepotImage, Server};

/// Where mkfs is looked for.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Looks at the image, if there is to be one, or at the depot's own file system.
pub(super) fn items(server: &Server) -> Vec<Item> {
    match &server.depot_image {
        Some(wanted) => vec![image(wanted)],
        None => vec![limits(Backend::probe(&server.depot, server.disk_quota_enabled))],
    }
}

fn limits(probed: std::io::Result<Backend>) -> Item {
    let what = "disk limits";
    match probed {
        Ok(Backend::None(Reason::NotEnabled(_) | Reason::Impossible)) | Err(_) => {
            let why = probed.map_or_else(|error| error.to_string(), |none| none.to_string());
            Item::missing(what, format!("{why}; limit_disk limits nothing (server.depot_image would)"))
        }
        Ok(backend) => Item::ok(what, backend.to_string()),
    }
}

fn image(wanted: &DepotImage) -> Item {
    let what = format!("depot image {}", wanted.path.display());
    if !Path::new("/dev/loop-control").exists() {
        return Item::needed(what, "this machine has no loop devices (/dev/loop-control)");
    }
    let programs = |name: &&str| DIRECTORIES.iter().any(|directory| Path::new(directory).join(name).exists());
    let found: Vec<_> = ["mkfs.ext4", "mkfs.btrfs"].into_iter().filter(programs).collect();
    match fs::metadata(&wanted.path) {
        Ok(file) if file.is_file() && file.len() > 0 => Item::ok(what, "there; mounted at start"),
        Ok(file) if !file.is_file() => Item::needed(what, "not a regular file"),
        _ if found.is_empty() => Item::needed(what, "neither mkfs.ext4 nor mkfs.btrfs is there to make it"),
        _ => Item::ok(what, format!("made at start ({})", found.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn limits_are_told_or_what_is_done_without_them() {
        assert!(matches!(limits(Ok(Backend::Ext4)).verdict, Verdict::Ok(_)));
        assert!(matches!(limits(Ok(Backend::None(Reason::Off))).verdict, Verdict::Ok(_)));
        let missing = limits(Ok(Backend::None(Reason::NotEnabled("XFS is not mounted with prjquota"))));
        assert_eq!(
            missing.to_string(),
            "missing  disk limits: none: XFS is not mounted with prjquota; limit_disk limits nothing (server.depot_image would)"
        );
    }

    #[test]
    fn an_image_is_a_regular_file() {
        let top = tempfile::tempdir().unwrap();
        let item = image(&DepotImage { path: top.path().into(), size: 1 });
        assert!(matches!(item.verdict, Verdict::Needed(_)), "{item}");
    }
}
