//! What makes a signing request invalid, and who may change which part of it.

use std::collections::BTreeSet;

use coracle_proto::field::{Error, Errors, Path};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use super::conditions;
use crate::{
    kinds::{blank::list, rules},
    pki::{Requested, check_certificates},
};

const USAGES: &[&str] = &[
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
];

/// Certificates are not asked for shorter than this.
const SHORTEST: i32 = 600;

/// Which part of the status an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// None: the object itself is updated.
    Neither,
    /// `Approved` and `Denied`.
    Decision,
    /// The certificate.
    Certificate,
}

fn validate_usages(errors: &mut Errors, path: &Path, usages: &[String], before: &[String]) {
    if usages.is_empty() {
        errors.push(Error::required(path, ""));
    }
    let is_known = |usage: &String| USAGES.contains(&usage.as_str());
    if before.iter().all(is_known) {
        for (i, usage) in usages.iter().enumerate().filter(|(_, usage)| !is_known(usage)) {
            errors.push(Error::not_supported(&path.index(i), usage.as_str(), USAGES));
        }
    }
    let distinct: BTreeSet<&String> = before.iter().collect();
    if distinct.len() == before.len() {
        let mut seen = BTreeSet::new();
        for (i, usage) in usages.iter().enumerate() {
            if !seen.insert(usage) {
                errors.push(Error::duplicate(&path.index(i), usage.as_str()));
            }
        }
    }
}

fn validate_conditions(errors: &mut Errors, new: &[CertificateSigningRequestCondition]) {
    let path = Path::new("status").child("conditions");
    let mut seen = BTreeSet::new();
    for (i, condition) in new.iter().enumerate() {
        let (at, kind) = (path.index(i), condition.type_.as_str());
        if kind.is_empty() {
            errors.push(Error::required(&at.child("type"), ""));
        }
        let decides = ["Approved", "Denied", "Failed"].contains(&kind);
        let known: &[&str] = if decides { &["True"] } else { &["True", "False", "Unknown"] };
        rules::one_of(errors, &at.child("status"), &condition.status, known);
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !other.is_empty() && seen.contains(other) {
            errors.push(Error::invalid(&path, kind, "Approved and Denied conditions are mutually exclusive"));
        }
        if !seen.insert(kind) {
            errors.push(Error::duplicate(&at.child("type"), kind));
        }
    }
}

/// Everything wrong with a request that was `old` before.
pub(super) fn validate(object: &CertificateSigningRequest, old: Option<&CertificateSigningRequest>) -> Errors {
    let (mut errors, path, spec) = (Errors::new(), Path::new("spec"), &object.spec);
    // The spec does not change once it is stored, so that it need not be checked again.
    if old.is_none()
        && let Err(why) = Requested::read(&spec.request.0)
    {
        errors.push(Error::invalid(&path.child("request"), rules::json(&spec.request), &why));
    }
    let before = old.map_or(&[][..], |old| list(&old.spec.usages));
    validate_usages(&mut errors, &path.child("usages"), list(&spec.usages), before);
    let at = path.child("signerName");
    if spec.signer_name == "kubernetes.io/legacy-unknown" {
        let detail = "the legacy signerName is not allowed via this API version";
        errors.push(Error::invalid(&at, spec.signer_name.as_str(), detail));
    } else {
        rules::signer_name(&mut errors, &at, &spec.signer_name);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|seconds| *seconds < SHORTEST) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(Error::invalid(&path.child("expirationSeconds"), seconds, detail));
    }
    validate_conditions(&mut errors, conditions(object));
    let certificate = |object: &CertificateSigningRequest| object.status.as_ref().and_then(|s| s.certificate.clone());
    if let Some(new) = certificate(object).filter(|new| Some(new) != old.and_then(certificate).as_ref())
        && let Err(why) = check_certificates(&new.0)
    {
        let at = Path::new("status").child("certificate");
        errors.push(Error::invalid(&at, "<certificate data>", &why));
    }
    errors
}

/// Everything wrong with changing `old` into `new`.
pub(super) fn validate_update(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    allowed: Allowed,
) -> Errors {
    let mut errors = validate(new, Some(old));
    let path = Path::new("status").child("conditions");
    let of = |object: &CertificateSigningRequest, kind: &str| -> Vec<CertificateSigningRequestCondition> {
        conditions(object).iter().filter(|c| c.type_ == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        let (new, old) = (of(new, kind), of(old, kind));
        let may_decide = allowed == Allowed::Decision || kind == "Failed";
        if new.len() < old.len() {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            errors.push(Error::forbidden(&path, &detail));
        } else if !may_decide && new.len() > old.len() {
            errors.push(Error::forbidden(&path, &format!("updates may not add a condition of type {kind:?}")));
        } else if !may_decide && new != old {
            errors.push(Error::forbidden(&path, &format!("updates may not modify a condition of type {kind:?}")));
        }
    }
    let certificate = |object: &CertificateSigningRequest| object.status.as_ref().and_then(|s| s.certificate.clone());
    if certificate(new) != certificate(old) {
        let at = Path::new("status").child("certificate");
        if allowed != Allowed::Certificate {
            errors.push(Error::forbidden(&at, "updates may not set certificate content"));
        } else if super::is_issued(old) {
            errors.push(Error::forbidden(&at, "updates may not modify existing certificate content"));
        }
    }
    errors
}
