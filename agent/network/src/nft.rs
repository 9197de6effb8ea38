//! nftables spoken over netlink: what is wanted is gathered in a [`Batch`] and becomes true at once or not at all.
//!
//! Sources: `linux/netfilter/nf_tables.h` for messages and attributes, `nft(8)` for their meaning. Numbers in messages are
//! big-endian, values that are compared are in the order they have in packets.
//!
//! ```no_run
//! # fn main() -> Result<(), coracle_network::nft::NftError> {
//! use coracle_network::nft::{Batch, Chain, ChainKind, Family, Hook, Rule, Table};
//!
//! let table = Table::new(Family::Ipv4, "example");
//! let chain = Chain::base(&table, "postrouting", ChainKind::Nat, Hook::Postrouting, Hook::SOURCE_NAT);
//! let mut batch = Batch::new();
//! batch.replace_table(&table);
//! batch.add_chain(&chain);
//! batch.add_rule(&chain, &Rule::new().counter().masquerade());
//! batch.commit()
//! # }
//! ```

mod batch;
mod message;
mod rule;

pub use batch::{Batch, NftError};
pub use rule::{Compare, PayloadBase, Rule, Verdict};

/// The packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 alone.
    Ipv4,
    /// IPv4 and IPv6.
    Inet,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Inet => 1,
        }
    }
}

/// A table: the name everything else lives under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    family: Family,
    name: String,
}

impl Table {
    /// Names a table.
    pub fn new(family: Family, name: &str) -> Self {
        Self { family, name: name.to_owned() }
    }
}

/// Where in a packet's way a base chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before it is routed.
    Prerouting,
    /// Towards this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// About to leave.
    Postrouting,
}

impl Hook {
    /// The order before connections are known of (`NF_IP_PRI_RAW`).
    pub const RAW: i32 = -300;
    /// The order among base chains at which destinations are rewritten (`NF_IP_PRI_NAT_DST`).
    pub const DESTINATION_NAT: i32 = -100;
    /// The order at which packets are filtered (`NF_IP_PRI_FILTER`).
    pub const FILTER: i32 = 0;
    /// The order at which sources are rewritten (`NF_IP_PRI_NAT_SRC`).
    pub const SOURCE_NAT: i32 = 100;

    fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Judge every packet.
    Filter,
    /// Rewrite addresses: sees the first packet of each connection.
    Nat,
}

impl ChainKind {
    fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    table: Table,
    name: String,
    base: Option<(ChainKind, Hook, i32)>,
}

impl Chain {
    /// A chain that packets enter at a hook; what reaches its end is accepted.
    pub fn base(table: &Table, name: &str, kind: ChainKind, hook: Hook, priority: i32) -> Self {
        Self { table: table.clone(), name: name.to_owned(), base: Some((kind, hook, priority)) }
    }

    /// A chain that packets enter by another rule's verdict.
    pub fn regular(table: &Table, name: &str) -> Self {
        Self { table: table.clone(), name: name.to_owned(), base: None }
    }
}
