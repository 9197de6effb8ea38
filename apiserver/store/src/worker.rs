//! What the store's thread does, without the thread: takes requests, commits them in groups, applies what is committed,
//! and answers. Time is passed in and the disk is a trait, so the simulation runs this very code.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use raft::eraftpb::{Entry, EntryType};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    command::{Command, Outcome, Proposal},
    disk::Disk,
    error::{Error, Result},
    history::Retention,
    lease::{Deadlines, Lease},
    member::Member,
    packet::Question,
    queue::Request,
    revision::LeaseId,
    shared::{Shared, Work},
    transport::Transport,
};

pub(crate) use self::pace::{SLOW, Slowest};
use self::{
    cutting::Cutting,
    images::Images,
    members::Changes,
    pace::Pace,
    peers::{Asker, Passing},
    reads::Reads,
    rounds::Rounds,
    witness::Telling,
};
#[cfg(test)]
pub(crate) use self::{cutting::longest, peers::TICK};

mod cutting;
mod images;
mod members;
mod pace;
mod peers;
mod reads;
mod removing;
mod rounds;
mod witness;

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
    since: Duration,
    /// What was passed on to the leader, encoded, if it was.
    passed_on: Option<Vec<u8>>,
    /// The index of its entry, if this member was the only voter when it was proposed: nobody else can come to commit it.
    alone_at: Option<u64>,
}

/// A proposal of a group.
enum Proposed {
    /// One of this member's; what nobody waits for is the leases' end.
    Own { command: Command, waiting: Option<Waiting> },
    /// One that a peer has sent on, encoded.
    Peer { member: u64, life: u64, number: u64, bytes: Vec<u8> },
}

impl Proposed {
    fn size(&self) -> usize {
        match self {
            Self::Own { command, .. } => command.size(),
            Self::Peer { bytes, .. } => bytes.len(),
        }
    }
}

/// How writes fare. `Writing` and `Full` alternate with the disk; `Failed` is left by a new start only.
#[derive(Debug)]
enum Phase {
    /// Writes are taken.
    Writing,
    /// The last write found no room.
    Full,
    /// The disk failed, or this is no member any more: it is silent from then on.
    Failed(Error),
}

/// What a worker is given beside its log.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) retention: Retention,
    /// So many bytes of log lie between two checkpoints.
    pub(crate) checkpoint_bytes: u64,
    /// The way to the peers.
    pub(crate) transport: Arc<dyn Transport>,
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
    settings: Settings,
    rounds: Rounds,
    cutting: Cutting,
    work: Work,
    passing: Passing,
    reads: Reads,
    changes: Changes,
    images: Images,
    pace: Pace,
    telling: Telling,
    /// Entries applied, for who judges.
    #[cfg(test)]
    pub(crate) trace: Vec<Entry>,
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
        settings: Settings,
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
            rounds: Rounds::default(),
            cutting: Cutting::new(applied.0, settings.checkpoint_bytes),
            settings,
            work: Work::default(),
            passing: Passing::default(),
            reads: Reads::default(),
            changes: Changes::default(),
            images: Images::default(),
            pace: Pace::default(),
            telling: Telling::default(),
            #[cfg(test)]
            trace: Vec::new(),
        };
        worker.know_members();
        worker.drain(now)?;
        match worker.take_the_lead(now) {
            // A store on a full disk is read, and writes when there is room.
            Err(Error::DiskFull) => worker.full(now)?,
            other => other?,
        }
        worker.note_pace(now);
        worker.consider_tick(now);
        worker.tell();
        Ok(worker)
    }

    /// When to call [`Worker::expire`].
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let history = self.shared.read().history().next_due();
        match self.phase {
            Phase::Writing | Phase::Full => {
                self.deadlines.next().into_iter().chain(history).chain(self.passing.next_tick).min()
            }
            Phase::Failed(_) => None,
        }
    }

    /// Serves requests in the order they came.
    pub(crate) fn serve(&mut self, requests: impl IntoIterator<Item = Request>, now: Now) {
        // Of what peers say.
        let mut bytes = 0;
        for request in requests {
            match request {
                Request::Propose { command, answer, room } => {
                    let waiting = Waiting { answer, _room: room, since: now.steady, passed_on: None, alone_at: None };
                    self.rounds.push(Proposed::Own { command, waiting: Some(waiting) });
                }
                Request::Packet { from, packet, size, room: _room } => {
                    bytes += size;
                    self.receive(from, packet, now);
                }
                Request::KeepAlive { id, answer, room: _room } => {
                    if self.asks_leader() {
                        self.ask(Question::KeepAlive(id.0), Asker::Lease { id, answer }, now);
                    } else {
                        drop(answer.send(self.keep_alive(id, now)));
                    }
                }
                Request::TimeToLive { id, answer, room: _room } => {
                    if self.asks_leader() {
                        self.ask(Question::TimeToLive(id.0), Asker::Left { id, answer }, now);
                    } else {
                        drop(answer.send(self.time_to_live(id, now)));
                    }
                }
                Request::Barrier { answer } => self.reads.push(answer, now),
                Request::Admit { info, answer } => self.admit(info, answer, now),
                Request::Dismiss { id, answer } => self.dismiss(id, answer, now),
                Request::HandOver { to, answer } => self.hand_over(to, answer),
                Request::Wake => {}
            }
            if bytes >= GROUP_BYTES || self.rounds.is_full() {
                self.settle(now);
                bytes = 0;
            }
        }
        self.ask_reads(now);
        self.settle(now);
        self.note_pace(now);
        self.consider_checkpoint(now);
        self.tell();
    }

    fn keep_alive(&mut self, id: LeaseId, now: Now) -> Result<Lease> {
        let ttl = self.deadlines.renew(id, now.steady).ok_or(Error::LeaseNotFound { id })?;
        Ok(Lease { id, ttl })
    }

    fn time_to_live(&self, id: LeaseId, now: Now) -> Result<Duration> {
        self.deadlines.left(id, now.steady).ok_or(Error::LeaseNotFound { id })
    }

    fn tell(&mut self) {
        let refusing = match &self.phase {
            Phase::Writing => None,
            Phase::Full => Some(Error::DiskFull),
            Phase::Failed(error) => Some(error.clone()),
        };
        if let Some(member) = &self.member {
            (self.work.log_bytes, self.work.log_syncs, self.work.sync_time) = member.log().work();
        }
        self.shared.tell(refusing, self.work, self.pace.syncs);
        let applied = self.applied.0;
        self.shared.tell_group(|group| group.applied = applied);
    }

    /// Ends the leases whose time is up, and forgets some of what history has kept too long: after a busy time more of
    /// it is due than the few changes of a quiet one take off.
    pub(crate) fn expire(&mut self, now: Now) {
        if matches!(self.phase, Phase::Failed(_)) {
            return;
        }
        self.consider_tick(now);
        let is_overdue = self.shared.read().history().next_due().is_some_and(|due| due <= now.steady);
        if is_overdue {
            let forgotten = self.shared.write().forget_due(now.steady);
            drop(forgotten);
        }
        let due = self.deadlines.take_due(now.steady);
        if due.is_empty() {
            return;
        }
        for id in &due {
            self.rounds.push(Proposed::Own { command: Command::LeaseRevoke { id: *id }, waiting: None });
        }
        self.settle(now);
        self.tell();
        let state = self.shared.read();
        for id in due.into_iter().filter(|id| state.leases().get(*id).is_some()) {
            self.deadlines.postpone(id, now.steady + PATIENCE);
        }
    }

    /// Commits a group: one append, one sync.
    fn commit(&mut self, group: Vec<Proposed>, now: Now) {
        let group = self.hold_back(group, now);
        if group.is_empty() {
            return;
        }
        let committed = self.try_commit(group, now);
        self.mind(committed, now);
    }

    /// Writes, commits and applies what peers' messages brought; then hands in what has waited for that, or has come.
    fn settle(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Failed(_)) {
            let drained = self.drain(now);
            self.mind(drained, now);
            let held = self.release();
            self.commit(held, now);
        }
        let round = self.next_round();
        self.commit(round, now);
    }

    fn mind(&mut self, result: Result<()>, now: Now) {
        match result {
            Ok(()) => {}
            Err(Error::DiskFull) => {
                if let Err(error) = self.full(now) {
                    self.fail(error);
                }
            }
            Err(error) => self.fail(error),
        }
    }

    fn try_commit(&mut self, group: Vec<Proposed>, now: Now) -> Result<()> {
        if let Phase::Failed(error) = &self.phase {
            let error = error.clone();
            self.refuse(group, &error);
            return Ok(());
        }
        if self.asks_leader() {
            self.pass_on(group, now);
            return Ok(());
        }
        let bytes = group.iter().map(|proposed| proposed.size() + 64).sum();
        // Nothing of the group has been handed in yet: whatever goes wrong here, it is certain that it was not done.
        if let Err(error) = self.make_room(bytes) {
            if matches!(error, Error::DiskFull) {
                self.note_full();
            }
            self.refuse(group, &error);
            return Ok(());
        }
        // After a full disk there may be no leader yet.
        if let Err(error) = self.take_the_lead(now) {
            self.refuse(group, &error);
            return Err(error);
        }
        self.note_room();
        for proposed in group {
            match proposed {
                Proposed::Own { command, waiting } => {
                    let member = self.member()?;
                    let proposed = member.propose(command, now.wall);
                    let alone_at = member.is_alone().then(|| member.last());
                    match (proposed, waiting) {
                        (Ok(number), Some(waiting)) => {
                            self.waiting.insert(number, Waiting { alone_at, ..waiting });
                        }
                        (Err(error), Some(waiting)) => drop(waiting.answer.send(Err(error))),
                        (_, None) => {}
                    }
                }
                Proposed::Peer { member, life, number, bytes } => {
                    if self.member()?.propose_bytes(bytes).is_err() {
                        self.refuse_of(member, life, number);
                    }
                }
            }
        }
        self.drain(now)
    }

    /// Answers what was not handed in.
    fn refuse(&mut self, group: Vec<Proposed>, error: &Error) {
        for proposed in group {
            match proposed {
                Proposed::Own { waiting: Some(waiting), .. } => drop(waiting.answer.send(Err(error.clone()))),
                Proposed::Own { waiting: None, .. } => {}
                Proposed::Peer { member, life, number, .. } => self.refuse_of(member, life, number),
            }
        }
    }

    /// Has the log keep room for so many bytes. A log that fails at that is written to no more, whoever asked.
    fn make_room(&mut self, bytes: usize) -> Result<()> {
        let made = self.member()?.log_mut().reserve(bytes);
        if let Err(error) = &made
            && !matches!(error, Error::DiskFull)
        {
            self.fail(error.clone());
        }
        made
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
        while let Some(member) = &mut self.member {
            let (images, telling, transport) = (&mut self.images, &mut self.telling, &*self.settings.transport);
            let turn = member.turn(|message| {
                if let Some(message) = telling.take(message) {
                    images.send(message, telling.witness(), transport, now);
                }
            });
            let Some(turn) = turn? else {
                // What goes out next would say it too.
                if self.rounds.is_empty() && member.tell_committed() {
                    continue;
                }
                break;
            };
            if let Some(error) = member.log().take_damage() {
                return Err(error);
            }
            for read in turn.reads {
                self.read_index_known(&read);
            }
            if let Some(last) = turn.committed.last() {
                let index = last.index;
                // Before anybody is answered: who hears that a write is done finds it counted.
                self.tell();
                for entry in turn.committed {
                    self.apply(&entry, now)?;
                }
                self.member()?.applied(index);
            }
        }
        self.tell_witness();
        self.answer_reads();
        self.offer_image(now);
        self.note_leadership(now);
        self.leave_if_removed();
        Ok(())
    }

    fn apply(&mut self, entry: &Entry, now: Now) -> Result<()> {
        #[cfg(test)]
        self.trace.push(entry.clone());
        if entry.entry_type != EntryType::EntryNormal {
            self.apply_change(entry)?;
        } else if !entry.data.is_empty() {
            let proposal = Proposal::decode(&entry.data).map_err(|error| Error::Failed {
                reason: Arc::from(format!("entry {} of the log: {error}", entry.index)),
            })?;
            self.apply_proposal(&proposal, now)?;
        }
        self.applied = (entry.index, entry.term);
        self.count(entry);
        Ok(())
    }

    fn apply_proposal(&mut self, proposal: &Proposal, now: Now) -> Result<()> {
        if matches!(proposal.command, Command::Compact { .. }) {
            // Live watchers are told everything first, so that compaction takes nothing from under them.
            while self.shared.hand_out() {}
        }
        let outcome = if self.is_done(proposal)? {
            let effects = self.shared.write().apply(&proposal.command, now.steady);
            drop(effects.forgotten);
            effects.outcome
        } else {
            Err(Error::Unavailable)
        };
        if outcome.is_ok() {
            match &proposal.command {
                Command::LeaseGrant { id, ttl } => {
                    let member = self.member()?;
                    if member.is_leader() || member.is_alone() {
                        self.deadlines.start(*id, *ttl, now.steady);
                    }
                }
                Command::LeaseRevoke { id } => self.deadlines.remove(*id),
                Command::Describe { .. } => self.shared.tell_cluster_changed(),
                Command::Txn(_) | Command::Compact { .. } => {}
            }
        }
        if self.member()?.is_own(proposal)
            && let Some(waiting) = self.waiting.remove(&proposal.number)
        {
            drop(waiting.answer.send(outcome));
        }
        Ok(())
    }

    /// Whether a command is to be carried out: by every member alike. What a member has sent on is not done twice, nor
    /// when it is a member no more; nobody but members is described.
    fn is_done(&mut self, proposal: &Proposal) -> Result<bool> {
        if let Command::Describe { id, .. } = &proposal.command
            && !self.member()?.is_member(*id)
        {
            return Ok(false);
        }
        if !proposal.forwarded {
            return Ok(true);
        }
        let known = self.member()?.is_member(proposal.member);
        Ok(known && self.shared.write().is_fresh(proposal.member, proposal.life, proposal.number))
    }

    fn note_full(&mut self) {
        if !matches!(self.phase, Phase::Full) {
            tracing::warn!("the disk is full: writes are refused until there is room");
            self.phase = Phase::Full;
        }
        self.tell();
        // Another may have room.
        if self.leads
            && let Some(member) = &mut self.member
            && let Some(successor) = member.successor(self.telling.witness())
        {
            member.hand_over(successor);
        }
    }

    fn note_room(&mut self) {
        if matches!(self.phase, Phase::Full) {
            tracing::info!("there is room on the disk again: writes go on");
            self.phase = Phase::Writing;
        }
    }

    /// The disk is full: nothing of the last group was written. Begins the member anew from what its log holds.
    fn full(&mut self, now: Now) -> Result<()> {
        self.note_full();
        // Peers may have been sent what this member could not write; and what it has written may be done yet.
        let written = self.member.as_ref().map_or(u64::MAX, |member| member.log().last());
        for (_, waiting) in mem::take(&mut self.waiting) {
            let is_lost = waiting.alone_at.is_some_and(|index| index > written);
            drop(waiting.answer.send(Err(if is_lost { Error::DiskFull } else { Error::OutcomeUnknown })));
        }
        let applied = self.applied.0;
        let member = self.member.take().map(|member| member.restart(applied)).transpose()?;
        self.member = member;
        self.leads = false;
        self.telling.end();
        self.drain(now)
    }

    /// The disk failed: nothing is written any more by this process, for what it would say cannot be believed.
    fn fail(&mut self, error: Error) {
        tracing::error!(
            error = &error as &(dyn std::error::Error + 'static),
            "the store writes no more until it is started anew"
        );
        self.silence(error);
    }

    /// Nothing is written and nothing said any more.
    fn silence(&mut self, error: Error) {
        self.end_peers(&error);
        self.end_rounds(&error);
        self.phase = Phase::Failed(error.clone());
        self.leads = false;
        self.tell();
        self.shared.tell_group(|group| group.leader = None);
        self.shared.tell_cluster_changed();
        for (_, waiting) in mem::take(&mut self.waiting) {
            drop(waiting.answer.send(Err(Error::OutcomeUnknown)));
        }
        self.end_waiting_for_checkpoint(&error);
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

    /// Whether a sync took long.
    #[cfg(test)]
    pub(crate) fn is_disk_slow(&self) -> bool {
        self.shared.status().is_disk_slow()
    }

    /// Term, whether this member leads, index of the last entry applied.
    #[cfg(test)]
    pub(crate) fn standing(&self) -> (u64, bool, u64) {
        let (term, leads) = self.member.as_ref().map_or((0, false), |member| (member.term(), member.is_leader()));
        (term, leads && !matches!(self.phase, Phase::Failed(_)), self.applied.0)
    }

    /// Whether it was removed from the cluster.
    #[cfg(test)]
    pub(crate) const fn was_removed(&self) -> bool {
        matches!(self.phase, Phase::Failed(Error::Removed))
    }

    /// What ended the writing, if anything did.
    pub(crate) fn end(self) -> Result<()> {
        match self.phase {
            Phase::Writing | Phase::Full => Ok(()),
            Phase::Failed(error) => Err(error),
        }
    }
}
