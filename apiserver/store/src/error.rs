//! Everything the store can refuse or fail with.

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;

use crate::{
    peer::MemberId,
    revision::{LeaseId, Revision},
};

/// The store's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal or failure of the store. Cheap to clone: one failed fsync answers many waiting writers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The history asked for is no longer kept: read anew and watch from there.
    #[error("revision has been compacted: history begins after revision {compacted}")]
    Compacted {
        /// The last revision that is gone.
        compacted: Revision,
    },
    /// A read at a revision that is still to come.
    #[error("revision {asked} is in the future: the store is at {current}")]
    FutureRevision {
        /// The one asked for.
        asked: Revision,
        /// Where the store stands.
        current: Revision,
    },
    /// A watcher did not read its events and was dropped so that it costs nobody else anything.
    #[error("watcher was too slow: more than {events} events or {bytes} bytes waited for it")]
    SlowWatcher {
        /// The bounds of its buffer: events,
        events: usize,
        /// and bytes.
        bytes: usize,
    },
    /// A key is longer than any may be.
    #[error("key of {size} bytes is longer than {limit}")]
    KeyTooLong {
        /// Its length.
        size: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// A key has no byte.
    #[error("key is empty")]
    KeyEmpty,
    /// A value is larger than any may be.
    #[error("value of {size} bytes is larger than {limit}")]
    ValueTooLarge {
        /// Its size.
        size: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// A transaction has more comparisons or operations than it may have.
    #[error("transaction of {found} operations has more than {limit}")]
    TooManyOps {
        /// How many.
        found: usize,
        /// The most allowed.
        limit: usize,
    },
    /// Transactions lie deeper within each other than they may.
    #[error("transactions lie more than {limit} deep within each other")]
    TooDeep {
        /// The deepest allowed.
        limit: usize,
    },
    /// A comparison with each key of a range is one with each of a range.
    #[error("a comparison with each key of a range cannot be one of a range again")]
    RangeInRange,
    /// A key that is to be amended is not there.
    #[error("key {key:?} not found")]
    KeyNotFound {
        /// The key.
        key: Bytes,
    },
    /// A transaction's keys and values together are too large.
    #[error("transaction of {size} bytes is larger than {limit}")]
    TxnTooLarge {
        /// Their size.
        size: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// A transaction sets a key twice, or sets and deletes it.
    #[error("transaction changes key {key:?} more than once")]
    DuplicateKey {
        /// The key.
        key: Bytes,
    },
    /// A get within a transaction asks for an earlier revision.
    #[error("a read within a transaction is always of the present")]
    PastReadInTxn,
    /// A value cannot be turned into what is kept of it, or back.
    #[error("value of key {key:?} cannot be sealed or opened: {why}")]
    Sealed {
        /// The key.
        key: Bytes,
        /// Why not.
        why: Arc<str>,
    },
    /// There is no such lease, or it has ended.
    #[error("lease {id} not found")]
    LeaseNotFound {
        /// The lease.
        id: LeaseId,
    },
    /// A lease of that id has been granted before.
    #[error("lease {id} already exists")]
    LeaseExists {
        /// The lease.
        id: LeaseId,
    },
    /// The disk has no room: nothing was written, and writes go on as soon as there is room again.
    #[error("disk is full: nothing was written, and writes go on as soon as there is room")]
    DiskFull,
    /// This member cannot write now (no leader, too many proposals under way): try again.
    #[error("store cannot take writes now: try again")]
    Unavailable,
    /// There is no such member.
    #[error("member {id} not found")]
    MemberNotFound {
        /// The member.
        id: MemberId,
    },
    /// Removing that member would leave too few that are known to be well: nothing could be written any more.
    #[error("too few members would be left that are well: bring one back, or add one, first")]
    QuorumAtRisk,
    /// This member was removed from the cluster.
    #[error("this member was removed from the cluster: remove its data directory and join anew")]
    Removed,
    /// The write was handed over, but whether it was done is not known: the member stopped, or leadership moved.
    #[error("outcome of the write is unknown: the store stopped before it was confirmed")]
    OutcomeUnknown,
    /// The store's driver has stopped.
    #[error("store is closed")]
    Closed,
    /// The disk failed: this member writes no more until it is started anew. Reads go on.
    #[error("store has failed and writes no more: {reason}")]
    Failed {
        /// What the disk said.
        reason: Arc<str>,
    },
    /// Another process has the data directory.
    #[error("data directory {dir:?} is in use{}", .pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The other process, if it left its number.
        pid: Option<u32>,
    },
    /// A new store can be begun in an empty directory alone.
    #[error("{dir:?} is not empty")]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// The data directory is a member's already, and cannot become another's.
    #[error("data directory {dir:?} holds a member of a cluster already: to join another, use an empty one")]
    Occupied {
        /// The data directory.
        dir: PathBuf,
    },
    /// A peer sent what no member sends.
    #[error("malformed packet: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The data directory was written by another version.
    #[error("data directory {dir:?} has format {found:?}, and this version reads {supported}")]
    Format {
        /// The data directory.
        dir: PathBuf,
        /// The format found.
        found: String,
        /// The format this version reads and writes.
        supported: u32,
    },
    /// What was once synced reads back damaged.
    #[error(
        "{file} is damaged at byte {offset}: {what}; restore a snapshot into an empty data directory, \
         or remove the directory and join the cluster anew"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The operating system refused something on opening.
    #[error("cannot {action}")]
    Io {
        /// What was being done, with the file's name.
        action: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The engine that keeps the applied state refused something.
    #[error("state engine cannot {action}")]
    Engine {
        /// What was being done.
        action: &'static str,
        /// What the engine said.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether the same request may be sent again as it is, and nothing was done by the first.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::DiskFull | Self::Unavailable => true,
            Self::Compacted { .. }
            | Self::FutureRevision { .. }
            | Self::SlowWatcher { .. }
            | Self::KeyTooLong { .. }
            | Self::KeyEmpty
            | Self::ValueTooLarge { .. }
            | Self::TooManyOps { .. }
            | Self::TooDeep { .. }
            | Self::RangeInRange
            | Self::TxnTooLarge { .. }
            | Self::DuplicateKey { .. }
            | Self::PastReadInTxn
            | Self::KeyNotFound { .. }
            | Self::Sealed { .. }
            | Self::LeaseNotFound { .. }
            | Self::LeaseExists { .. }
            | Self::MemberNotFound { .. }
            | Self::QuorumAtRisk
            | Self::Removed
            | Self::OutcomeUnknown
            | Self::Closed
            | Self::Failed { .. }
            | Self::Locked { .. }
            | Self::NotEmpty { .. }
            | Self::Occupied { .. }
            | Self::Malformed { .. }
            | Self::Format { .. }
            | Self::Corrupt { .. }
            | Self::Io { .. }
            | Self::Engine { .. } => false,
        }
    }

    /// Whether the request itself is at fault: it would be refused at any time.
    #[must_use]
    pub const fn is_invalid(&self) -> bool {
        match self {
            Self::KeyTooLong { .. }
            | Self::KeyEmpty
            | Self::ValueTooLarge { .. }
            | Self::TooManyOps { .. }
            | Self::TooDeep { .. }
            | Self::RangeInRange
            | Self::TxnTooLarge { .. }
            | Self::DuplicateKey { .. }
            | Self::PastReadInTxn => true,
            Self::Compacted { .. }
            | Self::FutureRevision { .. }
            | Self::SlowWatcher { .. }
            | Self::KeyNotFound { .. }
            | Self::Sealed { .. }
            | Self::LeaseNotFound { .. }
            | Self::LeaseExists { .. }
            | Self::MemberNotFound { .. }
            | Self::QuorumAtRisk
            | Self::Removed
            | Self::DiskFull
            | Self::Unavailable
            | Self::OutcomeUnknown
            | Self::Closed
            | Self::Failed { .. }
            | Self::Locked { .. }
            | Self::NotEmpty { .. }
            | Self::Occupied { .. }
            | Self::Malformed { .. }
            | Self::Format { .. }
            | Self::Corrupt { .. }
            | Self::Io { .. }
            | Self::Engine { .. } => false,
        }
    }

    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source: Arc::new(source) }
    }
}
