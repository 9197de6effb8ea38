//! Whether a Secret's certificate and key belong together, in the words of Go's `crypto/tls`.

use rustls::{
    SignatureAlgorithm,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer},
};
use x509_parser::pem::Pem;

/// As many blocks as are looked at: a chain of certificates is a few.
const MOST: usize = 64;

fn blocks(text: &[u8]) -> Vec<Pem> {
    Pem::iter_from_buffer(text).take(MOST).filter_map(Result::ok).collect()
}

fn is_key(label: &str) -> bool {
    label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY")
}

fn labels<'a>(blocks: impl Iterator<Item = &'a Pem>) -> String {
    blocks.map(|block| block.label.as_str()).collect::<Vec<_>>().join(" ")
}

fn certificate(text: &[u8]) -> Result<CertificateDer<'static>, String> {
    let found = blocks(text);
    if let Some(first) = found.iter().position(|block| block.label == "CERTIFICATE") {
        return found.into_iter().nth(first).map(|block| block.contents.into()).ok_or_else(String::new);
    }
    Err(match found.as_slice() {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [one] if one.label.ends_with("PRIVATE KEY") => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may \
             have been switched"
                .to_owned()
        }
        several => {
            let what =
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of";
            format!("{what} the following types: [{}]", labels(several.iter()))
        }
    })
}

fn key(text: &[u8]) -> Result<Vec<u8>, String> {
    let found = blocks(text);
    if let Some(first) = found.iter().position(|block| is_key(&block.label)) {
        return found.into_iter().nth(first).map(|block| block.contents).ok_or_else(String::new);
    }
    Err(match found.as_slice() {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [one] if one.label == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        several => {
            let what =
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM";
            format!("{what} blocks of the following types: [{}]", labels(several.iter()))
        }
    })
}

/// What is wrong with a pair, if anything is. Of kinds of keys that are not known here nothing is said.
pub(super) fn mismatch(certificate_text: &[u8], key_text: &[u8]) -> Option<String> {
    let (certificate, key) = match (certificate(certificate_text), key(key_text)) {
        (Err(why), _) | (_, Err(why)) => return Some(why),
        (Ok(certificate), Ok(key)) => (certificate, key),
    };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&certificate) else {
        return Some("x509: malformed certificate".to_owned());
    };
    let Ok(der) = PrivateKeyDer::try_from(key) else { return Some("tls: failed to parse private key".to_owned()) };
    let own = any_supported_type(&der).ok()?;
    let spki = parsed.public_key();
    let algorithm = match spki.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => SignatureAlgorithm::RSA,
        "1.2.840.10045.2.1" => SignatureAlgorithm::ECDSA,
        "1.3.101.112" => SignatureAlgorithm::ED25519,
        _ => return Some("tls: unknown public key algorithm".to_owned()),
    };
    if own.algorithm() != algorithm {
        return Some("tls: private key type does not match public key type".to_owned());
    }
    let own = own.public_key()?;
    (own != SubjectPublicKeyInfoDer::from(spki.raw)).then(|| "tls: private key does not match public key".to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

    use super::*;

    #[test]
    fn a_pair_that_does_not_belong_together_is_told() {
        let (one, other, third) =
            (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate_for(&PKCS_ED25519).unwrap());
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&one).unwrap().pem();
        let chain = format!("some words\n{certificate}{certificate}");
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let request = certificate.replace("CERTIFICATE", "CERTIFICATE REQUEST");
        for (certificate, key, expected) in [
            (certificate.as_str(), one.serialize_pem(), None),
            (&chain, one.serialize_pem(), None),
            (&chain, format!("{certificate}{}", one.serialize_pem()), None),
            (&certificate, other.serialize_pem(), Some("tls: private key does not match public key")),
            (&certificate, third.serialize_pem(), Some("tls: private key type does not match public key type")),
            ("", one.serialize_pem(), Some("tls: failed to find any PEM data in certificate input")),
            ("abc", String::new(), Some("tls: failed to find any PEM data in certificate input")),
            (&certificate, "abc".to_owned(), Some("tls: failed to find any PEM data in key input")),
            (
                &certificate,
                certificate.clone(),
                Some("tls: found a certificate rather than a key in the PEM for the private key"),
            ),
            (
                &one.serialize_pem(),
                certificate.clone(),
                Some(
                    "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM \
                     inputs may have been switched",
                ),
            ),
            (
                &request,
                one.serialize_pem(),
                Some(
                    "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of \
                     the following types: [CERTIFICATE REQUEST]",
                ),
            ),
            (nonsense, one.serialize_pem(), Some("x509: malformed certificate")),
        ] {
            assert_eq!(mismatch(certificate.as_bytes(), key.as_bytes()).as_deref(), expected, "{certificate}\n{key}");
        }
    }
}
