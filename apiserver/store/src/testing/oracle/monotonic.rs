//! Invariant: nobody goes back while it runs: a revision that is told is no earlier than what had been told before it was asked
//! for.

use std::collections::BTreeMap;

/// See the module. By who it is and in which of its lives.
#[derive(Debug, Default)]
pub(crate) struct Monotonic(BTreeMap<(u64, u64), u64>);

impl Monotonic {
    /// Somebody is asked; the last revision it has told.
    pub(crate) fn ask(&self, who: (u64, u64)) -> u64 {
        self.0.get(&who).copied().unwrap_or(0)
    }

    /// It tells a revision, having been asked when it had told `before`.
    pub(crate) fn tell(&mut self, who: (u64, u64), before: u64, revision: u64) {
        assert!(revision >= before, "{who:?} tells {revision} after {before}");
        let last = self.0.entry(who).or_default();
        *last = revision.max(*last);
    }
}
