//! A filter's program, written from its end. A jump can only lead forward: so what it leads to stands already, and
//! is shared where it is near enough. The kernel keeps two translations of each filter for each container that has it.

use warden_linux::seccomp::Instruction;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// As many instructions as a branch jumps over at most.
const REACH: usize = u8::MAX as usize;

/// What a branch asks of the value that was loaded last.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Equal(u32),
    AtLeast(u32),
    AnyBit(u32),
}

impl Test {
    fn code(self) -> u16 {
        match self {
            Self::Equal(_) => 0x15,
            Self::AtLeast(_) => 0x35,
            Self::AnyBit(_) => 0x45,
        }
    }

    fn operand(self) -> u32 {
        match self {
            Self::Equal(operand) | Self::AtLeast(operand) | Self::AnyBit(operand) => operand,
        }
    }
}

/// An instruction, by how many there are from it to the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

/// The part that is written, backwards.
#[derive(Debug, Default)]
pub(super) struct Program(Vec<Instruction>);

impl Program {
    /// Ends with a verdict.
    pub(super) fn verdict(&mut self, verdict: u32) -> Place {
        let reach = self.0.iter().rev().take(REACH);
        match reach.enumerate().find(|(_, found)| found.code == RETURN && found.operand == verdict) {
            Some((over, _)) => Place(self.0.len() - over),
            None => self.push(RETURN, verdict, [0, 0]),
        }
    }

    /// Loads a word of the kernel's `struct seccomp_data`, and goes on.
    pub(super) fn load(&mut self, offset: u32, then: Place) -> Place {
        if self.over(then) > 0 {
            self.jump(then);
        }
        self.push(LOAD, offset, [0, 0])
    }

    /// Goes on at one of two places.
    pub(super) fn branch(&mut self, test: Test, if_true: Place, if_false: Place) -> Place {
        let ways = [if_true, if_false].map(|way| if self.over(way) < REACH { way } else { self.jump(way) });
        // A jump that was written since has made the way one longer.
        debug_assert!(ways.iter().all(|way| self.over(*way) <= REACH), "a branch that does not reach");
        let over = ways.map(|way| u8::try_from(self.over(way)).unwrap_or(u8::MAX));
        self.push(test.code(), test.operand(), over)
    }

    /// The whole of it, in the order in which it runs.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.0.reverse();
        self.0
    }

    fn jump(&mut self, to: Place) -> Place {
        // More than the kernel takes anyway does not fit.
        let over = u32::try_from(self.over(to)).unwrap_or(u32::MAX);
        self.push(JUMP, over, [0, 0])
    }

    /// How many instructions the next one jumps over to get there.
    fn over(&self, place: Place) -> usize {
        self.0.len() - place.0
    }

    fn push(&mut self, code: u16, operand: u32, [if_true, if_false]: [u8; 2]) -> Place {
        self.0.push(Instruction { code, if_true, if_false, operand });
        Place(self.0.len())
    }
}
