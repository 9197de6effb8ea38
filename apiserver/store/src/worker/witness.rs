//! What a witness is told, and when.
//!
//! A witness votes and acknowledges as every member does, but keeps of the log only where it stands: terms and indices,
//! and what is said of the members. Raft's own rule makes that safe: it votes for nobody whose log ends before its own, so
//! what was committed with its word a later leader has. It has nothing to lead with, and never stands for election
//! (`member`).
//!
//! The same rule could hold up the others. What one server has, and the witness knows of, but the other server has not,
//! ends with the one server for as long as that is away. So as long as the servers make a majority by themselves, the
//! witness hears of nothing before they have it. Only when they do not keep up it hears of what as many have as make a
//! majority with it: of two servers the one that leads is enough. So it is always the last to hear, and what it knows of
//! is on stable storage elsewhere.

use std::collections::VecDeque;

use raft::eraftpb::{EntryType, Message, MessageType};

use super::Worker;
use crate::{command::Proposal, disk::Disk, packet::Packet, peer::MemberId};

/// So many ticks an entry waits for the servers before the witness is told of it: as long as it takes at most to miss a
/// leader. Writes stand still for so long when a server that does not lead is gone; the shorter, the sooner one that is
/// only slow is left behind.
const PATIENCE: u32 = 20;
/// So many when this member has only just come to lead.
const SOON: u32 = 4;
/// A server that has what the leader had so many ticks ago keeps up.
const BEHIND: usize = 5;
/// Messages held back: more than raft-rs sends without an answer.
const HELD: usize = 512;

/// See the module.
#[derive(Default)]
pub(super) struct Telling {
    witness: Option<u64>,
    /// Entries for it, in order.
    held: VecDeque<Message>,
    /// For how many ticks the first of them has waited.
    waited: u32,
    /// The servers do not keep up: a write may need the witness.
    is_needed: bool,
    /// Where the log ended at each of the last ticks.
    ends: VecDeque<u64>,
}

/// Takes out of a message to a witness what it does not keep.
pub(super) fn strip(message: &mut Message) {
    for entry in message.entries.iter_mut() {
        if entry.entry_type == EntryType::EntryNormal && !Proposal::is_of_members(&entry.data) {
            entry.data.clear();
        }
    }
}

impl Telling {
    pub(super) const fn witness(&self) -> Option<u64> {
        self.witness
    }

    pub(super) fn is_told(&mut self, witness: Option<u64>) {
        if self.witness != witness {
            self.witness = witness;
            self.held.clear();
        }
    }

    /// This member has come to lead, and its log ends there. Whether the other servers are well it does not know yet: it
    /// hears from them within a tick or two, or they are gone with the leader before, and the next write waits no longer.
    pub(super) fn begin(&mut self, end: u64) {
        self.is_needed = false;
        self.waited = PATIENCE - SOON;
        self.ends.push_back(end);
    }

    /// This member does not lead.
    pub(super) fn end(&mut self) {
        self.held.clear();
        self.ends.clear();
        self.waited = 0;
    }

    /// Holds a message back if it says to the witness what there is in the log; gives back any other.
    pub(super) fn take(&mut self, mut message: Message) -> Option<Message> {
        if Some(message.to) != self.witness || message.msg_type != MessageType::MsgAppend {
            return Some(message);
        }
        strip(&mut message);
        // What is dropped here is missed by the witness, and sent again.
        if self.held.len() < HELD {
            self.held.push_back(message);
        }
        None
    }
}

impl<D: Disk> Worker<D> {
    /// Tells the witness what it may hear now.
    pub(super) fn tell_witness(&mut self) {
        if self.telling.held.is_empty() {
            return;
        }
        let Some(member) = self.member.as_ref().filter(|member| member.is_leader()) else {
            self.telling.end();
            return;
        };
        let (with, without) = self.telling.witness.map(|witness| member.kept_beside(witness)).unwrap_or_default();
        // Too few servers for a majority always need it.
        let kept = without.filter(|_| !self.telling.is_needed).unwrap_or(with);
        let upto = kept.max(member.committed());
        let end = |message: &Message| message.entries.last().map_or(message.index, |entry| entry.index);
        while self.telling.held.front().is_some_and(|message| end(message) <= upto) {
            let Some(message) = self.telling.held.pop_front() else { return };
            self.telling.waited = 0;
            let to = MemberId(message.to);
            self.settings.transport.send(to, Packet::Raft(Box::new(message)).encode());
        }
    }

    /// Looks whether the servers keep up.
    pub(super) fn tick_telling(&mut self) {
        let Some((member, witness)) = self.member.as_ref().zip(self.telling.witness) else { return };
        if !member.is_leader() {
            self.telling.end();
            return;
        }
        let kept = member.kept_beside(witness).1.unwrap_or_default();
        let telling = &mut self.telling;
        telling.waited = if telling.held.is_empty() { 0 } else { telling.waited + 1 };
        let was_needed = telling.is_needed;
        if telling.waited >= PATIENCE {
            telling.is_needed = true;
        } else if telling.ends.front().is_some_and(|end| kept >= *end) {
            telling.is_needed = false;
        }
        if was_needed != telling.is_needed {
            tracing::debug!(witness = telling.is_needed, "whether writes need the witness has changed");
        }
        telling.ends.push_back(member.last());
        if telling.ends.len() > BEHIND {
            telling.ends.pop_front();
        }
        self.tell_witness();
    }
}
