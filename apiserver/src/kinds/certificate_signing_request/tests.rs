//! Signing requests: faults, who may change what, and rows.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::CertificateSigningRequests;
use crate::{
    kind::{Context, Strategy},
    kinds::testing::{created, faults, lines, merged, now, row},
    user::User,
};

fn pem() -> String {
    CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn base() -> Value {
    let spec = json!({
        "request": STANDARD.encode(pem()), "signerName": "example.com/signer", "usages": ["client auth"],
        "username": "somebody-else",
    });
    json!({"metadata": {"name": "c"}, "spec": spec, "status": {"conditions": [{"type": "Approved", "status": "True"}]}})
}

#[test]
fn faults_are_named() {
    let spec = |spec: Value| json!({"spec": spec});
    let patches = [
        spec(json!({"request": STANDARD.encode("x"), "usages": null, "expirationSeconds": 10})),
        spec(json!({"usages": ["client auth", "client auth", "x"]})),
        spec(json!({"signerName": ""})),
        spec(json!({"signerName": "x"})),
        spec(json!({"signerName": "com/x"})),
        spec(json!({"signerName": "a.b/_"})),
        spec(json!({"signerName": "kubernetes.io/legacy-unknown"})),
    ];
    let text = faults(&CertificateSigningRequests, &base(), &patches);
    for needle in [
        "spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST",
        "spec.usages: Required value",
        "spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 600 seconds (10 minutes)",
        "spec.usages[1]: Duplicate value: \"client auth\"",
        "spec.usages[2]: Unsupported value: \"x\"",
        "spec.signerName: Required value",
        "spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path",
        "spec.signerName: Invalid value: \"com\": should be a domain with at least two segments",
        "spec.signerName: Invalid value: \"_\": validating label \"_\":",
        "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed",
    ] {
        assert!(text.contains(needle), "{needle}\n{text}");
    }
}

#[test]
fn the_requester_is_who_sent_it() {
    let object = created(&CertificateSigningRequests, &base());
    assert_eq!(object.spec.username.as_deref(), Some("alice"));
    assert_eq!(object.status.unwrap().conditions, None);
}

/// What each of the three ways to update says to a status.
fn told(status: &Value) -> [String; 3] {
    let (strategy, user) = (CertificateSigningRequests, User::new("bob", &[]));
    let context = Context { user: &user, now: now() };
    let old = created(&strategy, &base());
    let new = || -> CertificateSigningRequest {
        let json = merged(&serde_json::to_value(&old).unwrap(), &json!({"status": status}));
        serde_json::from_value(json).unwrap()
    };
    let (mut main, mut by_status, mut approval) = (new(), new(), new());
    strategy.prepare_update(&mut main, &old, &context);
    strategy.prepare_status(&mut by_status, &old, &context);
    strategy.prepare_approval(&mut approval, &old, &context);
    [
        lines(&strategy.validate_update(&main, &old)),
        lines(&strategy.validate_status(&by_status, &old)),
        lines(&strategy.validate_approval(&approval, &old)),
    ]
}

#[test]
fn approval_decides_and_status_does_not() {
    let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let [main, status, approval] = told(&approved);
    assert_eq!((main.as_str(), approval.as_str()), ("", ""), "the object's own update keeps the status");
    assert!(status.contains("status.conditions: Forbidden: updates may not add a condition of type \"Approved\""));
    let both = json!({"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "False"}]});
    let [_, _, approval] = told(&both);
    assert!(approval.contains("Approved and Denied conditions are mutually exclusive"), "{approval}");
    assert!(approval.contains("status.conditions[1].status: Unsupported value: \"False\""), "{approval}");
}

#[test]
fn status_hands_out_certificates_and_nothing_else() {
    let [_, status, approval] = told(&json!({"certificate": STANDARD.encode("x")}));
    assert!(status.contains("must contain at least one CERTIFICATE PEM block"), "{status}");
    assert_eq!(approval, "", "an approval keeps the certificate that is there");
}

#[test]
fn a_row_tells_the_state() {
    let shown = json!({
        "metadata": {"name": "c"},
        "spec": {"request": "", "signerName": "a.b/c", "username": "u", "expirationSeconds": 3600},
        "status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="},
    });
    assert_eq!(row(&CertificateSigningRequests, &shown), "c | <unknown> | a.b/c | u | 60m | Approved,Issued");
    let pending = json!({"metadata": {"name": "c"}, "spec": {"request": "", "signerName": "a.b/c"}});
    assert_eq!(row(&CertificateSigningRequests, &pending), "c | <unknown> | a.b/c |  | <none> | Pending");
}
