//! One member of the Raft group: raft-rs over our log.
//!
//! A machine that is fed ([`Member::propose`], [`Member::step`], [`Member::tick`], [`Member::campaign`]) and drained
//! ([`Member::turn`]): it has no clock, no thread and no network, and everything it does to the disk goes through the
//! log's [`Disk`](crate::disk::Disk). A lone member has no ticks: it has nobody to send heartbeats to, and campaigns at
//! once.

use std::{cmp::Reverse, collections::BTreeSet, ops::Range, sync::Arc};

use bytes::Bytes;
use protobuf::Message as _;
use raft::{
    Config, GetEntriesContext, ProgressState, RawNode, ReadState, SnapshotStatus, StateRole,
    eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType,
    },
};

use crate::{
    bridge,
    check::{Standing, check},
    codec::Malformed,
    command::{Command, Proposal},
    disk::Disk,
    error::{Error, Result},
    log::Log,
};

/// How far a learner may be behind and still count as caught up, in entries: what is under way in a busy moment.
const BEHIND: u64 = 256;

/// A witness's patience, in ticks: longer than any machine runs.
const FOR_EVER: usize = 1 << 31;

/// Who a member is this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    /// Its Raft id.
    pub(crate) id: u64,
    /// The cluster's first member.
    pub(crate) founder: u64,
    /// It has nothing to lead with, and never stands for election.
    pub(crate) witness: bool,
    /// Which of its lives: one more at every start, so that a proposal's number is never taken for an earlier life's.
    pub(crate) life: u64,
    /// Ticks without a leader after which it stands for election: drawn anew each time from this range.
    pub(crate) patience: Range<usize>,
}

/// A change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Admits a learner: it is sent everything, and does not vote.
    Admit,
    /// Makes a learner a voter.
    Promote(u64),
    /// Removes a member.
    Remove(u64),
}

/// What a turn of raft-rs brought.
#[derive(Debug)]
pub(crate) struct Turn {
    /// To be applied, in order.
    pub(crate) committed: Vec<Entry>,
    /// How far reads asked for must wait.
    pub(crate) reads: Vec<ReadState>,
}

/// See the module.
pub(crate) struct Member<D: Disk> {
    node: RawNode<Log<D>>,
    own: Own,
    number: u64,
    /// Changes of the members that this leader knows of and may not have applied: the index, who, and whether it votes
    /// then.
    pending: Vec<(u64, u64, bool)>,
    /// How far this leader has told the others that the log is committed.
    told: u64,
}

impl<D: Disk> Member<D> {
    /// A member whose state machine stands at `applied`.
    ///
    /// # Errors
    /// [`Error::Failed`] if raft-rs does not accept the log.
    pub(crate) fn new(log: Log<D>, own: Own, applied: u64) -> Result<Self> {
        Ok(Self { node: node(log, &own, applied)?, own, number: 0, pending: Vec::new(), told: 0 })
    }

    /// The same member begun anew from what its log holds, forgetting what did not get there. What of it is committed it
    /// still knows: others may have been told.
    pub(crate) fn restart(mut self, applied: u64) -> Result<Self> {
        let raft_log = &self.node.raft.raft_log;
        let known = raft_log.committed.min(self.log().last());
        if raft_log.term(known).ok() == self.log().term_of(known) {
            self.log_mut().note_commit(known);
        }
        let log = self.node.raft.r.raft_log.store;
        Ok(Self { node: node(log, &self.own, applied)?, ..self })
    }

    pub(crate) const fn own(&self) -> &Own {
        &self.own
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

    /// Who leads, as far as this member knows.
    pub(crate) fn leader(&self) -> Option<u64> {
        Some(self.node.raft.leader_id).filter(|id| *id != 0)
    }

    pub(crate) fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Whether this member is the only one that votes, and so elects itself.
    pub(crate) fn is_alone(&self) -> bool {
        is_alone(self.log(), &self.own)
    }

    /// Whether there is anybody to send anything to, or to hear from.
    pub(crate) fn has_peers(&self) -> bool {
        self.ids().any(|id| id != self.own.id)
    }

    /// The members as of what was applied, voters and learners.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> {
        let members = self.log().members();
        members.voters.iter().chain(&members.learners).copied()
    }

    pub(crate) fn is_member(&self, id: u64) -> bool {
        self.ids().any(|other| other == id)
    }

    /// Stands for election at once.
    pub(crate) fn campaign(&mut self) -> Result<()> {
        self.node.campaign().map_err(failed)
    }

    /// A tick of the clock has passed.
    pub(crate) fn tick(&mut self) {
        self.node.tick();
    }

    /// Tells the others that this leader is there, between two ticks.
    pub(crate) fn beat(&mut self) {
        self.node.ping();
    }

    /// Takes a message of a peer's in.
    ///
    /// # Errors
    /// [`Malformed`]: no correct member sends such a message; it was dropped.
    pub(crate) fn step(&mut self, message: Message, from: u64) -> Result<(), Malformed> {
        let own = Standing { id: self.own.id, term: self.node.raft.term, last: self.last() };
        check(&message, from, own)?;
        if self.own.witness && message.msg_type == MessageType::MsgTimeoutNow {
            return Err(Malformed("a witness is told to lead"));
        }
        let told = (message.msg_type == MessageType::MsgRequestPreVoteResponse && message.reject)
            .then_some((message.commit, message.commit_term));
        if let Err(error) = self.node.step(message) {
            tracing::debug!(error = &error as &dyn std::error::Error, "a peer's message was dropped");
        }
        if let Some((commit, term)) = told.filter(|(_, term)| *term > 0)
            && self.node.raft.state == StateRole::Follower
        {
            self.node.raft.raft_log.maybe_commit(commit, term);
        }
        Ok(())
    }

    /// Says how far the log is committed to one who may be waiting to hear it, and cannot stand for election before: that it
    /// has become a voter, perhaps. To who does stand raft-rs says it with the vote it does not give; so it is said like
    /// that.
    pub(crate) fn committed_to(&self, to: u64) -> Message {
        let (commit, commit_term) = self.node.raft.raft_log.commit_info();
        Message {
            msg_type: MessageType::MsgRequestPreVoteResponse,
            from: self.own.id,
            to,
            term: self.term(),
            reject: true,
            commit,
            commit_term,
            ..Message::default()
        }
    }

    /// Leads no more, and leaves it to others to lead.
    pub(crate) fn step_down(&mut self) {
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, 0);
    }

    /// Does not stand for election now, however long it has heard of no leader.
    pub(crate) fn rest(&mut self) {
        self.node.raft.election_elapsed = 0;
    }

    /// Ticks since a leader was last heard of.
    pub(crate) fn silence(&self) -> usize {
        self.node.raft.election_elapsed
    }

    /// The index of the last entry, written or about to be.
    pub(crate) fn last(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Whether a proposal came from this member in this life.
    pub(crate) const fn is_own(&self, proposal: &Proposal) -> bool {
        proposal.member == self.own.id && proposal.life == self.own.life
    }

    /// Gives a command of this member's its number.
    pub(crate) fn number(&mut self, command: Command, time: u64, forwarded: bool) -> Proposal {
        self.number += 1;
        Proposal { member: self.own.id, life: self.own.life, number: self.number, time, forwarded, command }
    }

    /// Hands in a command; gives the number under which it will be applied.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: this member does not lead, or too much is under way.
    pub(crate) fn propose(&mut self, command: Command, time: u64) -> Result<u64> {
        let proposal = self.number(command, time, false);
        self.propose_bytes(proposal.encode())?;
        Ok(proposal.number)
    }

    /// Hands in an encoded proposal.
    ///
    /// # Errors
    /// As [`Member::propose`].
    pub(crate) fn propose_bytes(&mut self, bytes: Vec<u8>) -> Result<()> {
        // A follower's raft-rs would send it on, and nobody would hear what became of it.
        if !self.is_leader() {
            return Err(Error::Unavailable);
        }
        self.node.propose(Vec::new(), bytes).map_err(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "a proposal was dropped");
            Error::Unavailable
        })
    }

    /// Hands in a change of the members; gives the index of its entry, which is also the id of who is admitted.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: this member does not lead, or another change is under way.
    pub(crate) fn propose_change(&mut self, change: Change, context: Vec<u8>) -> Result<u64> {
        if !self.is_leader() || self.is_changing() {
            return Err(Error::Unavailable);
        }
        let index = self.last() + 1;
        let (change_type, node_id) = match change {
            Change::Admit => (ConfChangeType::AddLearnerNode, index),
            Change::Promote(id) => (ConfChangeType::AddNode, id),
            Change::Remove(id) => (ConfChangeType::RemoveNode, id),
        };
        let single = ConfChangeSingle { change_type, node_id, ..ConfChangeSingle::default() };
        let change = ConfChangeV2 { changes: vec![single].into(), context: context.into(), ..ConfChangeV2::default() };
        self.node.propose_conf_change(Vec::new(), change).map_err(|_| Error::Unavailable)?;
        self.pending.push((index, node_id, change_type == ConfChangeType::AddNode));
        Ok(index)
    }

    /// Whether a change of the members may be under way.
    pub(crate) fn is_changing(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Asks how far a read must wait; [`Turn::reads`] has the answer, unless the question is lost.
    pub(crate) fn read_index(&mut self, context: Vec<u8>) {
        if self.is_leader() {
            self.node.read_index(context);
        }
    }

    /// An image was handed over to a member, or was not.
    pub(crate) fn image_sent(&mut self, to: u64, done: bool) {
        self.node.report_snapshot(to, if done { SnapshotStatus::Finish } else { SnapshotStatus::Failure });
    }

    /// Learners that have what this leader has, nearly.
    pub(crate) fn caught_up(&self) -> Option<u64> {
        let enough = self.last().saturating_sub(BEHIND);
        let progress = self.node.raft.prs();
        let learners = self.log().members().learners.iter().copied();
        let mut caught_up = learners.filter(|id| {
            progress.get(*id).is_some_and(|progress| {
                progress.recent_active && progress.state == ProgressState::Replicate && progress.matched >= enough
            })
        });
        caught_up.next()
    }

    /// Whether this leader has heard of a member lately.
    pub(crate) fn is_active(&self, id: u64) -> bool {
        id == self.own.id || self.node.raft.prs().get(id).is_some_and(|progress| progress.recent_active)
    }

    /// Whether a member has a vote.
    pub(crate) fn votes(&self, id: u64) -> bool {
        self.log().members().voters.contains(&id)
    }

    /// The voter that has most of the log, of those that are active if any are, other than this leader and `witness`.
    pub(crate) fn successor(&self, witness: Option<u64>) -> Option<u64> {
        let voters = self.log().members().voters.iter().copied();
        let others = voters.filter(|id| *id != self.own.id && Some(*id) != witness);
        // Each time an election might take raft-rs forgets who was active, and asks anew: then nobody is for a moment.
        let has = |id: u64| self.node.raft.prs().get(id).map_or(0, |progress| progress.matched);
        others.max_by_key(|id| (self.is_active(*id), has(*id)))
    }

    /// Hands leadership over, if this member has it: of any other raft-rs would ask its leader, and no such message travels.
    pub(crate) fn hand_over(&mut self, to: u64) {
        if self.is_leader() {
            self.node.transfer_leader(to);
        }
    }

    /// This member has come to lead: looks which changes of the members leaders before have left.
    pub(crate) fn find_pending(&mut self) {
        self.pending.clear();
        let log = &self.node.raft.raft_log;
        let entries = log.entries(log.applied + 1, None, GetEntriesContext::empty(false)).unwrap_or_default();
        for entry in entries.iter().filter(|entry| entry.entry_type == EntryType::EntryConfChangeV2) {
            let mut change = ConfChangeV2::default();
            if change.merge_from_bytes(&entry.data).is_ok() {
                let changes = change.changes.iter();
                let votes = |single: &ConfChangeSingle| single.change_type == ConfChangeType::AddNode;
                self.pending.extend(changes.map(|single| (entry.index, single.node_id, votes(single))));
            }
        }
    }

    /// How far so many voters have come as make a majority: first with `witness`, which has to come yet, then without it,
    /// if they are enough. As it is for the members there are, and for those there will be by changes that are under way.
    pub(crate) fn kept_beside(&self, witness: u64) -> (u64, Option<u64>) {
        let applied = self.node.raft.raft_log.applied;
        let mut voters: BTreeSet<u64> = self.log().members().voters.iter().copied().collect();
        let mut kept = self.kept_among(&voters, witness);
        for (_, id, votes) in self.pending.iter().filter(|(index, ..)| *index > applied) {
            if *votes {
                voters.insert(*id)
            } else {
                voters.remove(id)
            };
            let (with, without) = self.kept_among(&voters, witness);
            kept = (kept.0.min(with), kept.1.zip(without).map(|(one, other)| one.min(other)));
        }
        kept
    }

    fn kept_among(&self, voters: &BTreeSet<u64>, witness: u64) -> (u64, Option<u64>) {
        let progress = self.node.raft.prs();
        let others = voters.iter().filter(|id| **id != witness);
        let mut matched: Vec<u64> = others.map(|id| progress.get(*id).map_or(0, |known| known.matched)).collect();
        matched.sort_unstable_by_key(|index| Reverse(*index));
        let majority = voters.len() / 2;
        (matched.get(majority.saturating_sub(1)).copied().unwrap_or_default(), matched.get(majority).copied())
    }

    /// How far this member knows that the log is committed.
    pub(crate) fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Has the others told how far the log is committed, unless entries are under way, behind which it is said anyhow. Gives
    /// back whether there is something to be sent for it.
    pub(crate) fn tell_committed(&mut self) -> bool {
        let committed = self.committed();
        let is_news = self.is_leader() && self.has_peers() && self.told < committed && committed == self.last();
        if is_news {
            self.told = committed;
            self.node.raft.bcast_append();
        }
        is_news
    }

    /// How far all have come that this leader hears of: what lies before, none of them needs of the log.
    pub(crate) fn floor(&self) -> u64 {
        let progress = self.node.raft.prs();
        let matched = progress.iter().filter(|(id, other)| **id != self.own.id && other.recent_active);
        matched.map(|(_, other)| other.matched).min().unwrap_or(u64::MAX)
    }

    /// Does what raft-rs wants done next: hands its messages to `send`, puts its new entries and votes on stable
    /// storage, and gives back what is committed and must now be applied, in order, before [`Member::applied`] is
    /// called. None: nothing is to be done.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: nothing of it was written, and the member must be begun anew ([`Member::restart`]).
    /// [`Error::Failed`]: the member must not be used any more.
    pub(crate) fn turn(&mut self, mut send: impl FnMut(Message)) -> Result<Option<Turn>> {
        if !self.node.has_ready() {
            return Ok(None);
        }
        let mut ready = self.node.ready();
        if !ready.snapshot().is_empty() {
            return Err(failed("an image reached raft-rs, which is never given one"));
        }
        // A leader's, which need not wait for its own disk: the others' work meanwhile.
        ready.take_messages().into_iter().for_each(&mut send);
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
        // Votes and acknowledgements: what they say is on stable storage now.
        ready.take_persisted_messages().into_iter().for_each(&mut send);
        let reads = ready.take_read_states();
        let mut light = self.node.advance_append(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().note_commit(commit);
        }
        light.take_messages().into_iter().for_each(&mut send);
        committed.append(&mut light.take_committed_entries());
        Ok(Some(Turn { committed, reads }))
    }

    /// What [`Member::turn`] gave back has been applied up to `index`.
    pub(crate) fn applied(&mut self, index: u64) {
        self.pending.retain(|(pending, ..)| *pending > index);
        self.node.advance_apply_to(index);
        self.node.mut_store().applied(index);
    }

    /// Applies a committed change of the members; gives back what it said beside.
    ///
    /// # Errors
    /// [`Error::Failed`] if it cannot be decoded, or contradicts the members.
    pub(crate) fn change_members(&mut self, entry: &Entry) -> Result<Bytes> {
        let (members, context): (ConfState, Bytes) = match entry.entry_type {
            EntryType::EntryNormal => return Ok(Bytes::new()),
            EntryType::EntryConfChange => {
                let mut change = ConfChange::default();
                change.merge_from_bytes(&entry.data).map_err(failed)?;
                (self.node.apply_conf_change(&change).map_err(failed)?, Bytes::new())
            }
            EntryType::EntryConfChangeV2 => {
                let mut change = ConfChangeV2::default();
                change.merge_from_bytes(&entry.data).map_err(failed)?;
                let context = change.context.clone();
                (self.node.apply_conf_change(&change).map_err(failed)?, context)
            }
        };
        let is_in = members.voters.iter().chain(&members.learners).any(|id| *id == self.own.id);
        self.node.mut_store().note_members(members);
        if !is_in && self.node.raft.state != StateRole::Follower {
            // raft-rs takes a leader, and who stands for election, for a member.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
        }
        Ok(context)
    }
}

fn is_alone<D: Disk>(log: &Log<D>, own: &Own) -> bool {
    let members = log.members();
    !own.witness && members.voters == [own.id] && members.voters_outgoing.is_empty()
}

fn node<D: Disk>(mut log: Log<D>, own: &Own, applied: u64) -> Result<RawNode<Log<D>>> {
    // So that a store on a full disk, where no election can be written down, still reads everything it acknowledged.
    if is_alone(&log, own) {
        log.commit_alone(applied);
    }
    RawNode::new(&config(own, applied), log, &bridge::logger()).map_err(failed)
}

fn config(own: &Own, applied: u64) -> Config {
    let stands = if own.witness { FOR_EVER..FOR_EVER + 1 } else { own.patience.clone() };
    Config {
        id: own.id,
        applied,
        election_tick: own.patience.start,
        min_election_tick: stands.start,
        max_election_tick: stands.end,
        heartbeat_tick: 1,
        pre_vote: true,
        // Each write would be followed by a message of its own that it is committed; see `Member::tell_committed`.
        skip_bcast_commit: true,
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
