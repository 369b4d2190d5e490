//! Files, pipes and directories.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::pipe::{PipeFlags, SpliceFlags};

/// Bytes that most of the kernel's files are shorter than, and that all are.
const TEXT: usize = 4096;
const LONGEST_TEXT: u64 = 1 << 20;

/// Reads a file of the kernel's, whose size nobody knows before: with as few reads as it takes.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::with_capacity(TEXT);
    File::open(path)?.take(LONGEST_TEXT).read_to_string(&mut text)?;
    Ok(text)
}

/// Moves up to `count` bytes of a file, from `offset` on, into a descriptor; advances `offset` and gives how many.
pub fn send(out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: &mut u64, count: usize) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(out, file, Some(offset), count)?)
}

/// A pipe's read end and its write end, both close-on-exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)
}

/// Moves up to `count` bytes out of a pipe into a file, from `offset` on, without waiting; advances `offset` and gives how
/// many: 0 once the pipe has ended.
///
/// The bytes leave the pipe as they enter the file: whoever kills this process in between loses none. A file system that
/// cannot do this says `EINVAL`.
pub fn drain(
    pipe: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: &mut u64,
    count: usize,
) -> io::Result<usize> {
    Ok(rustix::pipe::splice(pipe, None, file, Some(offset), count, SpliceFlags::NONBLOCK)?)
}

/// Has a pipe hold this many bytes, if the kernel grants it.
pub fn set_pipe_capacity(pipe: impl AsFd, bytes: usize) -> io::Result<()> {
    rustix::pipe::fcntl_setpipe_size(pipe, bytes)?;
    Ok(())
}

/// Has reads and writes of an open file description fail with `WouldBlock` instead of waiting.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

/// How many bytes a pipe or socket holds to be read.
pub fn readable_bytes(fd: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(fd)?)
}

/// Makes the node of a character device, with these permission bits.
pub fn make_device(path: &Path, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, mode, device)?;
    // What the umask took away.
    Ok(rustix::fs::chmodat(rustix::fs::CWD, path, mode, rustix::fs::AtFlags::empty())?)
}

/// Makes an open file a user's and a group's.
pub fn give(fd: impl AsFd, user: u32, group: u32) -> io::Result<()> {
    let (user, group) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(group));
    Ok(rustix::fs::fchown(fd, Some(user), Some(group))?)
}

/// The inode number of an open file.
pub fn inode(fd: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(fd)?.st_ino)
}

/// Whether the mount of an open file or place is read-only.
pub fn is_read_only(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatvfs(fd)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Opens a place of the file tree, whatever it is, without opening what is there (O_PATH).
pub fn open_place(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a directory's place, refusing a symbolic link.
pub fn open_directory_place(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Whether an open file or place is a directory.
pub fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Opens a regular file to read, refusing everything else without waiting for it (`EINVAL`; `ELOOP` for a symbolic link).
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::from(rustix::io::Errno::INVAL));
    }
    Ok(File::from(fd))
}

/// Opens a directory to look into it later, wherever it will be mounted over.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a file below a directory, without leaving the directory's mount (`EXDEV`) or following a symbolic link (`ELOOP`).
pub fn open_within(directory: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve)?)
}

/// The names in an open directory, but `.` and `..`.
pub fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// What a symbolic link in an open directory holds.
pub fn link_target(directory: BorrowedFd<'_>, name: &Path) -> io::Result<OsString> {
    let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()))
}
