//! Puts the root file system together, as the container's root in its namespaces.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use warden_linux::mount::{self, Attributes, MountFlags};
use warden_linux::{file, namespace, process};

use crate::resident::{GROUP, HOME, USER};

/// Symbolic links of /dev.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// What the init is told.
pub(crate) struct Inside<'a> {
    pub(crate) name: &'a str,
    pub(crate) system: &'a [(PathBuf, PathBuf)],
}

impl Inside<'_> {
    /// Builds everything; `socket` becomes the standard input.
    pub(crate) fn build(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        process::set_ids(0, 0)?;
        process::new_session()?;
        self.write_files()?;
        let layers =
            c"lowerdir=generated:lower,upperdir=writable/rootfs,workdir=writable/work,volatile,userxattr";
        mount::mount(c"overlay", Path::new("root"), c"overlay", MountFlags::NODEV, layers)?;
        let inert =
            Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC;
        // Made while the host's own are in sight, without which the kernel refuses.
        let proc = mount::create(c"proc", &[], inert)?;
        let sys = mount::create(c"sysfs", &[], inert | Attributes::MOUNT_ATTR_RDONLY)?;
        let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
        let quiet = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC;
        let pts = mount::create(c"devpts", &options, quiet)?;
        let take = |number| mount::copy(Path::new(&format!("system{number}")), true);
        let system: Vec<_> = (0..self.system.len()).map(take).collect::<io::Result<_>>()?;
        let dev = mount::copy(Path::new("dev"), false)?;
        mount::pivot_into(Path::new("root"))?;
        namespace::set_hostname(self.name.as_bytes())?;
        for (tree, path) in [(&proc, "/proc"), (&sys, "/sys"), (&dev, "/dev")] {
            attach(tree.as_fd(), Path::new(path))?;
        }
        attach(pts.as_fd(), Path::new("/dev/pts"))?;
        fs::create_dir("/dev/shm")?;
        fs::set_permissions("/dev/shm", std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
        DEVICE_LINKS.iter().try_for_each(|(path, target)| symlink(target, path))?;
        for (tree, (_, destination)) in system.iter().zip(self.system) {
            attach(tree.as_fd(), destination)?;
        }
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        process::place(socket, 0)?;
        process::place(null.as_fd(), 1)?;
        process::place(null.as_fd(), 2)
    }

    /// Into a layer of their own, on the tmpfs.
    fn write_files(&self) -> io::Result<()> {
        let hosts = format!("127.0.0.1 localhost\n10.0.0.2 {}\n", self.name);
        let mut passwd = fs::read("lower/etc/passwd").unwrap_or_default();
        passwd.extend(format!("vcap:x:{USER}:{GROUP}::{HOME}:/bin/bash\n").bytes());
        let mut group = fs::read("lower/etc/group").unwrap_or_default();
        group.extend(format!("vcap:x:{GROUP}:\n").bytes());
        let files: [(&str, &[u8]); 5] = [
            ("hostname", self.name.as_bytes()),
            ("hosts", hosts.as_bytes()),
            ("resolv.conf", b"nameserver 10.0.0.1\n"),
            ("passwd", &passwd),
            ("group", &group),
        ];
        fs::create_dir("generated/etc")?;
        for (name, content) in files {
            let path = Path::new("generated/etc").join(name);
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?.write_all(content)?;
        }
        std::os::unix::fs::symlink("/proc/self/mounts", "generated/etc/mtab")?;
        let home = format!("generated{HOME}");
        fs::create_dir_all(&home)?;
        std::os::unix::fs::lchown(&home, Some(USER), Some(GROUP))
    }
}

fn attach(tree: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    mount::attach(tree, file::open_place(path)?.as_fd())
}
