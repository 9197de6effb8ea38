//! What goes together of the writes that come to a leader.
//!
//! A leader with peers hands in what has come, and until a majority has it on stable storage that is a round. What comes
//! meanwhile goes together in the next one: one message to each peer and one sync of each disk, however many writes they
//! are for. So a leader that has nothing under way lets no write wait, and the busier it is the less each costs; Nagle
//! found the same for small packets on a slow network (RFC 896).

use std::{mem, time::Duration};

use super::{GROUP, GROUP_BYTES, Phase, Proposed, Waiting, Worker};
use crate::{disk::Disk, error::Error};

/// See the module.
#[derive(Default)]
pub(super) struct Rounds {
    /// For the next round, in the order they came.
    held: Vec<Proposed>,
    bytes: usize,
}

impl Rounds {
    pub(super) fn push(&mut self, proposed: Proposed) {
        self.bytes += proposed.size();
        self.held.push(proposed);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// More than that is not waited for: raft-rs says how much may be under way.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= GROUP_BYTES || self.held.len() >= GROUP
    }

    fn take(&mut self) -> Vec<Proposed> {
        self.bytes = 0;
        mem::take(&mut self.held)
    }
}

impl<D: Disk> Worker<D> {
    fn is_round_under_way(&self) -> bool {
        let leader = self.member.as_ref().filter(|member| member.is_leader() && member.has_peers());
        !matches!(self.phase, Phase::Failed(_)) && leader.is_some_and(|leader| leader.committed() < leader.last())
    }

    /// What is to be handed in now.
    pub(super) fn next_round(&mut self) -> Vec<Proposed> {
        if self.rounds.is_full() || !self.is_round_under_way() { self.rounds.take() } else { Vec::new() }
    }

    /// Refuses what has waited for longer than `patience`: the round before it does not end, and it is certain that it
    /// was not done.
    pub(super) fn lose_patience_with_rounds(&mut self, now: Duration, patience: Duration) {
        let is_over = |since: Duration| now.saturating_sub(since) >= patience;
        let mut over = Vec::new();
        for proposed in self.rounds.take() {
            match proposed {
                Proposed::Own { waiting: Some(Waiting { since, .. }), .. } if is_over(since) => over.push(proposed),
                _ => self.rounds.push(proposed),
            }
        }
        self.refuse(over, &Error::Unavailable);
    }

    /// Nothing is handed in any more.
    pub(super) fn end_rounds(&mut self, error: &Error) {
        let held = self.rounds.take();
        self.refuse(held, error);
    }
}
