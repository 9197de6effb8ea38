//! Invariants of writes: what is acknowledged is in the log once, with the answer the model gives at that place; what is
//! refused is not; and who began after another had been answered stands behind it.

use std::collections::{BTreeMap, BTreeSet};

use protobuf::Message as _;
use raft::eraftpb::{ConfChangeType, ConfChangeV2, EntryType};

use super::agreement::Agreement;
use crate::{
    command::{Command, Proposal},
    testing::model::{Model, Told},
    txn::{Op, Txn},
};

/// The key every write of the simulation's clients sets to its own number, so that it is known in the log.
pub(super) const OWN: &str = "write";

struct Write {
    /// How far the log had been acknowledged when it was sent.
    behind: u64,
    /// Where it stands in the log, if it was done, and what the model says.
    done: Option<(u64, Told)>,
    refused: bool,
}

/// See the module.
pub(super) struct Writes {
    pub(super) model: Model,
    /// Up to where the model has gone.
    upto: u64,
    members: BTreeSet<u64>,
    forwarded: BTreeMap<u64, (u64, u64)>,
    writes: Vec<Write>,
    /// The last index acknowledged.
    acknowledged: u64,
    pub(super) answered: u64,
}

impl Writes {
    pub(super) fn new(founder: u64) -> Self {
        Self {
            model: Model::new(),
            upto: 0,
            members: BTreeSet::from([founder]),
            forwarded: BTreeMap::new(),
            writes: Vec::new(),
            acknowledged: 0,
            answered: 0,
        }
    }

    /// A client's write, made known.
    pub(super) fn begin(&mut self, mut txn: Txn) -> (usize, Command) {
        let number = self.writes.len();
        for branch in [&mut txn.then, &mut txn.or_else] {
            branch.push(Op::put(OWN, number.to_string()));
        }
        self.writes.push(Write { behind: self.acknowledged, done: None, refused: false });
        (number, Command::Txn(txn))
    }

    fn number(command: &Command) -> Option<usize> {
        let Command::Txn(txn) = command else { return None };
        let Some(Op::Put { key, value, .. }) = txn.then.last() else { return None };
        (key == OWN).then(|| std::str::from_utf8(value).unwrap().parse().unwrap())
    }

    /// Follows the log as far as it is known.
    pub(super) fn follow(&mut self, log: &Agreement) {
        while let Some(entry) = log.get(self.upto + 1) {
            self.upto += 1;
            if entry.entry_type != EntryType::EntryNormal {
                let mut change = ConfChangeV2::default();
                change.merge_from_bytes(&entry.data).unwrap();
                for single in &change.changes {
                    if single.change_type == ConfChangeType::RemoveNode {
                        self.members.remove(&single.node_id);
                        self.forwarded.remove(&single.node_id);
                    } else {
                        self.members.insert(single.node_id);
                    }
                }
                continue;
            }
            if entry.data.is_empty() {
                continue;
            }
            let proposal = Proposal::decode(&entry.data).unwrap();
            if proposal.forwarded {
                let last = self.forwarded.entry(proposal.member).or_default();
                if !self.members.contains(&proposal.member) || *last >= (proposal.life, proposal.number) {
                    continue;
                }
                *last = (proposal.life, proposal.number);
            }
            let told = self.model.apply(&proposal.command);
            if let Some(write) = Self::number(&proposal.command).map(|number| &mut self.writes[number]) {
                assert!(write.done.is_none(), "a write was done twice");
                assert!(!write.refused, "a write that was refused was done");
                assert!(write.behind < self.upto, "a write stands before one that was answered before it began");
                write.done = Some((self.upto, told));
            }
        }
    }

    /// A write was answered.
    pub(super) fn answered(&mut self, number: usize, told: Told) {
        let Some((index, expected)) = self.writes[number].done.clone() else {
            panic!("a write was acknowledged that is not in the log");
        };
        assert_eq!(told, expected, "an answer is another than the model's");
        self.acknowledged = self.acknowledged.max(index);
        self.answered += 1;
    }

    /// A write was refused, for certain.
    pub(super) fn refused(&mut self, number: usize) {
        assert!(self.writes[number].done.is_none(), "a write that was done was refused");
        self.writes[number].refused = true;
    }
}
