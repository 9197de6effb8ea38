//! Which devices a group of cgroup v2 may use, as the BPF program the kernel asks at every use (bpf(2),
//! `BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! The kernel calls it with the kind of device, what is to be done with it and its numbers, and denies what it answers 0
//! to. The programs of the groups above are asked as well.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::DeviceRule;
use crate::sys;

/// Registers: the answer, the context (and a spare, once that is read), kind, what is to be done, major and minor number.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Operations on 32 bits (Linux, `Documentation/bpf/standardization/instruction-set.rst`).
const LOAD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const JUMP_UNLESS_REGISTERS_EQUAL: u8 = 0x5e;
const EXIT: u8 = 0x95;

/// One instruction: operation, registers, how far to jump or where to read, a number.
fn instruction(operation: u8, to: u8, from: u8, offset: i16, number: u32) -> u64 {
    u64::from(operation)
        | u64::from(to | from << 4) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(number) << 32
}

/// What the kernel asks with: `access << 16 | kind`, major, minor, four bytes each.
fn read_context() -> [u64; 6] {
    [
        instruction(LOAD, KIND, CONTEXT, 0, 0),
        instruction(LOAD, ACCESS, CONTEXT, 0, 0),
        instruction(LOAD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD, MINOR, CONTEXT, 8, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
    ]
}

/// Tests that all must hold, then the answer yes.
fn rule(rule: &DeviceRule) -> Option<Vec<u64>> {
    const BLOCK: u32 = 1;
    const CHARACTER: u32 = 2;
    let mut tests = Vec::new();
    match rule.kind {
        'b' => tests.push((JUMP_UNLESS_EQUAL, KIND, 0, BLOCK)),
        'c' => tests.push((JUMP_UNLESS_EQUAL, KIND, 0, CHARACTER)),
        _ => {}
    }
    for (register, wanted) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = wanted {
            // A number the kernel has no device for allows none.
            tests.push((JUMP_UNLESS_EQUAL, register, 0, u32::try_from(number).ok()?));
        }
    }
    let allowed = rule.permissions.chars().fold(0, |all, letter| {
        all | match letter {
            'm' => 1,
            'r' => 2,
            'w' => 4,
            _ => 0,
        }
    });
    let mut program = Vec::new();
    // Everything that is to be done must be allowed: nothing of it is lost where the two are masked.
    let mask = [instruction(MOVE_REGISTER, CONTEXT, ACCESS, 0, 0), instruction(AND, CONTEXT, 0, 0, allowed)];
    let yes = [instruction(MOVE, ANSWER, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)];
    // Each test jumps over what follows it in this rule.
    let rest = |following: usize| i16::try_from(following).ok();
    for (place, (operation, to, from, number)) in tests.iter().enumerate() {
        let following = tests.len() - place - 1 + mask.len() + 1 + yes.len();
        program.push(instruction(*operation, *to, *from, rest(following)?, *number));
    }
    program.extend(mask);
    program.push(instruction(JUMP_UNLESS_REGISTERS_EQUAL, CONTEXT, ACCESS, rest(yes.len())?, 0));
    program.extend(yes);
    Some(program)
}

fn assemble(rules: &[DeviceRule]) -> Vec<u64> {
    let mut program = read_context().to_vec();
    program.extend(rules.iter().filter_map(rule).flatten());
    program.extend([instruction(MOVE, ANSWER, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

/// Gives the kernel a program that allows what the rules name and nothing else.
///
/// # Errors
/// When the kernel has no such programs, or we may not load one.
pub(super) fn load(rules: &[DeviceRule]) -> io::Result<OwnedFd> {
    sys::load_device_program(&assemble(rules)).map_err(|error| super::annotate(&error, "load a program for devices"))
}

/// Makes a group and those below it ask the program, which lives as long as the group.
pub(super) fn attach(program: &OwnedFd, directory: &Path) -> io::Result<()> {
    let group = fs::File::open(directory)?;
    sys::attach_device_program(program.as_fd(), group.as_fd())
        .map_err(|error| super::annotate(&error, &format!("attach a program for devices to {}", directory.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_instructions_the_kernel_documents() {
        let rule = DeviceRule { kind: 'c', major: Some(1), minor: Some(3), permissions: "rw".to_owned() };
        let program = assemble(&[rule]);
        let shown: Vec<String> = program.iter().map(|word| format!("{:016x}", word.swap_bytes())).collect();
        assert_eq!(
            shown,
            [
                "6112000000000000",
                "6113000000000000",
                "6114040000000000",
                "6115080000000000",
                "54020000ffff0000",
                "7403000010000000",
                "5602070002000000",
                "5604060001000000",
                "5605050003000000",
                "bc31000000000000",
                "5401000006000000",
                "5e31020000000000",
                "b400000001000000",
                "9500000000000000",
                "b400000000000000",
                "9500000000000000",
            ]
        );
    }

    #[test]
    fn a_number_beyond_every_device_allows_nothing() {
        let rule = DeviceRule { kind: 'c', major: Some(u64::MAX), minor: None, permissions: "rwm".to_owned() };
        assert_eq!(assemble(&[rule]), assemble(&[]));
    }
}
