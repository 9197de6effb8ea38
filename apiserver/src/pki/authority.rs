//! The cluster's certificate authority.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{Error, Identity, identity::validity};

const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Certificates are valid from a little before they are made, for hosts whose clocks are behind; less so when they do not
/// live long.
const BACKDATED: Duration = Duration::from_secs(3600);

/// No clock that is right is before the first of January 2026. What is made by one that is lasts from then on: a machine
/// without a battery for its clock starts in the past, and must not find everything expired when it is told the time.
const WRITTEN: Duration = Duration::from_secs(1_767_225_600);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Its holder connects to servers.
    Client,
    /// Its holder is a server.
    Server,
    /// Its holder is a server among others of its kind, which it connects to.
    Member,
}

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Common name: the user's name.
    pub name: String,
    /// Organization: the user's group.
    pub group: Option<String>,
    /// DNS names and addresses.
    pub alt_names: Vec<String>,
    /// Client or server.
    pub usage: Usage,
}

impl Profile {
    /// A client of that name in that group.
    #[must_use]
    pub fn client(name: &str, group: Option<&str>) -> Self {
        Self { name: name.to_owned(), group: group.map(str::to_owned), alt_names: Vec::new(), usage: Usage::Client }
    }

    /// The node `name` as a client.
    #[must_use]
    pub fn node_client(name: &str) -> Self {
        Self::client(&format!("system:node:{name}"), Some("system:nodes"))
    }

    /// The node `name` as a server, reachable at the given names and addresses besides its own.
    #[must_use]
    pub fn node_server(name: &str, addresses: &[String]) -> Self {
        let mut alt_names: Vec<String> =
            std::iter::once(name.to_owned()).chain(addresses.iter().cloned()).filter(|n| !n.is_empty()).collect();
        alt_names.sort();
        alt_names.dedup();
        Self { alt_names, usage: Usage::Server, ..Self::node_client(name) }
    }
}

/// What the holder of a signing request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Common name: the user's name.
    pub(crate) common_name: String,
    /// Organizations: the user's groups.
    pub(crate) organizations: Vec<String>,
    /// DNS names and addresses.
    pub(crate) alt_names: Vec<String>,
    /// Usages, as CertificateSigningRequests name them.
    pub(crate) usages: Vec<String>,
    /// How long it is valid, if less than all that the authority signs.
    pub(crate) lifetime: Option<Duration>,
}

impl From<&Profile> for Grant {
    fn from(profile: &Profile) -> Self {
        let usages: &[&str] = match profile.usage {
            Usage::Client => &["digital signature", "client auth"],
            Usage::Server => &["digital signature", "server auth"],
            Usage::Member => &["digital signature", "client auth", "server auth"],
        };
        Self {
            common_name: profile.name.clone(),
            organizations: profile.group.iter().cloned().collect(),
            alt_names: profile.alt_names.clone(),
            usages: usages.iter().map(|usage| (*usage).to_owned()).collect(),
            lifetime: None,
        }
    }
}

/// A certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
    /// How long what it signs is valid.
    lifetime: Duration,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn made(what: &str) -> impl FnOnce(rcgen::Error) -> Error {
    let what = what.to_owned();
    move |source| Error::Make { what, source }
}

/// The random serial number of a certificate: 127 bits, so never negative.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    SerialNumber::from_slice(&bytes)
}

fn dated(mut params: CertificateParams, now: Timestamp, lifetime: Duration) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    let now = seconds(now);
    params.not_before = epoch + now.saturating_sub(BACKDATED.min(lifetime / 24));
    params.not_after = epoch + (now.max(WRITTEN) + lifetime);
    params.serial_number = Some(serial());
    params
}

impl Authority {
    /// A new authority of the given name.
    pub(super) fn make(name: &str, now: Timestamp, lifetime: Duration) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(made("the authority's key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let params = dated(params, now, LIFETIME);
        let certificate = params.self_signed(&key).map_err(made("the authority's certificate"))?;
        Ok(Self { der: certificate.der().clone(), pem: certificate.pem(), issuer: Issuer::new(params, key), lifetime })
    }

    /// The authority in these PEM texts.
    pub(super) fn parse(certificate: &str, key: &str, lifetime: Duration) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key).map_err(made("the authority's key from its file"))?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| Error::Malformed(format!("not a certificate: {error}")))?;
        let parsed = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| Error::Malformed(format!("not a certificate: {error}")))?
            .1;
        if !parsed.is_ca() {
            return Err(Error::Malformed("the certificate is not an authority's".to_owned()));
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(Error::Malformed("the certificate is not the key's".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(made("the authority from its file"))?;
        Ok(Self { issuer, pem: certificate.to_owned(), der: der.into_owned(), lifetime })
    }

    /// How long what it signs is valid.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The certificate in PEM: what clients trust.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the certificate (DER): what a join token carries.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.der);
        digest.as_ref().try_into().unwrap_or_default()
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Whether this authority signed the identity's certificate.
    pub(super) fn issued(&self, identity: &Identity) -> bool {
        let Ok((_, leaf)) = x509_parser::parse_x509_certificate(identity.certificate()) else { return false };
        let Ok((_, own)) = x509_parser::parse_x509_certificate(&self.der) else { return false };
        leaf.verify_signature(Some(own.public_key())).is_ok()
    }

    /// A new key and its certificate.
    ///
    /// # Errors
    /// A name that no certificate can hold.
    pub fn issue(&self, profile: &Profile, now: Timestamp) -> Result<Identity, Error> {
        let key = KeyPair::generate().map_err(made("a key"))?;
        let certificate = self.sign(profile, &key, now)?;
        Identity::new(vec![certificate], &key.serialize_pem())
    }

    /// Signs the key of a certificate signing request (PEM). Of the request only the key counts, and the proof that the
    /// requester holds it; names and usages are the profile's. Returns the certificate and its PEM.
    ///
    /// # Errors
    /// The request is malformed or its signature is wrong.
    pub fn sign_request(
        &self,
        request: &str,
        profile: &Profile,
        now: Timestamp,
    ) -> Result<(CertificateDer<'static>, String), Error> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|error| Error::Malformed(format!("not a certificate signing request: {error}")))?;
        let certificate = self.sign(profile, &request.public_key, now)?;
        let pem = super::identity::certificate_pem(&certificate);
        Ok((certificate, pem))
    }

    /// Signs the key of a certificate signing request (PEM) as [`Authority::sign_request`], for what is granted; returns
    /// the certificate's PEM.
    ///
    /// # Errors
    /// The request is malformed or its signature is wrong, or a name is none that a certificate can hold.
    pub(crate) fn sign_granted(&self, request: &str, grant: &Grant, now: Timestamp) -> Result<String, Error> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|error| Error::Malformed(format!("not a certificate signing request: {error}")))?;
        let certificate = self.sign(grant.clone(), &request.public_key, now)?;
        Ok(super::identity::certificate_pem(&certificate))
    }

    /// Signs the key of a certificate signing request (PEM) as [`Authority::sign_request`], for as long as this authority
    /// is valid itself; returns the certificate's PEM.
    ///
    /// # Errors
    /// The request is malformed or its signature is wrong.
    pub(super) fn sign_for_life(&self, request: &str, profile: &Profile, now: Timestamp) -> Result<String, Error> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|error| Error::Malformed(format!("not a certificate signing request: {error}")))?;
        let own = x509_parser::parse_x509_certificate(&self.der).ok();
        let end = own.and_then(|(_, own)| validity(&own)).map(|(_, end)| end.duration_since(now));
        let lifetime = end.and_then(|left| Duration::try_from(left).ok()).unwrap_or(self.lifetime);
        let certificate = self.sign_until(&profile.into(), &request.public_key, now, lifetime)?;
        Ok(super::identity::certificate_pem(&certificate))
    }

    fn sign(
        &self,
        grant: impl Into<Grant>,
        key: &impl PublicKeyData,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, Error> {
        let grant = grant.into();
        let lifetime = grant.lifetime.unwrap_or(self.lifetime).min(self.lifetime);
        self.sign_until(&grant, key, now, lifetime)
    }

    fn sign_until(
        &self,
        grant: &Grant,
        key: &impl PublicKeyData,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, Error> {
        let what = || format!("the certificate of {:?}", grant.common_name);
        let mut params =
            CertificateParams::new(grant.alt_names.clone()).map_err(|source| Error::Make { what: what(), source })?;
        params.distinguished_name = DistinguishedName::new();
        for organization in &grant.organizations {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, grant.common_name.as_str());
        for usage in &grant.usages {
            match usage.as_str() {
                "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
                "server auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
                other => return Err(Error::Malformed(format!("certificates for {other:?} are not given out"))),
            }
        }
        params.use_authority_key_identifier_extension = true;
        let params = dated(params, now, lifetime);
        let certificate = params.signed_by(key, &self.issuer).map_err(|source| Error::Make { what: what(), source })?;
        Ok(certificate.der().clone())
    }
}

/// The DNS names and addresses a certificate signing request (PEM) asks for.
pub(crate) fn requested_names(request: &str) -> Result<Vec<String>, Error> {
    let request = CertificateSigningRequestParams::from_pem(request)
        .map_err(|error| Error::Malformed(format!("not a certificate signing request: {error}")))?;
    request
        .params
        .subject_alt_names
        .iter()
        .map(|name| match name {
            SanType::DnsName(name) => Ok(name.as_str().to_owned()),
            SanType::IpAddress(address) => Ok(address.to_string()),
            _ => Err(Error::Malformed("only DNS names and addresses may be asked for".to_owned())),
        })
        .collect()
}

/// SHA-256 of the key a certificate signing request (PEM) is about, as hex.
pub(crate) fn requested_key(request: &str) -> Result<String, Error> {
    let request = CertificateSigningRequestParams::from_pem(request)
        .map_err(|error| Error::Malformed(format!("not a certificate signing request: {error}")))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, request.public_key.der_bytes());
    Ok(hex::encode(digest))
}
