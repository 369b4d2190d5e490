//! What is done to build a container: pure data made from its spec, in the order in which it is done.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use warden_linux::mount::Attributes;

use crate::byte_string::ByteString;
use crate::confinement::paths;
use crate::spec::{Bind, Cgroup, InsideFile, Spec, User};

/// The device nodes that a container sees, open to all inside: name, major and minor number.
const DEVICES: [(&str, u32, u32); 7] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("fuse", 10, 229),
];

/// Symbolic links of /dev.
const DEVICE_LINKS: [Link; 5] = [
    Link { path: "/dev/fd", target: "/proc/self/fd" },
    Link { path: "/dev/stdin", target: "/proc/self/fd/0" },
    Link { path: "/dev/stdout", target: "/proc/self/fd/1" },
    Link { path: "/dev/stderr", target: "/proc/self/fd/2" },
    Link { path: "/dev/ptmx", target: "pts/ptmx" },
];

/// The mount table where old programs look for it.
const MOUNT_TABLE: Link = Link { path: "/etc/mtab", target: "/proc/self/mounts" };

/// A symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its path.
    pub path: &'static str,
    /// What it holds.
    pub target: &'static str,
}

/// All steps to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the builder does as the host's root.
    pub outside: Vec<Outside>,
    /// What the init does as the container's root.
    pub inside: Vec<Inside>,
}

/// A step of the builder. Names are relative to the staging directory, its working directory from `MountStaging` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Joins a version 1 cgroup.
    JoinCgroup(PathBuf),
    /// Cuts all mounts off from the host's.
    MakePrivate,
    /// Removes the mark that a volatile overlay has left in this directory: the machine has not lost its power since, or there
    /// would be no container.
    Unmark(PathBuf),
    /// Mounts a small tmpfs at this directory and enters it.
    MountStaging(PathBuf),
    /// Makes a directory in it.
    MakeDirectory(&'static str),
    /// Gives a directory in it to the container's root.
    Give {
        /// Its name.
        name: &'static str,
        /// The host's id of that root.
        owner: u32,
    },
    /// Makes a device's node in its `dev`: none can be made in a user namespace.
    MakeNode {
        /// Its name.
        name: &'static str,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// Attaches a copy of a host's mount in it.
    Stage(Stage),
    /// Mounts an overlay of a staged directory over itself, without an upper layer: nobody can write to it, whatever flags
    /// its mount has.
    Seal(String),
}

/// A part of the host's file tree that the container will see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is attached in the staging directory.
    pub name: String,
    /// What its mount forbids.
    pub attributes: Attributes,
    /// Whether its owners are shown through the container's map of ids, where the file system can.
    pub mapped: bool,
    /// Whether mounts below it come along.
    pub recursive: bool,
}

/// A step of the init. Paths are the container's from `Pivot` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inside {
    /// Takes the ids of the container's root, and a session of its own.
    BecomeRoot,
    /// Writes the files, the link and the user into the layer between the image's and the writable one, where the image lets
    /// them be there; then the steps that write them later do nothing.
    Generate {
        /// The files.
        files: Vec<InsideFile>,
        /// The link.
        link: Link,
        /// The user.
        user: User,
    },
    /// Mounts the overlay of the layers.
    MountRoot {
        /// Its options, all names of which are relative: /proc/mounts inside shows them.
        options: CString,
    },
    /// Makes a file system of the container's own, not attached yet.
    Create(Create),
    /// Takes a staged mount, to be attached later.
    Take {
        /// Its name.
        name: String,
        /// As in [`Stage`].
        recursive: bool,
    },
    /// Makes the overlay the root, and the host's file tree unreachable.
    Pivot,
    /// Names the host.
    SetHostname(String),
    /// Makes sure of a user with its group and home.
    MakeUser(User),
    /// Makes a directory.
    MakeDirectory {
        /// Its path.
        path: &'static str,
        /// Its permission bits.
        mode: u32,
    },
    /// Attaches what was created or taken, if it was there.
    Attach {
        /// Its name.
        name: String,
        /// Where; made if missing.
        path: PathBuf,
        /// Whether an image's symbolic link at the path is followed (below the container's root) or an error.
        follow: bool,
    },
    /// Covers what is at a path by what is at another one; what is not there needs no cover.
    Cover {
        /// What is covered.
        path: &'static str,
        /// What is seen instead.
        by: &'static str,
    },
    /// Makes what is at a path, and below it, read-only, if it is there.
    Protect {
        /// The path.
        path: &'static str,
    },
    /// Makes fast what is mounted at these paths, and below them: nobody inside can take any of it away.
    Lock {
        /// The paths.
        paths: [&'static str; 2],
    },
    /// Makes a symbolic link.
    Link(Link),
    /// Writes a file, in the place of what was there.
    WriteFile(InsideFile),
    /// Makes a symbolic link, in the place of what was there.
    WriteLink(Link),
}

/// A file system of the container's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// What it is called until it is attached.
    pub name: &'static str,
    /// Its type.
    pub kind: &'static CStr,
    /// Its options.
    pub options: &'static [(&'static str, &'static str)],
    /// What its mount forbids.
    pub attributes: Attributes,
}

impl Plan {
    /// Plans a container that lives in `directory`.
    pub fn new(spec: &Spec, directory: &Path) -> Self {
        let staged = staged(spec);
        Self { outside: outside(spec, directory, &staged), inside: inside(spec, &staged) }
    }
}

/// All steps of adding a spec's bind mounts to a container that stands without them, and of writing its files anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Furnishing {
    /// What is done as the host's root.
    pub outside: Vec<Outside>,
    /// What is done in the container's user namespace, before the container's mounts are entered.
    pub taken: Vec<Inside>,
    /// What is done there.
    pub inside: Vec<Inside>,
}

impl Furnishing {
    /// Plans it for a container that lives in `directory`.
    pub fn new(spec: &Spec, directory: &Path) -> Self {
        let mut plan = Self { outside: Vec::new(), taken: Vec::new(), inside: write_files(spec).collect() };
        if spec.binds.is_empty() {
            return plan;
        }
        let staged: Vec<Staged> = staged_binds(spec).collect();
        plan.outside.extend([Outside::MakePrivate, Outside::MountStaging(staging(directory))]);
        plan.outside.extend(staged.iter().map(|staged| Outside::Stage(staged.stage.clone())));
        plan.taken.extend(take(&staged));
        plan.inside.extend(attach(&staged));
        plan
    }
}

/// A staged mount, and where it goes inside (the layers of the root go nowhere by themselves).
struct Staged {
    stage: Stage,
    destination: Option<PathBuf>,
}

fn staged(spec: &Spec) -> Vec<Staged> {
    let mapped = spec.ids.is_some();
    let layer = |name: &str, source: &ByteString, attributes: Attributes, mapped: bool| Staged {
        stage: Stage {
            source: source.as_path().into(),
            name: name.into(),
            attributes,
            mapped,
            recursive: false,
        },
        destination: None,
    };
    let mut all = vec![
        layer("lower", &spec.root.lower, READ_ONLY, mapped),
        layer("writable", &spec.root.writable, Attributes::empty(), false),
    ];
    all.extend(
        spec.root.system.iter().enumerate().map(|(n, given)| {
            staged_bind(system(n), &Bind { writable: false, ..given.clone() }, mapped, true)
        }),
    );
    all.extend(staged_binds(spec));
    all
}

const READ_ONLY: Attributes = Attributes::MOUNT_ATTR_RDONLY.union(Attributes::MOUNT_ATTR_NODEV);
const HARMLESS: Attributes = Attributes::MOUNT_ATTR_NOSUID.union(Attributes::MOUNT_ATTR_NODEV);

fn staged_binds(spec: &Spec) -> impl Iterator<Item = Staged> {
    let mapped = spec.ids.is_some();
    let named = spec.binds.iter().enumerate();
    named.map(move |(n, given)| staged_bind(format!("bind{n}"), given, mapped, false))
}

fn staged_bind(name: String, bind: &Bind, mapped: bool, recursive: bool) -> Staged {
    Staged {
        stage: Stage {
            source: bind.source.as_path().into(),
            name,
            attributes: if bind.writable { HARMLESS } else { READ_ONLY },
            // An idmapped writable mount would let the container's root make files that belong to the host's.
            mapped: mapped && !bind.writable,
            recursive,
        },
        destination: Some(bind.destination.as_path().into()),
    }
}

fn take(staged: &[Staged]) -> impl Iterator<Item = Inside> {
    staged
        .iter()
        .filter(|staged| staged.destination.is_some())
        .map(|Staged { stage, .. }| Inside::Take { name: stage.name.clone(), recursive: stage.recursive })
}

fn attach(staged: &[Staged]) -> impl Iterator<Item = Inside> {
    staged.iter().filter_map(|Staged { stage, destination }| {
        let path = destination.clone()?;
        Some(Inside::Attach { name: stage.name.clone(), path, follow: true })
    })
}

fn write_files(spec: &Spec) -> impl Iterator<Item = Inside> {
    spec.files.iter().cloned().map(Inside::WriteFile)
}

/// The name of a staged system directory.
fn system(number: usize) -> String {
    format!("system{number}")
}

/// The empty directory that covers others. Of the tmpfs that is there anyway: each memory cgroup of the machine pays for
/// each superblock.
fn mask() -> Stage {
    let inert = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC;
    Stage {
        source: "empty".into(),
        name: MASK.into(),
        attributes: inert | Attributes::MOUNT_ATTR_RDONLY,
        mapped: false,
        recursive: false,
    }
}

const MASK: &str = "mask";

/// Where mounts are staged: over a directory that nobody in this mount namespace needs.
fn staging(directory: &Path) -> PathBuf {
    directory.join("jobs")
}

fn outside(spec: &Spec, directory: &Path, staged: &[Staged]) -> Vec<Outside> {
    let mut steps = vec![
        Outside::MakePrivate,
        Outside::Unmark(spec.root.writable.as_path().join("work/work/incompat")),
        Outside::MountStaging(staging(directory)),
        Outside::MakeDirectory("root"),
        Outside::MakeDirectory("dev"),
        Outside::MakeDirectory("empty"),
        Outside::MakeDirectory("generated"),
    ];
    // The container's root makes links and sockets in /dev; its nodes belong to the host's.
    let give = |name| spec.ids.map(|ids| Outside::Give { name, owner: ids.host_start });
    steps.extend(["dev", "generated"].into_iter().filter_map(give));
    // Before the cgroups, whose devices controller lets nobody make nodes.
    steps.extend(DEVICES.map(|(name, major, minor)| Outside::MakeNode { name, major, minor }));
    steps.extend(spec.cgroups.iter().filter_map(|cgroup| match cgroup {
        Cgroup::V1(path) => Some(Outside::JoinCgroup(path.as_path().into())),
        // The builder is born in it.
        Cgroup::V2(_) => None,
    }));
    steps.extend(staged.iter().map(|staged| Outside::Stage(staged.stage.clone())));
    // Where no user namespace locks the flags of mounts, the container's root could make the host's /usr writable.
    let open = if spec.ids.is_none() { spec.root.system.len() } else { 0 };
    steps.extend((0..open).map(|n| Outside::Seal(system(n))));
    if spec.confinement.masked_paths {
        steps.push(Outside::Stage(mask()));
    }
    steps
}

fn inside(spec: &Spec, staged: &[Staged]) -> Vec<Inside> {
    let mut steps = vec![
        Inside::BecomeRoot,
        Inside::Generate { files: spec.files.clone(), link: MOUNT_TABLE, user: spec.user.clone() },
        Inside::MountRoot { options: overlay_options(spec) },
    ];
    // Made while the host's own are still in sight: in a user namespace the kernel grants a new proc or sysfs only to
    // who sees a whole one already.
    steps.extend(own_file_systems().map(Inside::Create));
    if spec.confinement.masked_paths {
        steps.push(Inside::Take { name: MASK.into(), recursive: false });
    }
    steps.extend(take(staged));
    steps.push(Inside::Take { name: "dev".into(), recursive: false });
    steps.push(Inside::Pivot);
    steps.push(Inside::SetHostname(spec.id.clone()));
    steps.extend(write_files(spec));
    steps.push(Inside::WriteLink(MOUNT_TABLE));
    steps.push(Inside::MakeUser(spec.user.clone()));
    let place =
        |name: &str, path: &str| Inside::Attach { name: name.into(), path: path.into(), follow: false };
    steps.extend([place("proc", "/proc"), place("sys", "/sys"), place("dev", "/dev")]);
    steps.extend([place("pts", "/dev/pts"), Inside::MakeDirectory { path: "/dev/shm", mode: 0o1777 }]);
    steps.extend(DEVICE_LINKS.map(Inside::Link));
    if spec.confinement.read_only_paths {
        steps.extend(paths::READ_ONLY.map(|path| Inside::Protect { path }));
    }
    if spec.confinement.masked_paths {
        // Every kernel has the first of the directories; the others are covered by it.
        steps.push(place(MASK, paths::FIRST_MASKED_DIRECTORY));
        let cover = |by| move |path| Inside::Cover { path, by };
        steps.extend(paths::MASKED_DIRECTORIES.map(cover(paths::FIRST_MASKED_DIRECTORY)));
        steps.extend(paths::MASKED_FILES.map(cover("/dev/null")));
    }
    steps.extend(lock(spec));
    steps.extend(attach(staged));
    steps
}

/// Only where root inside keeps the capability to unmount: it costs a process. Without a user namespace that root could
/// mount another /proc, and locks would be for show.
fn lock(spec: &Spec) -> Option<Inside> {
    let confinement = spec.confinement;
    let covered = confinement.masked_paths || confinement.read_only_paths;
    let wanted = covered && !confinement.capabilities && spec.ids.is_some();
    wanted.then_some(Inside::Lock { paths: ["/proc", "/sys"] })
}

fn overlay_options(spec: &Spec) -> CString {
    let options = c"lowerdir=generated:lower,upperdir=writable/rootfs,workdir=writable/work,volatile";
    match spec.ids {
        // trusted.* attributes, the default, are beyond a user namespace.
        Some(_) => {
            c"lowerdir=generated:lower,upperdir=writable/rootfs,workdir=writable/work,volatile,userxattr"
                .into()
        }
        None => options.into(),
    }
}

/// Few on purpose: each memory cgroup of the machine pays for each superblock, so /dev is a directory of the tmpfs on
/// which everything is staged, and /dev/shm a directory of that.
fn own_file_systems() -> impl Iterator<Item = Create> {
    let inert = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC;
    let read_only = Attributes::MOUNT_ATTR_RDONLY;
    [
        Create { name: "proc", kind: c"proc", options: &[], attributes: inert },
        Create { name: "sys", kind: c"sysfs", options: &[], attributes: inert | read_only },
        Create {
            name: "pts",
            kind: c"devpts",
            options: &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
            attributes: Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC,
        },
    ]
    .into_iter()
}

impl Outside {
    /// What the step does, in a few words that its object completes.
    pub fn words(&self) -> &'static str {
        match self {
            Self::JoinCgroup(_) => "join the cgroup",
            Self::MakePrivate => "make private",
            Self::Unmark(_) => "remove",
            Self::MountStaging(_) => "mount a tmpfs at",
            Self::MakeDirectory(_) => "make the staging directory",
            Self::Give { .. } => "give to the container's root",
            Self::MakeNode { .. } => "make the node of the device",
            Self::Stage(_) => "stage",
            Self::Seal(_) => "seal",
        }
    }

    /// What it is done to.
    pub fn object(&self) -> ByteString {
        match self {
            Self::JoinCgroup(path) | Self::Unmark(path) | Self::MountStaging(path) => path.as_path().into(),
            Self::MakePrivate => "all mounts".into(),
            Self::MakeDirectory(name) | Self::Give { name, .. } | Self::MakeNode { name, .. } => {
                (*name).into()
            }
            Self::Stage(stage) => stage.source.as_path().into(),
            Self::Seal(name) => name.as_str().into(),
        }
    }
}

impl Inside {
    /// What the step does, in a few words that its object completes.
    pub fn words(&self) -> &'static str {
        match self {
            Self::BecomeRoot => "become",
            Self::Generate { .. } => "write the files of",
            Self::MountRoot { .. } => "mount the root file system",
            Self::Create(_) => "create the file system",
            Self::Take { .. } => "copy the staged mount",
            Self::Pivot => "pivot into",
            Self::SetHostname(_) => "set the hostname",
            Self::MakeUser(_) => "make the user",
            Self::MakeDirectory { .. } => "make the directory",
            Self::Attach { .. } => "mount at",
            Self::Cover { .. } => "cover",
            Self::Protect { .. } => "make read-only",
            Self::Lock { .. } => "lock",
            Self::Link(_) | Self::WriteLink(_) => "make the link",
            Self::WriteFile(_) => "write",
        }
    }

    /// What it is done to.
    pub fn object(&self) -> ByteString {
        match self {
            Self::BecomeRoot => "the container's root".into(),
            Self::Generate { user, .. } => user.name.as_str().into(),
            Self::MountRoot { options } => ByteString(options.to_bytes().to_vec()),
            Self::Create(create) => ByteString(create.kind.to_bytes().to_vec()),
            Self::Take { name, .. } | Self::SetHostname(name) => name.as_str().into(),
            Self::Pivot => "the root file system".into(),
            Self::MakeUser(user) => user.name.as_str().into(),
            Self::MakeDirectory { path, .. }
            | Self::Cover { path, .. }
            | Self::Protect { path }
            | Self::Link(Link { path, .. })
            | Self::WriteLink(Link { path, .. }) => (*path).into(),
            Self::Lock { paths } => paths.join(" and ").as_str().into(),
            Self::Attach { path, .. } => path.as_path().into(),
            Self::WriteFile(file) => file.path.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
