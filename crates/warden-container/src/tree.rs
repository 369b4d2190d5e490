//! Removal of a directory tree that somebody else has filled: nothing is followed, no depth is too deep.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

/// Directories below one another that are open at a time; what is deeper is first moved up.
const DEPTH: usize = 32;
/// Times that a directory is read again, because some file systems pass over entries while others are removed.
const ROUNDS: usize = 16;
/// Bytes of entries that are read at a time, on the stack of each depth.
const CHUNK: usize = 8192;

/// How many directories this process has moved up: trees that are removed at the same time may have the same top.
static MOVED_UP: AtomicU64 = AtomicU64::new(0);

/// Removes an entry of a directory, with everything below it; what does not exist is removed already.
///
/// Goes on past errors and returns the first.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let mut removal = Removal { top: parent, moved_up: VecDeque::from([name.to_owned()]), error: None };
    while let Some(name) = removal.moved_up.pop_front() {
        removal.entry(parent, &name, FileType::Unknown, 0);
    }
    removal.error.map_or(Ok(()), |errno| Err(errno.into()))
}

struct Removal<'a> {
    /// The directory that deep directories are moved up to.
    top: BorrowedFd<'a>,
    /// Entries of `top` that are still to be removed.
    moved_up: VecDeque<CString>,
    error: Option<Errno>,
}

impl Removal<'_> {
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, kind: FileType, depth: usize) {
        if let Err(errno) = self.try_entry(parent, name, kind, depth)
            && errno != Errno::NOENT
        {
            self.error.get_or_insert(errno);
        }
    }

    fn try_entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        depth: usize,
    ) -> Result<(), Errno> {
        let unlink = |flags| changeable(parent, name, || rustix::fs::unlinkat(parent, name, flags));
        if kind != FileType::Directory {
            match unlink(AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                done => return done,
            }
        }
        // Most are empty.
        match unlink(AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => {}
            done => return done,
        }
        if depth == DEPTH {
            return self.move_up(parent, name);
        }
        let directory = open_directory(parent, name)?;
        for _ in 0..ROUNDS {
            self.content(directory.as_fd(), depth + 1)?;
            match unlink(AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) if self.error.is_none() => {}
                done => return done,
            }
            rustix::fs::seek(&directory, SeekFrom::Start(0))?;
        }
        Err(Errno::NOTEMPTY)
    }

    fn content(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut entries = RawDir::new(directory, &mut chunk);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                self.entry(directory, entry.file_name(), entry.file_type(), depth);
            }
        }
        Ok(())
    }

    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            let number = MOVED_UP.fetch_add(1, Ordering::Relaxed);
            let up =
                CString::new(format!(".deep-{}-{number}", std::process::id())).map_err(|_| Errno::INVAL)?;
            match changeable(parent, name, || rustix::fs::renameat(parent, name, self.top, &up)) {
                // An earlier process of this number has left it.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                moved => {
                    self.moved_up.extend(moved.is_ok().then_some(up));
                    return moved;
                }
            }
        }
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Does it; where an immutable or append-only attribute forbids it, takes that away and does it again.
fn changeable(
    parent: BorrowedFd<'_>,
    name: &CStr,
    change: impl Fn() -> Result<(), Errno>,
) -> Result<(), Errno> {
    match change() {
        Err(Errno::PERM) => {
            clear_attributes(parent);
            clear_attributes_of(parent, name);
            change()
        }
        done => done,
    }
}

fn clear_attributes_of(parent: BorrowedFd<'_>, name: &CStr) {
    let Ok(stat) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
    // Opening a device or a FIFO would do more than look at it.
    if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory) {
        return;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(parent, name, flags, Mode::empty()) {
        clear_attributes(file.as_fd());
    }
}

fn clear_attributes(file: BorrowedFd<'_>) {
    let locked = IFlags::IMMUTABLE | IFlags::APPEND;
    if let Ok(flags) = rustix::fs::ioctl_getflags(file)
        && flags.intersects(locked)
    {
        // The change that is tried again says what is wrong if this fails.
        let _ = rustix::fs::ioctl_setflags(file, flags - locked);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn remove_in(directory: &Path, name: &str) -> io::Result<()> {
        remove(File::open(directory).unwrap().as_fd(), &CString::new(name).unwrap())
    }

    #[test]
    fn a_tree_goes_and_what_its_links_point_to_stays() {
        let top = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        let tree = top.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/file"), "x").unwrap();
        symlink(outside.path(), tree.join("a/b/link")).unwrap();
        symlink("/nowhere", tree.join("dangling")).unwrap();
        remove_in(top.path(), "tree").unwrap();
        remove_in(top.path(), "tree").unwrap();
        assert!(outside.path().join("kept").exists());
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_very_deep_and_a_very_wide_tree_go() {
        let top = tempfile::tempdir().unwrap();
        let mut directory = rustix::fs::openat(
            rustix::fs::CWD,
            top.path(),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).unwrap();
            directory = open_directory(directory.as_fd(), c"d").unwrap();
        }
        for number in 0..3_000 {
            rustix::fs::mkdirat(&directory, format!("{number}"), Mode::RWXU).unwrap();
        }
        remove_in(top.path(), "d").unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }

    #[test]
    fn deep_trees_of_one_directory_go_at_the_same_time() {
        let top = tempfile::tempdir().unwrap();
        for tree in 0..8 {
            fs::create_dir_all(top.path().join(tree.to_string()).join("d/".repeat(200))).unwrap();
        }
        // As a process of this number has left it.
        fs::create_dir_all(top.path().join(format!(".deep-{}-3/x", std::process::id()))).unwrap();
        let removed: Vec<_> = std::thread::scope(|scope| {
            let remove = |tree: u32| {
                scope.spawn({
                    let path = top.path();
                    move || remove_in(path, &tree.to_string())
                })
            };
            let threads: Vec<_> = (0..8).map(remove).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(removed.iter().all(Result::is_ok), "{removed:?}");
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    }

    #[test]
    fn immutable_files_and_directories_go() {
        let top = tempfile::tempdir().unwrap();
        let tree = top.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        for path in [tree.join("file"), tree] {
            let file = File::open(path).unwrap();
            let flags = rustix::fs::ioctl_getflags(&file).unwrap();
            rustix::fs::ioctl_setflags(&file, flags | IFlags::IMMUTABLE).unwrap();
        }
        remove_in(top.path(), "tree").unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }
}
