//! Makes the filter of system calls out of the rules: a search tree for each way in which programs call this kernel.
//!
//! The kernel asks at each call; where the answer does not hang on an argument it remembers it and asks no more
//! (Linux 5.11). The tree keeps the rest short, about ten instructions.

use warden_linux::seccomp::Instruction;

use super::capabilities::Capabilities;
use super::numbers::NUMBERS;
use super::rules::{Answer, Condition, GROUPS};
use program::{Place, Program, Test};

mod program;

/// A way of calling the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86; its other kind of calls, x32, does not exist.
    X86_64,
    /// 32-bit x86.
    I386,
    /// 64-bit ARM.
    Aarch64,
}

/// The ways of this machine; a program that calls in another one is killed.
#[cfg(target_arch = "x86_64")]
pub const NATIVE: &[Architecture] = &[Architecture::X86_64, Architecture::I386];
/// The ways of this machine; a program that calls in another one is killed.
#[cfg(target_arch = "aarch64")]
pub const NATIVE: &[Architecture] = &[Architecture::Aarch64];

impl Architecture {
    /// AUDIT_ARCH_ of linux/audit.h.
    pub const fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The calls that it has: each with its place in the table, and its number.
    fn calls(self) -> impl Iterator<Item = (usize, u32)> {
        let own = move |(place, &(_, x86_64, i386, aarch64)): (usize, &(&str, i16, i16, i16))| {
            let number = match self {
                Self::X86_64 => x86_64,
                Self::I386 => i386,
                Self::Aarch64 => aarch64,
            };
            Some((place, u32::try_from(number).ok()?))
        };
        NUMBERS.iter().enumerate().filter_map(own)
    }
}

/// The answers to the calls of the table, in its order. Names are looked up by the compiler: each container's start makes
/// a filter.
const ANSWERS: [Answer; NUMBERS.len()] = {
    let mut answers = [Answer::Absent; NUMBERS.len()];
    let mut group = 0;
    while group < GROUPS.len() {
        let mut name = 0;
        while name < GROUPS[group].names.len() {
            answers[place(GROUPS[group].names[name])] = GROUPS[group].answer;
            name += 1;
        }
        group += 1;
    }
    answers
};

/// The place of a name in the table; one that is missing there is an error of the compiler.
const fn place(name: &str) -> usize {
    let (mut low, mut high) = (0, NUMBERS.len());
    while low < high {
        let middle = (low + high) / 2;
        if is_before(NUMBERS[middle].0.as_bytes(), name.as_bytes()) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    assert!(!is_before(name.as_bytes(), NUMBERS[low].0.as_bytes()), "a call without a number");
    low
}

/// The order of the table.
const fn is_before(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() {
        if one[at] != other[at] {
            return one[at] < other[at];
        }
        at += 1;
    }
    one.len() < other.len()
}

/// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What the filter returns: the verdict, and an errno in its lower half.
const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const REFUSE: u32 = 0x0005_0000 | EPERM;
const ABSENT: u32 = 0x0005_0000 | ENOSYS;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Makes the filter for programs that can have these capabilities.
pub fn compile(architectures: &[Architecture], capabilities: Capabilities) -> Vec<Instruction> {
    let mut program = Program::default();
    let mut others = program.verdict(KILL_PROCESS);
    for architecture in architectures.iter().rev() {
        let tree = tree(&ranges(*architecture, capabilities), &mut program);
        let calls = program.load(NUMBER, tree);
        others = program.branch(Test::Equal(architecture.audit_number()), calls, others);
    }
    program.load(ARCHITECTURE, others);
    program.finish()
}

/// From which number on which answer is given, in ascending order; the first is for 0.
fn ranges(architecture: Architecture, capabilities: Capabilities) -> Vec<(u32, Answer)> {
    let mut calls: Vec<(u32, Answer)> =
        architecture.calls().map(|(place, number)| (number, ANSWERS[place].resolve(capabilities))).collect();
    calls.sort_unstable_by_key(|(number, _)| *number);
    // Between and after the known ones there is nothing.
    let mut ranges = vec![(0, Answer::Absent)];
    let mut next = 0;
    let mut push = |from: u32, answer: Answer| match ranges.last_mut() {
        Some((_, last)) if *last == answer => {}
        Some(last) if last.0 == from => *last = (from, answer),
        _ => ranges.push((from, answer)),
    };
    for (number, answer) in calls {
        if number > next {
            push(next, Answer::Absent);
        }
        push(number, answer);
        next = number + 1;
    }
    push(next, Answer::Absent);
    ranges
}

/// Writes a binary search over the ranges.
fn tree(ranges: &[(u32, Answer)], program: &mut Program) -> Place {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    match upper.first() {
        None => program.verdict(ABSENT),
        Some((_, answer)) if lower.is_empty() => leaf(*answer, program),
        Some((first, _)) => {
            let if_true = tree(upper, program);
            let if_false = tree(lower, program);
            program.branch(Test::AtLeast(*first), if_true, if_false)
        }
    }
}

fn leaf(given: Answer, program: &mut Program) -> Place {
    match given {
        Answer::Allow => program.verdict(ALLOW),
        Answer::AllowIf(condition) => check(condition, program),
        Answer::Absent => program.verdict(ABSENT),
        // Of these none is left once the capabilities are known.
        Answer::Refuse | Answer::Needs(_) | Answer::Unless(..) => program.verdict(REFUSE),
    }
}

fn check(condition: Condition, program: &mut Program) -> Place {
    let [refuse, allow] = [REFUSE, ALLOW].map(|verdict| program.verdict(verdict));
    let (argument, first) = match condition {
        Condition::In { argument, values } => (argument, any_of(values, allow, refuse, program)),
        Condition::NotIn { argument, values } => (argument, any_of(values, refuse, allow, program)),
        Condition::Without { argument, bits } => {
            (argument, program.branch(Test::AnyBit(bits), refuse, allow))
        }
    };
    // Its lower half: these machines are little-endian.
    program.load(ARGUMENTS + 8 * u32::from(argument), first)
}

/// Compares with each of the values.
fn any_of(values: &[u32], if_found: Place, if_not: Place, program: &mut Program) -> Place {
    values.iter().rev().fold(if_not, |next, value| program.branch(Test::Equal(*value), if_found, next))
}

#[cfg(test)]
mod tests;
