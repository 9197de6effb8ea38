//! Who a member is towards its peers: a certificate that names the cluster and the member.
//!
//! The group is what makes it a member's; nobody is given a certificate of that group but by a server of the cluster itself
//! (a CertificateSigningRequest for it is refused). The cluster's id stands in it because a copy or a restored snapshot is
//! another cluster under the same authority. A witness has a group of its own, since it may stand where nobody watches over
//! it, and less is believed of it.

use coracle_store::MemberId;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::{
    pki::{ClientVerifier, Profile, Usage, subject},
    servers::Kind,
};

/// The group of the members of the store that are servers.
const MEMBERS: &str = "system:coracle:members";
/// The group of witnesses.
const WITNESSES: &str = "system:coracle:witnesses";
/// Both: nobody else is given a certificate of one of them.
pub(crate) const GROUPS: [&str; 2] = [MEMBERS, WITNESSES];

fn common_name(cluster: [u8; 16], member: MemberId) -> String {
    format!("coracle:{}:{:016x}", hex::encode(cluster), member.0)
}

fn dns_name(cluster: [u8; 16], member: MemberId) -> String {
    format!("{:016x}.{}.members.coracle", member.0, hex::encode(cluster))
}

/// What a member shows.
pub(crate) fn member_profile(cluster: [u8; 16], member: MemberId, kind: Kind) -> Profile {
    let group = match kind {
        Kind::Server => MEMBERS,
        Kind::Witness => WITNESSES,
    };
    Profile {
        name: common_name(cluster, member),
        group: Some(group.to_owned()),
        alt_names: vec![dns_name(cluster, member)],
        usage: Usage::Member,
    }
}

/// The name a member's certificate is checked for by whoever connects to it.
pub(super) fn server_name(cluster: [u8; 16], member: MemberId) -> Result<ServerName<'static>, String> {
    ServerName::try_from(dns_name(cluster, member)).map_err(|error| error.to_string())
}

/// The member of this cluster that showed these certificates, and what it is.
///
/// # Errors
/// Why it is none.
pub(super) fn member_of(
    certificates: &[CertificateDer<'_>],
    verifier: &ClientVerifier,
    cluster: [u8; 16],
    now: Timestamp,
) -> Result<(MemberId, Kind), String> {
    verifier.verify(certificates, now).map_err(|error| error.to_string())?;
    let leaf = certificates.first().ok_or("no certificate")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
    let (name, groups) = subject(&parsed).ok_or("a certificate without a name")?;
    let is_of = |wanted: &str| groups.iter().any(|group| group == wanted);
    let kind = match (is_of(MEMBERS), is_of(WITNESSES)) {
        (true, false) => Kind::Server,
        (_, true) => Kind::Witness,
        (false, false) => return Err(format!("the certificate of {name:?} is not a member's")),
    };
    let member = name.rsplit(':').next().and_then(|id| u64::from_str_radix(id, 16).ok()).map(MemberId);
    member
        .filter(|member| name == common_name(cluster, *member))
        .map(|member| (member, kind))
        .ok_or_else(|| format!("the certificate of {name:?} is not that of a member of this cluster"))
}
