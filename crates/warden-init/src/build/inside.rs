//! Carries out the init's steps, as the container's root in the container's namespaces.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use warden_linux::mount::{self, MountFlags};
use warden_linux::{file, namespace, process};

use super::SetupError;
use super::generated::Layers;
use super::plan::{Create, Inside, Link};
use crate::accounts::{self, Identity};
use crate::spec::{InsideFile, User};

/// What earlier steps have left to later ones.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Mounts that were created or taken and not attached yet.
    detached: HashMap<String, OwnedFd>,
    /// The files and the user stand in a layer of their own.
    generated: bool,
}

/// Does all steps.
pub(super) fn carry_out(steps: &[Inside]) -> Result<(), SetupError> {
    go_on(steps, &mut Progress::default())
}

/// Does further steps.
pub(super) fn go_on(steps: &[Inside], progress: &mut Progress) -> Result<(), SetupError> {
    for step in steps {
        carry_out_one(step, progress)
            .map_err(|error| SetupError::new(step.words(), step.object(), &error))?;
    }
    Ok(())
}

fn carry_out_one(step: &Inside, progress: &mut Progress) -> io::Result<()> {
    match step {
        Inside::BecomeRoot => become_root(),
        Inside::Generate { files, link, user } => {
            let layers = Layers { image: Path::new("lower"), generated: Path::new("generated") };
            progress.generated = layers.fill(files, *link, user)?;
            Ok(())
        }
        Inside::MountRoot { options } => mount_root(options),
        Inside::Create(create) => {
            progress.detached.insert(create.name.into(), create_mount(create)?);
            Ok(())
        }
        Inside::Take { name, recursive } => {
            progress.detached.insert(name.clone(), mount::copy(Path::new(name), *recursive)?);
            Ok(())
        }
        Inside::Pivot => mount::pivot_into(Path::new("root")),
        Inside::SetHostname(name) => namespace::set_hostname(name.as_bytes()),
        Inside::MakeUser(_) | Inside::WriteFile(_) | Inside::WriteLink(_) if progress.generated => Ok(()),
        Inside::MakeUser(user) => make_user(user),
        Inside::MakeDirectory { path, mode } => make_directory(Path::new(path), *mode),
        Inside::Attach { name, path, follow } => match progress.detached.remove(name) {
            Some(tree) => attach(tree.as_fd(), path, *follow),
            None => Ok(()),
        },
        Inside::Cover { path, by } => cover(Path::new(path), Path::new(by)),
        Inside::Protect { path } => protect(Path::new(path)),
        Inside::Lock { paths } => super::lock::lock(&paths.map(Path::new)),
        Inside::Link(Link { path, target }) => symlink(target, path),
        Inside::WriteFile(file) => write_file(file),
        Inside::WriteLink(link) => write_link(Path::new(link.path), link.target),
    }
}

fn become_root() -> io::Result<()> {
    process::set_ids(0, 0)?;
    process::new_session()
}

fn mount_root(options: &CStr) -> io::Result<()> {
    mount::mount(c"overlay", Path::new("root"), c"overlay", MountFlags::NODEV, options)
}

fn create_mount(create: &Create) -> io::Result<OwnedFd> {
    mount::create(create.kind, create.options, create.attributes)
}

/// Attaches a tree at a path that is made if it is missing; only the container's own root can be in the way.
fn attach(tree: BorrowedFd<'_>, path: &Path, follow: bool) -> io::Result<()> {
    let open = || if follow { file::open_place(path) } else { file::open_directory_place(path) };
    let place = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_place(path, file::is_directory(tree)?)?;
            open()?
        }
        other => other?,
    };
    mount::attach(tree, place.as_fd())
}

fn make_place(path: &Path, directory: bool) -> io::Result<()> {
    if directory {
        return fs::create_dir_all(path);
    }
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    File::create_new(path).map(drop)
}

/// Attaches a copy of what is at `by` over `path`, if something is there.
fn cover(path: &Path, by: &Path) -> io::Result<()> {
    match file::open_place(path) {
        Ok(place) => mount::attach(mount::copy(by, false)?.as_fd(), place.as_fd()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Attaches a read-only copy of what is at a path over itself, if something is there.
fn protect(path: &Path) -> io::Result<()> {
    let tree = match mount::copy(path, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    mount::set_attributes(tree.as_fd(), mount::Attributes::MOUNT_ATTR_RDONLY, None, true)?;
    mount::attach(tree.as_fd(), file::open_place(path)?.as_fd())
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Writes a file anew: what an image has there, such as a link to somewhere else, is replaced and not written to.
pub(super) fn write_file(file: &InsideFile) -> io::Result<()> {
    let path = file.path.as_path();
    let open = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut opened = make_room(path, open)?;
    opened.write_all(&file.content.0)?;
    opened.set_permissions(Permissions::from_mode(file.mode))
}

/// Makes a symbolic link anew, as [`write_file`] does a file.
pub(super) fn write_link(path: &Path, target: &str) -> io::Result<()> {
    make_room(path, || symlink(target, path))
}

/// Makes something at a path, with the directories above it and without what is there.
fn make_room<T>(path: &Path, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            make()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            make()
        }
        other => other,
    }
}

/// Makes sure that the user and its group exist with the stated id, and that its home and its files are its own.
fn make_user(user: &User) -> io::Result<()> {
    let passwd = accounts::read(Path::new("/etc/passwd"))?;
    let group = accounts::read(Path::new("/etc/group"))?;
    let change = accounts::with_user(&passwd, user);
    let lists = [("/etc/passwd", change.passwd), ("/etc/group", accounts::with_group(&group, user))];
    for (path, content) in lists {
        write_file(&InsideFile {
            path: path.into(),
            mode: 0o644,
            content: crate::byte_string::ByteString(content),
        })?;
    }
    if let Some(previous) = change.previous {
        give_files(previous, user.id)?;
    }
    let home = change.home.as_path();
    fs::create_dir_all(home)?;
    std::os::unix::fs::lchown(home, Some(user.id), Some(user.id))?;
    fs::set_permissions(home, Permissions::from_mode(0o755))
}

/// Gives every file of the root file system that belonged to an image's user to the id that it has in this container.
/// Nothing else is mounted yet.
fn give_files(previous: Identity, id: u32) -> io::Result<()> {
    let mut directories = vec![Path::new("/").to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let user = (metadata.uid() == previous.user).then_some(id);
            let group = (metadata.gid() == previous.group).then_some(id);
            if user.or(group).is_some() {
                std::os::unix::fs::lchown(&path, user, group)?;
            }
            if metadata.is_dir() {
                directories.push(path);
            }
        }
    }
    Ok(())
}
