//! A private key and the certificate that says whose it is.

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use super::{Error, Profile, Usage};

/// A key with its certificate, first of the chain.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    key_pem: String,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// A certificate as PEM (RFC 7468).
pub(super) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The validity of a certificate.
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Option<(Timestamp, Timestamp)> {
    let validity = certificate.validity();
    let time = |t: x509_parser::time::ASN1Time| Timestamp::from_second(t.timestamp()).ok();
    Some((time(validity.not_before)?, time(validity.not_after)?))
}

impl Identity {
    pub(super) fn new(chain: Vec<CertificateDer<'static>>, key_pem: &str) -> Result<Self, Error> {
        let malformed = |why: String| Error::Malformed(why);
        let key =
            PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| malformed(format!("not a key: {e}")))?;
        let leaf = chain.first().ok_or_else(|| malformed("no certificate".to_owned()))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|e| malformed(format!("not a certificate: {e}")))?;
        let (not_before, not_after) =
            validity(&parsed).ok_or_else(|| malformed("a validity beyond all dates".to_owned()))?;
        Ok(Self { key, key_pem: key_pem.to_owned(), not_before, not_after, chain })
    }

    /// The same with a certificate more at the end of the chain.
    pub(super) fn followed_by(mut self, certificate: &CertificateDer<'static>) -> Self {
        self.chain.push(certificate.clone());
        self
    }

    /// The identity in a PEM text with both certificate and key.
    ///
    /// # Errors
    /// One of them is missing, malformed, or not the other's.
    pub fn parse(pem: &str) -> Result<Self, Error> {
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::Malformed(format!("not a certificate: {error}")))?;
        let start =
            pem.find("-----BEGIN PRIVATE KEY-----").ok_or_else(|| Error::Malformed("no private key".to_owned()))?;
        let key_pem = pem.get(start..).unwrap_or_default();
        let end = key_pem.find("-----END PRIVATE KEY-----\n").map(|at| at + "-----END PRIVATE KEY-----\n".len());
        Self::new(chain, key_pem.get(..end.unwrap_or(key_pem.len())).unwrap_or_default())
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        // `new` refuses an empty chain.
        static NONE: CertificateDer<'static> = CertificateDer::from_slice(&[]);
        self.chain.first().unwrap_or(&NONE)
    }

    /// The certificate and those between it and the authority.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The private key in PEM (PKCS #8).
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificates in PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(certificate_pem).collect()
    }

    /// Certificates and key in PEM, as one file holds them.
    #[must_use]
    pub fn pem(&self) -> String {
        self.chain_pem() + &self.key_pem
    }

    /// When the certificate ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// When the certificate is to be replaced: at two thirds of its life.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        let third = SignedDuration::from_secs(life.as_secs() / 3);
        self.not_after.checked_sub(third).unwrap_or(self.not_before)
    }

    /// Whether the certificate names exactly what the profile does.
    pub(super) fn fits(&self, profile: &Profile) -> bool {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(self.certificate()) else { return false };
        let Some((name, groups)) = subject(&parsed) else { return false };
        let mut names = alt_names(&parsed);
        names.sort();
        let usage = parsed.extended_key_usage().ok().flatten().map(|u| match profile.usage {
            Usage::Client => u.value.client_auth,
            Usage::Server => u.value.server_auth,
            Usage::Member => u.value.client_auth && u.value.server_auth,
        });
        name == profile.name
            && groups.as_slice() == profile.group.as_slice()
            && names == profile.alt_names
            && usage == Some(true)
    }
}

/// Common name and organizations: the user's name and groups. `None` without a name.
pub(crate) fn subject(certificate: &X509Certificate<'_>) -> Option<(String, Vec<String>)> {
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    (!name.is_empty()).then_some((name, groups))
}

fn alt_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()),
        _ => <[u8; 16]>::try_from(bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()),
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect()
}
