//! A job's standard input: its script.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};
use rustix::pipe::PipeFlags;

/// The most that fits into a pipe at once, in bytes.
pub(crate) const PIPE_CAPACITY: usize = 64 * 1024;

/// Makes a descriptor that yields the script and then ends: a pipe when it fits, else a memory file that nobody can
/// change any more.
pub(crate) fn of(script: &[u8]) -> io::Result<OwnedFd> {
    if script.len() <= PIPE_CAPACITY
        && let Some(pipe) = pipe(script)?
    {
        return Ok(pipe);
    }
    memory_file(script)
}

/// Fills a pipe; `None` when the kernel gave a smaller one.
fn pipe(script: &[u8]) -> io::Result<Option<OwnedFd>> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // The job's user may open /dev/stdin anew; whose id that is, only the inside knows.
    rustix::fs::fchmod(&reader, Mode::RUSR | Mode::RGRP | Mode::ROTH)?;
    if script.is_empty() {
        return Ok(Some(reader));
    }
    // Of the writer's end alone: the job's end blocks as usual.
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK)?;
    let written = match rustix::io::write(&writer, script) {
        Err(rustix::io::Errno::AGAIN) => 0,
        written => written?,
    };
    Ok((written == script.len()).then_some(reader))
}

fn memory_file(script: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("script", flags)?;
    let mut rest = script;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn every_length_is_read_whole() {
        for length in [0, 1, 4_096, PIPE_CAPACITY - 1, PIPE_CAPACITY, PIPE_CAPACITY + 1, 1 << 20] {
            let script: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let mut read = Vec::new();
            File::from(of(&script).unwrap()).read_to_end(&mut read).unwrap();
            assert!(read == script, "{length}");
        }
    }

    #[test]
    fn a_large_script_cannot_be_changed() {
        let mut file = File::from(of(&vec![b' '; PIPE_CAPACITY + 1]).unwrap());
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
    }
}
