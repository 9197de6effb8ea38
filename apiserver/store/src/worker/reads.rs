//! Reads that miss nothing, on any member: each waits until what was committed when it came has been applied here.
//!
//! Raft's ReadIndex: the leader makes sure that it still leads, and says how far it had committed. One question is under
//! way at a time, and answers for all who came before it was asked; who comes meanwhile is in the next. So however many
//! read, the members exchange one round of messages at a time.

use std::{collections::BTreeMap, mem, time::Duration};

use raft::ReadState;
use tokio::sync::oneshot;

use super::{Now, Phase, Worker, peers::TICK};
use crate::{
    codec::{Put, Reader},
    disk::Disk,
    error::{Error, Result},
    packet::{Packet, Question, Reply},
    revision::Revision,
};

/// A question without an answer is asked anew: a leader that has only just been elected does not answer.
pub(super) const AGAIN: Duration = Duration::from_millis(4 * 50);

struct Waiter {
    answer: oneshot::Sender<Result<Revision>>,
    since: Duration,
}

/// A question under way, and for whom.
struct Round {
    number: u64,
    asked: Duration,
    waiters: Vec<Waiter>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Reads {
    gathering: Vec<Waiter>,
    round: Option<Round>,
    /// By the index that must have been applied.
    known: BTreeMap<u64, Vec<Waiter>>,
}

impl Reads {
    pub(super) fn push(&mut self, answer: oneshot::Sender<Result<Revision>>, now: Now) {
        self.gathering.push(Waiter { answer, since: now.steady });
    }

    /// The answer to question `number` has come.
    pub(super) fn known(&mut self, number: u64, index: u64) {
        if let Some(round) = self.round.take_if(|round| round.number == number) {
            self.known.entry(index).or_default().extend(round.waiters);
        }
    }

    pub(super) fn lose_patience(&mut self, now: Duration, patience: Duration, again: Duration) {
        let lists = self.known.values_mut().chain(self.round.as_mut().map(|round| &mut round.waiters));
        for waiters in lists.chain([&mut self.gathering]) {
            for waiter in waiters.extract_if(.., |waiter| now.saturating_sub(waiter.since) >= patience) {
                drop(waiter.answer.send(Err(Error::Unavailable)));
            }
        }
        self.known.retain(|_, waiters| !waiters.is_empty());
        if let Some(round) = self.round.take_if(|round| now.saturating_sub(round.asked) >= again.max(TICK)) {
            self.gathering.splice(0..0, round.waiters);
        }
    }

    pub(super) fn end(&mut self, error: &Error) {
        let known = mem::take(&mut self.known).into_values().flatten();
        let round = self.round.take().into_iter().flat_map(|round| round.waiters);
        for waiter in known.chain(round).chain(mem::take(&mut self.gathering)) {
            drop(waiter.answer.send(Err(error.clone())));
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.gathering.is_empty() && self.round.is_none() && self.known.is_empty()
    }

    fn all(&mut self) -> Vec<Waiter> {
        mem::take(&mut self.gathering)
    }
}

/// What names a question: who asked, in which life, under which number.
pub(super) fn context(member: u64, life: u64, number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    [member, life, number].into_iter().for_each(|part| out.put_u64(part));
    out
}

impl<D: Disk> Worker<D> {
    /// Asks for those who wait, unless a question is under way.
    pub(super) fn ask_reads(&mut self, now: Now) {
        if let Phase::Failed(error) = &self.phase {
            self.reads.end(&error.clone());
            return;
        }
        let Some(member) = &mut self.member else { return };
        if member.is_alone() && !self.reads.is_empty() {
            // Perhaps only now: then there is nobody left to answer what was asked.
            let revision = self.shared.read().revision();
            self.reads.gathering.extend(self.reads.round.take().into_iter().flat_map(|round| round.waiters));
            for waiter in self.reads.all() {
                drop(waiter.answer.send(Ok(revision)));
            }
        }
        if self.reads.gathering.is_empty() || self.reads.round.is_some() {
            return;
        }
        let Some(leader) = member.leader() else { return };
        let number = self.passing.next_number();
        let (own, life) = (member.own().id, member.own().life);
        if member.is_leader() {
            member.read_index(context(own, life, number));
        } else {
            self.send(leader, &Packet::Ask { life, number, question: Question::ReadIndex });
        }
        let waiters = self.reads.all();
        self.reads.round = Some(Round { number, asked: now.steady, waiters });
    }

    /// raft-rs says how far a read must wait: one of this member's, or of a peer's.
    pub(super) fn read_index_known(&mut self, read: &ReadState) {
        let mut from = Reader(&read.request_ctx);
        let (Ok(member), Ok(life), Ok(number)) = (from.u64(), from.u64(), from.u64()) else { return };
        let own = self.member.as_ref().map(|member| (member.own().id, member.own().life));
        if own == Some((member, life)) {
            self.reads.known(number, read.index);
        } else {
            self.send(member, &Packet::Reply { life, number, reply: Reply::Number(read.index) });
        }
    }

    /// Answers the reads whose time has come.
    pub(super) fn answer_reads(&mut self) {
        if self.reads.known.is_empty() {
            return;
        }
        let later = self.reads.known.split_off(&(self.applied.0 + 1));
        let revision = self.shared.read().revision();
        for waiter in mem::replace(&mut self.reads.known, later).into_values().flatten() {
            drop(waiter.answer.send(Ok(revision)));
        }
    }
}
