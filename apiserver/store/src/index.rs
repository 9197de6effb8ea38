//! The versions of the keys: what is live now, and what was before within the kept history.
//!
//! Two ordered collections. `live` holds the present and nothing else, so that the reads everybody makes pay nothing for
//! history. `past` holds, for each key that changed within the history, its earlier versions and its tombstones, oldest
//! first. A read at revision R takes from each key the youngest version not younger than R.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    entry::Entry,
    live::Live,
    range::{Range, RangeResult, What, bounds},
    revision::Revision,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    live: Live,
    past: BTreeMap<Bytes, Vec<Arc<Entry>>>,
}

impl Index {
    /// The live version of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.live.get(key)
    }

    /// The live versions, in the order of their keys.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.live.iter()
    }

    /// The live versions of the keys from `start` up to `end`, or of all from there if that is empty.
    pub(crate) fn live(&self, start: &[u8], end: &[u8]) -> impl Iterator<Item = &Arc<Entry>> {
        self.live.range(start, Some(end))
    }

    /// How many keys are live.
    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// Bytes of the live keys and values.
    pub(crate) const fn bytes(&self) -> u64 {
        self.live.bytes()
    }

    /// Makes `entry` the live version and keeps the one before; gives that back.
    pub(crate) fn put(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let key = entry.key.clone();
        let previous = self.live.insert(entry);
        if let Some(previous) = &previous {
            self.past.entry(key).or_default().push(Arc::clone(previous));
        }
        previous
    }

    /// Puts back a version read from disk: it has no past.
    pub(crate) fn load(&mut self, entry: Arc<Entry>) {
        self.live.insert(entry);
    }

    /// Ends a live key with a tombstone; gives back the last version.
    pub(crate) fn delete(&mut self, tombstone: &Arc<Entry>) -> Option<Arc<Entry>> {
        let previous = self.live.remove(&tombstone.key)?;
        let past = self.past.entry(tombstone.key.clone()).or_default();
        past.push(Arc::clone(&previous));
        past.push(Arc::clone(tombstone));
        Some(previous)
    }

    /// The live keys of a range.
    pub(crate) fn keys(&self, start: &[u8], end: Option<&[u8]>) -> Vec<Bytes> {
        self.live.range(start, end).map(|entry| entry.key.clone()).collect()
    }

    /// Forgets the versions of `key` that nothing after `compacted` can see: those that were already succeeded then.
    pub(crate) fn compact(&mut self, key: &[u8], compacted: Revision) {
        let Some(past) = self.past.get_mut(key) else { return };
        // A read at `compacted` itself is still answered, so a version goes only when its successor was there by then.
        let live = self.live.get(key).map(|entry| entry.mod_revision);
        let successor = |next: Option<&Arc<Entry>>| next.map(|entry| entry.mod_revision).or(live);
        let mut gone = 0;
        while let Some(entry) = past.get(gone) {
            let succeeded = successor(past.get(gone + 1)).is_some_and(|revision| revision <= compacted);
            let ended = entry.is_tombstone() && entry.mod_revision <= compacted;
            if !succeeded && !ended {
                break;
            }
            gone += 1;
        }
        past.drain(..gone);
        if past.is_empty() {
            self.past.remove(key);
        } else if past.capacity() > 4 * past.len() {
            past.shrink_to_fit();
        }
    }

    /// Reads a range at the present.
    pub(crate) fn range(&self, range: &Range) -> RangeResult {
        let (start, end) = (&range.start[..], range.end.as_deref());
        let mut result = RangeResult { count: self.live.count(start, end), ..RangeResult::default() };
        if range.what != What::Count {
            let limit = if range.limit == 0 { result.count } else { range.limit.min(result.count) };
            result.entries = Vec::with_capacity(limit);
            result.entries.extend(self.live.range(start, end).take(limit).map(Arc::clone));
            result.more = limit < result.count;
        }
        result
    }

    /// How many live keys a range holds.
    pub(crate) fn count(&self, start: &[u8], end: Option<&[u8]>) -> usize {
        self.live.count(start, end)
    }

    /// Reads a range as it was at `revision`, which the caller knows to be within the history, up to the limit. The
    /// caller counts.
    pub(crate) fn range_at(&self, range: &Range, revision: Revision) -> RangeResult {
        let mut result = RangeResult::default();
        if range.what == What::Count {
            return result;
        }
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let Some(bounds) = bounds(&range.start, range.end.as_deref()) else { return result };
        let mut live = self.live.range(&range.start, range.end.as_deref()).peekable();
        let mut past = self.past.range::<[u8], _>(bounds).peekable();
        loop {
            let of_past = match (live.peek(), past.peek()) {
                (None, None) => break,
                (Some(_), None) => None,
                (None, Some(_)) => past.next(),
                (Some(live), Some((key, _))) if live.key < **key => None,
                (Some(live), Some((key, _))) if live.key > **key => past.next(),
                (Some(entry), Some(_)) if entry.mod_revision <= revision => {
                    past.next();
                    None
                }
                (Some(_), Some(_)) => {
                    live.next();
                    past.next()
                }
            };
            let found = match of_past {
                Some((_, versions)) => {
                    let after = versions.partition_point(|entry| entry.mod_revision <= revision);
                    after.checked_sub(1).and_then(|at| versions.get(at)).filter(|entry| !entry.is_tombstone())
                }
                None => live.next().filter(|entry| entry.mod_revision <= revision),
            };
            let Some(entry) = found else { continue };
            if result.entries.len() == limit {
                result.more = true;
                break;
            }
            result.entries.push(Arc::clone(entry));
        }
        result
    }
}
