//! What the log holds: the commands every member applies in the same order.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    codec::{Malformed, Put, Reader},
    error,
    peer::MemberInfo,
    range::{Range, What},
    revision::{LeaseId, Revision},
    txn::{Change, Compare, Is, MAX_DEPTH, Op, Txn, TxnResult},
};

/// A change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Runs a transaction.
    Txn(Txn),
    /// Grants a lease; the proposer has chosen its id.
    LeaseGrant {
        /// Its name.
        id: LeaseId,
        /// Its time to live.
        ttl: Duration,
    },
    /// Ends a lease, by request or because its time is up.
    LeaseRevoke {
        /// The lease.
        id: LeaseId,
    },
    /// Forgets the history up to a revision.
    Compact {
        /// The last revision to forget.
        revision: Revision,
    },
    /// A member says where it is.
    Describe {
        /// The member.
        id: u64,
        /// Its name and addresses.
        info: MemberInfo,
    },
}

/// What a command answers to its proposer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To a transaction.
    Txn(TxnResult),
    /// To anything else.
    Done,
}

/// The answer, or the state machine's refusal (which changes nothing).
pub(crate) type Outcome = error::Result<Answer>;

/// Version of the encoding; the first byte of every proposal.
const VERSION: u8 = 1;
/// The first byte of one that came to the log by way of another member.
const FORWARDED: u8 = 2;

/// A command on its way through the log, with what tells its proposer that it is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// The member that proposed it.
    pub(crate) member: u64,
    /// Which of its lives: drawn at every start, so that a number is never taken for one of an earlier life.
    pub(crate) life: u64,
    /// Its number in that life.
    pub(crate) number: u64,
    /// The proposer's wall clock, milliseconds since 1970; told, never relied upon.
    pub(crate) time: u64,
    /// It came to the log by way of another member, and may come twice.
    pub(crate) forwarded: bool,
    /// What to do.
    pub(crate) command: Command,
}

mod tag {
    pub(super) const TXN: u8 = 1;
    pub(super) const LEASE_GRANT: u8 = 2;
    pub(super) const LEASE_REVOKE: u8 = 3;
    pub(super) const COMPACT: u8 = 4;
    pub(super) const DESCRIBE: u8 = 5;

    pub(super) const MOD_REVISION: u8 = 1;
    pub(super) const CREATE_REVISION: u8 = 2;
    pub(super) const VERSION: u8 = 3;
    pub(super) const VALUE: u8 = 4;
    pub(super) const LEASE: u8 = 5;
    pub(super) const EACH: u8 = 6;

    pub(super) const PUT: u8 = 1;
    pub(super) const DELETE: u8 = 2;
    pub(super) const GET: u8 = 3;
    pub(super) const WITHIN: u8 = 4;
    pub(super) const AMEND: u8 = 5;

    pub(super) const AMEND_VALUE: u8 = 1;
    pub(super) const AMEND_LEASE: u8 = 2;
    pub(super) const AMEND_NOTHING: u8 = 3;
}

impl Command {
    /// About how many bytes [`Proposal::encode`] will need.
    pub(crate) fn size(&self) -> usize {
        64 + match self {
            Self::Txn(txn) => txn.size() + 32 * txn.parts(),
            Self::LeaseGrant { .. } | Self::LeaseRevoke { .. } | Self::Compact { .. } => 0,
            Self::Describe { info, .. } => info.size(),
        }
    }
}

/// Where the command's kind stands in an encoded proposal.
const KIND: usize = 1 + 4 * 8;

impl Proposal {
    /// Whether an encoded proposal says something of the members, which those need to know too who keep nothing else.
    pub(crate) fn is_of_members(bytes: &[u8]) -> bool {
        bytes.get(KIND) == Some(&tag::DESCRIBE)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.command.size());
        out.put_u8(if self.forwarded { FORWARDED } else { VERSION });
        for number in [self.member, self.life, self.number, self.time] {
            out.put_u64(number);
        }
        match &self.command {
            Command::Txn(txn) => {
                out.put_u8(tag::TXN);
                put_txn(&mut out, txn);
            }
            Command::LeaseGrant { id, ttl } => {
                out.put_u8(tag::LEASE_GRANT);
                out.put_u64(id.0);
                out.put_u64(ttl.as_secs());
            }
            Command::LeaseRevoke { id } => {
                out.put_u8(tag::LEASE_REVOKE);
                out.put_u64(id.0);
            }
            Command::Compact { revision } => {
                out.put_u8(tag::COMPACT);
                out.put_u64(revision.0);
            }
            Command::Describe { id, info } => {
                out.put_u8(tag::DESCRIBE);
                out.put_u64(*id);
                info.put(&mut out);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        let forwarded = match from.u8()? {
            VERSION => false,
            FORWARDED => true,
            _ => return Err(Malformed("proposal of an unknown version")),
        };
        let (member, life, number, time) = (from.u64()?, from.u64()?, from.u64()?, from.u64()?);
        let command = match from.u8()? {
            tag::TXN => Command::Txn(txn(&mut from, MAX_DEPTH)?),
            tag::LEASE_GRANT => Command::LeaseGrant { id: LeaseId(from.u64()?), ttl: Duration::from_secs(from.u64()?) },
            tag::LEASE_REVOKE => Command::LeaseRevoke { id: LeaseId(from.u64()?) },
            tag::COMPACT => Command::Compact { revision: Revision(from.u64()?) },
            tag::DESCRIBE => Command::Describe { id: from.u64()?, info: MemberInfo::take(&mut from)? },
            _ => return Err(Malformed("command of an unknown kind")),
        };
        from.end()?;
        Ok(Self { member, life, number, time, forwarded, command })
    }
}

fn put_txn(out: &mut Vec<u8>, txn: &Txn) {
    out.put_u32(u32::try_from(txn.compare.len()).unwrap_or(u32::MAX));
    txn.compare.iter().for_each(|compare| put_compare(out, compare));
    for branch in [&txn.then, &txn.or_else] {
        out.put_u32(u32::try_from(branch.len()).unwrap_or(u32::MAX));
        branch.iter().for_each(|op| put_op(out, op));
    }
}

/// A transaction in which others may lie so deep.
fn txn(from: &mut Reader<'_>, depth: usize) -> Result<Txn, Malformed> {
    let compare = (0..from.count(6)?).map(|_| compare(from)).collect::<Result<_, _>>()?;
    let then = (0..from.count(2)?).map(|_| op(from, depth)).collect::<Result<_, _>>()?;
    let or_else = (0..from.count(2)?).map(|_| op(from, depth)).collect::<Result<_, _>>()?;
    Ok(Txn { compare, then, or_else })
}

fn put_compare(out: &mut Vec<u8>, compare: &Compare) {
    let (tag, is) = match compare {
        Compare::Each { end, compare } => {
            out.put_u8(tag::EACH);
            out.put_bytes(end);
            return put_compare(out, compare);
        }
        Compare::ModRevision { is, .. } => (tag::MOD_REVISION, is),
        Compare::CreateRevision { is, .. } => (tag::CREATE_REVISION, is),
        Compare::Version { is, .. } => (tag::VERSION, is),
        Compare::Value { is, .. } => (tag::VALUE, is),
        Compare::Lease { is, .. } => (tag::LEASE, is),
    };
    out.put_u8(tag);
    out.put_u8(match is {
        Is::Equal => 0,
        Is::NotEqual => 1,
        Is::Greater => 2,
        Is::Less => 3,
    });
    out.put_bytes(compare.key());
    match compare {
        Compare::ModRevision { value, .. } | Compare::CreateRevision { value, .. } => out.put_u64(value.0),
        Compare::Version { value, .. } => out.put_u64(*value),
        Compare::Value { value, .. } => out.put_bytes(value),
        Compare::Lease { value, .. } => out.put_u64(value.0),
        // Written above.
        Compare::Each { .. } => {}
    }
}

fn compare(from: &mut Reader<'_>) -> Result<Compare, Malformed> {
    Ok(match from.u8()? {
        tag::EACH => {
            let end = from.bytes()?;
            let tag = from.u8()?;
            Compare::Each { end, compare: Box::new(comparison(tag, from)?) }
        }
        tag => comparison(tag, from)?,
    })
}

/// A comparison that is not one of a range.
fn comparison(tag: u8, from: &mut Reader<'_>) -> Result<Compare, Malformed> {
    let is = match from.u8()? {
        0 => Is::Equal,
        1 => Is::NotEqual,
        2 => Is::Greater,
        3 => Is::Less,
        _ => return Err(Malformed("comparison of an unknown way")),
    };
    let key = from.bytes()?;
    Ok(match tag {
        tag::MOD_REVISION => Compare::ModRevision { key, is, value: Revision(from.u64()?) },
        tag::CREATE_REVISION => Compare::CreateRevision { key, is, value: Revision(from.u64()?) },
        tag::VERSION => Compare::Version { key, is, value: from.u64()? },
        tag::VALUE => Compare::Value { key, is, value: from.bytes()? },
        tag::LEASE => Compare::Lease { key, is, value: LeaseId(from.u64()?) },
        _ => return Err(Malformed("comparison of an unknown kind")),
    })
}

fn put_end(out: &mut Vec<u8>, end: Option<&Bytes>) {
    out.put_u8(u8::from(end.is_some()));
    if let Some(end) = end {
        out.put_bytes(end);
    }
}

fn end(from: &mut Reader<'_>) -> Result<Option<Bytes>, Malformed> {
    match from.u8()? {
        0 => Ok(None),
        1 => from.bytes().map(Some),
        _ => Err(Malformed("flag that is neither 0 nor 1")),
    }
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Put { key, value, lease } => {
            out.put_u8(tag::PUT);
            out.put_bytes(key);
            out.put_bytes(value);
            out.put_u64(lease.unwrap_or_default().0);
        }
        Op::Amend { key, change } => {
            out.put_u8(tag::AMEND);
            out.put_bytes(key);
            match change {
                Change::Value(value) => {
                    out.put_u8(tag::AMEND_VALUE);
                    out.put_bytes(value);
                }
                Change::Lease(lease) => {
                    out.put_u8(tag::AMEND_LEASE);
                    out.put_u64(lease.unwrap_or_default().0);
                }
                Change::Nothing => out.put_u8(tag::AMEND_NOTHING),
            }
        }
        Op::Delete { start, end } => {
            out.put_u8(tag::DELETE);
            out.put_bytes(start);
            put_end(out, end.as_ref());
        }
        Op::Get(range) => {
            out.put_u8(tag::GET);
            out.put_bytes(&range.start);
            put_end(out, range.end.as_ref());
            out.put_u64(range.limit as u64);
            out.put_u8(u8::from(range.what == What::Count));
        }
        Op::Txn(within) => {
            out.put_u8(tag::WITHIN);
            put_txn(out, within);
        }
    }
}

fn lease(from: &mut Reader<'_>) -> Result<Option<LeaseId>, Malformed> {
    Ok(Some(LeaseId(from.u64()?)).filter(|id| *id != LeaseId::default()))
}

fn op(from: &mut Reader<'_>, depth: usize) -> Result<Op, Malformed> {
    Ok(match from.u8()? {
        tag::PUT => Op::Put { key: from.bytes()?, value: from.bytes()?, lease: lease(from)? },
        tag::AMEND => {
            let key = from.bytes()?;
            let change = match from.u8()? {
                tag::AMEND_VALUE => Change::Value(from.bytes()?),
                tag::AMEND_LEASE => Change::Lease(lease(from)?),
                tag::AMEND_NOTHING => Change::Nothing,
                _ => return Err(Malformed("change of an unknown kind")),
            };
            Op::Amend { key, change }
        }
        tag::WITHIN => {
            let deeper = depth.checked_sub(1).ok_or(Malformed("transactions too deep within each other"))?;
            Op::Txn(txn(from, deeper)?)
        }
        tag::DELETE => Op::Delete { start: from.bytes()?, end: end(from)? },
        tag::GET => {
            let (start, end) = (from.bytes()?, end(from)?);
            let limit = usize::try_from(from.u64()?).unwrap_or(usize::MAX);
            let what = if from.u8()? == 0 { What::Entries } else { What::Count };
            Op::Get(Range { start, end, at: None, limit, what })
        }
        _ => return Err(Malformed("operation of an unknown kind")),
    })
}
