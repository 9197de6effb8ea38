//! What a peer's message must be like before raft-rs may see it.
//!
//! raft-rs takes its peers to be right: it ends the process (`fatal!`, `assert!`, arithmetic) on messages no correct
//! member sends. A wrong one is dropped here instead. Each rule says which line of raft-rs 0.7 it stands before.

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType, Message, MessageType};

use crate::{
    codec::Malformed,
    command::{Command, Proposal},
    packet::{Packet, Question, Reply},
};

/// Beyond this no term and no index is believed: raft-rs adds to them.
const FAR: u64 = 1 << 62;
/// Longest change of the members: decoding it is protobuf's, which recurses once a byte at worst.
const LONGEST_CHANGE: usize = 4 << 10;
/// Longest context: ours are shorter, and so are raft-rs' own.
const LONGEST_CONTEXT: usize = 64;

/// What a check must know of the member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) id: u64,
    pub(crate) term: u64,
    /// Index of the log's last entry.
    pub(crate) last: u64,
}

/// Checks a message that came from member `from`.
///
/// # Errors
/// [`Malformed`]: it must be dropped.
pub(crate) fn check(message: &Message, from: u64, own: Standing) -> Result<(), Malformed> {
    if message.from != from || from == 0 || from == own.id {
        return Err(Malformed("message in another member's name"));
    }
    if message.to != own.id {
        return Err(Malformed("message to another member"));
    }
    // `RaftCore::send` ends the process when it is to answer a vote of term 0; 0 also marks a member's own messages.
    if message.term == 0 {
        return Err(Malformed("message without a term"));
    }
    let numbers =
        [message.term, message.log_term, message.index, message.commit, message.commit_term, message.reject_hint];
    if numbers.iter().any(|number| *number >= FAR) {
        return Err(Malformed("number beyond any that is reached"));
    }
    if message.context.len() > LONGEST_CONTEXT {
        return Err(Malformed("context too long"));
    }
    if !message.entries.is_empty() && message.msg_type != MessageType::MsgAppend {
        return Err(Malformed("entries in a message that carries none"));
    }
    match message.msg_type {
        MessageType::MsgAppend => entries(message),
        // `RaftLog::commit_to`: beyond the log's end it ends the process. An honest leader says so to a member that lost
        // its log and came back under its old id.
        MessageType::MsgHeartbeat if message.term >= own.term && message.commit > own.last => {
            Err(Malformed("commit beyond the end of this member's log: was its data lost?"))
        }
        // A follower cannot have what the leader has not; and a leader that believed it would call that committed.
        MessageType::MsgAppendResponse if message.term == own.term && !message.reject && message.index > own.last => {
            Err(Malformed("acknowledgement of entries that were never sent"))
        }
        MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => Ok(()),
        _ => Err(Malformed("message of a kind that does not travel")),
    }
}

/// Checks a packet of member `from`, which is a witness: it never leads and has nothing to say of what is stored, but it may
/// stand where nobody watches over it.
///
/// # Errors
/// [`Malformed`]: it must be dropped.
pub(crate) fn of_witness(packet: &Packet, from: u64) -> Result<(), Malformed> {
    let may = match packet {
        Packet::Raft(message) => matches!(
            message.msg_type,
            MessageType::MsgAppendResponse
                | MessageType::MsgHeartbeatResponse
                | MessageType::MsgRequestVoteResponse
                | MessageType::MsgRequestPreVoteResponse
        ),
        Packet::Forward(bytes) => {
            matches!(Proposal::decode(bytes)?.command, Command::Describe { id, .. } if id == from)
        }
        // Any question is one whether it is still a member.
        Packet::Ask { question, .. } => *question == Question::ReadIndex,
        Packet::Reply { reply, .. } => matches!(reply, Reply::Unavailable | Reply::Well),
        Packet::Pull { .. } | Packet::Installed { .. } | Packet::Removed | Packet::Pace { .. } => true,
        Packet::Refused { .. } | Packet::Offer { .. } | Packet::Chunk { .. } => false,
    };
    if may { Ok(()) } else { Err(Malformed("a witness says what only servers say")) }
}

/// `RaftLog::maybe_append` takes entries to follow `index`, one by one, and terms never to go down; and `RaftLog::term`
/// says 0 of whatever is beyond the log's end, so that a message that says 0 too would seem to continue the log there.
fn entries(message: &Message) -> Result<(), Malformed> {
    if (message.log_term == 0) != (message.index == 0) {
        return Err(Malformed("entries that follow an entry of no term"));
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        if entry.index != index + 1 || entry.term < term || entry.term > message.term || entry.term == 0 {
            return Err(Malformed("entries out of order"));
        }
        (index, term) = (entry.index, entry.term);
        payload(entry)?;
    }
    Ok(())
}

/// What is committed is applied, and what cannot be applied ends the store: so it is looked at before it is taken.
fn payload(entry: &Entry) -> Result<(), Malformed> {
    match entry.entry_type {
        EntryType::EntryNormal if entry.data.is_empty() => Ok(()),
        EntryType::EntryNormal => Proposal::decode(&entry.data).map(drop),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 if entry.data.len() > LONGEST_CHANGE => {
            Err(Malformed("change of the members too long"))
        }
        EntryType::EntryConfChange => ConfChange::default()
            .merge_from_bytes(&entry.data)
            .map_err(|_| Malformed("change of the members cannot be read")),
        EntryType::EntryConfChangeV2 => ConfChangeV2::default()
            .merge_from_bytes(&entry.data)
            .map_err(|_| Malformed("change of the members cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{checkpoint::Mark, peer::MemberInfo, revision::Revision, txn::Txn};

    const OWN: u64 = 7;

    fn raft(msg_type: MessageType) -> Packet {
        Packet::Raft(Box::new(Message { msg_type, ..Message::default() }))
    }

    fn forward(command: Command) -> Packet {
        let proposal = Proposal { member: OWN, life: 1, number: 1, time: 0, forwarded: true, command };
        Packet::Forward(proposal.encode())
    }

    fn ask(question: Question) -> Packet {
        Packet::Ask { life: 1, number: 1, question }
    }

    fn reply(reply: Reply) -> Packet {
        Packet::Reply { life: 1, number: 1, reply }
    }

    #[test]
    fn a_witness_answers_and_says_where_it_is_and_nothing_else() {
        let mark = Mark { index: 1, term: 1, revision: Revision(1), members: Default::default(), received: true };
        for (packet, may) in [
            (raft(MessageType::MsgAppendResponse), true),
            (raft(MessageType::MsgHeartbeatResponse), true),
            (raft(MessageType::MsgRequestVoteResponse), true),
            (raft(MessageType::MsgRequestPreVoteResponse), true),
            (raft(MessageType::MsgAppend), false),
            (raft(MessageType::MsgHeartbeat), false),
            (raft(MessageType::MsgRequestVote), false),
            (raft(MessageType::MsgRequestPreVote), false),
            (raft(MessageType::MsgTimeoutNow), false),
            (forward(Command::Describe { id: OWN, info: MemberInfo::default() }), true),
            (forward(Command::Describe { id: OWN + 1, info: MemberInfo::default() }), false),
            (forward(Command::Txn(Txn::default())), false),
            (forward(Command::Compact { revision: Revision(1) }), false),
            (Packet::Forward(vec![9]), false),
            (ask(Question::ReadIndex), true),
            (ask(Question::Admit(MemberInfo::default())), false),
            (ask(Question::Dismiss(1)), false),
            (ask(Question::KeepAlive(1)), false),
            (ask(Question::Well), false),
            (reply(Reply::Unavailable), true),
            (reply(Reply::Well), true),
            (reply(Reply::Number(1)), false),
            (Packet::Pull { transfer: 1, from: 0 }, true),
            (Packet::Installed { transfer: 1, index: 1 }, true),
            (Packet::Removed, true),
            (Packet::Pace { millis: 1 }, true),
            (Packet::Refused { life: 1, number: 1 }, false),
            (Packet::Offer { transfer: 1, mark, items: 1 }, false),
            (Packet::Chunk { transfer: 1, from: 0, next: 1, bytes: Bytes::new() }, false),
        ] {
            assert_eq!(of_witness(&packet, OWN).is_ok(), may, "{packet:?}");
        }
    }
}
