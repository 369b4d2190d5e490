//! Carries out the builder's steps, as the host's root in a mount namespace of its own.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use warden_linux::file;
use warden_linux::mount::{self, MountFlags};

use super::plan::{Outside, Stage};

/// Does one step; `ids` is the container's user namespace.
pub(super) fn carry_out(step: &Outside, ids: Option<BorrowedFd<'_>>) -> io::Result<()> {
    match step {
        // 0 stands for the process that writes.
        Outside::JoinCgroup(cgroup) => fs::write(cgroup.join("tasks"), "0"),
        Outside::MakePrivate => mount::make_all_private(),
        Outside::Unmark(directory) => match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
        Outside::MountStaging(directory) => mount_staging(directory),
        Outside::MakeDirectory(name) => fs::create_dir(name),
        Outside::Give { name, owner } => std::os::unix::fs::chown(name, Some(*owner), Some(*owner)),
        Outside::MakeNode { name, major, minor } => {
            file::make_device(&Path::new("dev").join(name), 0o666, *major, *minor)
        }
        Outside::Stage(stage) => place(stage, ids),
        Outside::Seal(name) => seal(name),
    }
}

fn mount_staging(directory: &Path) -> io::Result<()> {
    // Its directory `dev` outlives the building, as the container's /dev.
    let options = c"mode=755,size=50%,nr_inodes=64k";
    mount::mount(c"tmpfs", directory, c"tmpfs", MountFlags::NOSUID, options)?;
    std::env::set_current_dir(directory)
}

fn place(stage: &Stage, ids: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let tree = mount::copy(&stage.source, stage.recursive)?;
    if !stage.attributes.is_empty() {
        mount::set_attributes(tree.as_fd(), stage.attributes, None, stage.recursive)?;
    }
    if let Some(ids) = ids.filter(|_| stage.mapped) {
        match mount::set_attributes(tree.as_fd(), mount::Attributes::empty(), Some(ids), stage.recursive) {
            // This file system cannot be idmapped (an overlay, NFS, an older kernel): its owners appear as nobody.
            Err(error) if cannot_map(&error) => {}
            other => other?,
        }
    }
    let name = Path::new(&stage.name);
    if file::is_directory(&tree)? {
        fs::create_dir(name)?;
    } else {
        File::create_new(name)?;
    }
    mount::attach(tree.as_fd(), file::open_place(name)?.as_fd())
}

/// An overlay without an upper layer needs two lower ones.
fn seal(name: &str) -> io::Result<()> {
    let options = CString::new(format!("lowerdir={name}:empty"))?;
    mount::mount(c"overlay", Path::new(name), c"overlay", MountFlags::NODEV, &options)
}

fn cannot_map(error: &io::Error) -> bool {
    const EPERM: i32 = 1;
    const EINVAL: i32 = 22;
    const ENOSYS: i32 = 38;
    const EOPNOTSUPP: i32 = 95;
    matches!(error.raw_os_error(), Some(EPERM | EINVAL | ENOSYS | EOPNOTSUPP))
}
