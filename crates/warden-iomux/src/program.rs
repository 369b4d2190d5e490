//! iomux's own program, out of the reach of what it starts.
//!
//! The init of a container is a copy of iomux, so /proc/self/exe of what asks to be run by its own maker's program
//! (`#!/proc/self/exe`) leads to a file of the host's. It must not be writable from there, whoever is root inside
//! (CVE-2019-5736).

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use warden_linux::mount::{self, Attributes};
use warden_linux::{file, process};

/// The process's name.
const NAME: &std::ffi::CStr = c"iomux";
const OWN: &str = "/proc/self/exe";

/// Makes sure that this process's program is on a read-only mount: starts it again from one if it is not. Needs
/// CAP_SYS_ADMIN then.
pub fn protect() -> io::Result<()> {
    if file::is_read_only(file::open_place(Path::new(OWN))?)? {
        return process::set_name(NAME);
    }
    let tree = mount::copy(Path::new(OWN), false)?;
    mount::set_attributes(tree.as_fd(), Attributes::MOUNT_ATTR_RDONLY, None, false)?;
    if !file::is_read_only(&tree)? {
        return Err(io::Error::other("a read-only mount of it can be written to"));
    }
    let arguments = std::env::args_os().map(OsStringExt::into_vec);
    let environment =
        std::env::vars_os().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let arguments = arguments.map(CString::new).collect::<Result<Vec<_>, _>>()?;
    let environment = environment.map(CString::new).collect::<Result<Vec<_>, _>>()?;
    Err(process::execute(tree.as_fd(), &arguments, &environment))
}
