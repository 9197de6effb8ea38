//! Who approves or signs a certificate request may do so for its signer, and nobody asks for the superuser's group.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{Operation, Write};
use crate::{
    authz::{Attributes, Decision, MASTERS},
    ops::AnyObject,
    peers::GROUPS,
    pki::Requested,
    status_of::Result,
};

const CLIENTS: &str = "kubernetes.io/kube-apiserver-client";

/// Whether the user may `verb` for the signer: named whole, or by its domain.
fn may(write: &Write<'_>, verb: &str, signer: &str) -> bool {
    let Some(authorizer) = write.registry.authorizer() else { return false };
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].into_iter().any(|name| {
        let asked =
            Attributes { group: "certificates.k8s.io", resource: "signers", name, ..Attributes::new(write.user, verb) };
        authorizer.decide(&asked) == Decision::Allow
    })
}

pub(super) fn check(write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<()> {
    let request = |object: &'_ dyn AnyObject| object.as_any().downcast_ref::<CertificateSigningRequest>().cloned();
    let Some(new) = object.and_then(request) else { return Ok(()) };
    let old = write.old.and_then(request);
    match (write.operation, write.subresource, old) {
        (Operation::Create, "", _) => check_subject(write, &new),
        (Operation::Update, "approval", Some(old)) if !may(write, "approve", &old.spec.signer_name) => {
            let why = format!("user not permitted to approve requests with signerName {:?}", old.spec.signer_name);
            Err(write.forbidden(&why))
        }
        (Operation::Update, "status", Some(old)) => {
            let signed = |r: &CertificateSigningRequest| {
                let status = r.status.clone().unwrap_or_default();
                (status.certificate, status.conditions.unwrap_or_default())
            };
            if signed(&new) == signed(&old) || may(write, "sign", &old.spec.signer_name) {
                return Ok(());
            }
            let why = format!("user not permitted to sign requests with signerName {:?}", old.spec.signer_name);
            Err(write.forbidden(&why))
        }
        _ => Ok(()),
    }
}

fn check_subject(write: &Write<'_>, new: &CertificateSigningRequest) -> Result<()> {
    if new.spec.signer_name != CLIENTS {
        return Ok(());
    }
    let requested = Requested::read(&new.spec.request.0);
    let requested = requested.map_err(|why| write.forbidden(&format!("failed to parse CSR: {why}")))?;
    if requested.organizations.iter().any(|group| group == MASTERS) {
        let why = format!("use of {CLIENTS} signer with system:masters group is not allowed");
        return Err(write.forbidden(&why));
    }
    if let Some(group) = GROUPS.into_iter().find(|group| requested.organizations.iter().any(|asked| asked == group)) {
        let why = format!("use of {CLIENTS} signer with {group} group is not allowed");
        return Err(write.forbidden(&why));
    }
    Ok(())
}
