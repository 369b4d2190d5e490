//! The receiving side: reads records and creates what they name, entry by entry, below one directory.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Totals;
use crate::error::{CopyError, Step, errno_of};
use crate::record::{Record, is_entry_name};
use crate::send::MAX_DEPTH;

const PIECE: usize = 64 * 1024;

/// How many names are tried for an unfinished entry; they are random, so one is enough but for a tenant that plants them.
const ATTEMPTS: u32 = 16;

/// A directory that is being filled.
struct Level {
    directory: OwnedFd,
    /// Permission bits to set when it is complete; none for the target itself when it was there before.
    mode: Option<u32>,
    /// Length of its path.
    path: usize,
}

struct Receiver<'a, R: Read> {
    input: BufReader<R>,
    treatment: Treatment,
    path: Vec<u8>,
    totals: Totals,
    report: &'a mut dyn FnMut(Totals),
    buffer: Vec<u8>,
    /// Seed of the names of unfinished entries, unknown to anybody else.
    names: RandomState,
    /// How many of these names were used.
    used: u64,
}

/// Who owns what is received, instead of the receiving process's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user's id; absent: it stays as it is.
    pub user: Option<u32>,
    /// The group's id; absent: it stays as it is.
    pub group: Option<u32>,
}

/// What is done with what is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// Who owns it; absent: the receiving process's user.
    pub owner: Option<Owner>,
    /// The permission bits that it may have. Who receives what a stranger sends leaves the set-id bits out: with them,
    /// the stranger would choose a program that runs as the receiver.
    pub modes: u32,
}

/// Receives one source to `target`, as rsync would place it: into `target` when it is a directory, else as `target`,
/// whose last component may be missing.
///
/// Fails at the first entry that cannot be created; what was complete by then stays.
pub fn receive(
    target: &[u8],
    treatment: Treatment,
    input: impl Read,
    report: &mut dyn FnMut(Totals),
) -> Result<Totals, CopyError> {
    let mut receiver = Receiver {
        input: BufReader::with_capacity(PIECE, input),
        treatment,
        path: target.to_vec(),
        totals: Totals::default(),
        report,
        buffer: vec![0; PIECE],
        names: RandomState::new(),
        used: 0,
    };
    receiver.run(target)?;
    Ok(receiver.totals)
}

impl<R: Read> Receiver<'_, R> {
    fn failed(&self, step: Step, errno: Errno) -> CopyError {
        CopyError { step, path: self.path.clone(), errno }
    }

    fn protocol(&self) -> CopyError {
        self.failed(Step::Protocol, Errno::BADMSG)
    }

    fn record(&mut self) -> Result<Record, CopyError> {
        Record::read(&mut self.input).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => self.protocol(),
            _ => self.failed(Step::Stream, errno_of(&error)),
        })
    }

    fn run(&mut self, target: &[u8]) -> Result<(), CopyError> {
        match self.record()? {
            Record::Directory { mode, name } => {
                let top = self.directory_target(target, &name, mode)?;
                self.tree(top)?;
            }
            Record::File { mode, name } => {
                let (directory, name) = self.file_target(target, &name)?;
                self.file(directory.as_fd(), &name, mode)?;
            }
            Record::Link { name, target: to } => {
                let (directory, name) = self.file_target(target, &name)?;
                self.link(directory.as_fd(), &name, &to)?;
            }
            _ => return Err(self.protocol()),
        }
        match self.record()? {
            Record::Done => Ok(()),
            _ => Err(self.protocol()),
        }
    }

    /// Opens the target when it is a directory; none when there is nothing.
    fn existing_directory(&self, target: &[u8]) -> Result<Option<OwnedFd>, CopyError> {
        let path = if target.is_empty() { b"." } else { target };
        match rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(Step::Open, errno)),
        }
    }

    /// Opens the directory that the target is in, which must be there, and names the target in it.
    fn parent(&self, target: &[u8]) -> Result<(OwnedFd, Vec<u8>), CopyError> {
        let end = target.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last.saturating_add(1));
        let trimmed = target.get(..end).unwrap_or_default();
        let (parent, name) = match trimmed.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (
                trimmed.get(..=slash).unwrap_or_default(),
                trimmed.get(slash.saturating_add(1)..).unwrap_or_default(),
            ),
            None => (&b"."[..], trimmed),
        };
        if !is_entry_name(name) {
            let errno = if name.len() > crate::record::MAX_NAME { Errno::NAMETOOLONG } else { Errno::INVAL };
            return Err(self.failed(Step::Open, errno));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(parent, flags, Mode::empty()).map_err(|e| self.failed(Step::Open, e))?;
        Ok((directory, name.to_vec()))
    }

    /// Finds or makes the directory that a source directory goes to; an empty name means its content only.
    fn directory_target(&mut self, target: &[u8], name: &[u8], mode: u32) -> Result<Level, CopyError> {
        let outer = match self.existing_directory(target)? {
            Some(directory) => directory,
            None => {
                let (parent, last) = self.parent(target)?;
                let made = self.make_directory(parent.as_fd(), &last)?;
                // With a name it is no entry of the source's, and nothing will say how it shall be.
                if !name.is_empty() {
                    self.open_to_all(&made)?;
                }
                made
            }
        };
        self.totals.count_entries();
        if name.is_empty() {
            return Ok(Level { directory: outer, mode: Some(mode), path: self.path.len() });
        }
        self.push(name)?;
        let directory = self.make_directory(outer.as_fd(), name)?;
        Ok(Level { directory, mode: Some(mode), path: self.path.len() })
    }

    /// Finds the directory and the name that a source file goes to.
    fn file_target(&mut self, target: &[u8], name: &[u8]) -> Result<(OwnedFd, Vec<u8>), CopyError> {
        let existing = match self.existing_directory(target) {
            // Something else is there: it is replaced.
            Err(CopyError { errno: Errno::NOTDIR, .. }) if !target.ends_with(b"/") => None,
            other => other?,
        };
        if let Some(directory) = existing {
            self.push(name)?;
            return Ok((directory, name.to_vec()));
        }
        let (parent, last) = self.parent(target)?;
        if !target.ends_with(b"/") {
            return Ok((parent, last));
        }
        let directory = self.make_directory(parent.as_fd(), &last)?;
        self.open_to_all(&directory)?;
        self.push(name)?;
        Ok((directory, name.to_vec()))
    }

    /// Gives a directory that was made for what is copied, and that no entry describes, the usual permissions, and the owner.
    fn open_to_all(&self, directory: &OwnedFd) -> Result<(), CopyError> {
        self.give(directory.as_fd())?;
        rustix::fs::fchmod(directory, self.mode(0o755)).map_err(|e| self.failed(Step::Permissions, e))
    }

    /// Adds an entry's name to the path, after a look at it: a sender may be hostile.
    fn push(&mut self, name: &[u8]) -> Result<(), CopyError> {
        if !is_entry_name(name) {
            return Err(self.protocol());
        }
        if self.path.last() != Some(&b'/') {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        Ok(())
    }

    /// Makes a directory, or takes the one that is there; what else has the name is replaced.
    fn make_directory(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, CopyError> {
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::empty())
        };
        let create = || rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700));
        match create() {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.failed(Step::CreateDirectory, errno)),
        }
        match open() {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())
                    .and_then(|()| create())
                    .map_err(|e| self.failed(Step::CreateDirectory, e))?;
                open().map_err(|e| self.failed(Step::Open, e))
            }
            other => other.map_err(|e| self.failed(Step::Open, e)),
        }
    }

    /// Fills a directory and those below it.
    fn tree(&mut self, top: Level) -> Result<(), CopyError> {
        let mut stack = vec![top];
        while let Some(level) = stack.last() {
            self.path.truncate(level.path);
            match self.record()? {
                Record::Directory { mode, name } => {
                    self.push(&name)?;
                    if stack.len() >= MAX_DEPTH {
                        return Err(self.failed(Step::CreateDirectory, Errno::LOOP));
                    }
                    let directory = self.make_directory(level.directory.as_fd(), &name)?;
                    self.totals.count_entries();
                    stack.push(Level { directory, mode: Some(mode), path: self.path.len() });
                }
                Record::File { mode, name } => {
                    self.push(&name)?;
                    self.file(level.directory.as_fd(), &name, mode)?;
                }
                Record::Link { name, target } => {
                    self.push(&name)?;
                    self.link(level.directory.as_fd(), &name, &target)?;
                }
                Record::Skipped => self.totals.count_skipped(),
                Record::Up => {
                    if let Some(Level { directory, mode: Some(mode), .. }) = stack.pop() {
                        self.give(directory.as_fd())?;
                        // The target itself may belong to somebody else and be writable all the same.
                        match rustix::fs::fchmod(&directory, self.mode(mode)) {
                            Err(Errno::PERM) if stack.is_empty() => {}
                            result => result.map_err(|e| self.failed(Step::Permissions, e))?,
                        }
                    }
                }
                Record::Data { .. } | Record::End { .. } | Record::Done => return Err(self.protocol()),
            }
        }
        Ok(())
    }

    /// Receives a file under a name of its own and puts it into place when it is complete.
    fn file(&mut self, parent: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<(), CopyError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create =
            |unfinished: &[u8]| rustix::fs::openat(parent, unfinished, flags, Mode::from_raw_mode(0o600));
        let (unfinished, file) = self.create_unfinished(Step::CreateFile, create)?;
        let result = self
            .content(file.as_fd())
            // The owner first: a change of the owner clears the set-user-id bits.
            .and_then(|()| self.give(file.as_fd()))
            .and_then(|()| {
                rustix::fs::fchmod(&file, self.mode(mode)).map_err(|e| self.failed(Step::Permissions, e))
            })
            .and_then(|()| self.put_into_place(parent, &unfinished, name));
        if result.is_err() {
            let _ = rustix::fs::unlinkat(parent, &*unfinished, AtFlags::empty());
        }
        result
    }

    fn link(&mut self, parent: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> Result<(), CopyError> {
        let create = |unfinished: &[u8]| rustix::fs::symlinkat(target, parent, unfinished);
        let (unfinished, ()) = self.create_unfinished(Step::CreateLink, create)?;
        let result =
            self.give_link(parent, &unfinished).and_then(|()| self.put_into_place(parent, &unfinished, name));
        if result.is_err() {
            let _ = rustix::fs::unlinkat(parent, &*unfinished, AtFlags::empty());
        }
        result
    }

    /// Creates an entry under a name that nobody has; one that is taken belongs to somebody else.
    fn create_unfinished<T>(
        &mut self,
        step: Step,
        create: impl Fn(&[u8]) -> rustix::io::Result<T>,
    ) -> Result<(Vec<u8>, T), CopyError> {
        for _ in 0..ATTEMPTS {
            let name = self.unfinished_name();
            match create(&name) {
                Ok(created) => return Ok((name, created)),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.failed(step, errno)),
            }
        }
        Err(self.failed(step, Errno::EXIST))
    }

    fn put_into_place(
        &mut self,
        parent: BorrowedFd<'_>,
        unfinished: &[u8],
        name: &[u8],
    ) -> Result<(), CopyError> {
        let rename = || rustix::fs::renameat(parent, unfinished, parent, name);
        match rename() {
            // An empty directory is replaced.
            Err(Errno::ISDIR) => {
                rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).and_then(|()| rename())
            }
            renamed => renamed,
        }
        .map_err(|e| self.failed(Step::Rename, e))?;
        self.totals.count_entries();
        (self.report)(self.totals);
        Ok(())
    }

    /// The permission bits of what was sent with these.
    fn mode(&self, sent: u32) -> Mode {
        Mode::from_raw_mode(sent & self.treatment.modes & 0o7777)
    }

    /// A name for an entry until it is complete: nobody's but this one's, whoever else receives into the directory. Not
    /// derived from its final name, which may be of the greatest length already.
    fn unfinished_name(&mut self) -> Vec<u8> {
        self.used = self.used.saturating_add(1);
        format!(".warden-copy-{:016x}", self.names.hash_one(self.used)).into_bytes()
    }

    /// Gives a file or directory to its owner.
    fn give(&self, file: BorrowedFd<'_>) -> Result<(), CopyError> {
        let Some(owner) = self.treatment.owner else { return Ok(()) };
        rustix::fs::fchown(file, owner.user.map(Uid::from_raw), owner.group.map(Gid::from_raw))
            .map_err(|e| self.failed(Step::Owner, e))
    }

    /// Gives the unfinished link itself, not what it points to, to its owner.
    fn give_link(&self, parent: BorrowedFd<'_>, unfinished: &[u8]) -> Result<(), CopyError> {
        let Some(owner) = self.treatment.owner else { return Ok(()) };
        let (user, group) = (owner.user.map(Uid::from_raw), owner.group.map(Gid::from_raw));
        rustix::fs::chownat(parent, unfinished, user, group, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| self.failed(Step::Owner, e))
    }

    /// Receives the content of one file.
    fn content(&mut self, file: BorrowedFd<'_>) -> Result<(), CopyError> {
        loop {
            match self.record()? {
                Record::Data { offset, length } => self.data(file, offset, length)?,
                Record::End { length } => {
                    return rustix::fs::ftruncate(file, length).map_err(|e| self.failed(Step::Write, e));
                }
                _ => return Err(self.protocol()),
            }
        }
    }

    fn data(&mut self, file: BorrowedFd<'_>, mut offset: u64, length: u32) -> Result<(), CopyError> {
        let mut left = length as usize;
        while left > 0 {
            let mut buffer = std::mem::take(&mut self.buffer);
            let want = left.min(buffer.len());
            let piece = buffer.get_mut(..want).unwrap_or_default();
            let read =
                self.input.read_exact(piece).map_err(|error| self.failed(Step::Stream, errno_of(&error)));
            let written = read.and_then(|()| self.write_at(file, piece, offset));
            self.buffer = buffer;
            written?;
            left = left.saturating_sub(want);
            offset = offset.saturating_add(want as u64);
            self.totals.count_bytes(want);
            (self.report)(self.totals);
        }
        Ok(())
    }

    fn write_at(&self, file: BorrowedFd<'_>, mut piece: &[u8], mut offset: u64) -> Result<(), CopyError> {
        while !piece.is_empty() {
            let written = rustix::io::pwrite(file, piece, offset).map_err(|e| self.failed(Step::Write, e))?;
            piece = piece.get(written..).unwrap_or_default();
            offset = offset.checked_add(written as u64).ok_or_else(|| self.protocol())?;
        }
        Ok(())
    }
}
