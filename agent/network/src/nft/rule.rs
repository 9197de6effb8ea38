//! Rules: what is looked at in a packet, and what becomes of it. Each step loads into, or compares, register 1;
//! where two values are needed at once, the second is in register 2.

use std::net::Ipv4Addr;

use super::message::Attributes;
use crate::Ipv4Net;

/// A rule in the making: its parts are evaluated in order until one does not match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub(super) expressions: Attributes,
}

/// Which header an offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadBase {
    /// The IP header.
    Network,
    /// The TCP, UDP, … header.
    Transport,
}

/// How a register is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// All bytes equal.
    Equal,
    /// Any byte differs.
    NotEqual,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on to the next table.
    Accept,
    /// Disappears.
    Drop,
    /// Goes through a chain and comes back.
    Jump(String),
    /// Goes on in a chain and does not come back.
    Goto(String),
    /// Goes back to where its chain was entered from.
    Return,
}

const REGISTER: u32 = 1;
const SECOND_REGISTER: u32 = 2;
const VERDICT_REGISTER: u32 = 0;

impl Rule {
    /// A rule that matches everything and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Matches packets from the range.
    #[must_use]
    pub fn source(self, range: &Ipv4Net) -> Self {
        self.address(12, range, Compare::Equal)
    }

    /// Matches packets to the range.
    #[must_use]
    pub fn destination(self, range: &Ipv4Net) -> Self {
        self.address(16, range, Compare::Equal)
    }

    /// Matches packets to anywhere but the range.
    #[must_use]
    pub fn destination_not(self, range: &Ipv4Net) -> Self {
        self.address(16, range, Compare::NotEqual)
    }

    /// Loads bytes of a header.
    #[must_use]
    pub fn payload(self, base: PayloadBase, offset: u32, length: u32) -> Self {
        let mut data = Attributes::default();
        data.number(1, REGISTER);
        data.number(
            2,
            match base {
                PayloadBase::Network => 1,
                PayloadBase::Transport => 2,
            },
        );
        data.number(3, offset);
        data.number(4, length);
        self.expression("payload", &data)
    }

    /// Keeps the bits of what was loaded that are set in the mask.
    #[must_use]
    pub fn mask(self, mask: &[u8]) -> Self {
        let mut data = Attributes::default();
        data.number(1, REGISTER);
        data.number(2, REGISTER);
        data.number(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
        data.nested(4, &value(mask));
        data.nested(5, &value(&vec![0; mask.len()]));
        self.expression("bitwise", &data)
    }

    /// Matches if what was loaded compares so.
    #[must_use]
    pub fn compare(self, how: Compare, with: &[u8]) -> Self {
        let mut data = Attributes::default();
        data.number(1, REGISTER);
        data.number(
            2,
            match how {
                Compare::Equal => 0,
                Compare::NotEqual => 1,
            },
        );
        data.nested(3, &value(with));
        self.expression("cmp", &data)
    }

    /// Matches packets to an address that is this host's own.
    #[must_use]
    pub fn destination_is_local(self) -> Self {
        /// `RTN_LOCAL`, in the host's order as the kernel keeps it in the register.
        const LOCAL: u32 = 2;
        let mut data = Attributes::default();
        data.number(1, REGISTER);
        data.number(2, 3);
        data.number(3, 2);
        self.expression("fib", &data).compare(Compare::Equal, &LOCAL.to_ne_bytes())
    }

    /// Matches packets that came by a cable, not from this host itself: the loopback interface is the first of every
    /// network namespace.
    #[must_use]
    pub fn from_outside(self) -> Self {
        const INPUT_INTERFACE: u32 = 4;
        self.meta(INPUT_INTERFACE).compare(Compare::NotEqual, &1_u32.to_ne_bytes())
    }

    /// Matches packets of a protocol (TCP, UDP, …) to a port.
    #[must_use]
    pub fn port(self, protocol: u8, port: u16) -> Self {
        const PROTOCOL: u32 = 16;
        self.meta(PROTOCOL)
            .compare(Compare::Equal, &[protocol])
            .payload(PayloadBase::Transport, 2, 2)
            .compare(Compare::Equal, &port.to_be_bytes())
    }

    /// Sends the connection to another address and port.
    #[must_use]
    pub fn redirect(self, to: Ipv4Addr, port: u16) -> Self {
        let mut data = Attributes::default();
        data.number(1, 1);
        data.number(2, 2);
        data.number(3, REGISTER);
        data.number(5, SECOND_REGISTER);
        self.immediate(REGISTER, &to.octets()).immediate(SECOND_REGISTER, &port.to_be_bytes()).expression("nat", &data)
    }

    fn immediate(self, register: u32, bytes: &[u8]) -> Self {
        let mut data = Attributes::default();
        data.number(1, register);
        data.nested(2, &value(bytes));
        self.expression("immediate", &data)
    }

    /// Loads what the kernel knows of the packet.
    fn meta(self, key: u32) -> Self {
        let mut data = Attributes::default();
        data.number(1, REGISTER);
        data.number(2, key);
        self.expression("meta", &data)
    }

    /// Counts packets and bytes that come this far.
    #[must_use]
    pub fn counter(self) -> Self {
        self.expression("counter", &Attributes::default())
    }

    /// Gives the connection the address of the interface it leaves by.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.expression("masq", &Attributes::default())
    }

    /// Ends with a verdict.
    #[must_use]
    pub fn verdict(self, verdict: &Verdict) -> Self {
        let (code, chain): (i32, _) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        };
        let mut inner = Attributes::default();
        inner.bytes(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            inner.text(2, chain);
        }
        let mut outer = Attributes::default();
        outer.nested(2, &inner);
        let mut data = Attributes::default();
        data.number(1, VERDICT_REGISTER);
        data.nested(2, &outer);
        self.expression("immediate", &data)
    }

    fn address(self, offset: u32, range: &Ipv4Net, how: Compare) -> Self {
        let rule = self.payload(PayloadBase::Network, offset, 4);
        let rule = if range.prefix() < 32 { rule.mask(&range.netmask().octets()) } else { rule };
        rule.compare(how, &range.network().octets())
    }

    fn expression(mut self, name: &str, data: &Attributes) -> Self {
        let mut expression = Attributes::default();
        expression.text(1, name);
        expression.nested(2, data);
        self.expressions.nested(1, &expression);
        self
    }
}

fn value(bytes: &[u8]) -> Attributes {
    let mut data = Attributes::default();
    data.bytes(1, bytes);
    data
}
