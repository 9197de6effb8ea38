//! Certificates on request: approved by somebody, signed by the server.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use coracle_apiserver::user::User;

use crate::harness::Cluster;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn request(name: &str, usages: &[&str]) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "jane");
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let spec = json!({"request": STANDARD.encode(pem), "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": usages, "expirationSeconds": 3600});
    json!({"metadata": {"name": name}, "spec": spec})
}

/// Waits, by watch, for the request to have been handled, and gives its status.
async fn handled(c: &Cluster, name: &str) -> Value {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    let uri = format!("{REQUESTS}?watch=1&fieldSelector=metadata.name%3D{name}");
    let request = http::Request::builder().uri(uri).body(axum::body::Body::empty()).unwrap();
    let mut body = c.service().oneshot(request).await.unwrap().into_body();
    let mut text = Vec::new();
    loop {
        let frame = body.frame().await.unwrap().unwrap();
        text.extend_from_slice(frame.data_ref().unwrap());
        for line in text.split(|byte| *byte == b'\n') {
            let Ok(event) = serde_json::from_slice::<Value>(line) else { continue };
            let status = &event["object"]["status"];
            let is_failed =
                status["conditions"].as_array().is_some_and(|all| all.iter().any(|c| c["type"] == "Failed"));
            if status["certificate"].is_string() || is_failed {
                return status.clone();
            }
        }
    }
}

async fn approve(c: &Cluster, name: &str) {
    let condition = json!({"type": "Approved", "status": "True", "reason": "Test", "message": "by a test"});
    let approval = format!("{REQUESTS}/{name}/approval");
    let answer = c.merge(&approval, &json!({"status": {"conditions": [condition]}})).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
}

#[tokio::test]
async fn an_approved_request_gets_a_certificate_of_the_clusters_authority() {
    let c = Cluster::start().await;
    let created = c.post(REQUESTS, &request("jane", &["client auth"])).await;
    assert_eq!((created.code, &created.body["spec"]["username"]), (201, &json!("admin")), "{}", created.body);
    let forbidden = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    let main = c.merge(&format!("{REQUESTS}/jane"), &forbidden).await;
    assert_eq!(main.body["status"], json!({}), "only /approval approves");
    approve(&c, "jane").await;
    let status = handled(&c, "jane").await;
    let pem = STANDARD.decode(status["certificate"].as_str().unwrap()).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let certificate = block.parse_x509().unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=jane");
    let authority = c.server.pki().authority().certificate().to_vec();
    let (_, authority) = x509_parser::parse_x509_certificate(&authority).unwrap();
    assert!(certificate.verify_signature(Some(authority.public_key())).is_ok());
    let life = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
    assert_eq!(life, 3600 + 150, "an hour, and a little back for clocks that are behind");
    c.stop().await;
}

#[tokio::test]
async fn a_request_for_more_than_the_signer_signs_fails() {
    let c = Cluster::start().await;
    c.post(REQUESTS, &request("both", &["client auth", "server auth"])).await;
    approve(&c, "both").await;
    let status = handled(&c, "both").await;
    let failed = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Failed").unwrap().clone();
    assert_eq!(failed["reason"], "SignerValidationFailure");
    assert_eq!(failed["message"], "invalid usages: [client auth server auth]");
    c.stop().await;
}

/// A PATCH by somebody who may change requests, and for signers no more than what the rule says.
async fn patched_by(c: &Cluster, path: &str, patch: &Value) -> (u16, String) {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    let service = c.server.service(User::new("bob", &["system:authenticated"]));
    let request = http::Request::builder().method("PATCH").uri(path);
    let request = request.header(http::header::CONTENT_TYPE, "application/merge-patch+json");
    let response = service.oneshot(request.body(axum::body::Body::from(patch.to_string())).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    (code, body["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn requests_are_approved_and_signed_by_who_may_for_their_signer() {
    let c = Cluster::start().await;
    let rules = json!([
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests", "certificatesigningrequests/approval",
         "certificatesigningrequests/status"], "verbs": ["get", "patch"]},
        {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["example.com/*"], "verbs": ["approve"]},
    ]);
    let roles = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "approver"}, "rules": rules});
    assert_eq!(c.post(&format!("{roles}/clusterroles"), &role).await.code, 201);
    let binding = json!({"metadata": {"name": "approver"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "approver"}});
    assert_eq!(c.post(&format!("{roles}/clusterrolebindings"), &binding).await.code, 201);
    let mut own = request("own", &["client auth"]);
    own["spec"]["signerName"] = "example.com/seal".into();
    for made in [request("jane", &["client auth"]), own] {
        assert_eq!(c.post(REQUESTS, &made).await.code, 201);
    }
    let approved =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}});
    let refusal = |name: &str, what: &str, signer: &str| {
        let why = format!("user not permitted to {what} requests with signerName \"{signer}\"");
        (403, format!("certificatesigningrequests.certificates.k8s.io \"{name}\" is forbidden: {why}"))
    };
    let jane = patched_by(&c, &format!("{REQUESTS}/jane/approval"), &approved).await;
    assert_eq!(jane, refusal("jane", "approve", "kubernetes.io/kube-apiserver-client"));
    assert_eq!(patched_by(&c, &format!("{REQUESTS}/own/approval"), &approved).await.0, 200);
    let failed =
        json!({"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "r", "message": "m"}]}});
    let jane = patched_by(&c, &format!("{REQUESTS}/jane/status"), &failed).await;
    assert_eq!(jane, refusal("jane", "sign", "kubernetes.io/kube-apiserver-client"));
    c.stop().await;
}

#[tokio::test]
async fn nobody_asks_for_a_certificate_of_the_superusers() {
    let c = Cluster::start().await;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Nor for one of the servers themselves, which opens the store.
    for group in ["system:masters", "system:coracle:members", "system:coracle:witnesses"] {
        let mut params = params.clone();
        params.distinguished_name.push(DnType::OrganizationName, group);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let mut asked = request("root", &["client auth"]);
        asked["spec"]["request"] = STANDARD.encode(pem).into();
        let refused = c.post(REQUESTS, &asked).await;
        let why = format!(
            "certificatesigningrequests.certificates.k8s.io \"root\" is forbidden: use of \
             kubernetes.io/kube-apiserver-client signer with {group} group is not allowed"
        );
        assert_eq!(refused.refusal(), (403, "Forbidden", why.as_str()));
    }
    c.stop().await;
}
