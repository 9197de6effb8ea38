//! Invariant: what a member has applied does not go back while it runs. That its revision does not is the oracle's.

use std::collections::BTreeMap;

/// By member and life.
#[derive(Default)]
pub(super) struct Monotonic(BTreeMap<(u64, u64), u64>);

impl Monotonic {
    pub(super) fn stands(&mut self, member: u64, life: u64, applied: u64) {
        let before = self.0.entry((member, life)).or_default();
        assert!(*before <= applied, "member {member:x} went back");
        *before = applied;
    }
}
