//! Programs are run on an interpreter of the few instructions used, and compared with what the rules say.

use proptest::prelude::*;

use super::*;
use crate::seccomp::{Rule, profile};

/// Runs a program on one system call.
fn run(program: &[libc::sock_filter], number: u32, arguments: [u64; 6]) -> u32 {
    let load = |offset: u32| match offset {
        OFFSET_NUMBER => number,
        OFFSET_ARCHITECTURE => ARCHITECTURE,
        _ => {
            let place = offset - OFFSET_ARGUMENTS;
            let value = arguments[(place / 8) as usize];
            u32::try_from(if place.is_multiple_of(8) { value & 0xffff_ffff } else { value >> 32 }).unwrap()
        }
    };
    let mut accumulator = 0;
    let mut next = 0;
    loop {
        let step = program[next];
        next += 1;
        let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
        match step.code {
            LOAD => accumulator = load(step.k),
            AND => accumulator &= step.k,
            JUMP_EQUAL => next += jump(accumulator == step.k),
            JUMP_GREATER => next += jump(accumulator > step.k),
            JUMP_GREATER_EQUAL => next += jump(accumulator >= step.k),
            RETURN => return step.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn holds(argument: &Argument, value: u64) -> bool {
    match argument.operator {
        Operator::Equal => value == argument.value,
        Operator::NotEqual => value != argument.value,
        Operator::Less => value < argument.value,
        Operator::LessOrEqual => value <= argument.value,
        Operator::Greater => value > argument.value,
        Operator::GreaterOrEqual => value >= argument.value,
        Operator::MaskedEqual => value & argument.mask == argument.value,
    }
}

fn call(name: &str, arguments: [u64; 6], capabilities: u64) -> u32 {
    let program = compile(&profile::profile(capabilities)).unwrap();
    run(&program, syscalls::number(name).unwrap(), arguments)
}

#[test]
fn the_default_profile_allows_and_refuses_what_it_should() {
    let allow = answer(Action::Allow);
    let refuse = answer(Action::Errno(libc::EPERM));
    assert_eq!(call("read", [0; 6], 0), allow);
    assert_eq!(call("keyctl", [0; 6], 0), refuse);
    assert_eq!(call("io_uring_setup", [0; 6], 0), refuse);
    assert_eq!(call("unshare", [0; 6], 0), refuse);
    assert_eq!(call("unshare", [0; 6], capability_bit("SYS_ADMIN")), allow);
    assert_eq!(call("clone3", [0; 6], 0), answer(Action::Errno(libc::ENOSYS)));
    assert_eq!(call("clone", [0x11, 0, 0, 0, 0, 0], 0), allow);
    assert_eq!(call("clone", [0x1000_0011, 0, 0, 0, 0, 0], 0), refuse);
    assert_eq!(call("socket", [2, 1, 0, 0, 0, 0], 0), allow);
    assert_eq!(call("socket", [40, 1, 0, 0, 0, 0], 0), refuse);
    assert_eq!(call("personality", [0xffff_ffff, 0, 0, 0, 0, 0], 0), allow);
    assert_eq!(call("personality", [0x40000, 0, 0, 0, 0, 0], 0), refuse);
}

fn capability_bit(name: &str) -> u64 {
    crate::capability::bit(name)
}

#[test]
fn a_call_newer_than_the_table_does_not_exist() {
    let program = compile(&profile::profile(0)).unwrap();
    assert_eq!(run(&program, syscalls::NEWEST + 1, [0; 6]), answer(Action::Errno(libc::ENOSYS)));
    assert_eq!(run(&program, 0x4000_0001, [0; 6]), answer(Action::Errno(libc::ENOSYS)));
}

fn argument() -> impl Strategy<Value = Argument> {
    let operator = prop_oneof![
        Just(Operator::Equal),
        Just(Operator::NotEqual),
        Just(Operator::Less),
        Just(Operator::LessOrEqual),
        Just(Operator::Greater),
        Just(Operator::GreaterOrEqual),
        Just(Operator::MaskedEqual),
    ];
    (0..6u32, operator, value(), value()).prop_map(|(index, operator, value, mask)| Argument {
        index,
        operator,
        value: if operator == Operator::MaskedEqual { value & mask } else { value },
        mask,
    })
}

/// Values near one another in either half, so that all branches are taken.
fn value() -> impl Strategy<Value = u64> {
    (0..3u64, 0..3u64).prop_map(|(high, low)| high << 32 | low)
}

proptest! {
    #[test]
    fn a_program_decides_as_its_rules_read(
        rules in proptest::collection::vec(proptest::collection::vec(argument(), 1..4), 1..5),
        arguments in proptest::array::uniform6(value()),
    ) {
        let profile = Profile {
            default_action: Action::Errno(1),
            rules: rules
                .iter()
                .enumerate()
                .map(|(place, arguments)| Rule {
                    names: vec!["read".to_owned()],
                    action: Action::Errno(i32::try_from(place).unwrap() + 10),
                    arguments: arguments.clone(),
                })
                .collect(),
        };
        let expected = profile
            .rules
            .iter()
            .find(|rule| rule.arguments.iter().all(|check| holds(check, arguments[check.index as usize])))
            .map_or(profile.default_action, |rule| rule.action);
        let program = compile(&profile).unwrap();
        prop_assert_eq!(run(&program, syscalls::number("read").unwrap(), arguments), answer(expected));
    }
}
