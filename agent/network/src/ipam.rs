//! Which address a pod gets: a pure choice over the range and what is taken.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::Ipv4Net;

/// How many pods fit: all addresses but the network's, the node's own and the broadcast address.
pub(crate) fn capacity(range: &Ipv4Net) -> usize {
    let addresses = u32::from(range.broadcast()) - u32::from(range.network());
    usize::try_from(addresses.saturating_sub(2)).unwrap_or(usize::MAX)
}

/// The first free address after `last`, going round at the end, so that an address rests as long as possible before
/// another pod gets it: peers may still hold connections to, or cached names of, its previous owner.
pub(crate) fn next(range: &Ipv4Net, last: Option<Ipv4Addr>, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first = u32::from(range.network()) + 2;
    let end = u32::from(range.broadcast());
    let start = match last {
        Some(last) if range.contains(last) => u32::from(last).saturating_add(1).clamp(first, end),
        _ => first,
    };
    (start..end).chain(first..start).map(Ipv4Addr::from).find(|address| !taken.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_rotate_and_run_out() {
        let range: Ipv4Net = "10.1.0.0/29".parse().unwrap();
        assert_eq!(capacity(&range), 5);
        let mut taken = BTreeSet::new();
        assert_eq!(next(&range, None, &taken), Some(ip("10.1.0.2")));
        assert_eq!(next(&range, Some(ip("10.1.0.2")), &taken), Some(ip("10.1.0.3")));
        assert_eq!(next(&range, Some(ip("10.1.0.6")), &taken), Some(ip("10.1.0.2")));
        assert_eq!(next(&range, Some(ip("192.168.0.1")), &taken), Some(ip("10.1.0.2")));
        for last in 2..=6 {
            taken.insert(ip(&format!("10.1.0.{last}")));
        }
        assert_eq!(next(&range, Some(ip("10.1.0.4")), &taken), None);
        taken.remove(&ip("10.1.0.3"));
        assert_eq!(next(&range, Some(ip("10.1.0.4")), &taken), Some(ip("10.1.0.3")));
    }
}
