//! What a node's pod network is told, and the address ranges it is told in.

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Error;

/// The longest mark: interface names hold 15 bytes, of which the pod's hash and punctuation take ten.
const MARK_MAX: usize = 5;
/// From what every IPv4 host takes (RFC 791) to the longest packet there is.
const MTU_RANGE: RangeInclusive<u32> = 576..=65_535;
/// Ethernet's.
const MTU_DEFAULT: u32 = 1500;

/// What [`crate::Network::open`] needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Short identifier of the cluster: one to five of `a-z0-9`. Goes into the names of interfaces and tables, so that
    /// several clusters live side by side on one host.
    pub mark: String,
    /// The range this node's pods get their addresses from. The first address is the node's own (the pods' gateway).
    pub pod_cidr: Ipv4Net,
    /// The range all pods of the cluster live in; traffic to it keeps the pod's address. Usually contains `pod_cidr`.
    pub cluster_cidr: Ipv4Net,
    /// The largest packet in bytes on pods' interfaces; that of the interface the default route leaves by when `None`, and
    /// Ethernet's where there is no such route. A change of it reaches pods that are attached after the next open.
    pub mtu: Option<u32>,
    /// Directory of the records: which pod has which address, which host settings were changed.
    pub state_dir: PathBuf,
    /// Whether traffic of pods that leaves the cluster takes the node's address.
    pub masquerade: bool,
}

impl Config {
    /// Checks what the kernel or this crate could not live with.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, the value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        let mark_ok = (1..=MARK_MAX).contains(&self.mark.len())
            && self.mark.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !mark_ok {
            return Err(Error::Config { reason: format!("mark {:?} must be one to five of a-z and 0-9", self.mark) });
        }
        if self.pod_cidr.prefix() > 29 || self.pod_cidr.prefix() < 8 {
            return Err(Error::Config {
                reason: format!("pod CIDR {} must have a prefix between /8 and /29", self.pod_cidr),
            });
        }
        if let Some(mtu) = self.mtu
            && !MTU_RANGE.contains(&mtu)
        {
            return Err(Error::Config { reason: format!("MTU {mtu} must be between 576 and 65535") });
        }
        Ok(())
    }

    /// The largest packet on pods' interfaces, where the default route's interface takes ones of `outside` bytes.
    pub(crate) fn pod_mtu(&self, outside: Option<u32>) -> u32 {
        self.mtu.or(outside).map_or(MTU_DEFAULT, |mtu| mtu.clamp(*MTU_RANGE.start(), *MTU_RANGE.end()))
    }

    /// The first address of the range: the node's own address towards its pods.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pod_cidr.network()).saturating_add(1))
    }

    /// The device that carries the gateway's address.
    pub(crate) fn anchor(&self) -> String {
        format!("cor-{}", self.mark)
    }

    /// What the names of this cluster's host interfaces begin with.
    pub(crate) fn veth_prefix(&self) -> String {
        format!("c{}-", self.mark)
    }

    /// The host's end of a pod's interface pair; the pod's name is hashed (FNV-1a) because UIDs do not fit.
    pub(crate) fn veth(&self, pod_uid: &str) -> String {
        let mut hash: u32 = 0x811c_9dc5;
        for byte in pod_uid.bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        format!("{}{hash:08x}", self.veth_prefix())
    }

    /// The nftables table.
    pub(crate) fn table(&self) -> String {
        format!("coracle-{}", self.mark)
    }
}

/// An IPv4 range in CIDR notation; the host bits are cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Net {
    network: Ipv4Addr,
    prefix: u8,
}

impl Ipv4Net {
    /// A range; `None` when the prefix is longer than 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        if prefix > 32 {
            return None;
        }
        let network = Ipv4Addr::from(u32::from(address) & mask(prefix));
        Some(Self { network, prefix })
    }

    /// The lowest address.
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// The number of leading bits that all addresses of the range share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The bits that belong to the network, as an address.
    pub fn netmask(&self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.prefix))
    }

    /// The highest address.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !mask(self.prefix))
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == u32::from(self.network)
    }

    /// Whether the two ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Ipv4Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Config { reason: format!("{text:?} is not an IPv4 range such as 10.42.0.0/24") };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        Self::new(address, prefix).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Ipv4Net {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Ipv4Net> for String {
    fn from(net: Ipv4Net) -> Self {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_parse_clear_host_bits_and_know_what_they_hold() {
        assert_eq!(net("10.42.3.9/24").to_string(), "10.42.3.0/24");
        assert_eq!(net("10.42.3.0/24").broadcast().to_string(), "10.42.3.255");
        assert!(net("10.42.0.0/16").contains("10.42.9.1".parse().unwrap()));
        assert!(net("0.0.0.0/0").contains("1.2.3.4".parse().unwrap()));
        assert!(!net("10.42.0.0/24").contains("10.42.1.0".parse().unwrap()));
        for wrong in ["10.42.0.0", "10.42.0.0/33", "10.42/16", "a/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Ipv4Net>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_overlap_when_one_holds_the_other() {
        assert!(net("10.42.0.0/16").overlaps(&net("10.42.7.0/24")));
        assert!(net("10.42.7.0/24").overlaps(&net("10.42.0.0/16")));
        assert!(!net("10.42.0.0/24").overlaps(&net("10.42.1.0/24")));
    }

    #[test]
    fn packets_of_pods_are_as_long_as_those_of_the_way_out() {
        let config = |mtu| Config {
            mark: "t".into(),
            pod_cidr: net("10.42.0.0/24"),
            cluster_cidr: net("10.42.0.0/16"),
            mtu,
            state_dir: PathBuf::new(),
            masquerade: true,
        };
        for (told, outside, want) in [
            (None, Some(9001), 9001),
            (None, Some(1420), 1420),
            (None, None, 1500),
            (None, Some(65_536), 65_535),
            (Some(1300), Some(9001), 1300),
        ] {
            assert_eq!(config(told).pod_mtu(outside), want, "{told:?} {outside:?}");
        }
        assert!(config(Some(500)).validate().is_err());
    }

    #[test]
    fn interface_names_fit_the_kernel_for_every_mark() {
        let mut config = Config {
            mark: "abcde".into(),
            pod_cidr: net("10.42.0.0/24"),
            cluster_cidr: net("10.42.0.0/16"),
            mtu: None,
            state_dir: PathBuf::new(),
            masquerade: true,
        };
        config.validate().unwrap();
        assert!(config.veth("0d3f6c1e-7a55-4f0e-9b7e-0d8b6d2d9a11").len() <= 15);
        assert_eq!(config.gateway().to_string(), "10.42.0.1");
        for wrong in ["", "abcdef", "A", "a-b", "é"] {
            config.mark = wrong.into();
            assert!(config.validate().is_err(), "{wrong}");
        }
    }
}
