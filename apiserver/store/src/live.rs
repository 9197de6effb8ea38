//! The live entries in the order of their keys, counted over any range without looking at them.
//!
//! The entries stand in runs of at most [`RUN`], the runs in order. Finding a key is one search among the runs and one
//! within a run; counting a range adds the lengths of the runs that lie within, so that of a hundred thousand keys it
//! looks at some hundred numbers. An ordered map of the standard library counts by walking.
//!
//! **Invariants:** no run is empty; keys ascend within a run and from run to run; `len` is the sum of the runs' lengths, `bytes`
//! that of the entries' keys and values.

use std::sync::Arc;

use crate::entry::Entry;

/// As many entries as a run holds at most: moving them aside for an insertion is a copy of two kilobytes.
const RUN: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Live {
    runs: Vec<Vec<Arc<Entry>>>,
    len: usize,
    /// Of their keys and values.
    bytes: u64,
}

fn bytes(entry: &Entry) -> u64 {
    (entry.key.len() + entry.value.len()) as u64
}

/// A place between two entries; where a run ends and where the next begins are two names of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    run: usize,
    at: usize,
}

impl Live {
    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.runs.iter().flatten()
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all keys and values.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The place before the first entry whose key is not before `key`.
    fn place(&self, key: &[u8]) -> Place {
        let run = self.runs.partition_point(|run| run.last().is_some_and(|last| last.key[..] < *key));
        let at = self.runs.get(run).map_or(0, |run| run.partition_point(|entry| entry.key[..] < *key));
        Place { run, at }
    }

    fn end(&self) -> Place {
        Place { run: self.runs.len(), at: 0 }
    }

    /// The entry of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        let place = self.place(key);
        self.runs.get(place.run)?.get(place.at).filter(|entry| entry.key[..] == *key)
    }

    /// Adds an entry, or replaces the one of its key and gives that back.
    pub(crate) fn insert(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        self.bytes += bytes(&entry);
        let previous = self.place_entry(entry);
        self.bytes -= previous.as_deref().map_or(0, bytes);
        previous
    }

    fn place_entry(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let mut place = self.place(&entry.key);
        if place.run == self.runs.len() {
            // After all others: into the last run while there is room. Keys that come in order fill their runs.
            let has_room = self.runs.last().is_some_and(|run| run.len() < RUN);
            if has_room {
                place.run -= 1;
                place.at = self.runs.last().map_or(0, Vec::len);
            } else {
                self.runs.push(Vec::with_capacity(1));
            }
        }
        let run = self.runs.get_mut(place.run)?;
        if let Some(present) = run.get_mut(place.at).filter(|present| present.key == entry.key) {
            return Some(std::mem::replace(present, entry));
        }
        self.len += 1;
        if run.len() < RUN {
            run.insert(place.at, entry);
            return None;
        }
        let mut upper = run.split_off(RUN / 2);
        run.shrink_to_fit();
        match place.at.checked_sub(RUN / 2) {
            Some(at) => upper.insert(at, entry),
            None => run.insert(place.at, entry),
        }
        self.runs.insert(place.run + 1, upper);
        None
    }

    /// Takes out the entry of a key.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Arc<Entry>> {
        let place = self.place(key);
        let run = self.runs.get_mut(place.run)?;
        if run.get(place.at).is_none_or(|entry| entry.key[..] != *key) {
            return None;
        }
        let entry = run.remove(place.at);
        self.len -= 1;
        self.bytes -= bytes(&entry);
        let left = run.len();
        if left == 0 {
            self.runs.remove(place.run);
        } else if left <= RUN / 4 {
            // Two short neighbours become one, or deletions would leave many short runs.
            let with_next = self.runs.get(place.run + 1).is_some_and(|next| next.len() + left <= RUN / 2);
            if with_next {
                let next = self.runs.remove(place.run + 1);
                if let Some(run) = self.runs.get_mut(place.run) {
                    run.extend(next);
                }
            }
        }
        Some(entry)
    }

    /// Where a range begins and ends; none where it is empty by itself. See [`crate::Range`] for start and end.
    fn span(&self, start: &[u8], end: Option<&[u8]>) -> Option<(Place, Place)> {
        let from = self.place(start);
        let to = match end {
            Some([]) => self.end(),
            Some(end) if end <= start => return None,
            Some(end) => self.place(end),
            None => {
                let mut to = from;
                to.at += usize::from(self.get(start).is_some());
                to
            }
        };
        Some((from, to))
    }

    /// The entries of a range in order.
    pub(crate) fn range(&self, start: &[u8], end: Option<&[u8]>) -> impl Iterator<Item = &Arc<Entry>> {
        let (from, to) = self.span(start, end).unwrap_or((self.end(), self.end()));
        let runs = self.runs.iter().enumerate().skip(from.run).take((to.run + 1).saturating_sub(from.run));
        runs.flat_map(move |(n, run)| {
            let begin = if n == from.run { from.at } else { 0 };
            let end = if n == to.run { to.at } else { run.len() };
            run.get(begin..end).unwrap_or_default()
        })
    }

    /// How many entries a range has.
    pub(crate) fn count(&self, start: &[u8], end: Option<&[u8]>) -> usize {
        let Some((from, to)) = self.span(start, end) else { return 0 };
        let before: usize = self.runs.get(from.run..to.run).unwrap_or_default().iter().map(Vec::len).sum();
        (before + to.at).saturating_sub(from.at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{entry::Derived, range::bounds, revision::Revision};

    fn entry(key: &[u8], revision: u64) -> Arc<Entry> {
        Arc::new(Entry {
            key: key.to_vec().into(),
            value: bytes::Bytes::new(),
            create_revision: Revision(revision),
            mod_revision: Revision(revision),
            version: 1,
            lease: None,
            derived: Derived::default(),
        })
    }

    fn check(live: &Live, model: &BTreeMap<Vec<u8>, u64>, start: &[u8], end: Option<&[u8]>) {
        let found: Vec<_> = live.range(start, end).map(|e| (e.key.to_vec(), e.mod_revision.0)).collect();
        let expected: Vec<_> = bounds(start, end)
            .map(|bounds| model.range::<[u8], _>(bounds).map(|(key, revision)| (key.clone(), *revision)).collect())
            .unwrap_or_default();
        assert_eq!(found, expected);
        assert_eq!(live.count(start, end), expected.len());
        assert_eq!(live.bytes(), live.iter().map(|entry| bytes(entry)).sum::<u64>());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn it_is_an_ordered_map(
            steps in proptest::collection::vec((any::<u16>(), 0..3_u8), 0..3000),
            span in any::<u16>(),
            (start, end) in any::<(u16, u16)>(),
        ) {
            let (mut live, mut model) = (Live::default(), BTreeMap::new());
            // Few keys make for replacing and removing, many for splitting.
            let key = |n: u16| (n % span.max(1)).to_be_bytes();
            for (revision, (n, step)) in (1_u64..).zip(&steps) {
                let key = key(*n);
                let (was, had) = match step {
                    0 => (live.remove(&key), model.remove(&key[..])),
                    _ => (live.insert(entry(&key, revision)), model.insert(key.to_vec(), revision)),
                };
                assert_eq!(was.map(|e| e.mod_revision.0), had);
            }
            assert_eq!(live.len(), model.len());
            assert!(live.runs.iter().all(|run| !run.is_empty() && run.len() <= RUN));
            let (start, end) = (key(start), key(end));
            assert_eq!(live.get(&start).map(|e| e.mod_revision.0), model.get(&start[..]).copied());
            for end in [None, Some(&b""[..]), Some(&end[..])] {
                check(&live, &model, &start, end);
            }
            check(&live, &model, b"", Some(b""));
        }
    }

    #[test]
    fn keys_that_come_in_order_fill_their_runs_and_go_as_they_came() {
        let mut live = Live::default();
        for n in 0..10_000_u32 {
            assert!(live.insert(entry(&n.to_be_bytes(), 1)).is_none());
        }
        assert_eq!(live.runs.len(), 10_000_usize.div_ceil(RUN));
        for n in 0..9_990_u32 {
            assert!(live.remove(&n.to_be_bytes()).is_some());
        }
        assert_eq!((live.len(), live.runs.len()), (10, 1));
    }
}
