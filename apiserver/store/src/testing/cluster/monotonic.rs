//! Invariant: no member's revision goes back while it runs, nor does what it has applied.

use std::collections::BTreeMap;

/// By member and life.
#[derive(Default)]
pub(super) struct Monotonic(BTreeMap<(u64, u64), (u64, u64)>);

impl Monotonic {
    pub(super) fn stands(&mut self, member: u64, life: u64, applied: u64, revision: u64) {
        let before = self.0.entry((member, life)).or_default();
        assert!(before.0 <= applied && before.1 <= revision, "member {member:x} went back");
        *before = (applied, revision);
    }
}
