//! What members say to each other, as bytes.
//!
//! Everything here comes from another machine: reading it never panics, trusts no length, and what Raft's messages may
//! say is checked in `check` before raft-rs sees it. The encoding is our own, and not protobuf's, so that a message has
//! exactly the parts named here and no nesting.

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};

use crate::{
    checkpoint::Mark,
    codec::{Malformed, Put, Reader},
    log::{entry_type, entry_type_of},
    peer::MemberInfo,
};

/// Version of the encoding; the first byte of every packet.
const VERSION: u8 = 1;
/// Longest packet believed: as much as is proposed in one group commit, several times over.
pub const LONGEST: usize = 32 << 20;

/// One message between two members.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Packet {
    /// Raft's own.
    Raft(Box<Message>),
    /// A write of the sender's, encoded, for the leader to propose.
    Forward(Vec<u8>),
    /// That write was not proposed.
    Refused { life: u64, number: u64 },
    /// A question to the leader.
    Ask { life: u64, number: u64, question: Question },
    /// Its answer.
    Reply { life: u64, number: u64, reply: Reply },
    /// The sender, which leads, has an image of its state for who is too far behind for the log.
    Offer { transfer: u64, mark: Mark, items: u64 },
    /// The next piece of it, please.
    Pull { transfer: u64, from: u64 },
    /// The piece that begins with an image's item `from` and ends before `next`.
    Chunk { transfer: u64, from: u64, next: u64, bytes: Bytes },
    /// The sender has what the image says.
    Installed { transfer: u64, index: u64 },
    /// The receiver is no member any more.
    Removed,
    /// The sender's disk is slow: a sync has taken so long lately.
    Pace { millis: u64 },
}

/// What, but for the last, only the leader knows or may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// How far must I have come to miss nothing acknowledged before I asked?
    ReadIndex,
    /// Start a lease's time anew.
    KeepAlive(u64),
    /// How long does a lease live?
    TimeToLive(u64),
    /// Admit a member.
    Admit(MemberInfo),
    /// Remove a member.
    Dismiss(u64),
    /// Of anybody: are you there, and have you room on your disk?
    Well,
}

/// What is said to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// An index, a lease's milliseconds, a member's id.
    Number(u64),
    /// There is no such lease or member.
    NotFound,
    /// Ask again later, or somebody else.
    Unavailable,
    /// That would leave too few members to go on.
    QuorumAtRisk,
    /// Nobody can tell whether it was done.
    Unknown,
    /// The one asked is there, and has room.
    Well,
}

mod tag {
    pub(super) const RAFT: u8 = 1;
    pub(super) const FORWARD: u8 = 2;
    pub(super) const REFUSED: u8 = 3;
    pub(super) const ASK: u8 = 4;
    pub(super) const REPLY: u8 = 5;
    pub(super) const OFFER: u8 = 6;
    pub(super) const PULL: u8 = 7;
    pub(super) const CHUNK: u8 = 8;
    pub(super) const INSTALLED: u8 = 9;
    pub(super) const REMOVED: u8 = 10;
    pub(super) const PACE: u8 = 11;
}

/// Raft's messages that travel; the others stay within a member, or have a packet of their own.
const TRAVELLING: [MessageType; 9] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
    MessageType::MsgTimeoutNow,
];

impl Packet {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Raft(message) => {
                out.put_u8(tag::RAFT);
                put_message(&mut out, message);
            }
            Self::Forward(proposal) => {
                out.put_u8(tag::FORWARD);
                out.extend_from_slice(proposal);
            }
            Self::Refused { life, number } => {
                out.put_u8(tag::REFUSED);
                out.put_u64(*life);
                out.put_u64(*number);
            }
            Self::Ask { life, number, question } => {
                out.put_u8(tag::ASK);
                out.put_u64(*life);
                out.put_u64(*number);
                put_question(&mut out, question);
            }
            Self::Reply { life, number, reply } => {
                out.put_u8(tag::REPLY);
                out.put_u64(*life);
                out.put_u64(*number);
                let (tag, value) = match reply {
                    Reply::Number(value) => (1, *value),
                    Reply::NotFound => (2, 0),
                    Reply::Unavailable => (3, 0),
                    Reply::QuorumAtRisk => (4, 0),
                    Reply::Unknown => (5, 0),
                    Reply::Well => (6, 0),
                };
                out.put_u8(tag);
                out.put_u64(value);
            }
            Self::Offer { transfer, mark, items } => {
                out.put_u8(tag::OFFER);
                out.put_u64(*transfer);
                out.put_u64(*items);
                out.extend_from_slice(&mark.encode());
            }
            Self::Pull { transfer, from } => {
                out.put_u8(tag::PULL);
                out.put_u64(*transfer);
                out.put_u64(*from);
            }
            Self::Chunk { transfer, from, next, bytes } => {
                out.put_u8(tag::CHUNK);
                out.put_u64(*transfer);
                out.put_u64(*from);
                out.put_u64(*next);
                out.extend_from_slice(bytes);
            }
            Self::Installed { transfer, index } => {
                out.put_u8(tag::INSTALLED);
                out.put_u64(*transfer);
                out.put_u64(*index);
            }
            Self::Removed => out.put_u8(tag::REMOVED),
            Self::Pace { millis } => {
                out.put_u8(tag::PACE);
                out.put_u64(*millis);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > LONGEST {
            return Err(Malformed("packet longer than any"));
        }
        let mut from = Reader(bytes);
        if from.u8()? != VERSION {
            return Err(Malformed("packet of an unknown version"));
        }
        let packet = match from.u8()? {
            tag::RAFT => Self::Raft(Box::new(message(&mut from)?)),
            tag::FORWARD => return Ok(Self::Forward(from.0.to_vec())),
            tag::REFUSED => Self::Refused { life: from.u64()?, number: from.u64()? },
            tag::ASK => Self::Ask { life: from.u64()?, number: from.u64()?, question: question(&mut from)? },
            tag::REPLY => {
                let (life, number, tag, value) = (from.u64()?, from.u64()?, from.u8()?, from.u64()?);
                let reply = match tag {
                    1 => Reply::Number(value),
                    2 => Reply::NotFound,
                    3 => Reply::Unavailable,
                    4 => Reply::QuorumAtRisk,
                    5 => Reply::Unknown,
                    6 => Reply::Well,
                    _ => return Err(Malformed("reply of an unknown kind")),
                };
                Self::Reply { life, number, reply }
            }
            tag::OFFER => {
                let (transfer, items) = (from.u64()?, from.u64()?);
                return Ok(Self::Offer { transfer, mark: Mark::decode(from.0)?, items });
            }
            tag::PULL => Self::Pull { transfer: from.u64()?, from: from.u64()? },
            tag::CHUNK => {
                let (transfer, first, next) = (from.u64()?, from.u64()?, from.u64()?);
                return Ok(Self::Chunk { transfer, from: first, next, bytes: Bytes::copy_from_slice(from.0) });
            }
            tag::INSTALLED => Self::Installed { transfer: from.u64()?, index: from.u64()? },
            tag::REMOVED => Self::Removed,
            tag::PACE => Self::Pace { millis: from.u64()? },
            _ => return Err(Malformed("packet of an unknown kind")),
        };
        from.end()?;
        Ok(packet)
    }
}

fn put_question(out: &mut Vec<u8>, question: &Question) {
    match question {
        Question::ReadIndex => out.put_u8(1),
        Question::KeepAlive(id) => {
            out.put_u8(2);
            out.put_u64(*id);
        }
        Question::TimeToLive(id) => {
            out.put_u8(3);
            out.put_u64(*id);
        }
        Question::Admit(info) => {
            out.put_u8(4);
            info.put(out);
        }
        Question::Dismiss(id) => {
            out.put_u8(5);
            out.put_u64(*id);
        }
        Question::Well => out.put_u8(6),
    }
}

fn question(from: &mut Reader<'_>) -> Result<Question, Malformed> {
    Ok(match from.u8()? {
        1 => Question::ReadIndex,
        2 => Question::KeepAlive(from.u64()?),
        3 => Question::TimeToLive(from.u64()?),
        4 => Question::Admit(MemberInfo::take(from)?),
        5 => Question::Dismiss(from.u64()?),
        6 => Question::Well,
        _ => return Err(Malformed("question of an unknown kind")),
    })
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    let kind = TRAVELLING.iter().position(|kind| *kind == message.msg_type).unwrap_or(usize::from(u8::MAX));
    out.put_u8(u8::try_from(kind).unwrap_or(u8::MAX));
    for number in [
        message.from,
        message.to,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ] {
        out.put_u64(number);
    }
    out.put_u8(u8::from(message.reject));
    out.put_bytes(&message.context);
    out.put_u32(u32::try_from(message.entries.len()).unwrap_or(u32::MAX));
    for entry in &message.entries {
        out.put_u64(entry.index);
        out.put_u64(entry.term);
        out.put_u8(entry_type(entry));
        out.put_bytes(&entry.data);
    }
}

fn message(from: &mut Reader<'_>) -> Result<Message, Malformed> {
    let kind = TRAVELLING.get(usize::from(from.u8()?)).ok_or(Malformed("message of a kind that does not travel"))?;
    let mut message = Message { msg_type: *kind, ..Message::default() };
    message.from = from.u64()?;
    message.to = from.u64()?;
    message.term = from.u64()?;
    message.log_term = from.u64()?;
    message.index = from.u64()?;
    message.commit = from.u64()?;
    message.commit_term = from.u64()?;
    message.reject_hint = from.u64()?;
    message.reject = from.u8()? != 0;
    message.context = from.bytes()?;
    let count = from.count(21)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (index, term, kind) = (from.u64()?, from.u64()?, from.u8()?);
        let entry = raft::eraftpb::Entry {
            index,
            term,
            entry_type: entry_type_of(kind)?,
            data: from.bytes()?,
            ..raft::eraftpb::Entry::default()
        };
        entries.push(entry);
    }
    message.entries = entries.into();
    Ok(message)
}
