//! From a profile to a BPF program.
//!
//! ```text
//! architecture ≠ ours → EPERM    number > newest known → ENOSYS
//! calls that look at arguments, one block each;   then ranges of calls with one answer;   then the default
//! ```
//!
//! The kernel remembers which calls are allowed whatever their arguments (`SECCOMP_ARCH_NATIVE` bitmaps, Linux 5.11), so
//! the length of the program does not matter for those.

use std::collections::BTreeMap;

use super::{Action, Argument, Operator, Profile, syscalls};

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// A jump to the end of the alternative, filled in when its length is known.
const FAIL: u8 = u8::MAX;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;

/// Compiles a profile.
///
/// # Errors
/// A sentence when the architecture has no table, or a call to be refused has a name nobody knows (one to be allowed is
/// passed over, as profiles name the calls of many architectures).
pub(super) fn compile(profile: &Profile) -> Result<Vec<libc::sock_filter>, String> {
    if ARCHITECTURE == 0 {
        return Err("seccomp profiles are made for x86_64 and aarch64 only".to_owned());
    }
    let mut plain: BTreeMap<u32, Action> = BTreeMap::new();
    let mut conditional: BTreeMap<u32, Vec<(&[Argument], Action)>> = BTreeMap::new();
    for rule in &profile.rules {
        for name in &rule.names {
            let Some(number) = syscalls::number(name) else { continue };
            if rule.arguments.is_empty() {
                plain.entry(number).or_insert(rule.action);
            } else {
                conditional.entry(number).or_default().push((&rule.arguments, rule.action));
            }
        }
    }

    let mut program = vec![
        instruction(LOAD, OFFSET_ARCHITECTURE),
        jump(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        instruction(RETURN, answer(Action::Errno(libc::EPERM))),
        instruction(LOAD, OFFSET_NUMBER),
        jump(JUMP_GREATER, syscalls::NEWEST, 0, 1),
        instruction(RETURN, answer(Action::Errno(libc::ENOSYS))),
    ];
    for (number, alternatives) in &conditional {
        let mut block = Vec::new();
        for (arguments, action) in alternatives {
            block.extend(alternative(arguments, *action)?);
        }
        let otherwise = plain.remove(number).unwrap_or(profile.default_action);
        block.push(instruction(RETURN, answer(otherwise)));
        let length = u8::try_from(block.len()).map_err(|_| "too many rules for one system call".to_owned())?;
        program.push(jump(JUMP_EQUAL, *number, 0, length));
        program.append(&mut block);
    }
    for (first, last, action) in ranges(&plain) {
        program.push(jump(JUMP_GREATER_EQUAL, first, 0, 2));
        program.push(jump(JUMP_GREATER, last, 1, 0));
        program.push(instruction(RETURN, answer(action)));
    }
    program.push(instruction(RETURN, answer(profile.default_action)));
    if program.len() > 4096 {
        return Err("profile is longer than the kernel takes".to_owned());
    }
    Ok(program)
}

fn ranges(plain: &BTreeMap<u32, Action>) -> Vec<(u32, u32, Action)> {
    let mut ranges: Vec<(u32, u32, Action)> = Vec::new();
    for (number, action) in plain {
        match ranges.last_mut() {
            Some((_, last, same)) if *last + 1 == *number && same == action => *last = *number,
            _ => ranges.push((*number, *number, *action)),
        }
    }
    ranges
}

/// Checks of arguments that all must hold, and what is returned when they do; it falls through when they do not.
fn alternative(arguments: &[Argument], action: Action) -> Result<Vec<libc::sock_filter>, String> {
    let mut code = Vec::new();
    for argument in arguments {
        check(argument, &mut code);
    }
    code.push(instruction(RETURN, answer(action)));
    let end = code.len();
    for (place, step) in code.iter_mut().enumerate() {
        let distance = u8::try_from(end - place - 1).ok().filter(|distance| *distance < FAIL);
        let distance = distance.ok_or_else(|| "too many arguments in one rule".to_owned())?;
        if step.code & 7 == 5 {
            for target in [&mut step.jt, &mut step.jf] {
                if *target == FAIL {
                    *target = distance;
                }
            }
        }
    }
    Ok(code)
}

/// 64 bits are compared as two halves, the upper first.
fn check(argument: &Argument, code: &mut Vec<libc::sock_filter>) {
    let low = OFFSET_ARGUMENTS + 8 * argument.index;
    let high = low + 4;
    let half = |value: u64| (u32::try_from(value >> 32).unwrap_or(0), u32::try_from(value & 0xffff_ffff).unwrap_or(0));
    let (value_high, value_low) = half(argument.value);
    let (mask_high, mask_low) = half(argument.mask);
    match argument.operator {
        Operator::Equal => code.extend([
            instruction(LOAD, high),
            jump(JUMP_EQUAL, value_high, 0, FAIL),
            instruction(LOAD, low),
            jump(JUMP_EQUAL, value_low, 0, FAIL),
        ]),
        Operator::NotEqual => code.extend([
            instruction(LOAD, high),
            jump(JUMP_EQUAL, value_high, 0, 2),
            instruction(LOAD, low),
            jump(JUMP_EQUAL, value_low, FAIL, 0),
        ]),
        Operator::MaskedEqual => code.extend([
            instruction(LOAD, high),
            instruction(AND, mask_high),
            jump(JUMP_EQUAL, value_high, 0, FAIL),
            instruction(LOAD, low),
            instruction(AND, mask_low),
            jump(JUMP_EQUAL, value_low, 0, FAIL),
        ]),
        Operator::Greater | Operator::GreaterOrEqual => {
            let last = if argument.operator == Operator::Greater { JUMP_GREATER } else { JUMP_GREATER_EQUAL };
            code.extend([
                instruction(LOAD, high),
                jump(JUMP_GREATER, value_high, 3, 0),
                jump(JUMP_EQUAL, value_high, 0, FAIL),
                instruction(LOAD, low),
                jump(last, value_low, 0, FAIL),
            ]);
        }
        Operator::Less | Operator::LessOrEqual => {
            let last = if argument.operator == Operator::Less { JUMP_GREATER_EQUAL } else { JUMP_GREATER };
            code.extend([
                instruction(LOAD, high),
                jump(JUMP_GREATER, value_high, FAIL, 0),
                jump(JUMP_EQUAL, value_high, 0, 2),
                instruction(LOAD, low),
                jump(last, value_low, FAIL, 0),
            ]);
        }
    }
}

fn instruction(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// An action as the kernel's return value (`SECCOMP_RET_*`).
fn answer(action: Action) -> u32 {
    match action {
        Action::Allow => 0x7fff_0000,
        Action::Log => 0x7ffc_0000,
        Action::Trace(data) => 0x7ff0_0000 | u32::from(data),
        Action::Errno(number) => 0x0005_0000 | (number.unsigned_abs() & 0xffff),
        Action::Trap => 0x0003_0000,
        Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
    }
}

#[cfg(test)]
mod tests;
