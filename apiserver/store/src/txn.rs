//! Writing: a transaction of comparisons and operations.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    entry::Entry,
    range::{Range, RangeResult},
    revision::{LeaseId, Revision},
};

mod validate;

/// Longest key, in bytes. Kubernetes' longest (group, resource, namespace and name at their limits) has about 900.
pub const MAX_KEY: usize = 1024;
/// Longest value, in bytes: what etcd takes in one request, and so the limit of Kubernetes' objects.
pub const MAX_VALUE: usize = 3 << 19;
/// Most comparisons and most operations of a branch in one transaction, those of the transactions around it included (as
/// etcd counts: of each the longest of its three lists).
pub const MAX_OPS: usize = 1024;
/// How deep transactions may lie within each other: far deeper than anybody needs, and no deeper than a thread's stack.
pub const MAX_DEPTH: usize = 32;
/// Most bytes of keys and values in one transaction.
pub const MAX_TXN: usize = 8 << 20;

/// All comparisons hold: `then` is done; otherwise `or_else`. Either is done as a whole and in one revision.
///
/// Transactions within ([`Op::Txn`]) belong to that whole: they have its revision, and what they compare with is what was
/// there before any step of it (as in etcd).
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

/// A comparison with one key, or with each of a range. A key that is not there has revisions, version and lease 0, and no value: every
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
    /// The comparison holds with every key from its own up to an end; in a range without a key, with one that is not there.
    Each {
        /// As the end in [`Range::end`].
        end: Bytes,
        /// The comparison, whose key begins the range; not one of a range itself.
        compare: Box<Compare>,
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

    /// The key compared, or the first that may be.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::ModRevision { key, .. }
            | Self::CreateRevision { key, .. }
            | Self::Version { key, .. }
            | Self::Value { key, .. }
            | Self::Lease { key, .. } => key,
            Self::Each { compare, .. } => compare.key(),
        }
    }

    /// Whether it holds with this version, or with no key.
    pub(crate) fn holds(&self, entry: Option<&Entry>) -> bool {
        match self {
            Self::ModRevision { is, value, .. } => {
                is.holds(&entry.map_or(Revision::NONE, |entry| entry.mod_revision), value)
            }
            Self::CreateRevision { is, value, .. } => {
                is.holds(&entry.map_or(Revision::NONE, |entry| entry.create_revision), value)
            }
            Self::Version { is, value, .. } => is.holds(&entry.map_or(0, |entry| entry.version), value),
            Self::Value { is, value, .. } => entry.is_some_and(|entry| is.holds(&entry.value, value)),
            Self::Lease { is, value, .. } => is.holds(&entry.and_then(|entry| entry.lease).unwrap_or_default(), value),
            Self::Each { compare, .. } => compare.holds(entry),
        }
    }
}

impl Is {
    fn holds<T: Ord>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => left > right,
            Self::Less => left < right,
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
    /// Sets a key that is there ([`crate::Error::KeyNotFound`] otherwise), and leaves part of it as it is.
    Amend {
        /// The key.
        key: Bytes,
        /// What becomes another.
        change: Change,
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
    /// Does one branch of a transaction within this one.
    Txn(Txn),
}

/// What becomes another where a key is amended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The value; the lease stays.
    Value(Bytes),
    /// The lease, or that there is none; the value stays.
    Lease(Option<LeaseId>),
    /// Neither: the key has a new version, which is like the one before.
    Nothing,
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
    /// A put, or what was amended.
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
    /// A transaction within.
    Txn(TxnResult),
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        let compare = |compare: &Compare| match compare {
            Compare::Value { key, value, .. } => key.len() + value.len(),
            other => other.key().len(),
        };
        let compares = self.compare.iter().map(|one| match one {
            Compare::Each { end, compare: each } => end.len() + compare(each),
            one => compare(one),
        });
        let ops = self.then.iter().chain(&self.or_else).map(|op| match op {
            Op::Put { key, value, .. } | Op::Amend { key, change: Change::Value(value) } => key.len() + value.len(),
            Op::Amend { key, change: Change::Lease(_) | Change::Nothing } => key.len(),
            Op::Delete { start, end } | Op::Get(Range { start, end, .. }) => {
                start.len() + end.as_ref().map_or(0, Bytes::len)
            }
            Op::Txn(within) => within.size(),
        });
        compares.chain(ops).sum()
    }

    /// How many comparisons and operations there are, those within included.
    pub(crate) fn parts(&self) -> usize {
        let within = self.then.iter().chain(&self.or_else).map(|op| match op {
            Op::Txn(within) => within.parts(),
            Op::Put { .. } | Op::Amend { .. } | Op::Delete { .. } | Op::Get(_) => 0,
        });
        self.compare.len() + self.then.len() + self.or_else.len() + within.sum::<usize>()
    }
}
