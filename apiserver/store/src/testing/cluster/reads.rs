//! Invariants of reads: one that waited for the barrier misses nothing acknowledged before it began; and what any member
//! shows, at any time, is what the log had come to at that revision.

use super::{
    watches::shown,
    writes::{OWN, Writes},
};
use crate::{
    range::Range,
    shared::Shared,
    testing::{
        model::{Facts, fact},
        oracle::Oracle,
    },
};

/// What a member shows is the model's state of that revision.
pub(super) fn shows(shared: &Shared, writes: &Writes) {
    let state = shared.read();
    let found: Facts = state.range(&Range::prefix("")).unwrap().entries.iter().map(|entry| fact(entry)).collect();
    let revision = state.revision().0;
    assert!(revision <= writes.model.revision(), "a member is ahead of the log");
    assert_eq!(&found, writes.model.at(revision), "a member shows something else than the log says at {revision}");
}

/// A client that waited is shown the key that every write sets.
pub(super) fn judged(shared: &Shared, began: u64, oracle: &mut Oracle) {
    let state = shared.read();
    let found = state.range(&Range::key(OWN)).unwrap();
    let value = found.entries.first().map(|entry| shown(&entry.value));
    oracle.reads.newest(began, found.revision.0, OWN, value);
}

/// A read that waited sees everything that had been acknowledged.
pub(super) fn waited(began: u64, revision: u64) {
    assert!(revision >= began, "a read at {revision} began when {began} had been acknowledged");
}
