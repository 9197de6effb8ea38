//! Invariant of watches: who follows hears each revision once and in order, and whoever hears of a revision hears the same.

use std::collections::BTreeMap;

use super::Changes;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    /// What was heard of each revision.
    heard: BTreeMap<u64, Changes>,
    /// Who follows, and how far he is.
    followers: BTreeMap<(u64, u64), u64>,
}

impl Watches {
    /// Somebody follows from behind this revision on: at first, or anew.
    pub(crate) fn follow(&mut self, who: (u64, u64), behind: u64) {
        self.followers.insert(who, behind);
    }

    pub(crate) fn hear(&mut self, who: (u64, u64), revision: u64, changes: Changes) {
        let before = self.followers.insert(who, revision).expect("he follows");
        assert_eq!(revision, before + 1, "each revision once and in order");
        match self.heard.get(&revision) {
            Some(heard) => assert_eq!(&changes, heard, "two hear something else of {revision}"),
            None => drop(self.heard.insert(revision, changes)),
        }
    }

    /// The changes of each revision from the first on, which changed nothing; somebody has heard of each.
    pub(super) fn history(&self, last: u64) -> Vec<Changes> {
        let last = self.heard.keys().next_back().copied().unwrap_or(0).max(last);
        let one = |revision| self.heard.get(&revision).cloned();
        let first = std::iter::once(Changes::new());
        let rest = (2..=last).map(|revision| one(revision).unwrap_or_else(|| panic!("nobody heard of {revision}")));
        first.chain(rest).collect()
    }
}
