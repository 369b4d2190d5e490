//! Makes and ends a container.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use warden_linux::bystander::Bystander;
use warden_linux::mount::{self, Attributes, MountFlags};
use warden_linux::process::{self, ForkOptions, Namespaces};
use warden_linux::socket::PacketSocket;
use warden_linux::{file, namespace};

use crate::inside::Inside;
use crate::setup::{Parent, Setup};
use crate::{network, resident};

/// A container that runs.
pub(crate) struct Container {
    name: String,
    directory: PathBuf,
    init: OwnedFd,
    resident: PacketSocket,
}

/// Makes a container that can run jobs; tells how long it took.
pub(crate) fn create(setup: &Setup, number: u32) -> Result<(Container, Duration)> {
    // Several floors make containers at a time.
    let name = format!("floor-{}-{number}", process::id());
    let start = Instant::now();
    let directory = setup.directory.join(&name);
    make_directories(&directory, setup.first_id).context("making the directories")?;
    make_cgroups(setup, &name).context("making the cgroups")?;
    let ids = user_namespace(setup).context("making the user namespace")?;
    let unified = match &setup.unified {
        Some(parent) => {
            Some(OwnedFd::from(File::open(parent.path.join(&name)).context("opening the cgroup")?))
        }
        None => None,
    };
    let (ours, theirs) = PacketSocket::pair().context("making a pair of sockets")?;
    let (reports, reporter) = file::pipe().context("making a pipe")?;
    let (mut reports, reporter) = (File::from(reports), File::from(reporter));
    let options = ForkOptions {
        namespaces: Namespaces::NEWNS,
        sibling: false,
        cgroup: unified.as_ref().map(AsFd::as_fd),
    };
    let builder = Builder { setup, name: &name, directory: &directory, ids: &ids, reporter: &reporter };
    let child = process::fork(options, || builder.run(theirs.as_fd()))?;
    drop((reporter, theirs));
    // The namespace exists as soon as the init does: both go on at the same time.
    let mut pid = [0; 4];
    let started = reports.read_exact(&mut pid);
    process::wait(child.pidfd.as_fd())?;
    started.context("the builder failed")?;
    let pid = i32::from_ne_bytes(pid);
    let init = process::open_pidfd(pid)?;
    network::connect(number, File::open(format!("/proc/{pid}/ns/net"))?.as_fd())?;
    // The end of the file is the moment at which the init serves.
    let mut failure = String::new();
    reports.read_to_string(&mut failure)?;
    let took = start.elapsed();
    let container = Container { name, directory, init, resident: ours };
    if failure.is_empty() {
        return Ok((container, took));
    }
    container.destroy(setup)?;
    bail!("the init failed: {failure}")
}

impl Container {
    /// Runs a script in bash; tells how long it took.
    pub(crate) fn run(&self, script: &[u8]) -> Result<Duration> {
        let start = Instant::now();
        let status = resident::ask(&self.resident, script)?;
        let took = start.elapsed();
        if status == 0 { Ok(took) } else { bail!("the script ended with {status}") }
    }

    /// Ends it; tells how long it took until nothing of it ran and its name was free. The rest is removed unmeasured.
    pub(crate) fn destroy(self, setup: &Setup) -> Result<Duration> {
        let trash = setup.directory.join("trash");
        let start = Instant::now();
        process::kill_by_pidfd(self.init.as_fd())?;
        process::wait(self.init.as_fd())?;
        fs::rename(&self.directory, &trash).context("moving the directory")?;
        let took = start.elapsed();
        fs::remove_dir_all(&trash).context("removing the directory")?;
        for parent in setup.cgroups.iter().chain(&setup.unified) {
            remove_cgroup(&parent.path.join(&self.name))?;
        }
        Ok(took)
    }
}

fn make_directories(directory: &Path, owner: u32) -> io::Result<()> {
    let make = |path: &Path, mode| DirBuilder::new().mode(mode).create(path);
    make(directory, 0o711)?;
    make(&directory.join("mnt"), 0o700)?;
    make(&directory.join("tmp"), 0o711)?;
    for (name, mode) in [("tmp/rootfs", 0o755), ("tmp/work", 0o711)] {
        make(&directory.join(name), mode)?;
        std::os::unix::fs::chown(directory.join(name), Some(owner), Some(owner))?;
    }
    Ok(())
}

fn make_cgroups(setup: &Setup, name: &str) -> io::Result<()> {
    for Parent { path, writes } in setup.cgroups.iter().chain(&setup.unified) {
        let directory = path.join(name);
        fs::create_dir(&directory)?;
        for writes in writes.chunk_by(|one, next| one.0 == next.0) {
            let Some((file, _)) = writes.first() else { continue };
            let mut file = OpenOptions::new().write(true).open(directory.join(file))?;
            writes.iter().try_for_each(|(_, line)| file.write_all(line.as_bytes()))?;
        }
    }
    Ok(())
}

/// Dead processes still count for a moment.
fn remove_cgroup(path: &Path) -> Result<()> {
    // As the product does: pages would keep the dead group.
    let kernel = fs::read_to_string(path.join("memory.kmem.usage_in_bytes"));
    let _ = kernel.and_then(|kernel| fs::write(path.join("memory.limit_in_bytes"), kernel.trim_end()));
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            removed => return removed.with_context(|| format!("removing {}", path.display())),
        }
    }
}

fn user_namespace(setup: &Setup) -> io::Result<OwnedFd> {
    let helper = Bystander::new(Namespaces::NEWUSER)?;
    let (pid, line) = (helper.id(), format!("0 {} {}\n", setup.first_id, setup.ids));
    fs::write(format!("/proc/{pid}/uid_map"), &line)?;
    fs::write(format!("/proc/{pid}/gid_map"), &line)?;
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
}

/// The device nodes of a container: name, major and minor number.
const DEVICES: [(&str, u32, u32); 7] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("fuse", 10, 229),
];

/// What the builder knows, which stages the mounts as the host's root.
struct Builder<'a> {
    setup: &'a Setup,
    name: &'a str,
    directory: &'a Path,
    ids: &'a OwnedFd,
    reporter: &'a File,
}

impl Builder<'_> {
    fn run(&self, socket: BorrowedFd<'_>) -> u8 {
        let made = self.stage().and_then(|()| self.make_init(socket));
        match made {
            Ok(pid) => u8::from((&mut &*self.reporter).write_all(&pid.to_ne_bytes()).is_err()),
            Err(error) => {
                eprintln!("floor: staging: {error}");
                1
            }
        }
    }

    fn stage(&self) -> io::Result<()> {
        mount::make_all_private()?;
        let staging = self.directory.join("mnt");
        mount::mount(c"tmpfs", &staging, c"tmpfs", MountFlags::NOSUID, c"mode=755")?;
        std::env::set_current_dir(&staging)?;
        ["root", "dev", "generated"].iter().try_for_each(fs::create_dir)?;
        let owner = self.setup.first_id;
        for name in ["dev", "generated"] {
            std::os::unix::fs::chown(name, Some(owner), Some(owner))?;
        }
        for (name, major, minor) in DEVICES {
            file::make_device(&Path::new("dev").join(name), 0o666, major, minor)?;
        }
        for parent in &self.setup.cgroups {
            fs::write(parent.path.join(self.name).join("tasks"), "0")?;
        }
        let read_only = Attributes::MOUNT_ATTR_RDONLY | Attributes::MOUNT_ATTR_NODEV;
        self.attach(&self.setup.lower, "lower", read_only, false)?;
        self.attach(&self.directory.join("tmp"), "writable", Attributes::empty(), false)?;
        for (number, (source, _)) in self.setup.system.iter().enumerate() {
            self.attach(source, &format!("system{number}"), read_only, true)?;
        }
        Ok(())
    }

    /// Attaches a copy of a host's mount; a read-only one with the container's ids.
    fn attach(&self, source: &Path, name: &str, attributes: Attributes, recursive: bool) -> io::Result<()> {
        let tree = mount::copy(source, recursive)?;
        if !attributes.is_empty() {
            let ids = Some(self.ids.as_fd());
            if mount::set_attributes(tree.as_fd(), attributes, ids, recursive).is_err() {
                // This file system cannot be idmapped.
                mount::set_attributes(tree.as_fd(), attributes, None, recursive)?;
            }
        }
        fs::create_dir(name)?;
        mount::attach(tree.as_fd(), file::open_place(Path::new(name))?.as_fd())
    }

    fn make_init(&self, socket: BorrowedFd<'_>) -> io::Result<i32> {
        namespace::join_user(self.ids.as_fd())?;
        let namespaces = Namespaces::NEWNS
            | Namespaces::NEWPID
            | Namespaces::NEWNET
            | Namespaces::NEWIPC
            | Namespaces::NEWUTS
            | Namespaces::NEWCGROUP;
        let options = ForkOptions { namespaces, sibling: true, cgroup: None };
        let init = process::fork(options, || {
            let inside = Inside { name: self.name, system: &self.setup.system };
            match inside.build(socket).and_then(|()| resident::confine()) {
                Ok(()) => drop(resident::serve()),
                Err(error) => drop(write!(&mut &*self.reporter, "{error}")),
            }
            1
        })?;
        Ok(init.pid)
    }
}
