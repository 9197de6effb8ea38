//! Certificate signing requests: who wants a certificate from whom, whether it is granted, and the certificate.
//!
//! The requester's identity is the server's to write. `/approval` decides, `/status` hands out the certificate; each
//! may do only its own.

mod validation;

use jiff::Timestamp;
use k8s_openapi::{
    api::certificates::v1::{
        CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use self::validation::Allowed;
use super::{
    blank::{drop_blank, list},
    cells,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age, human_duration};
use coracle_proto::{
    field::Errors,
    name::{NameRule, path_segment_rule},
    resource::Resource,
};

/// The strategy of `certificatesigningrequests.certificates.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateSigningRequests;

const COLUMNS: &[Column] = &[
    NAME,
    AGE,
    cells::column("SignerName", "signerName indicates the requested signer, and is a qualified name."),
    cells::column("Requestor", "The user that created the request."),
    cells::column("RequestedDuration", "The requested duration of validity of the issued certificate."),
    cells::column(
        "Condition",
        "Conditions applied to the request: Approved, Denied, Failed, and whether it is issued.",
    ),
];

/// The conditions of a request.
#[must_use]
pub fn conditions(object: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    object.status.as_ref().map_or(&[][..], |status| list(&status.conditions))
}

/// Whether the request has a condition of this type.
#[must_use]
pub fn is(object: &CertificateSigningRequest, condition: &str) -> bool {
    conditions(object).iter().any(|c| c.type_ == condition)
}

/// Whether the certificate is there.
#[must_use]
pub fn is_issued(object: &CertificateSigningRequest) -> bool {
    object.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|certificate| !certificate.0.is_empty())
}

fn stamp(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest, now: Timestamp) {
    let before = conditions(old);
    for condition in new.status.get_or_insert_default().conditions.iter_mut().flatten() {
        condition.last_update_time.get_or_insert(Time(now));
        if condition.last_transition_time.is_none() {
            let same = before.iter().find(|b| b.type_ == condition.type_ && b.status == condition.status);
            let since = same.and_then(|before| before.last_transition_time.clone());
            condition.last_transition_time = Some(since.unwrap_or(Time(now)));
        }
    }
}

/// Decisions are `/approval`'s: where there are as many as before, they are those of before.
fn keep_decisions(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    for decision in ["Approved", "Denied"] {
        let before: Vec<_> = conditions(old).iter().filter(|c| c.type_ == decision).collect();
        let now = new.status.get_or_insert_default().conditions.iter_mut().flatten();
        let now: Vec<_> = now.filter(|c| c.type_ == decision).collect();
        if now.len() == before.len() {
            for (now, before) in now.into_iter().zip(before) {
                now.clone_from(before);
            }
        }
    }
}

fn state(object: &CertificateSigningRequest) -> String {
    let mut state = if is(object, "Denied") {
        "Denied"
    } else if is(object, "Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    for (is_so, word) in [(is(object, "Failed"), ",Failed"), (is_issued(object), ",Issued")] {
        if is_so {
            state.push_str(word);
        }
    }
    state
}

impl Strategy for CertificateSigningRequests {
    type Object = CertificateSigningRequest;

    fn resource(&self) -> &'static Resource {
        super::row_of("certificates.k8s.io", "certificatesigningrequests")
    }

    /// Node bootstrappers put all sorts of characters into the name.
    fn name_rule(&self) -> NameRule {
        path_segment_rule
    }

    fn default(&self, object: &mut CertificateSigningRequest) {
        drop_blank(&mut object.spec.usages);
        let status = object.status.get_or_insert_default();
        drop_blank(&mut status.conditions);
        if status.certificate.as_ref().is_some_and(|certificate| certificate.0.is_empty()) {
            status.certificate = None;
        }
    }

    fn prepare_create(&self, object: &mut CertificateSigningRequest, context: &Context<'_>) {
        let (spec, user) = (&mut object.spec, context.user);
        spec.username = (!user.name.is_empty()).then(|| user.name.clone());
        spec.uid = (!user.uid.is_empty()).then(|| user.uid.clone());
        spec.groups = (!user.groups.is_empty()).then(|| user.groups.clone());
        spec.extra = (!user.extra.is_empty()).then(|| user.extra.clone());
        object.status = Some(CertificateSigningRequestStatus::default());
    }

    fn prepare_update(&self, new: &mut CertificateSigningRequest, old: &CertificateSigningRequest, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_status(
        &self,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
        context: &Context<'_>,
    ) {
        new.spec.clone_from(&old.spec);
        keep_decisions(new, old);
        stamp(new, old, context.now);
    }

    fn prepare_approval(
        &self,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
        context: &Context<'_>,
    ) {
        stamp(new, old, context.now);
        let decided = new.status.take().and_then(|status| status.conditions);
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
        new.status.get_or_insert_default().conditions = decided;
    }

    fn validate(&self, object: &CertificateSigningRequest) -> Errors {
        validation::validate(object, None)
    }

    fn validate_update(&self, new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> Errors {
        validation::validate_update(new, old, Allowed::Neither)
    }

    fn validate_status(&self, new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> Errors {
        validation::validate_update(new, old, Allowed::Certificate)
    }

    fn validate_approval(&self, new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> Errors {
        validation::validate_update(new, old, Allowed::Decision)
    }

    fn fields(&self, object: &CertificateSigningRequest) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", object.spec.signer_name.clone())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &CertificateSigningRequest, now: Timestamp) -> Vec<serde_json::Value> {
        let duration = object.spec.expiration_seconds.map(|seconds| human_duration(seconds.into()));
        vec![
            cells::name(&object.metadata),
            age(&object.metadata, now).into(),
            cells::or_none(&object.spec.signer_name).into(),
            object.spec.username.as_deref().unwrap_or_default().into(),
            duration.as_deref().unwrap_or(cells::NONE).into(),
            state(object).into(),
        ]
    }
}

#[cfg(test)]
mod tests;
