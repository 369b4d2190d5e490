//! Filters of system calls, in the instructions of classic BPF.
#![allow(unsafe_code)]

use std::io;

/// One instruction: the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// Instructions that are jumped over where its condition holds.
    pub if_true: u8,
    /// And where it does not.
    pub if_false: u8,
    /// Its operand.
    pub operand: u32,
}

/// The most instructions that the kernel takes.
const MOST_INSTRUCTIONS: usize = 4096;

/// Has each system call of this thread, and of what it starts from now on, pass a filter.
///
/// Needs CAP_SYS_ADMIN in this user namespace, or no_new_privs. SECCOMP_FILTER_FLAG_SPEC_ALLOW is not set: where an
/// administrator asked for the mitigations of filtered programs (`spec_store_bypass_disable=seccomp`), these are meant.
pub fn install(filter: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).ok().filter(|length| usize::from(*length) <= MOST_INSTRUCTIONS);
    let Some(len) = length else { return Err(io::Error::from_raw_os_error(libc::E2BIG)) };
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies `len` instructions, whose layout is its own, during the call and writes none.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
