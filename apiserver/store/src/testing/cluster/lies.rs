//! Packets no correct member sends, made from ones it sent.

use crate::{packet::Packet, testing::world::Dice};

/// A number that is about right, or far off.
fn number(dice: &mut Dice, right: u64) -> u64 {
    match dice.below(6) {
        0 => 0,
        1 => u64::MAX - dice.next() % 3,
        2 => dice.next(),
        3 => right.wrapping_add(1 + dice.next() % 5),
        4 => right.wrapping_sub(1 + dice.next() % 5),
        _ => right,
    }
}

/// The packet with something in it changed: a part of what it says, or a byte.
pub(super) fn lie(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match Packet::decode(&bytes) {
        Ok(Packet::Raft(mut message)) if !dice.once_in(3) => {
            for _ in 0..1 + dice.below(2) {
                match dice.below(9) {
                    0 => message.term = number(dice, message.term),
                    1 => message.log_term = number(dice, message.log_term),
                    2 => message.index = number(dice, message.index),
                    3 => message.commit = number(dice, message.commit),
                    4 => message.commit_term = number(dice, message.commit_term),
                    5 => message.reject_hint = number(dice, message.reject_hint),
                    6 => message.reject = !message.reject,
                    7 => message.context = vec![7; dice.below(70)].into(),
                    _ => {
                        for entry in message.entries.iter_mut() {
                            if dice.once_in(3) {
                                entry.index = number(dice, entry.index);
                            }
                            if dice.once_in(3) {
                                entry.term = number(dice, entry.term);
                            }
                        }
                    }
                }
            }
            Packet::Raft(message).encode()
        }
        _ => {
            for _ in 0..1 + dice.below(3) {
                let at = dice.below(bytes.len());
                bytes[at] = bytes[at].wrapping_add(1 + u8::try_from(dice.below(255)).unwrap());
            }
            if dice.once_in(4) {
                bytes.truncate(dice.below(bytes.len()));
            }
            bytes
        }
    }
}
