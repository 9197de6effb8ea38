//! Certificate signing requests (PKCS #10): what they ask for, and the proof that the asker holds the key.

use std::net::IpAddr;

use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

/// The PEM label of a signing request.
const LABEL: &str = "CERTIFICATE REQUEST";

/// What a signing request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requested {
    /// The subject's common names; a request should have one.
    pub(crate) common_names: Vec<String>,
    /// The subject's organizations.
    pub(crate) organizations: Vec<String>,
    /// Alternative DNS names.
    pub(crate) dns_names: Vec<String>,
    /// Alternative addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Alternative names that are mail addresses.
    pub(crate) emails: usize,
    /// Alternative names that are URIs.
    pub(crate) uris: usize,
    /// Alternative names of any other kind.
    pub(crate) others: usize,
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok().or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

impl Requested {
    /// Reads a request in PEM and checks its signature.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(crate) fn read(pem: &[u8]) -> Result<Self, String> {
        let wrong_type = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
        let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| wrong_type())?;
        if block.label != LABEL {
            return Err(wrong_type());
        }
        let (_, request) =
            X509CertificationRequest::from_der(&block.contents).map_err(|error| format!("asn1: {error}"))?;
        request.verify_signature().map_err(|_| "x509: the request's signature is not its key's".to_owned())?;
        let info = &request.certification_request_info;
        let texts = |found: Vec<Option<&str>>| found.into_iter().flatten().map(ToOwned::to_owned).collect();
        let mut requested = Self {
            common_names: texts(info.subject.iter_common_name().map(|name| name.as_str().ok()).collect()),
            organizations: texts(info.subject.iter_organization().map(|name| name.as_str().ok()).collect()),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => requested.dns_names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => match address(bytes) {
                        Some(address) => requested.addresses.push(address),
                        None => return Err("x509: cannot parse IP address in subjectAltName".to_owned()),
                    },
                    GeneralName::RFC822Name(_) => requested.emails += 1,
                    GeneralName::URI(_) => requested.uris += 1,
                    _ => requested.others += 1,
                }
            }
        }
        Ok(requested)
    }
}

/// Whether the text is one or more certificates in PEM, and nothing else in PEM.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn check_certificates(pem: &[u8]) -> Result<(), String> {
    let mut found = 0_usize;
    for block in x509_parser::pem::Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        block.parse_x509().map_err(|error| format!("x509: {error}"))?;
        found += 1;
    }
    if found == 0 { Err("must contain at least one CERTIFICATE PEM block".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn pem() -> String {
        let mut params = CertificateParams::new(vec!["n.example.com".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:n");
        params.subject_alt_names.push(SanType::Rfc822Name("a@b".try_into().unwrap()));
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn a_request_says_whom_it_is_for() {
        let requested = Requested::read(pem().as_bytes()).unwrap();
        assert_eq!(requested.common_names, ["system:node:n"]);
        assert_eq!(requested.organizations, ["system:nodes"]);
        assert_eq!((requested.dns_names.len(), requested.addresses.len(), requested.emails), (1, 1, 1));
    }

    #[test]
    fn what_is_no_request_or_not_of_its_key_is_refused() {
        assert!(Requested::read(b"nonsense").unwrap_err().contains("PEM block type"));
        let text = pem();
        let certificate = text.replace(LABEL, "CERTIFICATE");
        assert!(Requested::read(certificate.as_bytes()).unwrap_err().contains("PEM block type"));
        let (_, mut block) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
        let last = block.contents.len() - 1;
        block.contents[last] ^= 1;
        let forged = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &block.contents);
        let forged = format!("-----BEGIN {LABEL}-----\n{forged}\n-----END {LABEL}-----\n");
        assert!(Requested::read(forged.as_bytes()).is_err());
    }

    #[test]
    fn certificates_are_certificates() {
        assert!(check_certificates(b"").is_err());
        assert!(check_certificates(pem().as_bytes()).unwrap_err().contains("only CERTIFICATE"));
    }
}
