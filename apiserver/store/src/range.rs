//! Reading: which keys, at which revision, how many.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use crate::{entry::Entry, revision::Revision};

/// A read of one key or of a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The key, or the first key of the range.
    pub start: Bytes,
    /// None: only the key `start`. Otherwise the first key after the range; empty: everything from `start` on.
    pub end: Option<Bytes>,
    /// None: now. Otherwise the store as it was at that revision.
    pub at: Option<Revision>,
    /// At most so many entries; 0: all.
    pub limit: usize,
    /// What to answer with.
    pub what: What,
}

/// What a range answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The entries (shared, so leaving the values out would save nothing) and the count.
    Entries,
    /// Only the count.
    Count,
}

impl Range {
    /// One key, now.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: None, at: None, limit: 0, what: What::Entries }
    }

    /// Every key that begins with `prefix`, now.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start);
        Self { start, end: Some(end), at: None, limit: 0, what: What::Entries }
    }

    /// The same range at an earlier revision.
    #[must_use]
    pub const fn at(mut self, revision: Revision) -> Self {
        self.at = Some(revision);
        self
    }

    /// The same range with at most so many entries.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// The same range, only counted.
    #[must_use]
    pub const fn count(mut self) -> Self {
        self.what = What::Count;
        self
    }
}

/// What a [`Range`] read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The revision of the whole store at the time of the read (not the one asked for with `at`, as in etcd).
    pub revision: Revision,
    /// The entries in the order of their keys.
    pub entries: Vec<Arc<Entry>>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// How many keys the whole range holds, whatever the limit.
    pub count: usize,
}

/// The first key after all keys that begin with `prefix`; empty (no end) if there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end.into()
}

/// Whether `key` lies within start and end as [`Range`] means them.
pub(crate) fn contains(start: &[u8], end: Option<&[u8]>, key: &[u8]) -> bool {
    match end {
        None => key == start,
        Some([]) => key >= start,
        Some(end) => key >= start && key < end,
    }
}

/// What `BTreeMap::range` takes.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Start and end as `BTreeMap::range` wants them; none where the range is empty (which `BTreeMap` would panic on).
pub(crate) fn bounds<'a>(start: &'a [u8], end: Option<&'a [u8]>) -> Option<Bounds<'a>> {
    match end {
        None => Some((Bound::Included(start), Bound::Included(start))),
        Some([]) => Some((Bound::Included(start), Bound::Unbounded)),
        Some(end) if end <= start => None,
        Some(end) => Some((Bound::Included(start), Bound::Excluded(end))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_after_it() {
        for (prefix, end) in
            [(&b"a/"[..], &b"a0"[..]), (b"", b""), (b"\xff", b""), (b"a\xff\xff", b"b"), (b"\x00", b"\x01")]
        {
            assert_eq!(prefix_end(prefix), end, "{prefix:?}");
        }
    }

    #[test]
    fn a_range_holds_start_but_not_end() {
        assert!(contains(b"a", None, b"a") && !contains(b"a", None, b"ab"));
        assert!(contains(b"a", Some(b"b"), b"ab") && !contains(b"a", Some(b"b"), b"b"));
        assert!(contains(b"a", Some(b""), b"zzz") && !contains(b"b", Some(b""), b"a"));
        assert!(bounds(b"b", Some(b"a")).is_none() && bounds(b"a", Some(b"a")).is_none());
    }
}
