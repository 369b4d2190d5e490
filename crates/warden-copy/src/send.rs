//! The sending side: walks a tree and writes records.

use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::Totals;
use crate::error::{CopyError, Step, at, errno_of};
use crate::record::Record;

/// The deepest tree that is walked: each level holds a descriptor.
pub const MAX_DEPTH: usize = 2000;

const PIECE: usize = 64 * 1024;

/// A walk in progress.
struct Sender<'a, W: Write> {
    out: BufWriter<W>,
    /// `/proc/self/fd`, opened while /proc could be trusted: regular files are opened through it.
    descriptors: BorrowedFd<'a>,
    /// The path of what is being sent, for errors.
    path: Vec<u8>,
    totals: Totals,
    report: &'a mut dyn FnMut(Totals),
}

/// Sends what is at `path`: a file, a link, or a directory with its content; with "/" at its end only its content.
///
/// `descriptors` is an open `/proc/self/fd` of this process; `report` is told the totals now and then.
/// Fails at the first entry that cannot be read.
pub fn send(
    path: &[u8],
    descriptors: BorrowedFd<'_>,
    out: impl Write,
    report: &mut dyn FnMut(Totals),
) -> Result<Totals, CopyError> {
    let mut sender = Sender {
        out: BufWriter::with_capacity(PIECE, out),
        descriptors,
        path: path.to_vec(),
        totals: Totals::default(),
        report,
    };
    sender.root(path)?;
    sender.record(&Record::Done)?;
    sender.out.flush().map_err(|error| sender.failed(Step::Stream, errno_of(&error)))?;
    Ok(sender.totals)
}

impl<W: Write> Sender<'_, W> {
    fn failed(&self, step: Step, errno: Errno) -> CopyError {
        CopyError { step, path: self.path.clone(), errno }
    }

    fn record(&mut self, record: &Record) -> Result<(), CopyError> {
        record.write(&mut self.out).map_err(|error| self.failed(Step::Stream, errno_of(&error)))
    }

    /// Sends the source itself. Links in the path to it are followed, as the client wrote that path; a link at its end is
    /// sent as a link.
    fn root(&mut self, path: &[u8]) -> Result<(), CopyError> {
        let content_only = path.ends_with(b"/");
        let name = path.split(|byte| *byte == b'/').rfind(|part| !part.is_empty()).unwrap_or_default();
        let names_an_entry = crate::record::is_entry_name(name);
        let flags =
            OFlags::PATH | OFlags::CLOEXEC | if content_only { OFlags::empty() } else { OFlags::NOFOLLOW };
        let node = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| self.failed(Step::Open, e))?;
        let stat = rustix::fs::fstat(&node).map_err(|e| self.failed(Step::Stat, e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let name = if content_only || !names_an_entry { Vec::new() } else { name.to_vec() };
                self.tree(node, &stat, name)
            }
            _ if content_only => Err(self.failed(Step::Open, Errno::NOTDIR)),
            FileType::RegularFile => self.file(&node, &stat, name.to_vec()),
            FileType::Symlink => self.link(&node, name.to_vec()),
            _ => Err(self.failed(Step::Open, Errno::NOTSUP)),
        }
    }

    /// Sends a directory and everything below it, without recursion: depth costs descriptors, not stack.
    fn tree(&mut self, node: OwnedFd, stat: &Stat, name: Vec<u8>) -> Result<(), CopyError> {
        let mut stack = vec![(self.enter(&node, stat, name)?, self.path.len())];
        while let Some((directory, length)) = stack.last_mut() {
            self.path.truncate(*length);
            let Some(entry) = directory.read() else {
                self.record(&Record::Up)?;
                stack.pop();
                continue;
            };
            let entry = entry.map_err(|e| self.failed(Step::List, e))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if self.path.last() != Some(&b'/') {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            let parent = directory.fd().map_err(|e| self.failed(Step::Open, e))?;
            let Some(node) = self.node(parent, name)? else { continue };
            let stat = rustix::fs::fstat(&node).map_err(|e| self.failed(Step::Stat, e))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    if stack.len() >= MAX_DEPTH {
                        return Err(self.failed(Step::Open, Errno::LOOP));
                    }
                    let inner = self.enter(&node, &stat, name.to_vec())?;
                    stack.push((inner, self.path.len()));
                }
                FileType::RegularFile => self.file(&node, &stat, name.to_vec())?,
                FileType::Symlink => self.link(&node, name.to_vec())?,
                _ => {
                    self.totals.count_skipped();
                    self.record(&Record::Skipped)?;
                }
            }
        }
        Ok(())
    }

    /// Opens an entry without following or opening what it is; none when it vanished since it was listed.
    fn node(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<OwnedFd>, CopyError> {
        match rustix::fs::openat(
            parent,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(node) => Ok(Some(node)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(Step::Open, errno)),
        }
    }

    fn enter(&mut self, node: &OwnedFd, stat: &Stat, name: Vec<u8>) -> Result<Dir, CopyError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened =
            rustix::fs::openat(node, c".", flags, Mode::empty()).map_err(|e| self.failed(Step::Open, e))?;
        let directory = Dir::new(opened).map_err(|e| self.failed(Step::List, e))?;
        self.totals.count_entries();
        self.record(&Record::Directory { mode: stat.st_mode & 0o7777, name })?;
        Ok(directory)
    }

    fn link(&mut self, node: &OwnedFd, name: Vec<u8>) -> Result<(), CopyError> {
        let target = rustix::fs::readlinkat(node, c"", Vec::new()).map_err(|e| self.failed(Step::Read, e))?;
        self.totals.count_entries();
        self.record(&Record::Link { name, target: target.into_bytes() })
    }

    /// Sends a regular file's data; holes are not sent.
    fn file(&mut self, node: &OwnedFd, stat: &Stat, name: Vec<u8>) -> Result<(), CopyError> {
        use std::os::fd::AsRawFd;
        // The node is known to be a regular file: opening it through its descriptor can neither block nor have an effect,
        // as opening its name once more could.
        let number = node.as_raw_fd().to_string();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::openat(self.descriptors, number, flags, Mode::empty())
            .map_err(|e| self.failed(Step::Open, e))?;
        self.record(&Record::File { mode: stat.st_mode & 0o7777, name })?;
        let length = u64::try_from(stat.st_size).unwrap_or_default();
        let end = self.content(file.as_fd(), length)?;
        self.totals.count_entries();
        self.record(&Record::End { length: end })?;
        (self.report)(self.totals);
        Ok(())
    }

    /// Sends the content up to `length`, and returns where it really ended: the file may shrink meanwhile.
    fn content(&mut self, file: BorrowedFd<'_>, length: u64) -> Result<u64, CopyError> {
        let mut buffer = vec![0; PIECE];
        let mut offset = 0;
        while offset < length {
            let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
                Ok(data) => data,
                Err(Errno::NXIO) => return Ok(length),
                // A file system without holes: everything is data.
                Err(_) => offset,
            };
            let hole = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(length).min(length);
            offset = data;
            while offset < hole {
                let want = usize::try_from(hole.saturating_sub(offset)).unwrap_or(PIECE).min(PIECE);
                let piece = buffer.get_mut(..want).unwrap_or_default();
                let got =
                    rustix::io::pread(file, &mut *piece, offset).map_err(|e| self.failed(Step::Read, e))?;
                if got == 0 {
                    return Ok(offset);
                }
                self.record(&Record::Data { offset, length: u32::try_from(got).unwrap_or_default() })?;
                let sent = self.out.write_all(piece.get(..got).unwrap_or_default());
                sent.map_err(|error| self.failed(Step::Stream, errno_of(&error)))?;
                offset = offset.saturating_add(got as u64);
                self.totals.count_bytes(got);
                (self.report)(self.totals);
            }
        }
        Ok(offset.max(length))
    }
}

/// Opens `/proc/self/fd` of this process, for [`send`].
pub fn own_descriptors() -> Result<OwnedFd, CopyError> {
    let path = b"/proc/self/fd";
    rustix::fs::openat(
        rustix::fs::CWD,
        &path[..],
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(at(Step::Open, path))
}
