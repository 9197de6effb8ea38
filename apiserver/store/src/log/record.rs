//! What stands in a frame: entries, and the hard state.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState};

use super::frame::Frame;
use crate::codec::{Malformed, Reader};

/// A record of an entry.
pub(super) const ENTRY: u8 = 1;
/// A record of the hard state.
pub(super) const HARD_STATE: u8 = 2;

/// The type of an entry that holds a command.
pub(super) const NORMAL: u8 = 0;

pub(super) fn put_hard_state(frame: &mut Frame, state: &HardState) {
    frame.record(HARD_STATE, &[&state.term.to_le_bytes(), &state.vote.to_le_bytes(), &state.commit.to_le_bytes()]);
}

/// An entry's type as a byte.
pub(crate) const fn entry_type(entry: &Entry) -> u8 {
    match entry.entry_type {
        EntryType::EntryNormal => NORMAL,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    }
}

/// The type a byte stands for.
pub(crate) const fn entry_type_of(byte: u8) -> Result<EntryType, Malformed> {
    match byte {
        NORMAL => Ok(EntryType::EntryNormal),
        1 => Ok(EntryType::EntryConfChange),
        2 => Ok(EntryType::EntryConfChangeV2),
        _ => Err(Malformed("entry of an unknown type")),
    }
}

pub(super) fn put_entry(frame: &mut Frame, entry: &Entry) -> usize {
    let entry_type = entry_type(entry);
    frame.record(ENTRY, &[&entry.index.to_le_bytes(), &entry.term.to_le_bytes(), &[entry_type], &entry.data])
}

pub(super) fn get_entry(body: &[u8]) -> Result<Entry, Malformed> {
    let mut from = Reader(body);
    let (index, term) = (from.u64()?, from.u64()?);
    let entry_type = entry_type_of(from.u8()?)?;
    Ok(Entry { index, term, entry_type, data: Bytes::copy_from_slice(from.0), ..Entry::default() })
}
