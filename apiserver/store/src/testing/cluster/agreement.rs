//! Invariant: whatever two members apply at one index of the log is the same, and what is committed stays so. A witness
//! knows of it the term at least.

use std::collections::BTreeMap;

use raft::eraftpb::Entry;

/// What was applied, by whoever applied it first.
#[derive(Default)]
pub(super) struct Agreement {
    entries: BTreeMap<u64, Entry>,
    /// What a witness applied, by the term.
    witnessed: BTreeMap<u64, u64>,
}

impl Agreement {
    pub(super) fn applied(&mut self, member: u64, entry: Entry) {
        if let Some(first) = self.entries.get(&entry.index) {
            let same = (first.term, first.entry_type, &first.data) == (entry.term, entry.entry_type, &entry.data);
            assert!(same, "member {member:x} applied another entry at {} than those before", entry.index);
            return;
        }
        let witnessed = self.witnessed.get(&entry.index).is_none_or(|term| *term == entry.term);
        assert!(witnessed, "member {member:x} applied another entry at {} than a witness", entry.index);
        self.entries.insert(entry.index, entry);
    }

    /// A witness applied an entry.
    pub(super) fn witnessed(&mut self, entry: &Entry) {
        let first = *self.witnessed.entry(entry.index).or_insert(entry.term);
        let other = self.entries.get(&entry.index);
        let same = first == entry.term && other.is_none_or(|other| other.term == entry.term);
        assert!(same, "a witness applied another entry at {} than those before", entry.index);
        let bare = other.is_none_or(|other| entry.data.is_empty() || entry.data == other.data);
        assert!(bare, "a witness applied something else at {}", entry.index);
    }

    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(&index)
    }
}
