//! Invariant of writes: what is acknowledged is done, once, at the revision that was told, and behind everything that had been
//! acknowledged before it began; what is refused is not done; what was left open may be.

use std::collections::BTreeMap;

use super::Changes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Done(u64),
    Refused,
}

#[derive(Debug)]
struct Write {
    key: String,
    value: String,
    /// The last revision that had been acknowledged when it was sent.
    behind: u64,
    outcome: Outcome,
}

/// See the module. Every write sets its key to a value that no other one sets it to.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    writes: Vec<Write>,
    acknowledged: u64,
}

impl Writes {
    /// A write is sent; its number.
    pub(crate) fn begin(&mut self, key: &str, value: &str) -> usize {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.writes.push(Write { key, value, behind: self.acknowledged, outcome: Outcome::Open });
        self.writes.len() - 1
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(crate) fn done(&mut self, number: usize, revision: u64) {
        let write = &mut self.writes[number];
        assert!(revision > write.behind, "{write:?} was done at {revision}, before what had been acknowledged");
        write.outcome = Outcome::Done(revision);
        self.acknowledged = self.acknowledged.max(revision);
    }

    pub(crate) fn refused(&mut self, number: usize) {
        self.writes[number].outcome = Outcome::Refused;
    }

    pub(super) fn judge(&self, history: &[Changes]) {
        let mut found: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (changes, revision) in history.iter().zip(1..) {
            for (key, value) in changes {
                let Some(value) = value else { continue };
                found.entry((key, value)).or_insert(revision);
            }
        }
        for write in &self.writes {
            let at = found.get(&(&*write.key, &*write.value)).copied();
            match write.outcome {
                Outcome::Done(revision) => assert_eq!(at, Some(revision), "{write:?} was acknowledged"),
                Outcome::Refused => assert_eq!(at, None, "{write:?} was refused"),
                Outcome::Open => assert!(at.is_none_or(|at| at > write.behind), "{write:?} was done at {at:?}"),
            }
        }
    }
}
