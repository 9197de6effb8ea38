//! The log as raft-rs reads it.

use std::cell::{Cell, RefCell};

use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{Entry, Snapshot, SnapshotMetadata},
};

use super::Log;
use crate::{disk::Disk, error::Error};

/// raft-rs asks its storage, through a shared reference, for things the worker must see to.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// An image of the state was asked for.
    pub(super) wanted: Cell<bool>,
    /// The point of the log at which there is one.
    pub(super) offered: RefCell<Option<SnapshotMetadata>>,
    /// An entry did not read back: raft-rs would end the process, so it is told that the entry is gone, and the worker
    /// what happened.
    pub(super) damage: RefCell<Option<Error>>,
}

impl<D: Disk> Storage for Log<D> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        self.read(low, high, max_size.into().unwrap_or(u64::MAX)).map_err(|error| {
            self.held.damage.replace(Some(error));
            StorageError::Compacted.into()
        })
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_of(index) {
            Some(term) => Ok(term),
            None if index < self.before.0 => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Only where it stands: the image itself goes its own way, piece by piece.
    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        match &*self.held.offered.borrow() {
            Some(metadata) if metadata.index >= self.before.0 => {
                Ok(Snapshot { metadata: Some(metadata.clone()).into(), ..Snapshot::default() })
            }
            Some(_) | None => {
                self.held.wanted.set(true);
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}
