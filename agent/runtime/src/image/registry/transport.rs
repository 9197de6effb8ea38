//! Connections to registries: TLS with the certificates that are trusted, and the few things about URLs that are needed.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as LegacyClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::RegistryError;
use crate::image::registries::TlsConfig;

/// Where distributions keep the authorities they trust.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

pub(super) type Client = LegacyClient<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A client of its own for each pull: its connections end with it.
pub(super) fn client(tls: &TlsConfig, connect: Duration) -> Result<Client, RegistryError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| RegistryError::Certificates(error.to_string()))?;
    let config = if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth()
    } else {
        builder.with_root_certificates(roots(tls.ca_file.as_deref())?).with_no_client_auth()
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(connect));
    http.set_nodelay(true);
    let https =
        HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(http);
    Ok(LegacyClient::builder(TokioExecutor::new()).build(https))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, RegistryError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    // The host's own authorities, as far as there are any; one it cannot parse is its own affair.
    if let Some(bundle) = SYSTEM_BUNDLES.iter().find(|path| Path::new(path).exists())
        && let Ok(found) = CertificateDer::pem_file_iter(bundle)
    {
        roots.add_parsable_certificates(found.flatten());
    }
    if let Some(path) = ca_file {
        let wrong = |reason: String| RegistryError::Certificates(format!("{}: {reason}", path.display()));
        let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
        for certificate in found {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    Ok(roots)
}

/// Trusts any certificate, where the configuration says so.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The error with its causes, which alone say what happened.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = cause.source();
    }
    text
}

/// Scheme and host with port.
pub(super) fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    Some((scheme, rest.split(['/', '?', '#']).next()?))
}

/// A redirect's target: absolute, or an absolute path on the same host.
pub(super) fn join(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let (scheme, host) = origin(base)?;
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    location.starts_with('/').then(|| format!("{scheme}://{host}{location}"))
}

/// Percent-encoding of a query's value (RFC 3986, section 2.1).
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_against_their_origin() {
        let base = "https://r.example:5000/v2/a/blobs/x";
        assert_eq!(join(base, "/b?c").unwrap(), "https://r.example:5000/b?c");
        assert_eq!(join(base, "https://cdn/x").unwrap(), "https://cdn/x");
        assert_eq!(join(base, "//cdn/x").unwrap(), "https://cdn/x");
        assert_eq!(join(base, "file:///etc/passwd"), None);
        assert_eq!(origin(base), Some(("https", "r.example:5000")));
        assert_eq!(escape("a b&c=d:e/f"), "a%20b%26c%3Dd:e/f");
    }
}
