use std::collections::BTreeMap;

use super::super::capabilities::{Capabilities, DEFAULT};
use super::*;

/// Instructions.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALL: [Architecture; 3] = [Architecture::X86_64, Architecture::I386, Architecture::Aarch64];

/// What the kernel does with a filter; gives the verdict and how many instructions it took.
fn run(filter: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let word = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => architecture,
        _ => {
            let (index, upper) = ((offset - ARGUMENTS) / 8, (offset - ARGUMENTS) % 8 == 4);
            (arguments[index as usize] >> if upper { 32 } else { 0 }) as u32
        }
    };
    let (mut at, mut register, mut steps) = (0, 0, 0);
    loop {
        let Instruction { code, if_true, if_false, operand } = filter[at];
        at += 1;
        steps += 1;
        let branch = |holds: bool| usize::from(if holds { if_true } else { if_false });
        match code {
            LOAD => register = word(operand),
            JUMP => at += operand as usize,
            IF_EQUAL => at += branch(register == operand),
            IF_AT_LEAST => at += branch(register >= operand),
            IF_ANY_BIT => at += branch(register & operand != 0),
            RETURN => return (operand, steps),
            _ => panic!("instruction {code:#x}"),
        }
    }
}

fn verdict(architecture: Architecture, capabilities: Capabilities, name: &str, arguments: [u64; 6]) -> u32 {
    let number = architecture.calls().find(|(place, _)| NUMBERS[*place].0 == name).unwrap().1;
    run(&compile(&ALL, capabilities), architecture.audit_number(), number, arguments).0
}

#[test]
fn every_call_is_in_exactly_one_group() {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    GROUPS.iter().flat_map(|group| group.names).for_each(|name| *groups.entry(name).or_default() += 1);
    assert!(groups.values().all(|count| *count == 1), "{groups:?}");
    let numbered: Vec<&str> = NUMBERS.iter().map(|row| row.0).collect();
    assert!(numbered.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(groups.keys().copied().collect::<Vec<_>>(), numbered);
}

#[test]
fn the_filter_answers_as_the_rules_say() {
    for capabilities in [DEFAULT, Capabilities::ALL] {
        let filter = compile(&ALL, capabilities);
        for architecture in ALL {
            for (place, number) in architecture.calls() {
                let name = NUMBERS[place].0;
                let group = GROUPS.iter().find(|group| group.names.contains(&name)).unwrap();
                let expected = match group.answer.resolve(capabilities) {
                    Answer::Allow => ALLOW,
                    Answer::Absent => ABSENT,
                    Answer::Refuse => REFUSE,
                    Answer::AllowIf(_) => continue,
                    other => panic!("{name}: {other:?}"),
                };
                let (given, steps) = run(&filter, architecture.audit_number(), number, [0; 6]);
                assert_eq!(given, expected, "{architecture:?} {name}");
                assert!(steps < 24, "{architecture:?} {name}: {steps} instructions");
            }
        }
    }
}

#[test]
fn what_is_not_known_does_not_exist() {
    let filter = compile(&ALL, DEFAULT);
    for architecture in ALL {
        let known: Vec<u32> = architecture.calls().map(|(_, number)| number).collect();
        // The last two are x32's read, and -1.
        let unknown = (0..700).filter(|number| !known.contains(number)).chain([0x4000_0000, u32::MAX]);
        for number in unknown {
            assert_eq!(run(&filter, architecture.audit_number(), number, [0; 6]).0, ABSENT, "{number}");
        }
    }
    assert_eq!(run(&compile(NATIVE, DEFAULT), 0x1234, 0, [0; 6]).0, KILL_PROCESS);
}

#[test]
fn arguments_decide_where_the_rules_say_so() {
    let of = |name, arguments: [u64; 6]| verdict(Architecture::X86_64, DEFAULT, name, arguments);
    let first = |value: u64| [value, 0, 0, 0, 0, 0];
    assert_eq!(of("clone", first(0x11)), ALLOW);
    for flag in [0x2_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(of("clone", first(flag | 0x11)), REFUSE, "{flag:#x}");
        assert_eq!(verdict(Architecture::X86_64, Capabilities::ALL, "clone", first(flag)), ALLOW);
    }
    assert_eq!(of("clone3", first(0)), ABSENT);
    for (persona, expected) in [(0, ALLOW), (0xffff_ffff, ALLOW), (0x2_0008, ALLOW), (0x4_0000, REFUSE)] {
        assert_eq!(of("personality", first(persona)), expected, "{persona:#x}");
    }
    assert_eq!((of("socket", first(2)), of("socket", first(40))), (ALLOW, REFUSE));
    // The kernel drops the upper half of such an argument, and so does the filter.
    assert_eq!(of("socket", first(40 | 1 << 32)), REFUSE);
    let request = |value: u64| of("ioctl", [0, value, 0, 0, 0, 0]);
    assert_eq!([0x5412, 0x541c, 0x5412 | 7 << 32, 0x5401].map(request), [REFUSE, REFUSE, REFUSE, ALLOW]);
}

#[test]
fn programs_of_32_bits_are_filtered_by_their_own_numbers() {
    let filter = compile(NATIVE, DEFAULT);
    // The kernel keeps a copy of it for each container.
    assert!(size_of_val(filter.as_slice()) <= 2048, "{} instructions", filter.len());
    let i386 = |number| run(&compile(&ALL, DEFAULT), Architecture::I386.audit_number(), number, [0; 6]).0;
    // mount, socketcall, mmap2, exit_group
    assert_eq!([21, 102, 192, 252].map(i386), [REFUSE, ALLOW, ALLOW, ALLOW]);
}

#[test]
fn capabilities_open_what_they_are_for() {
    for name in ["mount", "unshare", "setns", "bpf", "open_by_handle_at", "reboot", "init_module", "clone3"] {
        assert_eq!(verdict(Architecture::X86_64, Capabilities::ALL, name, [0; 6]), ALLOW, "{name}");
        assert_ne!(verdict(Architecture::X86_64, DEFAULT, name, [0; 6]), ALLOW, "{name}");
    }
    assert_eq!(verdict(Architecture::X86_64, Capabilities::ALL, "keyctl", [0; 6]), REFUSE);
}

#[test]
fn a_branch_reaches_what_is_far() {
    for between in [0, 253, 254, 255, 256, 257, 600] {
        let mut program = Program::default();
        let [even, odd] = [1, 2].map(|verdict| program.verdict(verdict));
        (0..between).for_each(|n| _ = program.verdict(100 + n));
        let far = program.branch(Test::AnyBit(1), odd, even);
        let again = program.verdict(1);
        let first = program.branch(Test::AtLeast(8), far, again);
        program.load(NUMBER, first);
        let filter = program.finish();
        for (number, expected) in [(0, 1), (7, 1), (8, 1), (9, 2)] {
            assert_eq!(run(&filter, 0, number, [0; 6]).0, expected, "{number} over {between}");
        }
    }
}

#[test]
fn conditions_hold_for_all_architectures() {
    for architecture in ALL {
        let filter = compile(&ALL, DEFAULT);
        for (place, number) in architecture.calls() {
            let Answer::AllowIf(condition) = ANSWERS[place].resolve(DEFAULT) else { continue };
            let (argument, tried) = match condition {
                Condition::In { argument, values } | Condition::NotIn { argument, values } => {
                    (argument, [values, &[0x00ab_cdef]].concat())
                }
                Condition::Without { argument, bits } => {
                    (argument, vec![bits, !bits, bits & bits.wrapping_neg(), 0])
                }
            };
            for value in tried {
                let allowed = match condition {
                    Condition::In { values, .. } => values.contains(&value),
                    Condition::NotIn { values, .. } => !values.contains(&value),
                    Condition::Without { bits, .. } => value & bits == 0,
                };
                let mut arguments = [0; 6];
                arguments[usize::from(argument)] = value.into();
                let (given, _) = run(&filter, architecture.audit_number(), number, arguments);
                let expected = if allowed { ALLOW } else { REFUSE };
                assert_eq!(given, expected, "{architecture:?} {} {value:#x}", NUMBERS[place].0);
            }
        }
    }
}
