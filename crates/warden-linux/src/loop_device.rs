//! Loop devices: a file as a block device.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

const LOOP_CONFIGURE: u32 = 0x4c0a;
const LOOP_CLR_FD: u32 = 0x4c01;
const LOOP_CTL_GET_FREE: u32 = 0x4c82;
/// The kernel frees the device when nobody has it open or mounted any more.
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_config`, with the `struct loop_info64` in it.
#[repr(C)]
struct Configuration {
    file: u32,
    block_size: u32,
    numbers: [u64; 5],
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    name: [u8; 64],
    secrets: [u8; 96],
    rest: [u64; 10],
}

const _: () = assert!(size_of::<Configuration>() == 304);

/// How often another program may take the free device first.
const ATTEMPTS: usize = 16;

/// Makes an open file a block device until that is closed everywhere and unmounted; gives its path, and what keeps it.
pub fn attach(file: BorrowedFd<'_>) -> io::Result<(PathBuf, File)> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..ATTEMPTS {
        // SAFETY: the request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number == -1 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        match configure(&device, file) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            done => return done.map(|()| (path, device)),
        }
    }
    Err(io::Error::from(rustix::io::Errno::BUSY))
}

/// Detaches a block device from its file, at once or when its last user lets go of it; one without a file is well.
pub fn release(path: &Path) -> io::Result<()> {
    let device = OpenOptions::new().read(true).open(path)?;
    // SAFETY: the request takes no argument.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _, 0) };
    match (result, io::Error::last_os_error()) {
        (-1, error) if error.raw_os_error() != Some(libc::ENXIO) => Err(error),
        _ => Ok(()),
    }
}

fn configure(device: &File, file: BorrowedFd<'_>) -> io::Result<()> {
    let configuration = Configuration {
        file: file.as_raw_fd() as u32,
        block_size: 0,
        numbers: [0; 5],
        number: 0,
        encryption: [0; 2],
        flags: LO_FLAGS_AUTOCLEAR,
        name: [0; 64],
        secrets: [0; 96],
        rest: [0; 10],
    };
    // SAFETY: the kernel reads the structure of this request, which lives through the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const configuration) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
