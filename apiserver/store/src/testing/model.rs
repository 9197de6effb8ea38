//! The store as one would write it if nothing mattered but being right: a whole copy of the state for each revision.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    command::Command,
    entry::Entry,
    range::contains,
    revision::{LeaseId, Revision},
    txn::{Change, Compare, Is, Op, Txn},
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
        let Some((succeeded, steps)) = self.steps(txn) else { return Told::Refused };
        let mut next = self.now().clone();
        let revision = self.revision() + 1;
        let mut changed = false;
        for op in steps {
            let (key, value, lease) = match op {
                Op::Put { key, value, lease } => (key, value.clone(), lease.unwrap_or_default().0),
                Op::Amend { key, change } => match (change, &next[key]) {
                    (Change::Value(value), before) => (key, value.clone(), before.4),
                    (Change::Lease(lease), before) => (key, before.0.clone(), lease.unwrap_or_default().0),
                    (Change::Nothing, before) => (key, before.0.clone(), before.4),
                },
                Op::Delete { start, end } => {
                    let before = next.len();
                    next.retain(|key, _| !contains(start, end.as_deref(), key));
                    changed |= next.len() != before;
                    continue;
                }
                Op::Get(_) | Op::Txn(_) => continue,
            };
            let (create, version) = next.get(key).map_or((revision, 0), |fact| (fact.1, fact.3));
            next.insert(key.clone(), (value, create, revision, version + 1, lease));
            changed = true;
        }
        if changed {
            self.states.push(next);
        }
        self.told(succeeded)
    }

    /// Whether the comparisons hold, and all that is done then, within too, one after the other; none if it is refused.
    fn steps<'a>(&self, txn: &'a Txn) -> Option<(bool, Vec<&'a Op>)> {
        let succeeded = txn.compare.iter().all(|compare| self.compares(compare));
        let mut steps = Vec::new();
        for op in if succeeded { &txn.then } else { &txn.or_else } {
            match op {
                Op::Put { lease: Some(id), .. } | Op::Amend { change: Change::Lease(Some(id)), .. }
                    if !self.leases.contains_key(&id.0) =>
                {
                    return None;
                }
                Op::Amend { key, .. } if !self.now().contains_key(key) => return None,
                Op::Txn(within) => steps.extend(self.steps(within)?.1),
                op => steps.push(op),
            }
        }
        Some((succeeded, steps))
    }

    fn compares(&self, compare: &Compare) -> bool {
        if let Compare::Each { end, compare } = compare {
            let within = |key: &&Bytes| contains(compare.key(), Some(end), key);
            let facts: Vec<&Fact> = self.now().iter().filter(|(key, _)| within(key)).map(|(_, fact)| fact).collect();
            let of = |fact: Option<&Fact>| compares_with(compare, fact);
            return if facts.is_empty() { of(None) } else { facts.into_iter().all(|fact| of(Some(fact))) };
        }
        compares_with(compare, self.now().get(compare.key()))
    }
}

fn compares_with(compare: &Compare, fact: Option<&Fact>) -> bool {
    let number = |part: fn(&Fact) -> u64| fact.map_or(0, part);
    match compare {
        Compare::ModRevision { is, value, .. } => holds(*is, &number(|fact| fact.2), &value.0),
        Compare::CreateRevision { is, value, .. } => holds(*is, &number(|fact| fact.1), &value.0),
        Compare::Version { is, value, .. } => holds(*is, &number(|fact| fact.3), value),
        Compare::Value { is, value, .. } => fact.is_some_and(|fact| holds(*is, &fact.0, value)),
        Compare::Lease { is, value, .. } => holds(*is, &number(|fact| fact.4), &value.0),
        Compare::Each { .. } => panic!("a range within a range"),
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

/// As [`command`], with what only etcd's clients ask for: comparisons of ranges, keys that are amended, transactions within.
pub(crate) fn any_command(dice: &mut Dice, unique: u64, revision: u64, largest: usize) -> Command {
    if dice.once_in(3) {
        return command(dice, unique, revision, largest);
    }
    loop {
        let txn = any_txn(dice, unique, revision, largest, 3);
        if txn.validate().is_ok() {
            break Command::Txn(txn);
        }
    }
}

fn any_txn(dice: &mut Dice, unique: u64, revision: u64, largest: usize, depth: usize) -> Txn {
    let compare = (0..dice.below(3)).map(|_| {
        let compare = compare(dice, revision);
        if dice.once_in(2) { Compare::Each { end: key(dice), compare: Box::new(compare) } } else { compare }
    });
    let compare = compare.collect();
    let (then, or_else) = (1 + dice.below(3), dice.below(2));
    let mut branch = |count: usize| {
        let any_op = |_| match dice.below(4) {
            0 if depth > 0 => Op::Txn(any_txn(dice, unique, revision, largest, depth - 1)),
            1 => {
                let change = match dice.below(3) {
                    0 => Change::Value(Bytes::from(format!("{unique:08}"))),
                    1 => Change::Lease(dice.once_in(2).then(|| LeaseId(1 + dice.next() % 4))),
                    _ => Change::Nothing,
                };
                Op::Amend { key: key(dice), change }
            }
            _ => op(dice, unique, largest),
        };
        (0..count).map(any_op).collect()
    };
    Txn { compare, then: branch(then), or_else: branch(or_else) }
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
