//! Removing members: who is left is asked first, and who goes is told when it will not be forgotten.
//!
//! A cluster that loses a voter must go on with those who are left. What the leader has heard of them before is no proof
//! that they are there: a packet may be seconds late, and its sender gone since. So they are asked once somebody wants a
//! voter removed, and only answers to that count.
//!
//! Who goes was needed to commit that it goes, and is not there to say so again. So whoever stays puts on stable storage
//! that it is committed before it says so to anybody. The room for that is reserved with the entry. Where that promise was
//! not kept and the disk is full, it says nothing until there is room; and who goes stays until somebody says so, for a
//! member that is started anew and does not know needs its vote.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Now, Worker,
    members::Asked,
    peers::{Asker, reply_of},
};
use crate::{
    disk::Disk,
    error::{Error, Result},
    member::Change,
    packet::{Packet, Question, Reply},
    peer::MemberId,
};

/// How long those who would be left have for an answer; they are asked again at each tick.
const PATIENCE: Duration = Duration::from_secs(1);
/// Removals asked for at a time: more than there are members.
const MOST: usize = 16;
/// Room for the entry that removes a member.
const ROOM: usize = 256;

/// A removal that was asked for, while those who would be left are asked.
struct Inquiry {
    /// The number of the question.
    number: u64,
    id: u64,
    asked: Asked,
    since: Duration,
    /// Who has not answered.
    silent: BTreeSet<u64>,
    /// Who has, and has room: this member first of all.
    well: BTreeSet<u64>,
}

impl Inquiry {
    /// Whether enough of those who would be left are well; none as long as that may still come.
    fn verdict(&self, voters: &[u64]) -> Option<bool> {
        if !voters.contains(&self.id) {
            return Some(true);
        }
        let among = |some: &BTreeSet<u64>| voters.iter().filter(|id| **id != self.id && some.contains(id)).count();
        let (well, silent, majority) = (among(&self.well), among(&self.silent), (voters.len() - 1) / 2 + 1);
        match () {
            () if well >= majority => Some(true),
            () if well + silent < majority => Some(false),
            () => None,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Removing {
    inquiries: Vec<Inquiry>,
    /// Whose removal this member may forget to be committed: index and term of the entry.
    forgettable: BTreeMap<u64, (u64, u64)>,
}

impl Removing {
    /// A removal was applied.
    pub(super) fn applied(&mut self, id: u64, at: (u64, u64)) {
        self.forgettable.insert(id, at);
    }

    /// Whether this member, which has removed `id`, knows it for good.
    pub(super) fn knows(&self, id: u64) -> bool {
        !self.forgettable.contains_key(&id)
    }

    /// Whether somebody waits for who would be left to answer.
    pub(super) const fn asks(&self) -> bool {
        !self.inquiries.is_empty()
    }

    /// Whether there is no removal that this member may forget.
    pub(super) fn knows_all(&self) -> bool {
        self.forgettable.is_empty()
    }
}

impl<D: Disk> Worker<D> {
    pub(super) fn dismiss(&mut self, id: MemberId, answer: oneshot::Sender<Result<()>>, now: Now) {
        if self.asks_leader() {
            self.ask(Question::Dismiss(id.0), Asker::Dismiss { id, answer }, now);
            return;
        }
        self.inquire(id.0, Asked::Dismiss(answer), now);
        self.settle(now);
    }

    /// The same for a peer: member, life, number of its question.
    pub(super) fn dismiss_for(&mut self, who: (u64, u64, u64), id: u64, now: Now) {
        let removing = self.changes.removing.inquiries.iter().map(|inquiry| &inquiry.asked);
        // A packet may come twice.
        if !removing.chain(self.changes.asked.values()).any(|asked| asked.is_of(who)) {
            self.inquire(id, Asked::Peer(who.0, who.1, who.2), now);
        }
    }

    fn inquire(&mut self, id: u64, asked: Asked, now: Now) {
        match self.consider_removal(id) {
            Ok((well, silent)) => {
                let number = self.passing.next_number();
                let inquiry = Inquiry { number, id, asked, since: now.steady, silent, well };
                self.changes.removing.inquiries.push(inquiry);
                self.conclude();
                self.ask_silent();
            }
            Err(error) => self.refuse_removal(asked, error),
        }
    }

    /// Whether a member may be asked to go; gives back who is well for certain, and who is to be asked.
    fn consider_removal(&mut self, id: u64) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
        let is_busy = self.changes.removing.inquiries.len() >= MOST;
        let is_known = self.changes.removing.knows(id);
        let member = self.leading()?;
        if !member.is_member(id) {
            return Err(if is_known { Error::MemberNotFound { id: MemberId(id) } } else { Error::DiskFull });
        }
        if is_busy || member.is_changing() {
            return Err(Error::Unavailable);
        }
        self.make_room(ROOM)?;
        let member = self.leading()?;
        let own = member.own().id;
        let others = member.log().members().voters.iter().copied().filter(|voter| ![own, id].contains(voter));
        Ok((BTreeSet::from([own]), others.collect()))
    }

    fn ask_silent(&self) {
        let Some(life) = self.member.as_ref().map(|member| member.own().life) else { return };
        for inquiry in &self.changes.removing.inquiries {
            let question = Packet::Ask { life, number: inquiry.number, question: Question::Well };
            inquiry.silent.iter().for_each(|id| self.send(*id, &question));
        }
    }

    /// Whether this member could go on with what is to come: the leader asks.
    pub(super) fn is_well(&mut self) -> bool {
        let room = self.make_room(ROOM);
        match &room {
            Ok(()) => self.note_room(),
            Err(Error::DiskFull) => self.note_full(),
            Err(_) => {}
        }
        room.is_ok()
    }

    /// An answer has come; whether it was to such a question.
    pub(super) fn heard_how(&mut self, from: u64, number: u64, reply: Reply) -> bool {
        let mut inquiries = self.changes.removing.inquiries.iter_mut();
        let Some(inquiry) = inquiries.find(|inquiry| inquiry.number == number) else { return false };
        if inquiry.silent.remove(&from) && reply == Reply::Well {
            inquiry.well.insert(from);
        }
        self.conclude();
        true
    }

    /// Proposes the removals of which it is clear that those who are left can go on, and refuses those of which it is clear
    /// that they cannot.
    fn conclude(&mut self) {
        let Some(voters) = self.member.as_ref().map(|member| member.log().members().voters.clone()) else { return };
        let inquiries = &mut self.changes.removing.inquiries;
        let clear: Vec<_> = inquiries.extract_if(.., |inquiry| inquiry.verdict(&voters).is_some()).collect();
        for inquiry in clear {
            let proposed = match inquiry.verdict(&voters) {
                Some(true) => self.propose_removal(inquiry.id),
                Some(false) | None => Err(Error::QuorumAtRisk),
            };
            match proposed {
                Ok(at) => drop(self.changes.asked.insert(at, inquiry.asked)),
                Err(error) => self.refuse_removal(inquiry.asked, error),
            }
        }
    }

    fn propose_removal(&mut self, id: u64) -> Result<(u64, u64)> {
        let witness = self.telling.witness();
        let member = self.leading()?;
        if !member.is_member(id) {
            return Err(Error::MemberNotFound { id: MemberId(id) });
        }
        if id == member.own().id {
            // A leader does not remove itself: another leads first, and is asked again.
            if let Some(successor) = member.successor(witness) {
                member.hand_over(successor);
            }
            return Err(Error::Unavailable);
        }
        self.make_room(ROOM)?;
        let member = self.leading()?;
        let index = member.propose_change(Change::Remove(id), Vec::new())?;
        Ok((index, member.term()))
    }

    fn refuse_removal(&self, asked: Asked, error: Error) {
        match asked {
            Asked::Admit(answer) => drop(answer.send(Err(error))),
            Asked::Dismiss(answer) => drop(answer.send(Err(error))),
            Asked::Peer(to, life, number) => {
                let reply = reply_of::<u64>(&Err(error), |index| *index);
                self.send(to, &Packet::Reply { life, number, reply });
            }
        }
    }

    /// A tick has passed: asks again, and refuses what has waited too long.
    pub(super) fn tick_inquiries(&mut self, now: Now) {
        let patience = self.patience(PATIENCE, now);
        let is_over = |inquiry: &mut Inquiry| now.steady.saturating_sub(inquiry.since) >= patience;
        let over: Vec<_> = self.changes.removing.inquiries.extract_if(.., is_over).collect();
        for inquiry in over {
            self.refuse_removal(inquiry.asked, Error::QuorumAtRisk);
        }
        self.ask_silent();
    }

    /// This member leads no more: what it has not proposed is not done.
    pub(super) fn end_inquiries(&mut self, error: &Error) {
        for inquiry in mem::take(&mut self.changes.removing.inquiries) {
            self.refuse_removal(inquiry.asked, error.clone());
        }
    }

    /// Keeps by itself which removals are committed, and says then that they are done.
    pub(super) fn keep_removals(&mut self) -> Result<()> {
        if self.changes.removing.knows_all() {
            return Ok(());
        }
        let log = self.member()?.log_mut();
        match log.keep_commit() {
            Ok(()) | Err(Error::DiskFull) => {}
            Err(error) => return Err(error),
        }
        let kept = log.kept();
        let forgettable = &mut self.changes.removing.forgettable;
        let known: BTreeSet<_> = forgettable.extract_if(.., |_, (index, _)| *index <= kept).map(|(_, at)| at).collect();
        known.into_iter().for_each(|(index, term)| self.changed(index, term));
        // A peer that asked is answered when there is room, or is tired of waiting before.
        let forgettable: BTreeSet<_> = self.changes.removing.forgettable.values().collect();
        let is_refused = |at: &(u64, u64), asked: &mut Asked| forgettable.contains(at) && asked.is_own();
        let refused: Vec<_> = self.changes.asked.extract_if(.., is_refused).collect();
        refused.into_iter().for_each(|(_, asked)| self.refuse_removal(asked, Error::DiskFull));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who votes, who is to go, who has not answered, who is well, and whether the removal goes on.
    #[test]
    fn who_is_left_must_be_a_majority_that_is_well() {
        for (voters, id, silent, well, expected) in [
            // Of three, two are left, and both are needed.
            (&[1, 2, 3][..], 3, &[2][..], &[1][..], None),
            (&[1, 2, 3], 3, &[], &[1, 2], Some(true)),
            (&[1, 2, 3], 3, &[], &[1], Some(false)),
            // Of five, three of the four that are left.
            (&[1, 2, 3, 4, 5], 5, &[3, 4], &[1, 2], None),
            (&[1, 2, 3, 4, 5], 5, &[4], &[1, 2, 3], Some(true)),
            (&[1, 2, 3, 4, 5], 5, &[4], &[1], Some(false)),
            // The last but one goes: who stays is enough.
            (&[1, 2], 2, &[], &[1], Some(true)),
            // Who is to go does not count, whatever it says.
            (&[1, 2, 3], 3, &[], &[1, 3], Some(false)),
            // Who has no vote is missed by nobody.
            (&[1, 2, 3], 4, &[2, 3], &[1], Some(true)),
        ] {
            let (answer, _) = oneshot::channel();
            let inquiry = Inquiry {
                number: 1,
                id,
                asked: Asked::Dismiss(answer),
                since: Duration::ZERO,
                silent: silent.iter().copied().collect(),
                well: well.iter().copied().collect(),
            };
            assert_eq!(inquiry.verdict(voters), expected, "{voters:?} without {id}, {silent:?} silent, {well:?} well");
        }
    }
}
