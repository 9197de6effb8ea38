//! Who belongs to the cluster: admitting, promoting, removing, and handing leadership over.
//!
//! One change at a time, each an entry of the log. Who is admitted is a learner first: it is sent everything and has no
//! vote, so a machine that is slow, or never comes, holds up nobody. The leader makes it a voter when it has caught up.

use std::{collections::BTreeMap, mem};

use raft::eraftpb::Entry;
use tokio::sync::oneshot;

use super::{
    Now, Phase, Worker,
    peers::{Asker, reply_of},
};
use crate::{
    codec::Reader,
    disk::Disk,
    error::{Error, Result},
    member::{Change, Member},
    packet::{Packet, Question},
    peer::{MemberId, MemberInfo},
};

/// Most members: beyond seven voters each further one makes a cluster slower and hardly safer.
const MOST: usize = 9;

/// Who is told that a change was made.
enum Asked {
    Admit(oneshot::Sender<Result<MemberId>>),
    Dismiss(oneshot::Sender<Result<()>>),
    /// A peer, by way of which it was asked: member, life, number of the question.
    Peer(u64, u64, u64),
}

/// See the module.
#[derive(Default)]
pub(super) struct Changes {
    /// By the index and term of their entries.
    asked: BTreeMap<(u64, u64), Asked>,
    lost: Vec<Asked>,
    handing_over: Vec<oneshot::Sender<()>>,
}

impl Changes {
    /// This member leads no more: whether what it proposed is done, others will see.
    pub(super) fn lost(&mut self) {
        self.lost.extend(mem::take(&mut self.asked).into_values());
        for asked in mem::take(&mut self.lost) {
            match asked {
                Asked::Admit(answer) => drop(answer.send(Err(Error::OutcomeUnknown))),
                Asked::Dismiss(answer) => drop(answer.send(Err(Error::OutcomeUnknown))),
                // It stops waiting by itself.
                Asked::Peer(..) => {}
            }
        }
    }

    /// This member does not lead.
    pub(super) fn handed_over(&mut self) {
        for answer in mem::take(&mut self.handing_over) {
            answer.send(()).ok();
        }
    }
}

impl<D: Disk> Worker<D> {
    fn leading(&mut self) -> Result<&mut Member<D>> {
        if let Phase::Failed(error) = &self.phase {
            return Err(error.clone());
        }
        self.member.as_mut().filter(|member| member.is_leader()).ok_or(Error::Unavailable)
    }

    pub(super) fn admit(&mut self, info: MemberInfo, answer: oneshot::Sender<Result<MemberId>>, now: Now) {
        if self.asks_leader() {
            self.ask(Question::Admit(info), Asker::Admit(answer), now);
            return;
        }
        match self.try_admit(&info) {
            Ok(at) => drop(self.changes.asked.insert(at, Asked::Admit(answer))),
            Err(error) => drop(answer.send(Err(error))),
        }
        self.settle(now);
    }

    pub(super) fn admit_for(&mut self, who: (u64, u64, u64), info: MemberInfo, _: Now) -> Result<()> {
        let at = self.try_admit(&info)?;
        self.changes.asked.insert(at, Asked::Peer(who.0, who.1, who.2));
        Ok(())
    }

    fn try_admit(&mut self, info: &MemberInfo) -> Result<(u64, u64)> {
        let witness = self.telling.witness();
        let member = self.leading()?;
        // A second witness would make majorities in which too few keep what is stored.
        if !info.is_valid() || member.ids().count() >= MOST || info.witness && witness.is_some() {
            return Err(Error::QuorumAtRisk);
        }
        let mut context = Vec::with_capacity(info.size());
        info.put(&mut context);
        member.log_mut().reserve(context.len() + 256)?;
        let index = member.propose_change(Change::Admit, context)?;
        Ok((index, member.term()))
    }

    pub(super) fn dismiss(&mut self, id: MemberId, answer: oneshot::Sender<Result<()>>, now: Now) {
        if self.asks_leader() {
            self.ask(Question::Dismiss(id.0), Asker::Dismiss { id, answer }, now);
            return;
        }
        match self.try_dismiss(id.0) {
            Ok(at) => drop(self.changes.asked.insert(at, Asked::Dismiss(answer))),
            Err(error) => drop(answer.send(Err(error))),
        }
        self.settle(now);
    }

    pub(super) fn dismiss_for(&mut self, who: (u64, u64, u64), id: u64, _: Now) -> Result<()> {
        let at = self.try_dismiss(id)?;
        self.changes.asked.insert(at, Asked::Peer(who.0, who.1, who.2));
        Ok(())
    }

    fn try_dismiss(&mut self, id: u64) -> Result<(u64, u64)> {
        let witness = self.telling.witness();
        let member = self.leading()?;
        if !member.is_member(id) {
            return Err(Error::MemberNotFound { id: MemberId(id) });
        }
        let voters = &member.log().members().voters;
        if voters.contains(&id) {
            // Those who are left must be able to go on at once.
            let left = voters.iter().filter(|voter| **voter != id);
            let (count, active) = (left.clone().count(), left.filter(|voter| member.is_active(**voter)).count());
            if active < count / 2 + 1 {
                return Err(Error::QuorumAtRisk);
            }
        }
        if id == member.own().id {
            // A leader does not remove itself: another leads first, and is asked again.
            if let Some(successor) = member.successor(witness) {
                member.hand_over(successor);
            }
            return Err(Error::Unavailable);
        }
        member.log_mut().reserve(256)?;
        let index = member.propose_change(Change::Remove(id), Vec::new())?;
        Ok((index, member.term()))
    }

    /// A change was applied: who asked for it is told.
    pub(super) fn changed(&mut self, index: u64, term: u64) {
        let Some(asked) = self.changes.asked.remove(&(index, term)) else { return };
        match asked {
            Asked::Admit(answer) => drop(answer.send(Ok(MemberId(index)))),
            Asked::Dismiss(answer) => drop(answer.send(Ok(()))),
            Asked::Peer(to, life, number) => {
                let reply = reply_of(&Ok(index), |index| *index);
                self.send(to, &Packet::Reply { life, number, reply });
            }
        }
    }

    /// Makes a learner a voter that has caught up.
    pub(super) fn promote(&mut self) {
        if !self.leads {
            return;
        }
        let Some(member) = &mut self.member else { return };
        if let Some(id) = member.caught_up().filter(|_| !member.is_changing())
            && member.log_mut().reserve(256).is_ok()
            && member.propose_change(Change::Promote(id), Vec::new()).is_ok()
        {
            tracing::info!(member = MemberId(id).to_string(), "a member has caught up and is to vote");
        }
    }

    /// Lets another lead, if this member does and there is one.
    pub(super) fn hand_over(&mut self, answer: oneshot::Sender<()>) {
        let leading = self.member.as_ref().filter(|member| member.is_leader());
        let successor = leading.and_then(|member| member.successor(self.telling.witness()));
        match (successor, &mut self.member) {
            (Some(successor), Some(member)) => {
                member.hand_over(successor);
                self.changes.handing_over.push(answer);
            }
            _ => {
                answer.send(()).ok();
            }
        }
    }

    /// Notices that this member leads, or leads no more, or that another does.
    pub(super) fn note_leadership(&mut self, now: Now) {
        let Some(member) = &mut self.member else { return };
        let (leads, leader, is_alone) = (member.is_leader(), member.leader(), member.is_alone());
        if leads && !self.leads {
            tracing::debug!(term = member.term(), "this member leads");
            member.find_pending();
            self.telling.begin(member.last());
            self.deadlines.clear();
            let state = self.shared.read();
            for (id, held) in state.leases().iter() {
                self.deadlines.start(id, held.ttl, now.steady);
            }
        }
        if !leads {
            self.telling.end();
        }
        if !leads && !is_alone {
            // The new leader gives every lease its time anew.
            self.deadlines.clear();
            self.changes.lost();
            self.changes.handed_over();
        }
        self.leads = leads;
        self.leader_is(leader);
    }

    /// Applies a change of the members: those who go are forgotten, those who come have said who they are.
    pub(super) fn apply_change(&mut self, entry: &Entry) -> Result<()> {
        let before: Vec<u64> = self.member()?.ids().collect();
        let said = self.member()?.change_members(entry)?;
        let after: Vec<u64> = self.member()?.ids().collect();
        // Who goes was needed to commit it, and is not there to say so again: who stays must know it by itself. On a disk
        // without room for that, the next group commit says it.
        if before.iter().any(|id| !after.contains(id)) {
            match self.member()?.log_mut().keep_commit() {
                Ok(()) | Err(Error::DiskFull) => {}
                Err(error) => return Err(error),
            }
        }
        {
            let mut state = self.shared.write();
            for id in before.iter().filter(|id| !after.contains(id)) {
                state.dismiss(*id);
            }
            for id in after.iter().filter(|id| !before.contains(id)) {
                let info = MemberInfo::take(&mut Reader(&said)).unwrap_or_default();
                state.admit(*id, info);
            }
        }
        self.know_members();
        self.shared.tell_cluster_changed();
        self.changed(entry.index, entry.term);
        Ok(())
    }

    /// Notices who the members are.
    pub(super) fn know_members(&mut self) {
        let witness = self.shared.read().witness();
        self.telling.is_told(witness);
        self.tell_group();
    }

    pub(super) fn tell_group(&self) {
        let Some(member) = &self.member else { return };
        let (own, members) = (member.own(), member.log().members());
        self.shared.tell_group(|group| {
            (group.own, group.founder) = (own.id, own.founder);
            (group.leader, group.term, group.applied) = (member.leader(), member.term(), self.applied.0);
            group.voters.clone_from(&members.voters);
            group.learners.clone_from(&members.learners);
        });
    }
}
