//! What no member may be asked to do.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Change, Compare, MAX_DEPTH, MAX_KEY, MAX_OPS, MAX_TXN, MAX_VALUE, Op, Txn};
use crate::error::{Error, Result};

impl Txn {
    /// Refuses what no member may be asked to do: keys, values and counts out of bounds, a key set twice.
    ///
    /// # Errors
    /// [`Error::KeyTooLong`], [`Error::KeyEmpty`], [`Error::ValueTooLarge`], [`Error::TooManyOps`], [`Error::TooDeep`],
    /// [`Error::TxnTooLarge`], [`Error::DuplicateKey`], [`Error::PastReadInTxn`], [`Error::RangeInRange`].
    pub fn validate(&self) -> Result<()> {
        self.check_counts(MAX_OPS, MAX_DEPTH)?;
        let size = self.size();
        if size > MAX_TXN {
            return Err(Error::TxnTooLarge { size, limit: MAX_TXN });
        }
        self.check_keys()?;
        for branch in [&self.then, &self.or_else] {
            changes(branch)?;
        }
        Ok(())
    }

    /// What is within has what is left of `room`, and may lie `depth` deep.
    fn check_counts(&self, room: usize, depth: usize) -> Result<()> {
        let found = self.compare.len().max(self.then.len()).max(self.or_else.len());
        let Some(left) = room.checked_sub(found) else {
            return Err(Error::TooManyOps { found: MAX_OPS - room + found, limit: MAX_OPS });
        };
        for op in self.then.iter().chain(&self.or_else) {
            if let Op::Txn(within) = op {
                let deeper = depth.checked_sub(1).ok_or(Error::TooDeep { limit: MAX_DEPTH })?;
                within.check_counts(left, deeper)?;
            }
        }
        Ok(())
    }

    fn check_keys(&self) -> Result<()> {
        for compare in &self.compare {
            check_key(compare.key())?;
            if let Compare::Each { end, compare } = compare {
                check_range(compare.key(), Some(end))?;
                if matches!(**compare, Compare::Each { .. }) {
                    return Err(Error::RangeInRange);
                }
            }
        }
        for op in self.then.iter().chain(&self.or_else) {
            match op {
                Op::Put { key, value, .. } | Op::Amend { key, change: Change::Value(value) } => {
                    check_key(key)?;
                    if value.len() > MAX_VALUE {
                        return Err(Error::ValueTooLarge { size: value.len(), limit: MAX_VALUE });
                    }
                }
                Op::Amend { key, change: Change::Lease(_) | Change::Nothing } => check_key(key)?,
                Op::Delete { start, end } => check_range(start, end.as_ref())?,
                Op::Get(range) => {
                    check_range(&range.start, range.end.as_ref())?;
                    if range.at.is_some() {
                        return Err(Error::PastReadInTxn);
                    }
                }
                Op::Txn(within) => within.check_keys()?,
            }
        }
        Ok(())
    }
}

fn check_key(key: &Bytes) -> Result<()> {
    match key.len() {
        0 => Err(Error::KeyEmpty),
        size if size > MAX_KEY => Err(Error::KeyTooLong { size, limit: MAX_KEY }),
        _ => Ok(()),
    }
}

fn check_range(start: &Bytes, end: Option<&Bytes>) -> Result<()> {
    // The empty key may begin a range (everything), but it is no key.
    if end.is_none() {
        check_key(start)?;
    }
    for bound in std::iter::once(start).chain(end) {
        if bound.len() > MAX_KEY {
            return Err(Error::KeyTooLong { size: bound.len(), limit: MAX_KEY });
        }
    }
    Ok(())
}

/// The keys that a branch may change.
#[derive(Default)]
struct Changes<'a> {
    set: BTreeSet<&'a Bytes>,
    deleted: Deleted,
}

/// Ranges of keys that do not touch: where each begins, and the first key after it, if there is one.
#[derive(Default)]
struct Deleted(BTreeMap<Bytes, Option<Bytes>>);

impl Deleted {
    /// Adds a range as [`crate::Range`] means it.
    fn add(&mut self, start: &Bytes, end: Option<&Bytes>) {
        let end = match end {
            // The first key after a key is that key and a zero byte.
            None => Some(Bytes::from([start, &[0][..]].concat())),
            Some(end) if end.is_empty() => None,
            Some(end) if end <= start => return,
            Some(end) => Some(end.clone()),
        };
        self.add_up_to(start.clone(), end);
    }

    fn add_up_to(&mut self, mut start: Bytes, mut end: Option<Bytes>) {
        // Whatever begins no later than this one's end and does not end before it begins becomes one with it.
        while let Some((other, its_end)) = self.last_up_to(end.as_ref()) {
            if its_end.as_ref().is_some_and(|its_end| *its_end < start) {
                break;
            }
            start = start.min(other.clone());
            end = end.zip(its_end).map(|(one, other)| one.max(other));
            self.0.remove(&other);
        }
        self.0.insert(start, end);
    }

    /// The last range that begins no later than `end`.
    fn last_up_to(&self, end: Option<&Bytes>) -> Option<(Bytes, Option<Bytes>)> {
        let found = match end {
            Some(end) => self.0.range::<Bytes, _>(..=end).next_back(),
            None => self.0.last_key_value(),
        };
        found.map(|(start, end)| (start.clone(), end.clone()))
    }

    fn contains(&self, key: &Bytes) -> bool {
        let last = self.0.range::<Bytes, _>(..=key).next_back();
        last.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end))
    }
}

impl<'a> Changes<'a> {
    /// Adds what else is changed. One revision holds one version of a key, so a branch sets a key once and does not delete
    /// what it sets.
    fn add(&mut self, other: Self) -> Result<()> {
        let twice = other.set.iter().find(|key| self.set.contains(**key) || self.deleted.contains(key));
        // Whichever comes first.
        let twice = twice.or_else(|| self.set.iter().find(|key| other.deleted.contains(key)));
        if let Some(key) = twice {
            return Err(Error::DuplicateKey { key: Bytes::clone(key) });
        }
        self.add_unchecked(other);
        Ok(())
    }

    fn add_unchecked(&mut self, other: Self) {
        self.set.extend(other.set);
        for (start, end) in other.deleted.0 {
            self.deleted.add_up_to(start, end);
        }
    }
}

/// What a branch may change, if it changes no key twice.
fn changes(branch: &[Op]) -> Result<Changes<'_>> {
    let mut all = Changes::default();
    for op in branch {
        match op {
            Op::Put { key, .. } | Op::Amend { key, .. } => {
                if !all.set.insert(key) {
                    return Err(Error::DuplicateKey { key: key.clone() });
                }
            }
            Op::Delete { start, end } => all.deleted.add(start, end.as_ref()),
            Op::Get(_) | Op::Txn(_) => {}
        }
    }
    if let Some(key) = all.set.iter().find(|key| all.deleted.contains(key)) {
        return Err(Error::DuplicateKey { key: Bytes::clone(key) });
    }
    for op in branch {
        if let Op::Txn(within) = op {
            // Only one of the two is done.
            let mut either = changes(&within.then)?;
            either.add_unchecked(changes(&within.or_else)?);
            all.add(either)?;
        }
    }
    Ok(all)
}
