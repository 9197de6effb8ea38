//! A network that loses, delays, doubles and reorders, is cut in two, and in one direction only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use crate::{peer::MemberId, testing::world::Dice, transport::Transport};

/// What the members have sent since it was last looked at.
type Sent = Arc<Mutex<Vec<Sending>>>;

/// From, to, bytes.
pub(super) type Sending = (u64, u64, Vec<u8>);

/// One member's way out.
pub(super) struct Way {
    pub(super) own: u64,
    pub(super) sent: Sent,
}

impl Transport for Way {
    fn send(&self, to: MemberId, packet: Vec<u8>) {
        self.sent.lock().unwrap().push((self.own, to.0, packet));
    }
}

/// See the module.
pub(super) struct Net {
    pub(super) sent: Sent,
    /// What went off last.
    pub(super) sent_in_step: Vec<Sending>,
    /// By the time they arrive and the order they were sent in: from, to, bytes.
    flying: BTreeMap<(u64, u64), Sending>,
    order: u64,
    /// What whoever sends it has not come to yet: its disk is at it for so long.
    held: Vec<(u64, Sending)>,
    /// Directions in which nothing goes.
    pub(super) cuts: BTreeSet<(u64, u64)>,
    /// One packet in so many is lost, doubled, late.
    pub(super) loses: Option<usize>,
    pub(super) doubles: Option<usize>,
    pub(super) delays: Option<usize>,
}

impl Net {
    pub(super) fn new() -> Self {
        Self {
            sent: Arc::default(),
            sent_in_step: Vec::new(),
            flying: BTreeMap::new(),
            order: 0,
            held: Vec::new(),
            cuts: BTreeSet::new(),
            loses: None,
            doubles: None,
            delays: None,
        }
    }

    /// How much the members have sent since it was last looked at.
    pub(super) fn count(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    /// All but the first `count` packets are sent no earlier than then.
    pub(super) fn hold(&mut self, count: usize, until: u64) {
        let late = self.sent.lock().unwrap().split_off(count);
        self.held.extend(late.into_iter().map(|packet| (until, packet)));
    }

    /// Sends off what the members have sent.
    pub(super) fn carry(&mut self, now: u64, dice: &mut Dice) {
        let mut sent: Vec<_> = self.held.extract_if(.., |(until, _)| *until <= now).map(|(_, packet)| packet).collect();
        sent.append(&mut self.sent.lock().unwrap());
        self.sent_in_step.clone_from(&sent);
        for (from, to, bytes) in sent {
            let happens = |odds: Option<usize>, dice: &mut Dice| odds.is_some_and(|odds| dice.once_in(odds));
            if self.cuts.contains(&(from, to)) || happens(self.loses, dice) {
                continue;
            }
            let copies = if happens(self.doubles, dice) { 2 } else { 1 };
            for _ in 0..copies {
                let late = if happens(self.delays, dice) { dice.next() % 3000 } else { 0 };
                let due = now + 1 + dice.next() % 15 + late;
                self.order += 1;
                self.flying.insert((due, self.order), (from, to, bytes.clone()));
            }
        }
    }

    /// What has arrived.
    pub(super) fn arrived(&mut self, now: u64) -> Vec<Sending> {
        let later = self.flying.split_off(&(now + 1, 0));
        let arrived = std::mem::replace(&mut self.flying, later);
        arrived.into_values().filter(|(from, to, _)| !self.cuts.contains(&(*from, *to))).collect()
    }

    /// Cuts the members in two, or one direction between two of them.
    pub(super) fn cut(&mut self, ids: &[u64], dice: &mut Dice) {
        if dice.once_in(3) {
            self.cuts.insert((ids[dice.below(ids.len())], ids[dice.below(ids.len())]));
            return;
        }
        let one: BTreeSet<u64> = ids.iter().copied().filter(|_| dice.once_in(2)).collect();
        for from in ids {
            for to in ids.iter().filter(|to| one.contains(from) != one.contains(to)) {
                self.cuts.insert((*from, *to));
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
        (self.loses, self.doubles, self.delays) = (None, None, None);
    }
}
