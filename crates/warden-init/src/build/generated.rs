//! The layer of the files that a container gets from wardend: between the image's and the writable one, on the tmpfs on
//! which everything is staged, where a file costs next to nothing.
//!
//! It is filled before the layers are one file tree, so nothing of an image may be followed: where one has anything but
//! plain directories on the way, the files are written later, into the whole.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Component, Path, PathBuf};

use super::inside::{write_file, write_link};
use super::plan::Link;
use crate::accounts;
use crate::byte_string::ByteString;
use crate::spec::{InsideFile, User};

/// The image's layer and the layer that is filled.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    pub(super) image: &'a Path,
    pub(super) generated: &'a Path,
}

/// Why the layer was not filled.
#[derive(Debug)]
enum Obstacle {
    /// The image has something on the way.
    Image,
    Failed(io::Error),
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Layers<'_> {
    /// Writes the files and the link, and the user with its group and home. Gives whether the image lets them be there; if
    /// not, the layer is empty.
    pub(super) fn fill(&self, files: &[InsideFile], link: Link, user: &User) -> io::Result<bool> {
        match self.try_to_fill(files, link, user) {
            Ok(()) => Ok(true),
            Err(Obstacle::Failed(error)) => Err(error),
            Err(Obstacle::Image) => {
                for entry in fs::read_dir(self.generated)? {
                    fs::remove_dir_all(entry?.path())?;
                }
                Ok(false)
            }
        }
    }

    fn try_to_fill(&self, files: &[InsideFile], link: Link, user: &User) -> Result<(), Obstacle> {
        files.iter().try_for_each(|file| self.write(file))?;
        write_link(&self.place(Path::new(link.path))?, link.target)?;
        let [passwd, group] = ["etc/passwd", "etc/group"].map(|path| accounts::read(&self.image.join(path)));
        let change = accounts::with_user(&passwd?, user);
        if change.previous.is_some() {
            // What the image's user owns is in every corner of the whole.
            return Err(Obstacle::Image);
        }
        let group = accounts::with_group(&group?, user);
        for (path, content) in [("/etc/passwd", change.passwd), ("/etc/group", group)] {
            self.write(&InsideFile { path: path.into(), mode: 0o644, content: ByteString(content) })?;
        }
        let home = self.directory(change.home.as_path())?;
        lchown(&home, Some(user.id), Some(user.id))?;
        Ok(fs::set_permissions(&home, Permissions::from_mode(0o755))?)
    }

    fn write(&self, file: &InsideFile) -> Result<(), Obstacle> {
        let path = self.place(file.path.as_path())?;
        Ok(write_file(&InsideFile { path: ByteString::from(path), ..file.clone() })?)
    }

    /// Where something is in the layer, in a directory that is there.
    fn place(&self, path: &Path) -> Result<PathBuf, Obstacle> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(self.directory(parent)?.join(name)),
            _ => Err(Obstacle::Image),
        }
    }

    /// Makes sure of a directory, with those above it, as the image has them; gives where it is.
    fn directory(&self, path: &Path) -> Result<PathBuf, Obstacle> {
        let mut below = PathBuf::new();
        for component in path.components() {
            match component {
                Component::RootDir => continue,
                Component::Normal(name) => below.push(name),
                _ => return Err(Obstacle::Image),
            }
            let as_in_image = match fs::symlink_metadata(self.image.join(&below)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                found => Some(found?).filter(Metadata::is_dir).ok_or(Obstacle::Image).map(Some)?,
            };
            let here = self.generated.join(&below);
            match DirBuilder::new().mode(0o755).create(&here) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            if let Some(image) = as_in_image {
                if (image.uid(), image.gid()) != (0, 0) {
                    // An owner that the container does not know cannot be given.
                    lchown(&here, Some(image.uid()), Some(image.gid())).map_err(|_| Obstacle::Image)?;
                }
                fs::set_permissions(&here, Permissions::from_mode(image.mode() & 0o7777))?;
            }
        }
        Ok(self.generated.join(below))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const LINK: Link = Link { path: "/etc/mtab", target: "/proc/self/mounts" };
    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n";

    /// An image with an /etc, and the layers of a container made from it.
    struct World(tempfile::TempDir);

    impl World {
        fn new() -> Self {
            let top = tempfile::tempdir().unwrap();
            for directory in ["image/etc", "image/home", "generated"] {
                fs::create_dir_all(top.path().join(directory)).unwrap();
            }
            fs::write(top.path().join("image/etc/passwd"), PASSWD).unwrap();
            fs::set_permissions(top.path().join("image/etc"), Permissions::from_mode(0o751)).unwrap();
            Self(top)
        }

        fn image(&self, path: &str) -> PathBuf {
            self.0.path().join("image").join(path)
        }

        fn generated(&self, path: &str) -> PathBuf {
            self.0.path().join("generated").join(path)
        }

        fn fill(&self) -> bool {
            let layers = Layers { image: &self.image(""), generated: &self.generated("") };
            let file = |path: &str| InsideFile { path: path.into(), mode: 0o640, content: "x".into() };
            // Who is not root can give files to nobody but itself.
            let id = fs::metadata(self.0.path()).unwrap().uid();
            let user = User { name: "vcap".into(), id };
            layers.fill(&[file("/etc/hosts"), file("/etc/deep/er")], LINK, &user).unwrap()
        }

        fn is_empty(&self) -> bool {
            fs::read_dir(self.generated("")).unwrap().next().is_none()
        }
    }

    #[test]
    fn files_and_user_stand_in_directories_like_the_images() {
        let world = World::new();
        assert!(world.fill());
        let mode = |path: &str| fs::metadata(world.generated(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("etc"), mode("etc/deep"), mode("etc/hosts")), (0o751, 0o755, 0o640));
        assert_eq!(fs::read(world.generated("etc/deep/er")).unwrap(), b"x");
        assert_eq!(fs::read_link(world.generated("etc/mtab")).unwrap(), Path::new("/proc/self/mounts"));
        let passwd = fs::read_to_string(world.generated("etc/passwd")).unwrap();
        assert!(passwd.starts_with(PASSWD) && passwd.contains("vcap:"), "{passwd}");
        assert!(fs::read_to_string(world.generated("etc/group")).unwrap().contains("vcap:"));
        assert_eq!(mode("home/vcap"), 0o755);
    }

    #[test]
    fn an_image_with_anything_else_on_the_way_gets_its_files_later() {
        for spoil in [
            (|world: &World| symlink("/etc", world.image("etc/deep")).unwrap()) as fn(&World),
            |world| fs::write(world.image("etc/deep"), "").unwrap(),
            |world| {
                fs::remove_dir(world.image("home")).unwrap();
                symlink("/", world.image("home")).unwrap();
            },
            |world| fs::write(world.image("etc/passwd"), "vcap:x:7:7::/home/vcap:\n").unwrap(),
            |world| fs::write(world.image("etc/passwd"), "vcap:x:0:0::/home/../../..:\n").unwrap(),
        ] {
            let world = World::new();
            spoil(&world);
            assert!(!world.fill());
            assert!(world.is_empty());
        }
    }

    #[test]
    fn lists_that_are_no_files_are_an_error_as_ever() {
        let world = World::new();
        fs::remove_file(world.image("etc/passwd")).unwrap();
        symlink("/etc/passwd", world.image("etc/passwd")).unwrap();
        let layers = Layers { image: &world.image(""), generated: &world.generated("") };
        let user = User { name: "vcap".into(), id: 0 };
        assert!(layers.fill(&[], LINK, &user).is_err());
    }
}
