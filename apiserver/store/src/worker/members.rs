//! Who belongs to the cluster: admitting, promoting, removing, and handing leadership over.
//!
//! One change at a time, each an entry of the log. Who is admitted is a learner first: it is sent everything and has no
//! vote, so a machine that is slow, or never comes, holds up nobody. The leader makes it a voter when it has caught up.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use raft::eraftpb::Entry;
use tokio::sync::oneshot;

use super::{
    Now, Phase, Worker,
    peers::{Asker, reply_of},
    removing::Removing,
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
pub(super) enum Asked {
    Admit(oneshot::Sender<Result<MemberId>>),
    Dismiss(oneshot::Sender<Result<()>>),
    /// A peer, by way of which it was asked: member, life, number of the question.
    Peer(u64, u64, u64),
}

impl Asked {
    /// Whether it was asked by this peer in this life under this number.
    pub(super) fn is_of(&self, who: (u64, u64, u64)) -> bool {
        matches!(self, Self::Peer(from, life, number) if (*from, *life, *number) == who)
    }

    /// Whether somebody on this machine waits for it.
    pub(super) const fn is_own(&self) -> bool {
        match self {
            Self::Admit(_) | Self::Dismiss(_) => true,
            Self::Peer(..) => false,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Changes {
    /// By the index and term of their entries.
    pub(super) asked: BTreeMap<(u64, u64), Asked>,
    pub(super) removing: Removing,
    handing_over: Vec<oneshot::Sender<Result<()>>>,
}

impl Changes {
    /// This member leads no more: whether what it proposed is done, others will see.
    pub(super) fn lost(&mut self) {
        for asked in mem::take(&mut self.asked).into_values() {
            match asked {
                Asked::Admit(answer) => drop(answer.send(Err(Error::OutcomeUnknown))),
                Asked::Dismiss(answer) => drop(answer.send(Err(Error::OutcomeUnknown))),
                // It stops waiting by itself.
                Asked::Peer(..) => {}
            }
        }
    }

    /// Another member leads.
    pub(super) fn handed_over(&mut self) {
        for answer in mem::take(&mut self.handing_over) {
            answer.send(Ok(())).ok();
        }
    }
}

impl<D: Disk> Worker<D> {
    pub(super) fn leading(&mut self) -> Result<&mut Member<D>> {
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
        self.make_room(context.len() + 256)?;
        let member = self.leading()?;
        let index = member.propose_change(Change::Admit, context)?;
        Ok((index, member.term()))
    }

    /// A change was applied, and will not be forgotten: who asked for it is told.
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
        let caught_up =
            self.member.as_mut().filter(|member| !member.is_changing()).and_then(|member| member.caught_up());
        if let Some(id) = caught_up
            && self.make_room(256).is_ok()
            && self.member.as_mut().is_some_and(|member| member.propose_change(Change::Promote(id), Vec::new()).is_ok())
        {
            tracing::info!(member = MemberId(id).to_string(), "a member has caught up and is to vote");
        }
    }

    /// Lets another lead, if this member does and there is one that can.
    pub(super) fn hand_over(&mut self, to: Option<MemberId>, answer: oneshot::Sender<Result<()>>) {
        match self.try_hand_over(to) {
            Ok(()) => self.changes.handing_over.push(answer),
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    fn try_hand_over(&mut self, to: Option<MemberId>) -> Result<()> {
        let witness = self.telling.witness();
        let member = self.leading()?;
        let successor = match to {
            None => member.successor(witness).ok_or(Error::Unavailable)?,
            Some(id) if member.votes(id.0) && Some(id.0) != witness => id.0,
            Some(id) => return Err(Error::MemberNotFound { id }),
        };
        member.hand_over(successor);
        Ok(())
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
            self.end_inquiries(&Error::Unavailable);
            self.changes.lost();
            if leader.is_some() {
                self.changes.handed_over();
            }
        }
        self.leads = leads;
        self.leader_is(leader);
    }

    /// Applies a change of the members: those who go are forgotten, those who come have said who they are.
    pub(super) fn apply_change(&mut self, entry: &Entry) -> Result<()> {
        let before: BTreeSet<u64> = self.member()?.ids().collect();
        let said = self.member()?.change_members(entry)?;
        let after: BTreeSet<u64> = self.member()?.ids().collect();
        {
            let mut state = self.shared.write();
            for id in before.difference(&after) {
                state.dismiss(*id);
            }
            for id in after.difference(&before) {
                let info = MemberInfo::take(&mut Reader(&said)).unwrap_or_default();
                state.admit(*id, info);
            }
        }
        self.know_members();
        self.shared.tell_cluster_changed();
        if before.is_subset(&after) {
            self.changed(entry.index, entry.term);
            return Ok(());
        }
        for id in before.difference(&after) {
            self.changes.removing.applied(*id, (entry.index, entry.term));
        }
        self.keep_removals()
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
