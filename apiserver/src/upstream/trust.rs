//! Whose certificates a server may show: those of the authorities in its bundle, and a certificate that stands in the
//! bundle itself, as many who make one by hand do; or, where somebody says so, anybody's.

use std::{net::IpAddr, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

/// See the module. That a server holds the key of the certificate it shows is checked in any case.
#[derive(Debug)]
pub(crate) struct Trust {
    /// How signatures are checked.
    algorithms: WebPkiSupportedAlgorithms,
    trusted: Trusted,
}

#[derive(Debug)]
enum Trusted {
    Bundle { authorities: Arc<WebPkiServerVerifier>, bundle: Vec<CertificateDer<'static>> },
    Anybody,
}

impl Trust {
    /// What the bundle's certificates vouch for.
    ///
    /// # Errors
    /// There is none among them that can.
    pub(crate) fn new(roots: RootCertStore, bundle: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| format!("unable to load root certificates: {error}"))?;
        Ok(Self { algorithms, trusted: Trusted::Bundle { authorities, bundle } })
    }

    /// Whoever answers: for servers in pods, whose certificates nobody vouches for, and where an administrator says so.
    pub(crate) fn anybody() -> Self {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Self { algorithms, trusted: Trusted::Anybody }
    }
}

fn is_for(certificate: &X509Certificate<'_>, name: &ServerName<'_>) -> bool {
    let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    names.flatten().any(|given| match (given, name) {
        (GeneralName::DNSName(given), ServerName::DnsName(name)) => {
            let (given, name) = (given.to_ascii_lowercase(), name.as_ref().to_ascii_lowercase());
            let rest = |text: &str| text.split_once('.').map(|(_, rest)| rest.to_owned());
            given == name || (given.starts_with("*.") && rest(&given) == rest(&name))
        }
        (GeneralName::IPAddress(bytes), ServerName::IpAddress(address)) => match IpAddr::from(*address) {
            IpAddr::V4(address) => *bytes == address.octets(),
            IpAddr::V6(address) => *bytes == address.octets(),
        },
        _ => false,
    })
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trusted::Bundle { authorities, bundle } = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        let refusal = match authorities.verify_server_cert(leaf, between, name, ocsp, now) {
            Err(refusal) if bundle.iter().any(|own| own == leaf) => refusal,
            other => return other,
        };
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return Err(refusal) };
        let (seconds, validity) = (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), certificate.validity());
        if seconds > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if seconds < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if is_for(&certificate, name) { Ok(ServerCertVerified::assertion()) } else { Err(refusal) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
