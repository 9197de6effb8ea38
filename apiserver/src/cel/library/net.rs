//! Addresses and networks.

use std::{fmt, net::IpAddr};

use crate::cel::{
    eval::{Budget, Error},
    value::Value,
};

/// An address and how many of its bits name the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    ip: IpAddr,
    bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// An address without zone; one of IPv4 within IPv6 is none, as Kubernetes wants one way to write each.
fn parse_ip(text: &str) -> Result<IpAddr, Error> {
    let ip: IpAddr = text
        .parse()
        .map_err(|_| Error::new(format!("IP Address {text:?} parse error during conversion from string")))?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(Error::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        ip => Ok(ip),
    }
}

impl Cidr {
    /// Reads `10.0.0.0/8`.
    fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::new(format!("network address parse error during conversion from string: {text:?}"));
        let (ip, bits) = text.split_once('/').ok_or_else(bad)?;
        let ip = parse_ip(ip).map_err(|_| bad())?;
        let is_plain =
            !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        if bits > most || !is_plain {
            return Err(bad());
        }
        Ok(Self { ip, bits })
    }

    fn masked(self) -> Self {
        let ip = match self.ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4((u32::from(ip) & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6((u128::from(ip) & mask).into())
            }
        };
        Self { ip, bits: self.bits }
    }

    fn contains(self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4() && Self { ip, bits: self.bits }.masked() == self.masked()
    }

    fn contains_all_of(self, other: Self) -> bool {
        other.bits >= self.bits && self.contains(other.ip)
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(is_broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local_unicast(ip))
}

fn is_link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => matches!(v4.octets(), [224, 0, 0, _]),
        IpAddr::V6(v6) => v6.segments().first().is_some_and(|s| s & 0xff0f == 0xff02),
    }
}

/// The functions of this group.
pub(in crate::cel) fn call(function: &str, args: &[Value], _: &mut Budget) -> Option<Result<Value, Error>> {
    use Value::{Bool, Int, Ip, Text};
    Some(match (function, args) {
        ("ip", [Text(text)]) => parse_ip(text).map(Ip),
        ("isIP", [Text(text)]) => Ok(Bool(parse_ip(text).is_ok())),
        ("ip.isCanonical", [Text(text)]) => parse_ip(text).map(|ip| Bool(ip.to_string() == **text)),
        ("family", [Ip(ip)]) => Ok(Int(if ip.is_ipv4() { 4 } else { 6 })),
        ("isUnspecified", [Ip(ip)]) => Ok(Bool(ip.is_unspecified())),
        ("isLoopback", [Ip(ip)]) => Ok(Bool(ip.is_loopback())),
        ("isLinkLocalMulticast", [Ip(ip)]) => Ok(Bool(is_link_local_multicast(*ip))),
        ("isLinkLocalUnicast", [Ip(ip)]) => Ok(Bool(is_link_local_unicast(*ip))),
        ("isGlobalUnicast", [Ip(ip)]) => Ok(Bool(is_global_unicast(*ip))),
        ("cidr", [Text(text)]) => Cidr::parse(text).map(Value::Cidr),
        ("isCIDR", [Text(text)]) => Ok(Bool(Cidr::parse(text).is_ok())),
        ("containsIP", [Value::Cidr(cidr), Text(text)]) => parse_ip(text).map(|ip| Bool(cidr.contains(ip))),
        ("containsIP", [Value::Cidr(cidr), Ip(ip)]) => Ok(Bool(cidr.contains(*ip))),
        ("containsCIDR", [Value::Cidr(cidr), Text(text)]) => {
            Cidr::parse(text).map(|other| Bool(cidr.contains_all_of(other)))
        }
        ("containsCIDR", [Value::Cidr(cidr), Value::Cidr(other)]) => Ok(Bool(cidr.contains_all_of(*other))),
        ("ip", [Value::Cidr(cidr)]) => Ok(Ip(cidr.ip)),
        ("prefixLength", [Value::Cidr(cidr)]) => Ok(Int(i64::from(cidr.bits))),
        ("masked", [Value::Cidr(cidr)]) => Ok(Value::Cidr(cidr.masked())),
        _ => return None,
    })
}
