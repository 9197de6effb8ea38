//! What the store's thread does, without the thread: takes requests, commits them in groups, applies what is committed,
//! and answers. Time is passed in and the disk is a trait, so the simulation runs this very code.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use raft::eraftpb::{Entry, EntryType};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    checkpoint::{Job, Mark},
    command::{Command, Outcome, Proposal},
    disk::Disk,
    error::{Error, Result},
    lease::{Deadlines, Lease},
    member::Member,
    queue::Request,
    shared::{Shared, Work},
};

/// Bytes and proposals in one group commit: about what a disk writes in the time it takes to sync.
const GROUP_BYTES: usize = 4 << 20;
const GROUP: usize = 1024;
/// How long a lease's end waits for a disk that is full.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time of a turn, passed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// The member's own steady clock.
    pub(crate) steady: Duration,
    /// The wall clock, milliseconds since 1970; told, never relied upon.
    pub(crate) wall: u64,
}

/// A proposer that waits.
struct Waiting {
    answer: oneshot::Sender<Outcome>,
    /// Given back when answered.
    _room: OwnedSemaphorePermit,
}

/// A proposal of a group.
struct Proposed {
    command: Command,
    waiting: Option<Waiting>,
}

/// How writes fare. `Writing` and `Full` alternate with the disk; `Failed` is left by a new start only.
#[derive(Debug)]
enum Phase {
    /// Writes are taken.
    Writing,
    /// The last write found no room.
    Full,
    /// The disk failed.
    Failed(Error),
}

/// See the module.
pub(crate) struct Worker<D: Disk> {
    shared: Arc<Shared>,
    /// None only while it is begun anew.
    member: Option<Member<D>>,
    phase: Phase,
    deadlines: Deadlines,
    leads: bool,
    waiting: BTreeMap<u64, Waiting>,
    /// Index and term of the last entry applied.
    applied: (u64, u64),
    /// So many bytes of log lie between two checkpoints.
    checkpoint_bytes: u64,
    /// How far the log must have come for the next one.
    checkpoint_at: u64,
    /// A checkpoint is being written, or waits to be.
    checkpointing: bool,
    job: Option<Job>,
    work: Work,
}

impl<D: Disk> Worker<D> {
    /// Applies what the log holds beyond the checkpoint that `shared`'s state was loaded from, and takes the lead if
    /// alone.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::DiskFull`].
    pub(crate) fn open(
        shared: Arc<Shared>,
        member: Member<D>,
        applied: (u64, u64),
        checkpoint_bytes: u64,
        now: Now,
    ) -> Result<Self> {
        let mut worker = Self {
            shared,
            member: Some(member),
            phase: Phase::Writing,
            deadlines: Deadlines::default(),
            leads: false,
            waiting: BTreeMap::new(),
            applied,
            checkpoint_bytes,
            checkpoint_at: checkpoint_bytes,
            checkpointing: false,
            job: None,
            work: Work::default(),
        };
        worker.drain(now)?;
        match worker.take_the_lead(now) {
            // A store on a full disk is read, and writes when there is room.
            Err(Error::DiskFull) => worker.full(now)?,
            other => other?,
        }
        worker.tell();
        Ok(worker)
    }

    /// When to call [`Worker::expire`].
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let history = self.shared.read().history().next_due();
        match self.phase {
            Phase::Writing | Phase::Full => self.deadlines.next().into_iter().chain(history).min(),
            Phase::Failed(_) => None,
        }
    }

    /// Serves requests in the order they came.
    pub(crate) fn serve(&mut self, requests: impl IntoIterator<Item = Request>, now: Now) {
        let mut group = Vec::new();
        let mut bytes = 0;
        for request in requests {
            match request {
                Request::Propose { command, answer, room } => {
                    bytes += command.size();
                    group.push(Proposed { command, waiting: Some(Waiting { answer, _room: room }) });
                    if bytes >= GROUP_BYTES || group.len() >= GROUP {
                        self.commit(mem::take(&mut group), now);
                        bytes = 0;
                    }
                }
                Request::KeepAlive { id, answer, room: _room } => {
                    let renewed = self.deadlines.renew(id, now.steady).ok_or(Error::LeaseNotFound { id });
                    drop(answer.send(renewed.map(|ttl| Lease { id, ttl })));
                }
                Request::TimeToLive { id, answer, room: _room } => {
                    drop(answer.send(self.deadlines.left(id, now.steady).ok_or(Error::LeaseNotFound { id })));
                }
                Request::Wake => {}
            }
        }
        self.commit(group, now);
        self.consider_checkpoint();
        self.tell();
    }

    fn tell(&mut self) {
        let refusing = match &self.phase {
            Phase::Writing => None,
            Phase::Full => Some(Error::DiskFull),
            Phase::Failed(error) => Some(error.clone()),
        };
        if let Some(member) = &self.member {
            (self.work.log_bytes, self.work.log_syncs) = member.log().work();
        }
        self.shared.tell(refusing, self.work);
    }

    /// Ends the leases whose time is up, and forgets some of what history has kept too long: after a busy time more of
    /// it is due than the few changes of a quiet one take off.
    pub(crate) fn expire(&mut self, now: Now) {
        if matches!(self.phase, Phase::Failed(_)) {
            return;
        }
        let is_overdue = self.shared.read().history().next_due().is_some_and(|due| due <= now.steady);
        if is_overdue {
            let forgotten = self.shared.write().forget_due(now.steady);
            drop(forgotten);
        }
        let due = self.deadlines.take_due(now.steady);
        if due.is_empty() {
            return;
        }
        let group =
            due.iter().map(|id| Proposed { command: Command::LeaseRevoke { id: *id }, waiting: None }).collect();
        self.commit(group, now);
        self.tell();
        let state = self.shared.read();
        for id in due.into_iter().filter(|id| state.leases().get(*id).is_some()) {
            self.deadlines.postpone(id, now.steady + PATIENCE);
        }
    }

    /// A checkpoint to be written, away from this thread; [`Worker::checkpointed`] takes the result.
    pub(crate) const fn take_job(&mut self) -> Option<Job> {
        self.job.take()
    }

    /// A checkpoint was written, or was not.
    pub(crate) fn checkpointed(&mut self, job: Job, saved: Result<()>) {
        self.checkpointing = false;
        let cut = match saved {
            Ok(()) => {
                self.work.checkpoints += 1;
                self.work.checkpoint_bytes += job.bytes();
                tracing::debug!(index = job.mark.index, revision = job.mark.revision.0, "checkpoint written");
                self.member.as_mut().map_or(Ok(()), |member| member.log_mut().cut(job.mark.index))
            }
            Err(error) if !matches!(error, Error::DiskFull) => {
                // As with the log: after a failed sync nobody can tell what the disk holds.
                let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
                let text: Vec<String> = text.map(ToString::to_string).collect();
                Err(Error::Failed { reason: Arc::from(format!("cannot write a checkpoint: {}", text.join(": "))) })
            }
            Err(_) => {
                tracing::warn!("the disk is too full for a checkpoint: the log is kept until there is room for one");
                self.postpone(job);
                Ok(())
            }
        };
        // Once the disk failed under the log nothing more is to be said.
        if let Err(error) = cut {
            self.fail(error);
        }
    }

    /// A checkpoint could not be written now: what it would have held goes into another one, when the log has grown some
    /// more.
    pub(crate) fn postpone(&mut self, job: Job) {
        self.checkpointing = false;
        let keys = job.entries.into_iter().map(|(key, _)| key);
        let leases = job.leases.into_iter().map(|(id, _)| id);
        self.shared.write().mark_dirty(keys, leases);
        self.checkpoint_at = self.log_written() + self.checkpoint_bytes / 4;
    }

    fn log_written(&self) -> u64 {
        self.member.as_ref().map_or(0, |member| member.log().written())
    }

    fn consider_checkpoint(&mut self) {
        if self.checkpointing || self.log_written() < self.checkpoint_at {
            return;
        }
        let Some(member) = &self.member else { return };
        let members = member.log().members().clone();
        let dirty = self.shared.write().take_dirty();
        // This thread is the only one that changes the state, so nothing comes between the two locks.
        let state = self.shared.read();
        let mark = Mark { index: self.applied.0, term: self.applied.1, revision: state.revision(), members };
        let entries = dirty.keys.into_iter().map(|key| {
            let entry = state.index().get(&key).cloned();
            (key, entry)
        });
        let leases = dirty.leases.into_iter().map(|id| (id, state.leases().get(id).map(|held| held.ttl.as_secs())));
        self.job = Some(Job { mark, entries: entries.collect(), leases: leases.collect() });
        self.checkpointing = true;
        self.checkpoint_at = self.log_written() + self.checkpoint_bytes;
    }

    /// Commits a group: one append, one sync.
    fn commit(&mut self, group: Vec<Proposed>, now: Now) {
        if group.is_empty() {
            return;
        }
        if let Err(error) = self.try_commit(group, now) {
            match error {
                Error::DiskFull => {
                    if let Err(error) = self.full(now) {
                        self.fail(error);
                    }
                }
                error => self.fail(error),
            }
        }
    }

    fn try_commit(&mut self, group: Vec<Proposed>, now: Now) -> Result<()> {
        if let Phase::Failed(error) = &self.phase {
            refuse(group, error);
            return Ok(());
        }
        let bytes = group.iter().map(|proposed| proposed.command.size() + 64).sum();
        // Nothing of the group has been handed in yet: whatever goes wrong here, it is certain that it was not done.
        match self.member()?.log_mut().reserve(bytes) {
            Ok(()) => {}
            Err(Error::DiskFull) => {
                self.note_full();
                refuse(group, &Error::DiskFull);
                return Ok(());
            }
            Err(error) => {
                refuse(group, &error);
                return Err(error);
            }
        }
        // After a full disk there may be no leader yet.
        if let Err(error) = self.take_the_lead(now) {
            refuse(group, &error);
            return Err(error);
        }
        if matches!(self.phase, Phase::Full) {
            tracing::info!("there is room on the disk again: writes go on");
            self.phase = Phase::Writing;
        }
        for Proposed { command, waiting } in group {
            match (self.member()?.propose(command, now.wall), waiting) {
                (Ok(number), Some(waiting)) => drop(self.waiting.insert(number, waiting)),
                (Err(error), Some(waiting)) => drop(waiting.answer.send(Err(error))),
                (_, None) => {}
            }
        }
        self.drain(now)
    }

    fn member(&mut self) -> Result<&mut Member<D>> {
        self.member.as_mut().ok_or_else(|| Error::Failed { reason: "the member was lost on being begun anew".into() })
    }

    fn take_the_lead(&mut self, now: Now) -> Result<()> {
        let member = self.member()?;
        if !member.is_leader() && member.is_alone() {
            member.campaign()?;
            self.drain(now)?;
        }
        Ok(())
    }

    /// Writes, commits and applies until nothing is left to do.
    fn drain(&mut self, now: Now) -> Result<()> {
        while let Some(committed) = self.member()?.turn()? {
            if let Some(last) = committed.last() {
                let index = last.index;
                // Before anybody is answered: who hears that a write is done finds it counted.
                self.tell();
                for entry in committed {
                    self.apply(&entry, now)?;
                }
                self.member()?.applied(index);
            }
        }
        let member = self.member()?;
        let (leads, term) = (member.is_leader(), member.term());
        if leads && !self.leads {
            tracing::debug!(term, "this member leads");
            self.deadlines.clear();
            let state = self.shared.read();
            for (id, held) in state.leases().iter() {
                self.deadlines.start(id, held.ttl, now.steady);
            }
        }
        self.leads = leads;
        Ok(())
    }

    fn apply(&mut self, entry: &Entry, now: Now) -> Result<()> {
        if entry.entry_type != EntryType::EntryNormal {
            self.member()?.change_members(entry)?;
        } else if !entry.data.is_empty() {
            let proposal = Proposal::decode(&entry.data).map_err(|error| Error::Failed {
                reason: Arc::from(format!("entry {} of the log: {error}", entry.index)),
            })?;
            self.apply_proposal(&proposal, now)?;
        }
        self.applied = (entry.index, entry.term);
        Ok(())
    }

    fn apply_proposal(&mut self, proposal: &Proposal, now: Now) -> Result<()> {
        if matches!(proposal.command, Command::Compact { .. }) {
            // Live watchers are told everything first, so that compaction takes nothing from under them.
            while self.shared.hand_out() {}
        }
        let effects = self.shared.write().apply(&proposal.command, now.steady);
        drop(effects.forgotten);
        if effects.outcome.is_ok() {
            match &proposal.command {
                Command::LeaseGrant { id, ttl } => self.deadlines.start(*id, *ttl, now.steady),
                Command::LeaseRevoke { id } => self.deadlines.remove(*id),
                Command::Txn(_) | Command::Compact { .. } => {}
            }
        }
        if self.member()?.is_own(proposal)
            && let Some(waiting) = self.waiting.remove(&proposal.number)
        {
            drop(waiting.answer.send(effects.outcome));
        }
        Ok(())
    }

    fn note_full(&mut self) {
        if !matches!(self.phase, Phase::Full) {
            tracing::warn!("the disk is full: writes are refused until there is room");
            self.phase = Phase::Full;
        }
        self.tell();
    }

    /// The disk is full: nothing of the last group was written. Begins the member anew from what its log holds.
    fn full(&mut self, now: Now) -> Result<()> {
        self.note_full();
        for (_, waiting) in mem::take(&mut self.waiting) {
            drop(waiting.answer.send(Err(Error::DiskFull)));
        }
        let applied = self.applied.0;
        let member = self.member.take().map(|member| member.restart(applied)).transpose()?;
        self.member = member;
        self.leads = false;
        self.drain(now)
    }

    /// The disk failed: nothing is written any more by this process, for what it would say cannot be believed.
    fn fail(&mut self, error: Error) {
        tracing::error!(
            error = &error as &(dyn std::error::Error + 'static),
            "the store writes no more until it is started anew"
        );
        self.phase = Phase::Failed(error);
        self.tell();
        for (_, waiting) in mem::take(&mut self.waiting) {
            drop(waiting.answer.send(Err(Error::OutcomeUnknown)));
        }
    }

    /// The leases that [`Worker::expire`] would end, in its order.
    #[cfg(test)]
    pub(crate) fn due(&self, now: Now) -> Vec<crate::LeaseId> {
        self.deadlines.due(now.steady)
    }

    /// Whether the disk failed.
    #[cfg(test)]
    pub(crate) const fn has_failed(&self) -> bool {
        matches!(self.phase, Phase::Failed(_))
    }

    /// What ended the writing, if anything did.
    pub(crate) fn end(self) -> Result<()> {
        match self.phase {
            Phase::Writing | Phase::Full => Ok(()),
            Phase::Failed(error) => Err(error),
        }
    }
}

fn refuse(group: Vec<Proposed>, error: &Error) {
    for waiting in group.into_iter().filter_map(|proposed| proposed.waiting) {
        drop(waiting.answer.send(Err(error.clone())));
    }
}
