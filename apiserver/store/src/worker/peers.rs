//! What goes between this member and its peers: ticks, Raft's messages, writes passed on to the leader, questions to it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    time::Duration,
};

use raft::eraftpb::MessageType;
use tokio::sync::oneshot;

use super::{Now, Phase, Proposed, Worker, reads};
use crate::{
    codec::Malformed,
    command::{Command, Proposal},
    disk::Disk,
    error::{Error, Result},
    lease::Lease,
    member::Member,
    packet::{Packet, Question, Reply},
    peer::MemberId,
    revision::LeaseId,
};

/// A leader says that it is there once a tick; who hears nothing for ten to twenty of them stands for election. So the
/// next write after a leader's death is made about a second later.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// A tick is so many milliseconds longer or shorter than that. Two members whose ticks fall together, and that have drawn the
/// same patience, would stand for election at the same instant, and each would have its own vote.
const UNEVEN: u64 = 10;
/// How long a write waits for there to be a leader.
const WITHOUT_LEADER: Duration = Duration::from_secs(3);
/// How long anything waits for what it asked of the other members. An election or two fit in.
const PATIENCE: Duration = Duration::from_secs(6);

/// A leader that hears that it was removed leaves it to the others for so long to elect another: some elections.
const REST: Duration = Duration::from_secs(3);

/// A member that was removed stays no longer than this when one of the others knows.
const LINGERING: Duration = Duration::from_secs(15);

/// So many ticks without a word of a leader's make a member without a vote ask whether it is one still.
const LONELY: usize = 40;

/// See the module.
#[derive(Default)]
pub(super) struct Passing {
    /// None while there are no peers: a lone member never ticks.
    pub(super) next_tick: Option<Duration>,
    /// How many there have been.
    ticks: u64,
    /// Who led when it was last looked at.
    pub(super) leader: Option<u64>,
    /// Writes that wait for a leader.
    held: VecDeque<Proposed>,
    asked: BTreeMap<u64, (Asker, Duration)>,
    number: u64,
    /// Writes are to be passed on again.
    again: bool,
    /// Ticks since it knew of a leader.
    alone: usize,
    /// This is no member any more.
    removed: bool,
    /// Who has said so, and when the first of them did.
    removed_by: BTreeSet<u64>,
    told_at: Duration,
    /// Until then it leaves it to others to stand for election.
    rests: Option<Duration>,
}

/// How long a member's tick of this number is, drawn by both numbers.
fn tick(member: u64, number: u64) -> Duration {
    let drawn = crc32fast::hash([member.to_le_bytes(), number.to_le_bytes()].as_flattened());
    TICK + Duration::from_millis(u64::from(drawn) % (2 * UNEVEN + 1)) - Duration::from_millis(UNEVEN)
}

/// Who asked the leader something.
pub(super) enum Asker {
    Lease { id: LeaseId, answer: oneshot::Sender<Result<Lease>> },
    Left { id: LeaseId, answer: oneshot::Sender<Result<Duration>> },
    Admit(oneshot::Sender<Result<MemberId>>),
    Dismiss { id: MemberId, answer: oneshot::Sender<Result<()>> },
}

impl Asker {
    fn answer(self, reply: Reply) {
        let error = match reply {
            Reply::Number(_) | Reply::NotFound => None,
            Reply::Unavailable | Reply::Well => Some(Error::Unavailable),
            Reply::QuorumAtRisk => Some(Error::QuorumAtRisk),
            Reply::Unknown => Some(Error::OutcomeUnknown),
        };
        let number = match reply {
            Reply::Number(number) => Some(number),
            _ => None,
        };
        match self {
            Self::Lease { id, answer } => {
                let ttl = number.map(Duration::from_millis).ok_or(error.unwrap_or(Error::LeaseNotFound { id }));
                drop(answer.send(ttl.map(|ttl| Lease { id, ttl })));
            }
            Self::Left { id, answer } => {
                let left = number.map(Duration::from_millis).ok_or(error.unwrap_or(Error::LeaseNotFound { id }));
                drop(answer.send(left));
            }
            Self::Admit(answer) => {
                drop(answer.send(number.map(MemberId).ok_or(error.unwrap_or(Error::Unavailable))));
            }
            Self::Dismiss { id, answer } => {
                drop(answer.send(number.map(drop).ok_or(error.unwrap_or(Error::MemberNotFound { id }))));
            }
        }
    }

    /// What it is told when no answer came.
    const fn lost(&self) -> Reply {
        match self {
            Self::Lease { .. } | Self::Left { .. } => Reply::Unavailable,
            Self::Admit(_) | Self::Dismiss { .. } => Reply::Unknown,
        }
    }
}

impl Passing {
    pub(super) const fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

/// What an error is in a reply to a peer.
pub(super) fn reply_of<T>(result: &Result<T>, number: impl FnOnce(&T) -> u64) -> Reply {
    match result {
        Ok(value) => Reply::Number(number(value)),
        Err(Error::LeaseNotFound { .. } | Error::MemberNotFound { .. }) => Reply::NotFound,
        Err(Error::QuorumAtRisk) => Reply::QuorumAtRisk,
        Err(Error::OutcomeUnknown) => Reply::Unknown,
        Err(_) => Reply::Unavailable,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<D: Disk> Worker<D> {
    pub(super) fn send(&self, to: u64, packet: &Packet) {
        self.settings.transport.send(MemberId(to), packet.encode());
    }

    /// Whether what is to be done is the leader's, and this member is not it.
    pub(super) fn asks_leader(&self) -> bool {
        self.member.as_ref().is_some_and(|member| !member.is_leader() && !member.is_alone())
            && !matches!(self.phase, Phase::Failed(_))
    }

    /// Whether that was a member, and is none any more, as far as this member has applied the log.
    pub(super) fn is_removed(&self, id: u64) -> bool {
        let Some(member) = &self.member else { return false };
        !member.is_member(id) && (id <= self.applied.0 || id == member.own().founder)
    }

    /// Takes in what a peer says.
    pub(super) fn receive(&mut self, from: u64, packet: Packet, now: Now) {
        if matches!(self.phase, Phase::Failed(_)) {
            return;
        }
        if self.is_removed(from) {
            // Until this member knows it for good, it may come to need that one's vote again.
            if self.changes.removing.knows(from) {
                self.send(from, &Packet::Removed);
            }
            return;
        }
        let taken = match packet {
            Packet::Raft(message) => self.step(*message, from),
            Packet::Forward(bytes) => self.forwarded(from, bytes),
            Packet::Refused { life, number } => {
                self.refused(life, number);
                Ok(())
            }
            Packet::Ask { life, number, question } => {
                self.asked(from, life, number, question, now);
                Ok(())
            }
            Packet::Reply { life, number, reply } => {
                self.replied(from, life, number, reply);
                Ok(())
            }
            Packet::Offer { transfer, mark, items } => self.offered(from, transfer, mark, items, now),
            Packet::Pull { transfer, from: first } => {
                self.pulled(from, transfer, first, now);
                Ok(())
            }
            Packet::Chunk { transfer, from: first, next, bytes } => {
                self.chunk(from, transfer, first, next, &bytes, now)
            }
            Packet::Installed { transfer, .. } => {
                self.image_done(from, transfer, true);
                Ok(())
            }
            Packet::Removed => {
                self.told_removed(from, now);
                Ok(())
            }
            Packet::Pace { millis } => {
                self.pace.hear(from, Duration::from_millis(millis), now);
                Ok(())
            }
        };
        if let Err(error) = taken {
            tracing::debug!(from, error = &error as &dyn std::error::Error, "a peer's packet was dropped");
        }
    }

    fn step(&mut self, mut message: raft::eraftpb::Message, from: u64) -> Result<(), Malformed> {
        if self.member.as_ref().is_some_and(|member| member.own().witness) {
            super::witness::strip(&mut message);
        }
        if message.msg_type == MessageType::MsgAppend && !message.entries.is_empty() {
            // As with proposals: what there is no room for is not taken in at all.
            let bytes = message.entries.iter().map(|entry| entry.data.len() + 64).sum();
            if self.holds_back_peers(bytes) {
                return Ok(());
            }
            match self.make_room(bytes) {
                Ok(()) => self.note_room(),
                Err(Error::DiskFull) => {
                    self.note_full();
                    return Ok(());
                }
                Err(_) => return Ok(()),
            }
        }
        self.member.as_mut().map_or(Ok(()), |member| member.step(message, from))
    }

    /// A peer's write, to be proposed here.
    fn forwarded(&mut self, from: u64, bytes: Vec<u8>) -> Result<(), Malformed> {
        let proposal = Proposal::decode(&bytes)?;
        let (life, number) = (proposal.life, proposal.number);
        if proposal.member != from || !proposal.forwarded {
            return Err(Malformed("write in another member's name"));
        }
        if let Command::Txn(txn) = &proposal.command {
            txn.validate().map_err(|_| Malformed("write that its member should have refused"))?;
        }
        if self.leads {
            self.rounds.push(Proposed::Peer { member: from, life, number, bytes });
        } else {
            self.send(from, &Packet::Refused { life, number });
        }
        Ok(())
    }

    /// A write was not proposed by the one it was passed on to. It is passed on again, to whoever leads then: a copy of it
    /// may be under way still, so nobody can say that it was not done; but none is done twice.
    fn refused(&mut self, life: u64, number: u64) {
        let is_own = self.member.as_ref().is_some_and(|member| member.own().life == life);
        self.passing.again |= is_own && self.waiting.contains_key(&number);
    }

    /// Refuses a write that came with its number: a peer's, or one of this member's own that it had passed on before it led.
    pub(super) fn refuse_of(&mut self, member: u64, life: u64, number: u64) {
        if self.member.as_ref().is_some_and(|own| own.own().id == member) {
            self.refused(life, number);
        } else {
            self.send(member, &Packet::Refused { life, number });
        }
    }

    /// Passes writes on to the leader, or holds them until there is one.
    pub(super) fn pass_on(&mut self, group: Vec<Proposed>, now: Now) {
        for proposed in group {
            let Some(member) = &mut self.member else { return };
            match (proposed, member.leader()) {
                (Proposed::Own { command, waiting: Some(mut waiting) }, Some(leader)) => {
                    let proposal = member.number(command, now.wall, true);
                    let bytes = proposal.encode();
                    waiting.passed_on = Some(bytes.clone());
                    self.waiting.insert(proposal.number, waiting);
                    self.send(leader, &Packet::Forward(bytes));
                }
                (proposed @ Proposed::Own { waiting: Some(_), .. }, None) => self.passing.held.push_back(proposed),
                // The new leader will end the lease.
                (Proposed::Own { waiting: None, .. }, _) => {}
                (Proposed::Peer { member, life, number, .. }, _) => {
                    self.refuse_of(member, life, number);
                }
            }
        }
    }

    /// Passes on again, in their order, the writes that were refused, or sent to one who leads no more.
    fn pass_on_again(&mut self, now: Now) {
        let Some(member) = &self.member else { return };
        let Some(leader) = member.leader().filter(|_| self.passing.again) else { return };
        self.passing.again = false;
        let (own, life) = (member.own().id, member.own().life);
        let passed_on: Vec<(u64, Vec<u8>)> =
            self.waiting.iter().filter_map(|(number, waiting)| Some((*number, waiting.passed_on.clone()?))).collect();
        if leader == own {
            let group = passed_on.into_iter();
            let group = group.map(|(number, bytes)| Proposed::Peer { member: own, life, number, bytes }).collect();
            self.commit(group, now);
        } else {
            for (_, bytes) in passed_on {
                self.send(leader, &Packet::Forward(bytes));
            }
        }
    }

    /// The writes that waited for a leader, if there is one now.
    pub(super) fn release(&mut self) -> Vec<Proposed> {
        let led = self.member.as_ref().is_some_and(|member| member.leader().is_some() || member.is_alone());
        if led { mem::take(&mut self.passing.held).into() } else { Vec::new() }
    }

    /// Asks the leader.
    pub(super) fn ask(&mut self, question: Question, asker: Asker, now: Now) {
        let number = self.passing.next_number();
        let Some((leader, life)) = self.member.as_ref().and_then(|member| member.leader().zip(Some(member.own().life)))
        else {
            asker.answer(Reply::Unavailable);
            return;
        };
        self.passing.asked.insert(number, (asker, now.steady));
        self.send(leader, &Packet::Ask { life, number, question });
    }

    /// Answers a peer; most of them take this member for the leader.
    fn asked(&mut self, from: u64, life: u64, number: u64, question: Question, now: Now) {
        let reply = if question == Question::Well {
            if self.is_well() { Reply::Well } else { Reply::Unavailable }
        } else if self.leads {
            match question {
                Question::ReadIndex => {
                    if let Some(member) = &mut self.member {
                        member.read_index(super::reads::context(from, life, number));
                    }
                    return;
                }
                Question::KeepAlive(id) => reply_of(&self.keep_alive(LeaseId(id), now), |lease| millis(lease.ttl)),
                Question::TimeToLive(id) => reply_of(&self.time_to_live(LeaseId(id), now), |left| millis(*left)),
                Question::Admit(info) => match self.admit_for((from, life, number), info, now) {
                    Ok(()) => return,
                    Err(error) => reply_of::<u64>(&Err(error), |id| *id),
                },
                Question::Dismiss(id) => {
                    self.dismiss_for((from, life, number), id, now);
                    return;
                }
                Question::Well => return,
            }
        } else {
            // It may know of no leader because it has missed that it has a vote.
            if let Some(member) =
                self.member.as_ref().filter(|member| question == Question::ReadIndex && member.term() > 0)
            {
                self.send(from, &Packet::Raft(Box::new(member.committed_to(from))));
            }
            Reply::Unavailable
        };
        self.send(from, &Packet::Reply { life, number, reply });
    }

    fn replied(&mut self, from: u64, life: u64, number: u64, reply: Reply) {
        if self.member.as_ref().is_none_or(|member| member.own().life != life) {
            return;
        }
        if self.heard_how(from, number, reply) {
            return;
        }
        match (self.passing.asked.remove(&number), reply) {
            (Some((asker, _)), reply) => asker.answer(reply),
            (None, Reply::Number(index)) => self.reads.known(number, index),
            (None, _) => {}
        }
    }

    /// Whether anybody waits for what peers were asked: also of a member that has none any more.
    fn waits_for_peers(&self) -> bool {
        !self.reads.is_empty()
            || !self.passing.asked.is_empty()
            || !self.passing.held.is_empty()
            || !self.changes.removing.knows_all()
            || self.changes.removing.asks()
            || self.waiting.first_key_value().is_some_and(|(_, waiting)| waiting.passed_on.is_some())
    }

    /// Ticks, if there are peers and the time has come.
    pub(super) fn consider_tick(&mut self, now: Now) {
        let waits = self.waits_for_peers();
        let Some(member) = &mut self.member else { return };
        if !member.has_peers() && !waits || matches!(self.phase, Phase::Failed(_)) {
            self.passing.next_tick = None;
            return;
        }
        let due = *self.passing.next_tick.get_or_insert(now.steady + TICK);
        if due > now.steady {
            return;
        }
        self.passing.ticks += 1;
        // After a stall one tick, not all that were missed: the others' messages wait to be read.
        self.passing.next_tick = Some(now.steady + tick(member.own().id, self.passing.ticks));
        if self.passing.rests.is_some_and(|until| now.steady < until) {
            member.rest();
        }
        self.tick(now);
        self.ask_whether_removed();
        self.consider_leaving(now);
        self.lose_patience(now);
        self.pass_on_again(now);
        self.promote();
        self.tick_inquiries(now);
        let kept = self.keep_removals();
        self.mind(kept, now);
        self.tick_images(now);
        let installed = self.install_again(now);
        self.mind(installed, now);
        self.ask_reads(now);
        self.settle(now);
        self.consider_checkpoint(now);
        self.tell();
    }

    /// Who has no vote never stands for election, nor does a witness, and would never hear that it was removed; nor would
    /// a voter that knows those who are left as learners only, whom it does not ask for their votes. So they ask now and
    /// then.
    fn ask_whether_removed(&mut self) {
        let Some(member) = &self.member else { return };
        let silence = member.silence();
        let stands = !member.own().witness && member.log().members().voters.contains(&member.own().id);
        let knows_learners = !member.log().members().learners.is_empty();
        self.passing.alone = if member.leader().is_none() { self.passing.alone + 1 } else { 0 };
        let is_forgotten = knows_learners && self.passing.alone > 0 && self.passing.alone.is_multiple_of(LONELY);
        if stands && is_forgotten || !stands && silence > 0 && silence.is_multiple_of(LONELY) || self.passing.removed {
            self.ask_all();
        }
    }

    /// Asks every other member anything: who knows that this is no member says so.
    fn ask_all(&mut self) {
        let Some(member) = &self.member else { return };
        let (own, life) = (member.own().id, member.own().life);
        let number = self.passing.next_number();
        let others: Vec<u64> = member.ids().filter(|id| *id != own).collect();
        for to in others {
            self.send(to, &Packet::Ask { life, number, question: Question::ReadIndex });
        }
    }

    /// Answers whoever has waited too long.
    fn lose_patience(&mut self, now: Now) {
        let is_over = |since: Duration, patience| now.steady.saturating_sub(since) >= patience;
        let (patience, without_leader) = (self.patience(PATIENCE, now), self.patience(WITHOUT_LEADER, now));
        while let Some(first) = self.waiting.first_entry().filter(|first| is_over(first.get().since, patience)) {
            drop(first.remove().answer.send(Err(Error::OutcomeUnknown)));
        }
        while let Some(Proposed::Own { waiting: Some(waiting), .. }) = self.passing.held.front()
            && is_over(waiting.since, without_leader)
        {
            if let Some(Proposed::Own { waiting: Some(waiting), .. }) = self.passing.held.pop_front() {
                drop(waiting.answer.send(Err(Error::Unavailable)));
            }
        }
        self.lose_patience_with_rounds(now.steady, patience);
        while let Some(first) = self.passing.asked.first_entry().filter(|first| is_over(first.get().1, patience)) {
            let (asker, _) = first.remove();
            let reply = asker.lost();
            asker.answer(reply);
        }
        let again = self.patience(reads::AGAIN, now);
        self.reads.lose_patience(now.steady, patience, again);
    }

    /// Notices who leads.
    pub(super) fn leader_is(&mut self, leader: Option<u64>) {
        if self.passing.leader != leader {
            self.passing.leader = leader;
            self.passing.again = true;
            let term = self.member.as_ref().map(Member::term);
            tracing::info!(leader = leader.map(|id| MemberId(id).to_string()), term, "who leads has changed");
            self.tell_group();
        }
    }

    /// A peer that knows says that this is no member any more.
    fn told_removed(&mut self, from: u64, now: Now) {
        if self.passing.removed_by.is_empty() {
            self.passing.told_at = now.steady;
        }
        self.passing.removed_by.insert(from);
        // Who has removed it takes nothing from it any more, and the witness, which is not told what the servers that stay
        // have not got, takes it for the leader.
        if self.telling.witness().is_some()
            && let Some(member) = self.member.as_mut().filter(|member| member.is_leader())
        {
            member.step_down();
            self.passing.rests = Some(now.steady + REST);
        }
        self.stay_a_while();
    }

    pub(super) fn leave_if_removed(&mut self) {
        if let Some(own) = self.member.as_ref().map(|member| member.own().id)
            && !matches!(self.phase, Phase::Failed(_))
            && self.is_removed(own)
        {
            self.stay_a_while();
        }
    }

    /// Who was removed stays until most of the others have seen it too: to those who have not it still is a voter, and
    /// should the one that has told it be gone, they may be too few to go on without its vote. As long as nobody has said
    /// that it is gone, nobody may know: who was told that it is committed, and was killed, has forgotten it.
    fn stay_a_while(&mut self) {
        if !self.passing.removed {
            tracing::info!(
                "this member was removed from the cluster, and goes when most of the others have seen it too"
            );
            self.passing.removed = true;
            self.ask_all();
        }
    }

    fn consider_leaving(&mut self, now: Now) {
        let Some(member) = self.member.as_ref().filter(|_| !self.passing.removed_by.is_empty()) else { return };
        let others = member.log().members().voters.iter().filter(|id| **id != member.own().id);
        let (all, seen) = (others.clone().count(), others.filter(|id| self.passing.removed_by.contains(id)).count());
        // No more may be left of those it knows.
        if seen > all / 2 || now.steady.saturating_sub(self.passing.told_at) >= LINGERING {
            tracing::warn!("this member was removed from the cluster");
            self.silence(Error::Removed);
        }
    }

    /// Nothing is said to peers any more: whoever waits for them is answered.
    pub(super) fn end_peers(&mut self, error: &Error) {
        self.passing.next_tick = None;
        for (_, (asker, _)) in mem::take(&mut self.passing.asked) {
            let reply = asker.lost();
            asker.answer(reply);
        }
        let held = mem::take(&mut self.passing.held);
        self.refuse(held.into(), error);
        self.reads.end(error);
        self.end_inquiries(error);
        self.changes.lost();
        self.changes.handed_over();
        self.images = super::Images::default();
    }
}
