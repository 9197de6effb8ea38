//! One transaction: messages between a begin and an end, and the kernel's answer to them.

use std::{io, os::fd::AsRawFd};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
        sockopt::SndBufForce,
    },
};

use super::{
    Chain, Rule, Table,
    message::{Attributes, NFTABLES, answers, message},
};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// Changes that become true together.
#[derive(Debug, Default)]
pub struct Batch {
    messages: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    what: String,
    kind: u16,
    flags: u16,
    family: u8,
    attributes: Vec<u8>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// The kernel refused one of the changes.
    #[error("nftables: {what}")]
    Refused {
        /// The change.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The socket to the kernel failed.
    #[error("nftables: {step}")]
    Socket {
        /// What was tried.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel did not say what became of it.
    #[error("nftables: no answer from the kernel")]
    NoAnswer,
}

impl Batch {
    /// A transaction without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the table if it is not there.
    pub fn add_table(&mut self, table: &Table) {
        let mut attributes = Attributes::default();
        attributes.text(1, &table.name);
        attributes.number(2, 0);
        self.push(format!("add table {}", table.name), NEW_TABLE, CREATE, table, attributes);
    }

    /// Removes the table and everything in it; one that is not there refuses the whole batch.
    pub fn delete_table(&mut self, table: &Table) {
        let mut attributes = Attributes::default();
        attributes.text(1, &table.name);
        self.push(format!("delete table {}", table.name), DELETE_TABLE, 0, table, attributes);
    }

    /// Leaves the table there and empty, whether it was there or not.
    pub fn replace_table(&mut self, table: &Table) {
        self.add_table(table);
        self.delete_table(table);
        self.add_table(table);
    }

    /// Makes the chain.
    pub fn add_chain(&mut self, chain: &Chain) {
        let mut attributes = Attributes::default();
        attributes.text(1, &chain.table.name);
        attributes.text(3, &chain.name);
        if let Some((kind, hook, priority)) = chain.base {
            let mut hook_attributes = Attributes::default();
            hook_attributes.number(1, hook.number());
            hook_attributes.bytes(2, &priority.to_be_bytes());
            attributes.nested(4, &hook_attributes);
            attributes.text(7, kind.name());
        }
        self.push(format!("add chain {}", chain.name), NEW_CHAIN, CREATE, &chain.table, attributes);
    }

    /// Appends the rule to the chain.
    pub fn add_rule(&mut self, chain: &Chain, rule: &Rule) {
        let mut attributes = Attributes::default();
        attributes.text(1, &chain.table.name);
        attributes.text(2, &chain.name);
        attributes.nested(4, &rule.expressions);
        self.push(format!("add rule to chain {}", chain.name), NEW_RULE, CREATE | APPEND, &chain.table, attributes);
    }

    /// Carries the changes out, in the network namespace of the calling thread.
    ///
    /// # Guarantees
    /// All of them are true afterwards, or none.
    ///
    /// # Errors
    /// [`NftError::Refused`] names the first change the kernel did not like.
    pub fn commit(self) -> Result<(), NftError> {
        let Some(last) = u32::try_from(self.messages.len()).ok().filter(|count| *count > 0) else {
            return Ok(());
        };
        let bytes = self.encode(last);
        let failed = |step| move |errno: Errno| NftError::Socket { step, source: errno.into() };
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
                .map_err(failed("socket"))?;
        // A batch is one datagram; the default buffer holds 200 KiB.
        setsockopt(&socket, SndBufForce, &bytes.len().saturating_mul(2).max(1 << 18)).map_err(failed("send buffer"))?;
        sendto(socket.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map_err(failed("send"))?;
        // The kernel works in send(2): its answers are waiting already.
        let mut acknowledged = false;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(NftError::Socket { step: "receive", source: errno.into() }),
            };
            for (sequence, errno) in answers(buffer.get(..length).unwrap_or_default()) {
                if errno != 0 {
                    let what = usize::try_from(sequence).ok().and_then(|at| self.messages.get(at.checked_sub(1)?));
                    return Err(NftError::Refused {
                        what: what.map_or_else(|| "commit".to_owned(), |message| message.what.clone()),
                        source: io::Error::from_raw_os_error(errno),
                    });
                }
                acknowledged |= sequence == last;
            }
        }
        if acknowledged { Ok(()) } else { Err(NftError::NoAnswer) }
    }

    /// Begin is number 0, the changes count from 1, and the last of them asks for an answer.
    fn encode(&self, last: u32) -> Vec<u8> {
        let mut bytes = message(BATCH_BEGIN, REQUEST, 0, 0, NFTABLES, &[]);
        for (sequence, pending) in (1..).zip(&self.messages) {
            let flags = pending.flags | REQUEST | if sequence == last { ACK } else { 0 };
            let kind = NFTABLES << 8 | pending.kind;
            bytes.extend(message(kind, flags, sequence, pending.family, 0, &pending.attributes));
        }
        bytes.extend(message(BATCH_END, REQUEST, last.saturating_add(1), 0, NFTABLES, &[]));
        bytes
    }

    fn push(&mut self, what: String, kind: u16, flags: u16, table: &Table, attributes: Attributes) {
        let what = format!("{what} ({})", table.name);
        self.messages.push(Pending { what, kind, flags, family: table.family.number(), attributes: attributes.0 });
    }
}
