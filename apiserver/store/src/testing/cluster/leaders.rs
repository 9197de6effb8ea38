//! Invariant: no term has two leaders.

use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Leaders(BTreeMap<u64, u64>);

impl Leaders {
    pub(super) fn leads(&mut self, member: u64, term: u64) {
        let first = *self.0.entry(term).or_insert(member);
        assert_eq!(first, member, "two leaders in term {term}");
    }

    pub(super) fn terms(&self) -> usize {
        self.0.len()
    }
}
