//! Invariant: whatever two members apply at one index of the log is the same, and what is committed stays so.

use std::collections::BTreeMap;

use raft::eraftpb::Entry;

/// What was applied, by whoever applied it first.
#[derive(Default)]
pub(super) struct Agreement {
    entries: BTreeMap<u64, Entry>,
}

impl Agreement {
    pub(super) fn applied(&mut self, member: u64, entry: Entry) {
        if let Some(first) = self.entries.get(&entry.index) {
            let same = (first.term, first.entry_type, &first.data) == (entry.term, entry.entry_type, &entry.data);
            assert!(same, "member {member:x} applied another entry at {} than those before", entry.index);
            return;
        }
        self.entries.insert(entry.index, entry);
    }

    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(&index)
    }
}
