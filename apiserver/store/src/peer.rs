//! Who the members of a cluster are: what is known of each beside its Raft id. Replicated.
//!
//! A member's id is the index of the log entry that admitted it (the founder's is drawn at random), so no id is ever
//! used twice: a machine that lost its disk comes back as another member. A machine that changed its address is the same
//! member still, for its id is what it is known by.

use std::collections::BTreeMap;

use crate::codec::{Malformed, Put, Reader};

/// Names a member for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// What people call a member, and where it is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberInfo {
    /// For people: the machine's name.
    pub name: String,
    /// Where its peers reach it, `host:port`.
    pub addresses: Vec<String>,
    /// It keeps votes and where the log stands, and nothing of what is stored. It stays what it was admitted as.
    pub witness: bool,
}

/// Longest name or address, that of a DNS name with a port.
const LONGEST: usize = 300;
/// Most addresses of one member.
const ADDRESSES: usize = 8;
/// The bit of the number of addresses that says that it is a witness: what was written before there were any has it not.
const WITNESS: u32 = 1 << 31;

impl MemberInfo {
    /// Whether it is within the bounds: few addresses, all of them short.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.addresses.len() <= ADDRESSES && self.addresses.iter().chain([&self.name]).all(|text| text.len() <= LONGEST)
    }

    pub(crate) fn size(&self) -> usize {
        self.name.len() + self.addresses.iter().map(|address| address.len() + 4).sum::<usize>() + 16
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_bytes(self.name.as_bytes());
        let count = u32::try_from(self.addresses.len()).unwrap_or(!WITNESS) & !WITNESS;
        out.put_u32(if self.witness { count | WITNESS } else { count });
        self.addresses.iter().for_each(|address| out.put_bytes(address.as_bytes()));
    }

    pub(crate) fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let text = |bytes: &[u8]| {
            std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed("a member's name is not text"))
        };
        let name = text(from.slice()?)?;
        let count = from.u32()?;
        let (count, witness) = (count & !WITNESS, count & WITNESS != 0);
        if count as usize > ADDRESSES {
            return Err(Malformed("a member has too many addresses"));
        }
        let addresses = (0..count).map(|_| text(from.slice()?)).collect::<Result<_, _>>()?;
        let info = Self { name, addresses, witness };
        if info.is_valid() { Ok(info) } else { Err(Malformed("a member's name or addresses are too long")) }
    }
}

/// A member as the replicated state has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) info: MemberInfo,
    /// Life and number of the last of its proposals that reached the log by way of another member. What comes a second
    /// time, or after one that was sent later, is not done: no network makes one write two.
    pub(crate) forwarded: (u64, u64),
}

impl Peer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.info.size() + 16);
        self.info.put(&mut out);
        out.put_u64(self.forwarded.0);
        out.put_u64(self.forwarded.1);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        let peer = Self { info: MemberInfo::take(&mut from)?, forwarded: (from.u64()?, from.u64()?) };
        from.end()?;
        Ok(peer)
    }
}

/// The members by id.
pub(crate) type Peers = BTreeMap<u64, Peer>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_member_is_read_back() {
        let addresses = vec!["192.0.2.1:6443".to_owned(), "[::1]:6443".to_owned()];
        for witness in [false, true] {
            for addresses in [Vec::new(), addresses.clone()] {
                let info = MemberInfo { name: "attic".to_owned(), addresses, witness };
                let mut out = Vec::new();
                info.put(&mut out);
                assert_eq!(MemberInfo::take(&mut Reader(&out)), Ok(info));
            }
        }
        let mut many = Vec::new();
        many.put_bytes(b"attic");
        many.put_u32(9);
        assert!(MemberInfo::take(&mut Reader(&many)).is_err());
    }
}
