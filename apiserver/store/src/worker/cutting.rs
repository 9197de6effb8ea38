//! When a checkpoint is written so that the log can be cut, and what waits for one.
//!
//! Checkpoints are written beside the group commits, and a disk or a machine may be so slow, or so busy, that the log
//! grows faster. So it has a bound: writes that would carry the log beyond it are held back, in their order, until a
//! checkpoint has been written and the log cut. They are then as slow as the disk, as they are when a sync takes long.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use raft::eraftpb::{Entry, EntryType};

use super::{GROUP, GROUP_BYTES, Now, Phase, Proposed, Worker};
use crate::{
    checkpoint::{Job, Mark},
    disk::Disk,
    error::{Error, Result},
    state::Dirty,
};

/// After a checkpoint came to nothing, writes that wait for one are refused for so long before another is tried.
const AGAIN: Duration = Duration::from_secs(1);

/// What an entry takes in the log beside its data, about.
const FRAMED: u64 = 32;

/// So long may the log become, if so much lies between two checkpoints: one that is begun finds once as much, and a
/// segment's rest before that; the remainder is for what is written meanwhile.
pub(crate) const fn longest(interval: u64) -> u64 {
    interval / 2 * 5
}

/// See the module.
pub(super) struct Cutting {
    /// The index of the checkpoint on disk.
    marked: u64,
    /// Bytes of the entries applied, which are the same on all members, however each of them framed them.
    applied: u64,
    /// How far that must have come for the next one.
    at: u64,
    /// From where on it is counted off in intervals, one checkpoint in each.
    origin: u64,
    /// A checkpoint is being written, or waits to be.
    is_under_way: bool,
    job: Option<Job>,
    /// Writes that wait for the log to be cut.
    held: VecDeque<Proposed>,
    /// Something waits for it.
    is_wanted: bool,
    /// Why the last one came to nothing, and when that was.
    missed: Option<(Error, Duration)>,
    /// Bytes of the checkpoint's directory now, and when it was last begun anew.
    state: u64,
    fresh: u64,
}

impl Cutting {
    pub(super) const fn new(marked: u64, at: u64) -> Self {
        Self {
            marked,
            applied: 0,
            at,
            origin: 0,
            is_under_way: false,
            job: None,
            held: VecDeque::new(),
            is_wanted: false,
            missed: None,
            state: 0,
            fresh: 0,
        }
    }

    /// Whether the checkpoint's directory is to be begun anew: it has become so large that with the new one beside it, and
    /// the log, it would soon be three times as large as what is live, and 64 MB. And it has grown by a good part since the
    /// last time, so that writing anew is rare beside writing.
    const fn is_outgrown(&self, live: u64, interval: u64) -> bool {
        self.state > live + live / 4 * 3 + 2 * interval && self.state > self.fresh + live / 2 + interval
    }

    /// When the checkpoint is due after one that is begun now: in half an interval to one and a half.
    const fn next(&self, interval: u64) -> u64 {
        let intervals = (self.applied + interval / 2).saturating_sub(self.origin).div_ceil(interval);
        self.origin + intervals * interval
    }

    /// Whether a checkpoint is being written.
    pub(super) const fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// Why no checkpoint can be expected now, if one has only just come to nothing.
    fn missed(&self, now: Now) -> Option<&Error> {
        let missed = self.missed.as_ref().filter(|(_, since)| now.steady.saturating_sub(*since) < AGAIN);
        missed.map(|(error, _)| error)
    }
}

impl<D: Disk> Worker<D> {
    /// A checkpoint to be written, away from this thread; [`Worker::checkpointed`] takes the result.
    pub(crate) const fn take_job(&mut self) -> Option<Job> {
        self.cutting.job.take()
    }

    /// A checkpoint was written, and its directory has so many bytes now; or it was not.
    pub(crate) fn checkpointed(&mut self, job: Job, saved: Result<u64>, now: Now) {
        self.cutting.is_under_way = false;
        let cut = match saved {
            Ok(bytes) => {
                self.work.checkpoints += 1;
                self.work.state_bytes = bytes;
                self.cutting.state = bytes;
                if job.anew.is_some() {
                    self.cutting.fresh = bytes;
                }
                self.work.checkpoint_bytes += job.bytes();
                self.cutting.marked = job.mark.index;
                self.cutting.missed = None;
                tracing::debug!(index = job.mark.index, revision = job.mark.revision.0, "checkpoint written");
                if job.whole { self.install(now) } else { self.cut(job.mark.index) }
            }
            Err(error @ Error::DiskFull) => {
                tracing::warn!("the disk is too full for a checkpoint: the log is kept until there is room for one");
                self.postpone(job, error, now);
                Ok(())
            }
            Err(error) => {
                // As with the log: after a failed sync nobody can tell what the disk holds.
                let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
                let text: Vec<String> = text.map(ToString::to_string).collect();
                Err(Error::Failed { reason: Arc::from(format!("cannot write a checkpoint: {}", text.join(": "))) })
            }
        };
        let cut = match cut {
            // The image is on disk; the log behind it begins when there is room.
            Err(Error::DiskFull) => self.full(now),
            other => other,
        };
        // Once the disk failed under the log nothing more is to be said.
        if let Err(error) = cut {
            self.fail(error);
            return;
        }
        self.let_go(now);
        self.consider_checkpoint(now);
        self.tell();
    }

    /// A checkpoint could not be written now: what it would have held goes into another one, when the log has grown some
    /// more. What waits for it is refused.
    pub(crate) fn postpone(&mut self, job: Job, error: Error, now: Now) {
        self.cutting.is_under_way = false;
        if job.whole {
            self.images.give_up();
        } else {
            // The others have not changed since the checkpoint that is valid still.
            let changed = job.anew.unwrap_or(job.entries.len());
            self.cutting.state = 0;
            let keys = job.entries.into_iter().take(changed).map(|(key, _)| key);
            let keys = keys.chain(job.fresh.iter().map(|entry| entry.key.clone()));
            let leases = job.leases.into_iter().map(|(id, _)| id);
            let peers = job.peers.into_iter().map(|(id, _)| id);
            self.shared.write().mark_dirty(keys, leases, peers);
            self.cutting.at = self.cutting.applied + self.settings.checkpoint_bytes / 4;
        }
        self.end_waiting_for_checkpoint(&error);
        self.cutting.missed = Some((error, now.steady));
    }

    /// Cuts the log behind a checkpoint, but for what members that are behind still need of it: of that no more than lies
    /// between two checkpoints, so that the next one finds room. Who is further behind is sent an image.
    fn cut(&mut self, index: u64) -> Result<()> {
        let Some(member) = &mut self.member else { return Ok(()) };
        let floor = if member.has_peers() && member.is_leader() { member.floor() } else { u64::MAX };
        member.log_mut().cut(index.min(floor))?;
        if member.log().bytes() > self.settings.checkpoint_bytes {
            member.log_mut().cut(index)?;
        }
        Ok(())
    }

    /// Whether so many bytes more would carry the log beyond its bound, and a checkpoint can help.
    fn is_too_long(&self, bytes: usize) -> bool {
        let Some(member) = &self.member else { return false };
        let can_be_cut = self.cutting.is_under_way || self.applied.0 > self.cutting.marked;
        can_be_cut && member.log().bytes() + bytes as u64 > longest(self.settings.checkpoint_bytes)
    }

    /// Whether entries of the leader's are to wait: it sends them again.
    pub(super) fn holds_back_peers(&mut self, bytes: usize) -> bool {
        let holds_back = self.is_too_long(bytes);
        self.cutting.is_wanted |= holds_back;
        holds_back
    }

    /// Keeps writes until the log is cut, if it is too long for them; gives back what need not wait.
    pub(super) fn hold_back(&mut self, group: Vec<Proposed>, now: Now) -> Vec<Proposed> {
        if matches!(self.phase, Phase::Failed(_)) || self.asks_leader() {
            // Not for this log, though what came before goes first.
            let mut all = Vec::from(mem::take(&mut self.cutting.held));
            all.extend(group);
            return all;
        }
        let bytes = group.iter().map(|proposed| proposed.size() + 64).sum();
        if group.is_empty() || self.cutting.held.is_empty() && !self.is_too_long(bytes) {
            return group;
        }
        if let Some(error) = self.cutting.missed(now).cloned() {
            if matches!(error, Error::DiskFull) {
                self.note_full();
            }
            self.refuse(group, &error);
            return Vec::new();
        }
        self.cutting.is_wanted = true;
        // The end of a lease is proposed anew after a while.
        self.cutting.held.extend(group.into_iter().filter(|one| !matches!(one, Proposed::Own { waiting: None, .. })));
        Vec::new()
    }

    /// Whether writes wait for the log to be cut.
    pub(crate) fn holds_back(&self) -> bool {
        !self.cutting.held.is_empty()
    }

    /// The log was cut: what waited for that goes on, as far as there is room for it now.
    fn let_go(&mut self, now: Now) {
        let mut held = mem::take(&mut self.cutting.held);
        while !held.is_empty() && self.cutting.held.is_empty() {
            let mut bytes = 0;
            let fits = held.iter().take(GROUP).take_while(|proposed| {
                let before = bytes;
                bytes += proposed.size();
                before < GROUP_BYTES
            });
            let group = held.drain(..fits.count()).collect();
            self.commit(group, now);
            self.settle(now);
        }
        self.cutting.held.append(&mut held);
    }

    /// No checkpoint comes: what waits for one was not done.
    pub(super) fn end_waiting_for_checkpoint(&mut self, error: &Error) {
        let held = mem::take(&mut self.cutting.held);
        if !held.is_empty() && matches!(error, Error::DiskFull) {
            self.note_full();
        }
        self.refuse(held.into(), error);
    }

    /// Prepares a checkpoint if it is time for one.
    pub(super) fn consider_checkpoint(&mut self, now: Now) {
        if self.cutting.is_under_way || matches!(self.phase, Phase::Failed(_)) {
            return;
        }
        if let Some(job) = self.image_job(self.cutting.marked) {
            self.cutting.job = Some(job);
            self.cutting.is_under_way = true;
            return;
        }
        let is_wanted = self.cutting.is_wanted && self.cutting.missed(now).is_none();
        // A checkpoint from before the one on disk would make that one's records look like leavings.
        if self.cutting.applied < self.cutting.at && !is_wanted || self.applied.0 <= self.cutting.marked {
            return;
        }
        let Some(member) = &self.member else { return };
        let members = member.log().members().clone();
        let dirty = self.shared.write().take_dirty();
        // This thread is the only one that changes the state, so nothing comes between the two locks.
        let state = self.shared.read();
        let (index, term) = self.applied;
        let mark = Mark { index, term, revision: state.revision(), members, received: false };
        let Dirty { keys, mut leases, mut peers } = dirty;
        let (mut entries, mut fresh) = (Vec::new(), Vec::new());
        for (key, was_held) in &keys {
            let entry = state.index().get(key).cloned();
            if *was_held { entries.push((key.clone(), entry)) } else { fresh.extend(entry) }
        }
        let mut anew = None;
        if self.cutting.is_outgrown(state.index().bytes(), self.settings.checkpoint_bytes) {
            anew = Some(entries.len());
            let others = state.index().entries().filter(|entry| !keys.contains_key(&entry.key));
            entries.extend(others.map(|entry| (entry.key.clone(), Some(Arc::clone(entry)))));
            leases.extend(state.leases().iter().map(|(id, _)| id));
            peers.extend(state.peers().keys());
        }
        let leases = leases.into_iter().map(|id| (id, state.leases().get(id).map(|held| held.ttl.as_secs())));
        let peers = peers.into_iter().map(|id| (id, state.peers().get(&id).cloned()));
        let (leases, peers) = (leases.collect(), peers.collect());
        self.cutting.job = Some(Job { mark, entries, fresh, leases, peers, whole: false, anew });
        drop(state);
        self.cutting.is_under_way = true;
        self.cutting.is_wanted = false;
        self.cutting.at = self.cutting.next(self.settings.checkpoint_bytes);
    }

    /// The last entry that the checkpoint on disk holds, for who judges.
    #[cfg(test)]
    pub(crate) const fn marked(&self) -> u64 {
        self.cutting.marked
    }

    /// Counts an entry that is applied. At one that a leader begins with, or that changes the members, each member begins to
    /// count from a point of its own, so that they take their checkpoints in turn: all apply the same entries, and without
    /// that all would be slow at once, every time, and no majority would be quick.
    pub(super) fn count(&mut self, entry: &Entry) {
        self.cutting.applied += FRAMED + entry.data.len() as u64;
        if entry.entry_type == EntryType::EntryNormal && !entry.data.is_empty() {
            return;
        }
        let Some(member) = &self.member else { return };
        let voters = &member.log().members().voters;
        let before = voters.iter().filter(|id| **id < member.own().id).count() as u64;
        let share = self.settings.checkpoint_bytes * before / voters.len().max(1) as u64;
        self.cutting.origin = self.cutting.applied + share;
    }
}
