//! The devices that a version 2 cgroup may use, as a BPF program that the kernel asks at each open and mknod.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A character device, or all of one major number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its major number.
    pub major: u32,
    /// Its minor number; all of them when absent.
    pub minor: Option<u32>,
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of the groups above stay in force: a device must be allowed by all of them.
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

/// What the kernel gives the program: its `struct bpf_cgroup_dev_ctx`.
#[repr(C)]
struct Context {
    /// The type in the low half, what is to be done in the high one.
    access_type: u32,
    major: u32,
    minor: u32,
}

/// One instruction: the kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// The destination in the low four bits, the source in the high ones.
    registers: u8,
    offset: i16,
    constant: i32,
}

/// Registers: the result; the context; type, major and minor number of what is asked for.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;

impl Instruction {
    /// Loads 32 bits at an offset of the context.
    fn load(register: u8, offset: usize) -> Self {
        const LDX_MEM_W: u8 = 0x61;
        Self { code: LDX_MEM_W, registers: register | CONTEXT << 4, offset: offset as i16, constant: 0 }
    }

    /// Clears the bits of a register that the constant lacks.
    fn and(register: u8, constant: i32) -> Self {
        const ALU_AND_K: u8 = 0x54;
        Self { code: ALU_AND_K, registers: register, offset: 0, constant }
    }

    /// Jumps over some instructions when a register is not equal to a constant.
    fn skip_unless(register: u8, constant: i32, over: i16) -> Self {
        const JMP_JNE_K: u8 = 0x55;
        Self { code: JMP_JNE_K, registers: register, offset: over, constant }
    }

    fn set(register: u8, constant: i32) -> Self {
        const ALU64_MOV_K: u8 = 0xb7;
        Self { code: ALU64_MOV_K, registers: register, offset: 0, constant }
    }

    fn exit() -> Self {
        const JMP_EXIT: u8 = 0x95;
        Self { code: JMP_EXIT, registers: 0, offset: 0, constant: 0 }
    }
}

/// The program: 1 for a listed character device, 0 for all else.
fn assemble(allowed: &[Device]) -> Vec<Instruction> {
    let answer = |allow: i32| [Instruction::set(RESULT, allow), Instruction::exit()];
    let mut program = vec![
        Instruction::load(TYPE, offset_of!(Context, access_type)),
        Instruction::and(TYPE, 0xffff),
        Instruction::load(MAJOR, offset_of!(Context, major)),
        Instruction::load(MINOR, offset_of!(Context, minor)),
        Instruction::skip_unless(TYPE, BPF_DEVCG_DEV_CHAR, 0),
    ];
    let type_check = program.len() - 1;
    for device in allowed {
        // A device's numbers have 12 and 20 bits: they are no negative constants.
        program.push(Instruction::skip_unless(
            MAJOR,
            device.major as i32,
            if device.minor.is_some() { 3 } else { 2 },
        ));
        program.extend(device.minor.map(|minor| Instruction::skip_unless(MINOR, minor as i32, 2)));
        program.extend(answer(1));
    }
    // What is no character device goes to the refusal at the end.
    program[type_check].offset = (program.len() - type_check - 1) as i16;
    program.extend(answer(0));
    program
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD; what a longer union has behind it is 0.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The same for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// A program that lets processes use some devices, make nodes of them, and use no others; one serves many cgroups.
#[derive(Debug)]
pub struct DeviceProgram(OwnedFd);

impl DeviceProgram {
    /// Has the kernel check and keep the program for these devices.
    pub fn load(allowed: &[Device]) -> io::Result<Self> {
        load(&assemble(allowed)).map(Self)
    }

    /// Confines the processes of a cgroup and of those below it. The cgroup keeps the program.
    pub fn attach(&self, cgroup: BorrowedFd<'_>) -> io::Result<()> {
        let attributes = Attach {
            target: cgroup.as_raw_fd() as u32,
            program: self.0.as_raw_fd() as u32,
            kind: BPF_CGROUP_DEVICE,
            flags: BPF_F_ALLOW_MULTI,
        };
        bpf(BPF_PROG_ATTACH, &attributes).map(drop)
    }
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instructions: program.len() as u32,
        program: program.as_ptr() as u64,
        // It calls nothing that asks for a license.
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: the kernel returned a new descriptor, close-on-exec as all of BPF's, that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `attributes` for the stated length, and what they point to, all of which outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// Runs a program as the kernel would.
    fn ask(program: &[Instruction], context: [u32; 3]) -> i64 {
        let mut registers = [0_i64; 5];
        let mut next = 0;
        loop {
            let now = program[next];
            let to = usize::from(now.registers & 15);
            next += 1;
            match now.code {
                0x61 => registers[to] = context[now.offset as usize / 4].into(),
                0x54 => registers[to] &= i64::from(now.constant),
                0x55 if registers[to] != now.constant.into() => next += now.offset as usize,
                0x55 => {}
                0xb7 => registers[to] = now.constant.into(),
                0x95 => return registers[0],
                other => panic!("code {other:#x}"),
            }
        }
    }

    #[test]
    fn listed_character_devices_are_allowed_and_nothing_else() {
        let program = assemble(&[Device { major: 1, minor: Some(3) }, Device { major: 136, minor: None }]);
        let (block, character, reading, making) = (1, 2, 2 << 16, 1 << 16);
        for access in [reading, making, 4 << 16, 7 << 16] {
            assert_eq!(ask(&program, [access | character, 1, 3]), 1);
            assert_eq!(ask(&program, [access | character, 136, 77]), 1);
            assert_eq!(ask(&program, [access | character, 1, 1]), 0);
            assert_eq!(ask(&program, [access | character, 3, 3]), 0);
            assert_eq!(ask(&program, [access | block, 1, 3]), 0);
        }
        let none = assemble(&[]);
        assert_eq!((ask(&none, [reading | character, 1, 3]), ask(&none, [reading | block, 8, 0])), (0, 0));
    }

    #[test]
    fn the_kernel_takes_the_program() {
        let device = |minor| Device { major: 1, minor: Some(minor) };
        load(&assemble(&(0..100).map(device).collect::<Vec<_>>())).unwrap();
        load(&assemble(&[])).unwrap();
    }

    #[test]
    fn a_directory_that_is_no_cgroup_is_refused() {
        let directory = std::fs::File::open("/").unwrap();
        assert!(DeviceProgram::load(&[]).unwrap().attach(directory.as_fd()).is_err());
    }
}
