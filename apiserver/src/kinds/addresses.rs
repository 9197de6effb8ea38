//! IP addresses and CIDRs in objects: strict rules for new values, and the warnings about odd ones (KEP-4858).

use std::net::IpAddr;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};

use super::rules;

/// What a load balancer is reached at: addresses, and a name that is none.
pub(super) fn reached_at(errors: &mut Errors, path: &Path, ip: &str, host: &str, before: &[&str]) {
    if !ip.is_empty() {
        legacy_ip(errors, &path.child("ip"), ip, before);
    }
    if !host.is_empty() {
        let at = path.child("hostname");
        rules::messages(errors, &at, host, name::dns1123_subdomain(host));
        not_an_address(errors, &at, host);
    }
}

/// A host's name must be no address.
pub(super) fn not_an_address(errors: &mut Errors, path: &Path, host: &str) {
    if sloppy(host).is_some() {
        errors.push(Error::invalid(path, host, "must be a DNS name, not an IP address"));
    }
}

/// The address as Go's lenient parser reads it, which takes leading zeros in IPv4 as decimal.
pub(super) fn sloppy(value: &str) -> Option<IpAddr> {
    if let Ok(address) = value.parse() {
        return Some(address);
    }
    let parts: Vec<String> = value.split('.').map(without_zeros).collect();
    let is_dotted = parts.len() == 4 && value.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_dotted.then(|| parts.join(".").parse().ok()).flatten()
}

fn without_zeros(part: &str) -> String {
    match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    }
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// An address in a field that once took more than it does now; what the object had before stays good.
pub(super) fn legacy_ip(errors: &mut Errors, path: &Path, value: &str, before: &[&str]) {
    if before.contains(&value) {
        return;
    }
    let Some(address) = sloppy(value) else {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        return errors.push(Error::invalid(path, value, detail));
    };
    if value.parse::<IpAddr>().is_err() {
        errors.push(Error::invalid(path, value, "must not have leading 0s"));
    }
    if is_mapped(address) {
        errors.push(Error::invalid(path, value, "must not be an IPv4-mapped IPv6 address"));
    }
}

/// An address in its one canonical form.
pub(super) fn ip(errors: &mut Errors, path: &Path, value: &str) {
    let before = errors.len();
    legacy_ip(errors, path, value, &[]);
    if errors.len() > before {
        return;
    }
    if let Some(canonical) = sloppy(value).map(|address| address.to_string()).filter(|text| text != value) {
        errors.push(Error::invalid(path, value, &format!("must be in canonical form ({canonical:?})")));
    }
}

/// An address that an endpoint may have: not of the machine itself and not of one link.
pub(super) fn endpoint_ip(errors: &mut Errors, path: &Path, value: &str, unspecified: &str) {
    let Some(parsed) = sloppy(value) else { return };
    let (is_link_local, is_link_multicast) = match parsed {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments().first().is_some_and(|s| s & 0xff0f == 0xff02)),
    };
    for (is_so, detail) in [
        (parsed.is_unspecified(), format!("may not be unspecified ({unspecified})").as_str()),
        (parsed.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (is_link_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ] {
        if is_so {
            errors.push(Error::invalid(path, value, detail));
        }
    }
}

/// A network: its address, with the bits beyond the prefix as they were written, and the prefix's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    length: u32,
}

impl Network {
    /// Reads a CIDR as leniently as Go does.
    pub(super) fn sloppy(value: &str) -> Option<Self> {
        let (address, length) = value.split_once('/')?;
        let is_number = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let network = Self { address: sloppy(address)?, length: is_number.then(|| length.parse().ok()).flatten()? };
        (network.length <= network.bits()).then_some(network)
    }

    fn bits(&self) -> u32 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    fn number(&self) -> u128 {
        match self.address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    fn mask(&self) -> u128 {
        let all = if self.address.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
        let host = u128::MAX.checked_shr(128 - (self.bits() - self.length)).unwrap_or(0);
        all & !host
    }

    /// The first address of the network.
    fn base(&self) -> IpAddr {
        let number = self.number() & self.mask();
        match self.address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(0).into()),
            IpAddr::V6(_) => IpAddr::V6(number.into()),
        }
    }

    /// Whether its addresses are IPv6.
    pub(super) fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The network in its canonical form.
    pub(super) fn canonical(&self) -> String {
        format!("{}/{}", self.base(), self.length)
    }

    /// Whether `other` is a part of this network, and not all of it.
    pub(super) fn strictly_contains(&self, other: &Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.length < other.length
            && (other.number() & other.mask()) & self.mask() == self.number() & self.mask()
    }
}

/// A network in a field that once took more than it does now; what the object had before stays good.
pub(super) fn legacy_cidr(errors: &mut Errors, path: &Path, value: &str, before: &[&str]) {
    if before.contains(&value) {
        return;
    }
    let Some(network) = Network::sloppy(value) else {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        return errors.push(Error::invalid(path, value, detail));
    };
    let (address, length) = value.split_once('/').unwrap_or_default();
    if address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0')) {
        errors.push(Error::invalid(path, value, "must not have leading 0s in IP or prefix length"));
    } else if is_mapped(network.address) {
        errors.push(Error::invalid(path, value, "must not have an IPv4-mapped IPv6 address"));
    } else if network.base() != network.address {
        errors.push(Error::invalid(path, value, "must not have bits set beyond the prefix length"));
    }
}

/// A network in its one canonical form.
pub(super) fn cidr(errors: &mut Errors, path: &Path, value: &str) {
    let before = errors.len();
    legacy_cidr(errors, path, value, &[]);
    if errors.len() > before {
        return;
    }
    if let Some(canonical) = Network::sloppy(value).map(|n| n.canonical()).filter(|text| text != value) {
        errors.push(Error::invalid(path, value, &format!("must be in canonical form ({canonical:?})")));
    }
}

/// What is told about an address that is taken but odd.
pub(super) fn ip_warnings(path: &Path, value: &str) -> Option<String> {
    let address = sloppy(value)?;
    if value.parse::<IpAddr>().is_err() || is_mapped(address) {
        let plain = match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        let plain = plain.to_string();
        return Some(format!("{path}: non-standard IP address {value:?} is invalid: use {plain:?}"));
    }
    let canonical = address.to_string();
    (address.is_ipv6() && canonical != value)
        .then(|| format!("{path}: IPv6 address {value:?} should be in RFC 5952 canonical format ({canonical:?})"))
}

/// What is told about a network that is taken but odd.
pub(super) fn cidr_warnings(path: &Path, value: &str) -> Option<String> {
    let network = Network::sloppy(value)?;
    let canonical = network.canonical();
    if network.base() != network.address {
        let single = format!("{}/{}", network.address, network.bits());
        return Some(format!(
            "{path}: CIDR value {value:?} is ambiguous in this context (should be {canonical:?} or {single:?}?)"
        ));
    }
    (network.is_ipv6() && canonical != value)
        .then(|| format!("{path}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format ({canonical:?})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(check: impl Fn(&mut Errors, &Path)) -> String {
        let mut errors = Errors::new();
        check(&mut errors, &Path::new("f"));
        errors
            .iter()
            .map(|e| e.message.rsplit(": ").next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn addresses_have_one_form() {
        for (value, detail) in [
            ("10.0.0.1", ""),
            ("2001:db8::1", ""),
            ("010.0.0.1", "must not have leading 0s"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
            ("2001:DB8::1", "must be in canonical form (\"2001:db8::1\")"),
            ("10.0.0", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("10.0.0.256", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        ] {
            let last = said(|e, p| ip(e, p, value));
            assert!(
                last.ends_with(detail.rsplit(": ").next().unwrap()) && last.is_empty() == detail.is_empty(),
                "{value}: {last}"
            );
        }
    }

    #[test]
    fn networks_have_one_form() {
        for (value, detail) in [
            ("10.0.0.0/8", ""),
            ("::/0", ""),
            ("0.0.0.0/0", ""),
            ("10.0.0.1/32", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("10.0.0.0/+8", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("10.0.0.0", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        ] {
            let last = said(|e, p| cidr(e, p, value));
            assert!(
                last.ends_with(detail.rsplit(": ").next().unwrap()) && last.is_empty() == detail.is_empty(),
                "{value}: {last}"
            );
        }
    }

    #[test]
    fn a_part_of_a_network_is_smaller_and_within() {
        let network = |text: &str| Network::sloppy(text).unwrap();
        assert!(network("10.0.0.0/8").strictly_contains(&network("10.1.0.0/16")));
        assert!(network("::/0").strictly_contains(&network("2001:db8::/64")));
        for (outer, inner) in [("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.0/8", "11.0.0.0/16"), ("0.0.0.0/0", "::/1")] {
            assert!(!network(outer).strictly_contains(&network(inner)), "{outer} {inner}");
        }
    }

    #[test]
    fn odd_values_are_told_of() {
        let path = Path::new("f");
        assert_eq!(ip_warnings(&path, "10.0.0.1"), None);
        assert!(ip_warnings(&path, "2001:DB8::1").unwrap().contains("RFC 5952"));
        assert!(cidr_warnings(&path, "10.0.0.1/8").unwrap().contains("(should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"));
    }
}
