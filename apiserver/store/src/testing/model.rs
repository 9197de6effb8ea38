//! The store as one would write it if nothing mattered but being right: a whole copy of the state for each revision.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    command::Command,
    entry::Entry,
    range::contains,
    revision::{LeaseId, Revision},
    txn::{Compare, Is, Op, Txn},
};

use super::world::Dice;

/// value, create revision, mod revision, version, lease
pub(crate) type Fact = (Bytes, u64, u64, u64, u64);
pub(crate) type Facts = BTreeMap<Bytes, Fact>;

#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// By revision; the first is of revision 1.
    pub(crate) states: Vec<Facts>,
    pub(crate) leases: BTreeMap<u64, u64>,
}

/// What a command did, as far as a client can tell: whether it was refused, succeeded, and where the store stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Refused,
    Done { succeeded: bool, revision: u64 },
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { states: vec![Facts::new()], leases: BTreeMap::new() }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.states.len() as u64
    }

    pub(crate) fn now(&self) -> &Facts {
        self.states.last().unwrap()
    }

    pub(crate) fn at(&self, revision: u64) -> &Facts {
        &self.states[usize::try_from(revision).unwrap() - 1]
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Told {
        match command {
            Command::Txn(txn) => self.txn(txn),
            Command::LeaseGrant { id, ttl } => {
                if self.leases.contains_key(&id.0) {
                    return Told::Refused;
                }
                self.leases.insert(id.0, ttl.as_secs());
                self.told(true)
            }
            Command::LeaseRevoke { id } => {
                if self.leases.remove(&id.0).is_none() {
                    return Told::Refused;
                }
                let mut next = self.now().clone();
                next.retain(|_, fact| fact.4 != id.0);
                if next != *self.now() {
                    self.states.push(next);
                }
                self.told(true)
            }
            Command::Describe { .. } => self.told(true),
            Command::Compact { revision } => {
                if revision.0 > self.revision() {
                    Told::Refused
                } else {
                    self.told(true)
                }
            }
        }
    }

    fn told(&self, succeeded: bool) -> Told {
        Told::Done { succeeded, revision: self.revision() }
    }

    fn txn(&mut self, txn: &Txn) -> Told {
        let now = self.now();
        let succeeded = txn.compare.iter().all(|compare| {
            let fact = now.get(compare.key());
            let number = |part: fn(&Fact) -> u64| fact.map_or(0, part);
            match compare {
                Compare::ModRevision { is, value, .. } => holds(*is, &number(|fact| fact.2), &value.0),
                Compare::CreateRevision { is, value, .. } => holds(*is, &number(|fact| fact.1), &value.0),
                Compare::Version { is, value, .. } => holds(*is, &number(|fact| fact.3), value),
                Compare::Value { is, value, .. } => fact.is_some_and(|fact| holds(*is, &fact.0, value)),
                Compare::Lease { is, value, .. } => holds(*is, &number(|fact| fact.4), &value.0),
            }
        });
        let branch = if succeeded { &txn.then } else { &txn.or_else };
        let unknown = |op: &Op| matches!(op, Op::Put { lease: Some(id), .. } if !self.leases.contains_key(&id.0));
        if branch.iter().any(unknown) {
            return Told::Refused;
        }
        let mut next = now.clone();
        let revision = self.revision() + 1;
        let mut changed = false;
        for op in branch {
            match op {
                Op::Put { key, value, lease } => {
                    let (create, version) = next.get(key).map_or((revision, 0), |fact| (fact.1, fact.3));
                    next.insert(
                        key.clone(),
                        (value.clone(), create, revision, version + 1, lease.unwrap_or_default().0),
                    );
                    changed = true;
                }
                Op::Delete { start, end } => {
                    let before = next.len();
                    next.retain(|key, _| !contains(start, end.as_deref(), key));
                    changed |= next.len() != before;
                }
                Op::Get(_) => {}
            }
        }
        if changed {
            self.states.push(next);
        }
        self.told(succeeded)
    }
}

fn holds<T: Ord>(is: Is, left: &T, right: &T) -> bool {
    match is {
        Is::Equal => left == right,
        Is::NotEqual => left != right,
        Is::Greater => left > right,
        Is::Less => left < right,
    }
}

/// An entry as the model would have it.
pub(crate) fn fact(entry: &Entry) -> (Bytes, Fact) {
    let lease = entry.lease.unwrap_or_default().0;
    let fact = (entry.value.clone(), entry.create_revision.0, entry.mod_revision.0, entry.version, lease);
    (entry.key.clone(), fact)
}

/// A command such as clients might send: valid, over few keys, so that they meet.
pub(crate) fn command(dice: &mut Dice, unique: u64, revision: u64, largest: usize) -> Command {
    match dice.below(20) {
        0 => Command::LeaseGrant {
            id: LeaseId(1 + dice.next() % 4),
            ttl: std::time::Duration::from_secs(1 + dice.next() % 100),
        },
        1 => Command::LeaseRevoke { id: LeaseId(1 + dice.next() % 4) },
        2 if dice.once_in(4) => Command::Compact { revision: Revision(revision.saturating_sub(dice.next() % 20)) },
        _ => loop {
            let compare = (0..dice.below(3)).map(|_| compare(dice, revision)).collect();
            let then = (0..1 + dice.below(4)).map(|_| op(dice, unique, largest)).collect();
            let or_else = (0..dice.below(2)).map(|_| op(dice, unique, largest)).collect();
            let txn = Txn { compare, then, or_else };
            if txn.validate().is_ok() {
                break Command::Txn(txn);
            }
        },
    }
}

fn key(dice: &mut Dice) -> Bytes {
    Bytes::from(format!("{}/{}", ["a", "b"][dice.below(2)], dice.below(8)))
}

fn compare(dice: &mut Dice, revision: u64) -> Compare {
    let key = key(dice);
    let is = [Is::Equal, Is::NotEqual, Is::Greater, Is::Less][dice.below(4)];
    match dice.below(6) {
        0 => Compare::absent(key),
        1 => Compare::ModRevision { key, is, value: Revision(revision.saturating_sub(dice.next() % 10)) },
        2 => Compare::CreateRevision { key, is, value: Revision(revision.saturating_sub(dice.next() % 10)) },
        3 => Compare::Version { key, is, value: dice.next() % 4 },
        4 => Compare::Value { key, is, value: Bytes::from(format!("{:08}", dice.next() % 100)) },
        _ => Compare::Lease { key, is, value: LeaseId(dice.next() % 4) },
    }
}

fn op(dice: &mut Dice, unique: u64, largest: usize) -> Op {
    let start = key(dice);
    match dice.below(10) {
        0 => Op::Delete { start, end: None },
        1 => Op::Delete { end: Some(key(dice)), start },
        2 => Op::get(start),
        _ => {
            let mut value = format!("{unique:08}").into_bytes();
            let longest = if dice.once_in(8) { largest } else { 64 };
            let len = dice.below(longest);
            value.resize(value.len() + len, b'.');
            let lease = dice.once_in(5).then(|| LeaseId(1 + dice.next() % 4));
            Op::Put { key: start, value: value.into(), lease }
        }
    }
}
