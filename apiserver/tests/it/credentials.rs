//! Tokens, questions about permission, and certificates for nodes, as clients ask for them.

use axum::body::Body;
use coracle_apiserver::user::User;
use coracle_proto::join_token::NODE_GROUP;
use http::{Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::{Answer, Cluster};

/// A POST of somebody else than the administrator.
async fn post_as(cluster: &Cluster, user: User, path: &str, body: &Value) -> Answer {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response = cluster.server.service(user).oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { code, body: serde_json::from_slice(&body).unwrap_or(Value::Null), warnings: Vec::new() }
}

fn token_request(spec: &Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
}

/// What a TokenReview says of a token.
async fn review(cluster: &Cluster, token: &str) -> Value {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let answer = cluster.post("/apis/authentication.k8s.io/v1/tokenreviews", &body).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer.body["status"].clone()
}

#[tokio::test]
async fn a_requested_token_is_its_accounts_until_what_it_is_bound_to_is_gone() {
    let cluster = Cluster::start().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let made = cluster.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bond"}});
    assert_eq!(cluster.post("/api/v1/namespaces/default/secrets", &secret).await.code, 201);
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let bound =
        json!({"expirationSeconds": 600, "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "bond"}});
    let answer = cluster.post(path, &token_request(&bound)).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    let token = answer.body["status"]["token"].as_str().unwrap().to_owned();
    assert!(answer.body["status"]["expirationTimestamp"].is_string(), "{}", answer.body);

    let status = review(&cluster, &token).await;
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(status["user"]["uid"], made.body["metadata"]["uid"]);
    let groups = status["user"]["groups"].as_array().unwrap();
    assert!(groups.contains(&json!("system:serviceaccounts:default")), "{groups:?}");

    // Another letter in the signature, another server's key, and no token at all.
    let mut forged = token.clone().into_bytes();
    let at = forged.len() - 10;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let other = Cluster::start().await;
    assert_eq!(other.post("/api/v1/namespaces/default/serviceaccounts", &account).await.code, 201);
    let foreign =
        other.post(path, &token_request(&json!({}))).await.body["status"]["token"].as_str().unwrap().to_owned();
    other.stop().await;
    for wrong in [std::str::from_utf8(&forged).unwrap(), &foreign, "nonsense"] {
        let status = review(&cluster, wrong).await;
        assert_ne!(status["authenticated"], true, "{wrong}: {status}");
        assert_eq!(status["error"], "invalid bearer token");
    }

    assert_eq!(cluster.delete("/api/v1/namespaces/default/secrets/bond").await.code, 200);
    assert_ne!(review(&cluster, &token).await["authenticated"], true, "what it was bound to is gone");
    cluster.stop().await;
}

#[tokio::test]
async fn a_token_request_that_cannot_be_granted_says_why() {
    let cluster = Cluster::start().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    assert_eq!(cluster.post("/api/v1/namespaces/default/serviceaccounts", &account).await.code, 201);
    let path = |name: &str| format!("/api/v1/namespaces/default/serviceaccounts/{name}/token");
    let bind = |kind: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": "nobody"}});
    for (name, spec, code, words) in [
        ("nobody", json!({}), 404, "serviceaccounts \"nobody\" not found"),
        ("robot", json!({"expirationSeconds": 599}), 422, "may not specify a duration less than 10 minutes"),
        ("robot", bind("Pod"), 404, "pods \"nobody\" not found"),
        ("robot", bind("Service"), 400, "cannot bind token to object of type /v1, Kind=Service"),
    ] {
        let answer = cluster.post(&path(name), &token_request(&spec)).await;
        let (got, _, message) = answer.refusal();
        assert!(got == code && message.contains(words), "{name} {spec}: {got} {message}");
    }
    let nobody = post_as(&cluster, User::new("alice", &[]), &path("robot"), &token_request(&json!({}))).await;
    assert_eq!(nobody.code, 403, "{}", nobody.body);
    cluster.stop().await;
}

#[tokio::test]
async fn reviews_answer_what_the_rules_say() {
    let cluster = Cluster::start().await;
    let group = "/apis/authorization.k8s.io/v1";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "alice"}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    assert_eq!(cluster.post(&format!("{rbac}/roles"), &role).await.code, 201);
    let bound = cluster.post(&format!("{rbac}/rolebindings"), &binding).await;
    assert_eq!(bound.code, 201, "{}", bound.body);
    let about = |verb: &str, namespace: &str| json!({"verb": verb, "resource": "pods", "namespace": namespace});
    let ask = async |verb: &str, namespace: &str| {
        let spec = json!({"user": "alice", "resourceAttributes": about(verb, namespace)});
        let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let answer = cluster.post(&format!("{group}/subjectaccessreviews"), &body).await;
        assert_eq!(answer.code, 201, "{}", answer.body);
        answer.body["status"]["allowed"].clone()
    };
    // The rules are read from what the store tells, moments after the write was answered.
    let known = async {
        while ask("get", "default").await != json!(true) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), known).await.expect("the binding is known");
    assert_eq!((ask("delete", "default").await, ask("get", "kube-system").await), (json!(false), json!(false)));

    let own = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": about("get", "default")}});
    let path = format!("{group}/selfsubjectaccessreviews");
    let user = |name: &str| User::new(name, &["system:authenticated"]);
    for (name, allowed) in [("alice", true), ("bob", false)] {
        let answer = post_as(&cluster, user(name), &path, &own).await;
        assert_eq!(answer.body["status"]["allowed"], allowed, "{name}: {}", answer.body);
    }
    let who = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = post_as(&cluster, user("bob"), "/apis/authentication.k8s.io/v1/selfsubjectreviews", &who).await;
    assert_eq!(answer.body["status"]["userInfo"]["username"], "bob", "{}", answer.body);

    // Whom the question is about must be said, and one may ask only who may.
    let nothing =
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": "alice"}});
    let answer = cluster.post(&format!("{group}/subjectaccessreviews"), &nothing).await;
    assert!(
        answer.code == 422 && answer.refusal().2.contains("exactly one of nonResourceAttributes"),
        "{}",
        answer.body
    );
    let empty = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {}});
    let told = cluster.post(&format!("{group}/subjectaccessreviews"), &empty).await.refusal().2.to_owned();
    assert!(
        told.contains("exactly one of") && told.contains("spec.user: Invalid value: \"\": at least one of"),
        "{told}"
    );
    let answer = post_as(&cluster, user("bob"), &format!("{group}/subjectaccessreviews"), &nothing).await;
    assert_eq!(answer.code, 403, "{}", answer.body);
    cluster.stop().await;
}

/// A node's keys, and its request to join with them.
struct Keys {
    client: rcgen::KeyPair,
    server: rcgen::KeyPair,
}

impl Keys {
    fn new() -> Self {
        Self { client: rcgen::KeyPair::generate().unwrap(), server: rcgen::KeyPair::generate().unwrap() }
    }

    fn request(&self, node: &str) -> Value {
        let request = |key: &rcgen::KeyPair, names: Vec<String>| {
            rcgen::CertificateParams::new(names).unwrap().serialize_request(key).unwrap().pem().unwrap()
        };
        let names = vec!["kubernetes".to_owned(), "192.0.2.7".to_owned(), "10.43.0.1".to_owned()];
        json!({"node": node, "clientRequest": request(&self.client, Vec::new()),
            "serverRequest": request(&self.server, names)})
    }
}

/// Name, organization and other names of a certificate.
fn said(pem: &str) -> (String, String, Vec<String>) {
    use x509_parser::extensions::GeneralName;
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let subject = certificate.subject();
    let names = certificate.subject_alternative_name().unwrap().map_or_else(Vec::new, |names| {
        let text = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join("."),
            other => format!("{other:?}"),
        };
        names.value.general_names.iter().map(text).collect()
    });
    let name = subject.iter_common_name().next().unwrap().as_str().unwrap().to_owned();
    let group = subject.iter_organization().next().map_or("", |o| o.as_str().unwrap()).to_owned();
    (name, group, names)
}

const JOIN: &str = "/coracle/v1/join";

#[tokio::test]
async fn a_node_joins_renews_and_comes_back_and_nobody_takes_its_name() {
    let cluster = Cluster::start().await;
    let bearer = || User::new("system:bootstrap:abcdef", &["system:bootstrappers", NODE_GROUP, "system:authenticated"]);
    let node = |name: &str| User::new(format!("system:node:{name}"), &["system:nodes", "system:authenticated"]);
    let keys = Keys::new();
    let joined = post_as(&cluster, bearer(), JOIN, &keys.request("attic")).await;
    assert_eq!(joined.code, 200, "{}", joined.body);
    let certificate = |of: &str| said(joined.body[of].as_str().unwrap());
    assert_eq!(certificate("clientCertificate"), ("system:node:attic".into(), "system:nodes".into(), vec![]));
    let (_, _, names) = certificate("serverCertificate");
    assert_eq!(names, ["192.0.2.7", "attic"], "not the API server's names: the node could pose as it");
    assert!(joined.body["renewAfter"].as_str().unwrap() > jiff::Timestamp::now().to_string().as_str());

    // Nobody has seen it alive yet, so another key may have the name; once it renews its lease, none.
    assert_eq!(post_as(&cluster, bearer(), JOIN, &Keys::new().request("attic")).await.code, 200);
    assert_eq!(post_as(&cluster, bearer(), JOIN, &keys.request("attic")).await.code, 200);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "attic"},
        "spec": {"holderIdentity": "attic", "leaseDurationSeconds": 40, "renewTime": format!("{:.6}", jiff::Timestamp::now())}});
    let made = cluster.post("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", &lease).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let taken = post_as(&cluster, bearer(), JOIN, &Keys::new().request("attic")).await;
    assert!(
        taken.code == 409 && taken.refusal().2.contains("a live node of this name has another key"),
        "{}",
        taken.body
    );
    let again = post_as(&cluster, bearer(), JOIN, &keys.request("attic")).await;
    assert_eq!(again.code, 200, "the same key is the same node: {}", again.body);

    // The node itself gets certificates for new keys, and then the old key is a stranger's.
    let new = Keys::new();
    assert_eq!(post_as(&cluster, node("attic"), JOIN, &new.request("attic")).await.code, 200);
    assert_eq!(post_as(&cluster, bearer(), JOIN, &keys.request("attic")).await.code, 409);
    assert_eq!(post_as(&cluster, bearer(), JOIN, &new.request("attic")).await.code, 200);
    cluster.stop().await;
}

#[tokio::test]
async fn who_may_not_join_and_what_cannot_be_signed_is_refused() {
    let cluster = Cluster::start().await;
    let bearer = || User::new("system:bootstrap:abcdef", &["system:bootstrappers", NODE_GROUP, "system:authenticated"]);
    let keys = Keys::new();
    for (user, node) in [
        (User::new("alice", &["system:authenticated"]), "attic"),
        (User::new("system:bootstrap:abcdef", &["system:bootstrappers", "system:authenticated"]), "attic"),
        (User::new("system:node:cellar", &["system:nodes", "system:authenticated"]), "attic"),
        (
            User::new("system:serviceaccount:default:default", &["system:serviceaccounts", "system:authenticated"]),
            "attic",
        ),
    ] {
        let name = user.name.clone();
        let answer = post_as(&cluster, user, JOIN, &keys.request(node)).await;
        assert_eq!(answer.code, 403, "{name}: {}", answer.body);
    }
    let with = |field: &str, value: Value| {
        let mut request = keys.request("attic");
        request[field] = value;
        request
    };
    for body in [
        with("node", "Not A Name".into()),
        with("node", json!(["attic"])),
        with(
            "clientRequest",
            "-----BEGIN CERTIFICATE REQUEST-----\nnonsense\n-----END CERTIFICATE REQUEST-----\n".into(),
        ),
        with("serverRequest", "".into()),
        with("more", true.into()),
        Value::Null,
    ] {
        let answer = post_as(&cluster, bearer(), JOIN, &body).await;
        assert_eq!((answer.code, answer.refusal().1), (400, "BadRequest"), "{body}: {}", answer.body);
    }
    assert_eq!(cluster.get(JOIN).await.code, 405);
    cluster.stop().await;
}

/// What a Secret holds under a key, as text.
fn held(secret: &Value, key: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(secret["data"][key].as_str().unwrap_or_default());
    String::from_utf8(bytes.unwrap()).unwrap()
}

#[tokio::test]
async fn a_secret_for_a_token_gets_one_and_goes_with_its_account() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let secrets = "/api/v1/namespaces/default/secrets";
    let account = json!({"metadata": {"name": "robot"}});
    let made = cluster.post(accounts, &account).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let secret = json!({"metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token"});
    assert_eq!(cluster.post(secrets, &secret).await.code, 201);
    let path = format!("{secrets}/s");
    let filled = loop {
        let found = cluster.get(&path).await.body;
        if !held(&found, "token").is_empty() {
            break found;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(held(&filled, "namespace"), "default");
    assert!(held(&filled, "ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    let uid = &filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"];
    assert_eq!(*uid, made.body["metadata"]["uid"]);
    let token = held(&filled, "token");
    let status = review(&cluster, &token).await;
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot", "{status}");
    assert_eq!(status["user"]["uid"], made.body["metadata"]["uid"]);
    // Only what stands in the Secret counts.
    let other = cluster.merge(&path, &json!({"data": {"token": "eA=="}})).await;
    assert_eq!(other.code, 200, "{}", other.body);
    assert_ne!(review(&cluster, &token).await["authenticated"], true);
    assert_eq!(cluster.delete(&format!("{accounts}/robot")).await.code, 200);
    while cluster.get(&path).await.code != 404 {
        tokio::task::yield_now().await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn tokens_of_nodes_to_come_are_what_their_secrets_say() {
    let cluster = Cluster::start().await;
    let secret = |id: &str, change: Value| {
        let mut data = json!({"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:a,system:bootstrappers:b"});
        data.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token", "stringData": data})
    };
    let path = "/api/v1/namespaces/kube-system/secrets";
    for (id, change, groups) in [
        (
            "aaaaaa",
            json!({}),
            Some("system:bootstrappers system:bootstrappers:a system:bootstrappers:b system:authenticated"),
        ),
        ("bbbbbb", json!({"auth-extra-groups": ""}), Some("system:bootstrappers system:authenticated")),
        ("cccccc", json!({"usage-bootstrap-authentication": "false"}), None),
        ("dddddd", json!({"expiration": "2020-01-01T00:00:00Z"}), None),
        ("eeeeee", json!({"auth-extra-groups": "system:masters"}), None),
        ("ffffff", json!({"token-secret": "fedcba9876543210"}), None),
        ("gggggg", json!({"token-id": "zzzzzz"}), None),
    ] {
        let made = cluster.post(path, &secret(id, change.clone())).await;
        assert_eq!(made.code, 201, "{}", made.body);
        let status = review(&cluster, &format!("{id}.0123456789abcdef")).await;
        let shown = status["user"]["groups"]
            .as_array()
            .map(|groups| groups.iter().map(|group| group.as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" "));
        assert_eq!(shown.as_deref(), groups, "{id} {change}: {status}");
        if groups.is_some() {
            assert_eq!(status["user"]["username"], format!("system:bootstrap:{id}"));
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn others_can_check_the_clusters_tokens_by_its_documents() {
    let cluster = Cluster::start().await;
    let document = cluster.get("/.well-known/openid-configuration").await;
    assert_eq!(document.code, 200, "{}", document.body);
    assert_eq!(document.body["issuer"], "https://kubernetes.default.svc.cluster.local");
    assert!(document.body["jwks_uri"].as_str().unwrap().ends_with("/openid/v1/jwks"), "{}", document.body);
    let keys = cluster.get("/openid/v1/jwks").await.body;
    assert_eq!(
        cluster.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "robot"}})).await.code,
        201
    );
    let answer = cluster
        .post(
            "/api/v1/namespaces/default/serviceaccounts/robot/token",
            &token_request(&json!({"audiences": ["vault"]})),
        )
        .await;
    let token = answer.body["status"]["token"].as_str().unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).unwrap();
    let key = set.find(header.kid.as_deref().unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(header.alg);
    validation.set_audience(&["vault"]);
    validation.set_issuer(&[document.body["issuer"].as_str().unwrap()]);
    let key = jsonwebtoken::DecodingKey::from_jwk(key).unwrap();
    let decoded = jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();
    assert_eq!(decoded.claims["sub"], "system:serviceaccount:default:robot");
    // The server itself is not its audience, but who asks for that one is told so.
    assert_ne!(review(&cluster, token).await["authenticated"], true);
    let body = json!({"spec": {"token": token, "audiences": ["vault", "other"]}});
    let status = cluster.post("/apis/authentication.k8s.io/v1/tokenreviews", &body).await.body["status"].clone();
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])), "{status}");
    cluster.stop().await;
}
