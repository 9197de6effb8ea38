//! Invariants of reads: one that waited for the barrier misses nothing acknowledged before it began; and what any member
//! shows, at any time, is what the log had come to at that revision.

use super::writes::Writes;
use crate::{
    range::Range,
    shared::Shared,
    testing::model::{Facts, fact},
};

/// What a member shows is the model's state of that revision.
pub(super) fn shows(shared: &Shared, writes: &Writes) {
    let state = shared.read();
    let found: Facts = state.range(&Range::prefix("")).unwrap().entries.iter().map(|entry| fact(entry)).collect();
    let revision = state.revision().0;
    assert!(revision <= writes.model.revision(), "a member is ahead of the log");
    assert_eq!(&found, writes.model.at(revision), "a member shows something else than the log says at {revision}");
}

/// A read that waited sees everything that had been acknowledged.
pub(super) fn waited(began: u64, revision: u64) {
    assert!(revision >= began, "a read at {revision} began when {began} had been acknowledged");
}
