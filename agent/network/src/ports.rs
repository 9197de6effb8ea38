//! Ports of the host that lead to pods (`hostPort`).
//!
//! A connection to such a port of one of the host's addresses is sent on to the pod, wherever it comes from:
//!
//! ```text
//! from outside, from pods ─ prerouting ─┐
//!                                       ├─ is the destination this host? ─ host-ports ─▶ the pod's address and port
//! from the host itself ──── output ─────┘
//! ```
//!
//! The pod sees who connects, but for the host's loopback addresses and for itself: what comes from those takes an address of
//! the host, since a pod could not answer them.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{
    Ipv4Net,
    nft::{Batch, Chain, ChainKind, Hook, Rule, Table, Verdict},
};

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in IP packets.
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A port of the host, and the pod's port it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// Of which protocol.
    pub protocol: Protocol,
    /// At which of the host's addresses; at all of them when `None`.
    pub host_ip: Option<Ipv4Addr>,
    /// The host's port.
    pub host_port: u16,
    /// The pod's.
    pub pod_port: u16,
}

impl HostPort {
    /// Whether both cannot lead somewhere else.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        let address = match (self.host_ip, other.host_ip) {
            (Some(one), Some(two)) => one == two,
            (None, _) | (_, None) => true,
        };
        address && self.protocol == other.protocol && self.host_port == other.host_port
    }

    /// Whether it can be reached at a loopback address.
    pub(crate) fn is_on_loopback(&self) -> bool {
        self.host_ip.is_none_or(|ip| ip.is_loopback())
    }
}

/// Adds what makes ports lead to pods; nothing, where there are none.
pub(crate) fn add(batch: &mut Batch, table: &Table, postrouting: &Chain, pods: &[(Ipv4Addr, &[HostPort])]) {
    if pods.is_empty() {
        return;
    }
    let loopback = Ipv4Net::new(Ipv4Addr::LOCALHOST, 8);
    // Pods' interfaces let packets of loopback addresses pass. Nobody but this host may send such: a pod, or a neighbour,
    // could reach what listens on the host for the host alone.
    let guard = Chain::base(table, "loopback", ChainKind::Filter, Hook::Prerouting, Hook::RAW);
    batch.add_chain(&guard);
    if let Some(loopback) = &loopback {
        batch.add_rule(&guard, &Rule::new().from_outside().destination(loopback).counter().verdict(&Verdict::Drop));
    }

    let leads = Chain::regular(table, "host-ports");
    batch.add_chain(&leads);
    for (ip, port) in pods.iter().flat_map(|(ip, ports)| ports.iter().map(move |port| (*ip, port))) {
        let to = port.host_ip.and_then(|address| Ipv4Net::new(address, 32));
        let rule = to.iter().fold(Rule::new(), |rule, address| rule.destination(address));
        let rule = rule.port(port.protocol.number(), port.host_port).counter().redirect(ip, port.pod_port);
        batch.add_rule(&leads, &rule);
    }
    let goes = Rule::new().destination_is_local().verdict(&Verdict::Jump("host-ports".to_owned()));
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        let chain = Chain::base(table, name, ChainKind::Nat, hook, Hook::DESTINATION_NAT);
        batch.add_chain(&chain);
        batch.add_rule(&chain, &goes);
    }

    for (ip, _) in pods {
        let Some(pod) = Ipv4Net::new(*ip, 32) else { continue };
        for from in loopback.iter().chain([&pod]) {
            batch.add_rule(postrouting, &Rule::new().source(from).destination(&pod).counter().masquerade());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_collide_at_the_same_address_or_at_all_of_them() {
        let port = |protocol, host_ip: Option<&str>, host_port| HostPort {
            protocol,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
            pod_port: 80,
        };
        let all = port(Protocol::Tcp, None, 80);
        let here = port(Protocol::Tcp, Some("127.0.0.1"), 80);
        let there = port(Protocol::Tcp, Some("10.0.0.1"), 80);
        assert!(all.collides(&here) && here.collides(&all) && here.collides(&here) && !here.collides(&there));
        assert!(!all.collides(&port(Protocol::Udp, None, 80)) && !all.collides(&port(Protocol::Tcp, None, 81)));
        assert!(all.is_on_loopback() && here.is_on_loopback() && !there.is_on_loopback());
    }
}
