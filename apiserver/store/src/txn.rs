//! Writing: a transaction of comparisons and operations.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    entry::Entry,
    error::{Error, Result},
    range::{Range, RangeResult, contains},
    revision::{LeaseId, Revision},
};

/// Longest key, in bytes. Kubernetes' longest (group, resource, namespace and name at their limits) has about 900.
pub const MAX_KEY: usize = 1024;
/// Longest value, in bytes: what etcd takes in one request, and so the limit of Kubernetes' objects.
pub const MAX_VALUE: usize = 3 << 19;
/// Most comparisons and most operations of a branch in one transaction.
pub const MAX_OPS: usize = 1024;
/// Most bytes of keys and values in one transaction.
pub const MAX_TXN: usize = 8 << 20;

/// All comparisons hold: `then` is done; otherwise `or_else`. Either is done as a whole and in one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold.
    pub compare: Vec<Compare>,
    /// What is done if it does.
    pub then: Vec<Op>,
    /// What is done if it does not.
    pub or_else: Vec<Op>,
}

/// How the two sides of a comparison must stand: the key's on the left, the given one on the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// They are the same.
    Equal,
    /// They differ.
    NotEqual,
    /// The key's is greater.
    Greater,
    /// The key's is less.
    Less,
}

/// A comparison with one key. A key that is not there has revisions, version and lease 0, and no value: every
/// comparison with its value is false (as in etcd).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// By the revision of its last change.
    ModRevision {
        /// The key.
        key: Bytes,
        /// How.
        is: Is,
        /// With what.
        value: Revision,
    },
    /// By the revision of its creation.
    CreateRevision {
        /// The key.
        key: Bytes,
        /// How.
        is: Is,
        /// With what.
        value: Revision,
    },
    /// By its version.
    Version {
        /// The key.
        key: Bytes,
        /// How.
        is: Is,
        /// With what.
        value: u64,
    },
    /// By its value.
    Value {
        /// The key.
        key: Bytes,
        /// How.
        is: Is,
        /// With what.
        value: Bytes,
    },
    /// By its lease.
    Lease {
        /// The key.
        key: Bytes,
        /// How.
        is: Is,
        /// With what.
        value: LeaseId,
    },
}

impl Compare {
    /// The key is not there: what a creation asks for.
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::unchanged(key, Revision::NONE)
    }

    /// The key is as it was changed at `revision`: what an update asks for.
    pub fn unchanged(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self::ModRevision { key: key.into(), is: Is::Equal, value: revision }
    }

    /// The key compared.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::ModRevision { key, .. }
            | Self::CreateRevision { key, .. }
            | Self::Version { key, .. }
            | Self::Value { key, .. }
            | Self::Lease { key, .. } => key,
        }
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// Its new lease; none takes it off any it had.
        lease: Option<LeaseId>,
    },
    /// Deletes the key `start`, or a range as [`Range`] means it.
    Delete {
        /// The key, or the first of the range.
        start: Bytes,
        /// As [`Range::end`].
        end: Option<Bytes>,
    },
    /// Reads; sees what earlier steps of the same transaction did. Only at the present (`at` none).
    Get(Range),
}

impl Op {
    /// Sets a key that has no lease.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: None }
    }

    /// Deletes one key.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete { start: key.into(), end: None }
    }

    /// Reads one key.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Get(Range::key(key))
    }
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// A put.
    Put {
        /// The new version.
        entry: Arc<Entry>,
        /// The one before.
        previous: Option<Arc<Entry>>,
    },
    /// A delete: the versions that are gone.
    Deleted(Vec<Arc<Entry>>),
    /// A get.
    Got(RangeResult),
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// The transaction's own revision if it changed something, otherwise the store's when it ran.
    pub revision: Revision,
    /// One for each step of the branch that was done.
    pub results: Vec<OpResult>,
}

impl Txn {
    /// Bytes of keys and values, as counted against [`MAX_TXN`].
    #[must_use]
    pub fn size(&self) -> usize {
        let compare = self.compare.iter().map(|compare| match compare {
            Compare::Value { key, value, .. } => key.len() + value.len(),
            other => other.key().len(),
        });
        let ops = self.then.iter().chain(&self.or_else).map(|op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { start, end } | Op::Get(Range { start, end, .. }) => {
                start.len() + end.as_ref().map_or(0, Bytes::len)
            }
        });
        compare.chain(ops).sum()
    }

    /// Refuses what no member may be asked to do: keys, values and counts out of bounds, a key set twice.
    ///
    /// # Errors
    /// [`Error::KeyTooLong`], [`Error::KeyEmpty`], [`Error::ValueTooLarge`], [`Error::TooManyOps`],
    /// [`Error::TxnTooLarge`], [`Error::DuplicateKey`], [`Error::PastReadInTxn`].
    pub fn validate(&self) -> Result<()> {
        for found in [self.compare.len(), self.then.len(), self.or_else.len()] {
            if found > MAX_OPS {
                return Err(Error::TooManyOps { found, limit: MAX_OPS });
            }
        }
        let size = self.size();
        if size > MAX_TXN {
            return Err(Error::TxnTooLarge { size, limit: MAX_TXN });
        }
        for compare in &self.compare {
            check_key(compare.key())?;
        }
        for branch in [&self.then, &self.or_else] {
            for op in branch {
                match op {
                    Op::Put { key, value, .. } => {
                        check_key(key)?;
                        if value.len() > MAX_VALUE {
                            return Err(Error::ValueTooLarge { size: value.len(), limit: MAX_VALUE });
                        }
                    }
                    Op::Delete { start, end } => check_range(start, end.as_ref())?,
                    Op::Get(range) => {
                        check_range(&range.start, range.end.as_ref())?;
                        if range.at.is_some() {
                            return Err(Error::PastReadInTxn);
                        }
                    }
                }
            }
            check_overlap(branch)?;
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

/// One revision holds one version of a key, so a branch sets a key once and does not delete what it sets.
fn check_overlap(branch: &[Op]) -> Result<()> {
    let mut puts: Vec<&Bytes> = Vec::new();
    for op in branch {
        if let Op::Put { key, .. } = op {
            puts.push(key);
        }
    }
    puts.sort_unstable();
    if let Some(pair) = puts.windows(2).find(|pair| pair.first() == pair.last()) {
        let key = pair.first().map(|key| Bytes::clone(key)).unwrap_or_default();
        return Err(Error::DuplicateKey { key });
    }
    for op in branch {
        let Op::Delete { start, end } = op else { continue };
        let from = puts.partition_point(|key| *key < start);
        if let Some(key) = puts.get(from).filter(|key| contains(start, end.as_deref(), key)) {
            return Err(Error::DuplicateKey { key: Bytes::clone(key) });
        }
    }
    Ok(())
}
