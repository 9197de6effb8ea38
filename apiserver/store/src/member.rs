//! One member of the Raft group: raft-rs over our log.
//!
//! A machine that is fed ([`Member::propose`], [`Member::campaign`]) and drained ([`Member::turn`]): it has no clock, no
//! thread and no randomness of its own, and everything it does to the disk goes through the log's
//! [`Disk`](crate::disk::Disk). A lone member has no ticks: it has nobody to send heartbeats to, and campaigns at once.

use std::sync::Arc;

use protobuf::Message;
use raft::{
    Config, RawNode, StateRole,
    eraftpb::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType},
};

use crate::{
    bridge,
    command::{Command, Proposal},
    disk::Disk,
    error::{Error, Result},
    log::Log,
};

/// See the module.
pub(crate) struct Member<D: Disk> {
    node: RawNode<Log<D>>,
    id: u64,
    life: u64,
    number: u64,
}

impl<D: Disk> Member<D> {
    /// A member whose state machine stands at `applied`. `life` tells its proposals from those of earlier starts.
    ///
    /// # Errors
    /// [`Error::Failed`] if raft-rs does not accept the log.
    pub(crate) fn new(log: Log<D>, id: u64, life: u64, applied: u64) -> Result<Self> {
        Ok(Self { node: node(log, id, applied)?, id, life, number: 0 })
    }

    /// The same member begun anew from what its log holds, forgetting what did not get there.
    pub(crate) fn restart(self, applied: u64) -> Result<Self> {
        let log = self.node.raft.r.raft_log.store;
        Ok(Self { node: node(log, self.id, applied)?, ..self })
    }

    pub(crate) fn log(&self) -> &Log<D> {
        self.node.store()
    }

    pub(crate) fn log_mut(&mut self) -> &mut Log<D> {
        self.node.mut_store()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub(crate) fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Whether this member is the only one that votes, and so elects itself.
    pub(crate) fn is_alone(&self) -> bool {
        is_alone(self.log(), self.id)
    }

    /// Stands for election at once.
    pub(crate) fn campaign(&mut self) -> Result<()> {
        self.node.campaign().map_err(failed)
    }

    /// Whether a proposal came from this member in this life.
    pub(crate) const fn is_own(&self, proposal: &Proposal) -> bool {
        proposal.member == self.id && proposal.life == self.life
    }

    /// Hands in a command; gives the number under which it will be applied.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: this member does not lead, or too much is under way.
    pub(crate) fn propose(&mut self, command: Command, time: u64) -> Result<u64> {
        let number = self.number + 1;
        let proposal = Proposal { member: self.id, life: self.life, number, time, command };
        match self.node.propose(Vec::new(), proposal.encode()) {
            Ok(()) => {
                self.number = number;
                Ok(number)
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a proposal was dropped");
                Err(Error::Unavailable)
            }
        }
    }

    /// Does what raft-rs wants done next: puts its new entries and votes on stable storage, and gives back what is
    /// committed and must now be applied, in order, before [`Member::applied`] is called. None: nothing is to be done.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: nothing of it was written, and the member must be begun anew ([`Member::restart`]).
    /// [`Error::Failed`]: the member must not be used any more.
    pub(crate) fn turn(&mut self) -> Result<Option<Vec<Entry>>> {
        if !self.node.has_ready() {
            return Ok(None);
        }
        let mut ready = self.node.ready();
        if !ready.snapshot().is_empty() {
            return Err(failed("a snapshot came from a peer, and a lone member has none"));
        }
        let mut committed = ready.take_committed_entries();
        let entries = ready.take_entries();
        let must_sync = ready.must_sync();
        let log = self.node.mut_store();
        if must_sync {
            log.append(entries, ready.hs())?;
            log.sync()?;
        } else if let Some(hard_state) = ready.hs() {
            // Only the commit index changed: it goes along with the next frame.
            log.note_commit(hard_state.commit);
        }
        let mut light = self.node.advance_append(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().note_commit(commit);
        }
        committed.append(&mut light.take_committed_entries());
        Ok(Some(committed))
    }

    /// What [`Member::turn`] gave back has been applied up to `index`.
    pub(crate) fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        self.node.mut_store().applied(index);
    }

    /// Applies a committed change of the members.
    ///
    /// # Errors
    /// [`Error::Failed`] if it cannot be decoded, or contradicts the members.
    pub(crate) fn change_members(&mut self, entry: &Entry) -> Result<()> {
        let members: ConfState = match entry.entry_type {
            EntryType::EntryNormal => return Ok(()),
            EntryType::EntryConfChange => {
                let mut change = ConfChange::default();
                change.merge_from_bytes(&entry.data).map_err(failed)?;
                self.node.apply_conf_change(&change).map_err(failed)?
            }
            EntryType::EntryConfChangeV2 => {
                let mut change = ConfChangeV2::default();
                change.merge_from_bytes(&entry.data).map_err(failed)?;
                self.node.apply_conf_change(&change).map_err(failed)?
            }
        };
        self.node.mut_store().note_members(members);
        Ok(())
    }
}

fn is_alone<D: Disk>(log: &Log<D>, id: u64) -> bool {
    let members = log.members();
    members.voters == [id] && members.voters_outgoing.is_empty()
}

fn node<D: Disk>(mut log: Log<D>, id: u64, applied: u64) -> Result<RawNode<Log<D>>> {
    // So that a store on a full disk, where no election can be written down, still reads everything it acknowledged.
    if is_alone(&log, id) {
        log.commit_alone(applied);
    }
    RawNode::new(&config(id, applied), log, &bridge::logger()).map_err(failed)
}

fn config(id: u64, applied: u64) -> Config {
    Config {
        id,
        applied,
        election_tick: 10,
        heartbeat_tick: 1,
        pre_vote: true,
        check_quorum: true,
        batch_append: true,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        max_uncommitted_size: 64 << 20,
        max_committed_size_per_ready: 4 << 20,
        ..Config::default()
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed { reason: Arc::from(format!("raft: {error}")) }
}
