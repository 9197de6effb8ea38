//! Tokens of another issuer, whose keys the server fetches.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coracle_apiserver::{
    authn::oidc::config::{Anonymous, Config as Authentication},
    config::Config,
};
use http::Request;
use http_body_util::BodyExt as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::{
    harness::Cluster,
    webhook_server::{Hook, Reply},
};

struct Key(rcgen::KeyPair, String);

impl Key {
    fn new(kid: &str) -> Self {
        Self(rcgen::KeyPair::generate().unwrap(), kid.to_owned())
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key_raw();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "kid": self.1, "x": x, "y": y})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.1.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&self.0.serialize_der())).unwrap()
    }
}

/// An issuer whose keys a test can change.
struct Issuer {
    hook: Hook,
    keys: Arc<Mutex<Vec<Value>>>,
    /// What is answered at `/groups`.
    groups: Arc<Mutex<(u16, String)>>,
}

impl Issuer {
    async fn start(key: &Key) -> Self {
        let keys = Arc::new(Mutex::new(vec![key.jwk()]));
        let (shown, root) = (Arc::clone(&keys), Arc::new(Mutex::new(String::new())));
        let (own, groups) = (Arc::clone(&root), Arc::new(Mutex::new((404, String::new()))));
        let told = Arc::clone(&groups);
        let hook = Hook::start(move |asked| {
            let root = own.lock().unwrap().clone();
            let document = match asked["path"].as_str().unwrap_or_default() {
                "/.well-known/openid-configuration" => json!({"issuer": root, "jwks_uri": format!("{root}/keys")}),
                "/keys" => json!({"keys": *shown.lock().unwrap()}),
                "/groups" => {
                    let (code, body) = told.lock().unwrap().clone();
                    return Reply::Raw(code, body);
                }
                _ => return Reply::Raw(404, String::new()),
            };
            Reply::Raw(200, document.to_string())
        })
        .await;
        *root.lock().unwrap() = hook.root();
        Self { hook, keys, groups }
    }

    fn fetches(&self) -> usize {
        self.hook.seen().iter().filter(|asked| asked["path"] == "/keys").count()
    }

    fn authentication(&self) -> Authentication {
        Authentication::read(&self.file()).unwrap()
    }

    fn file(&self) -> String {
        let pem = self.hook.pem().trim_end().replace('\n', "\n      ");
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    \
             url: {}\n    audiences: [ours]\n    certificateAuthority: |\n      {pem}\n  claimMappings:\n    \
             username: {{claim: sub, prefix: 'x:'}}\n    groups: {{expression: 'claims.?roles.orValue([])'}}\n",
            self.hook.root()
        )
    }

    fn token(&self, key: &Key, sub: &str) -> String {
        let now = jiff::Timestamp::now().as_second();
        key.sign(&json!({"iss": self.hook.root(), "aud": "ours", "sub": sub, "exp": now + 600, "roles": ["crew"]}))
    }
}

impl Issuer {
    /// The same with groups by the claim's name.
    fn of_named_groups(&self) -> Authentication {
        let named = "groups: {claim: roles, prefix: 'g:'}";
        Authentication::read(&self.file().replace("groups: {expression: 'claims.?roles.orValue([])'}", named)).unwrap()
    }

    /// What was asked at `/groups`.
    fn asked_for_groups(&self) -> Vec<Value> {
        self.hook.seen().into_iter().filter(|asked| asked["path"] == "/groups").collect()
    }

    /// A token that says its groups are to be had at a place.
    fn token_without_groups(&self, key: &Key, sub: &str, source: &Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        key.sign(&json!({
            "iss": self.hook.root(), "aud": "ours", "sub": sub, "exp": now + 600,
            "_claim_names": {"roles": "a"}, "_claim_sources": {"a": source},
        }))
    }
}

/// What a TokenReview says of a token.
async fn review(c: &Cluster, token: &str, audiences: &[&str]) -> Value {
    let body = json!({"spec": {"token": token, "audiences": audiences}});
    let answer = c.post("/apis/authentication.k8s.io/v1/tokenreviews", &body).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer.body["status"].clone()
}

#[tokio::test]
async fn an_issuers_tokens_are_taken_and_its_keys_fetched_when_they_are_needed_and_not_more_often() {
    let (first, second, stranger) = (Key::new("k1"), Key::new("k2"), Key::new("k9"));
    let issuer = Issuer::start(&first).await;
    let authentication = issuer.authentication();
    let c = Cluster::start_with(|config| Config { authentication, ..config }).await;
    assert_eq!(issuer.fetches(), 0, "nobody needed them yet");
    let token = issuer.token(&first, "jane");
    let status = review(&c, &token, &[]).await;
    assert_eq!(status["user"]["username"], "x:jane", "{status}");
    assert_eq!(status["user"]["groups"], json!(["crew", "system:authenticated"]));
    assert_eq!(status["audiences"], json!(["https://kubernetes.default.svc.cluster.local"]));
    assert_ne!(review(&c, &token, &["vault"]).await["authenticated"], true, "it is for this server alone");
    for n in 0..20 {
        assert_eq!(review(&c, &issuer.token(&first, &format!("u{n}")), &[]).await["authenticated"], true);
    }
    assert_eq!(issuer.fetches(), 1);
    // The issuer has a new key; but who sends nonsense does not decide how often it is asked.
    issuer.keys.lock().unwrap().push(second.jwk());
    for _ in 0..20 {
        let status = review(&c, &issuer.token(&stranger, "mallory"), &[]).await;
        assert_ne!(status["authenticated"], true, "{status}");
        assert_eq!(status["error"], "invalid bearer token");
    }
    assert_eq!(issuer.fetches(), 1, "it was asked a moment ago");
    c.stop().await;
}

#[tokio::test]
async fn a_new_key_is_known_with_the_first_token_it_signed() {
    let (first, second) = (Key::new("k1"), Key::new("k2"));
    let issuer = Issuer::start(&first).await;
    let authentication = issuer.authentication();
    let c = Cluster::start_with(|config| Config { authentication, ..config }).await;
    issuer.keys.lock().unwrap().push(second.jwk());
    assert_eq!(review(&c, &issuer.token(&second, "jane"), &[]).await["authenticated"], true);
    assert_eq!(review(&c, &issuer.token(&first, "jane"), &[]).await["authenticated"], true);
    assert_eq!(issuer.fetches(), 1);
    c.stop().await;
}

#[tokio::test]
async fn who_shows_nothing_is_let_in_where_the_configuration_says() {
    let places = vec!["/livez".to_owned(), "/api/v1/pods".to_owned()];
    for (anonymous, expected) in [
        (Anonymous::Open, [200, 401, 401, 401]),
        (Anonymous::Everywhere, [200, 403, 403, 403]),
        (Anonymous::At(places), [200, 403, 401, 401]),
        (Anonymous::Nowhere, [401, 401, 401, 401]),
    ] {
        let shown = format!("{anonymous:?}");
        let authentication = Authentication { anonymous, ..Authentication::default() };
        let c = Cluster::start_with(|config| Config { authentication, ..config }).await;
        let mut codes = Vec::new();
        for path in ["/livez", "/api/v1/pods", "/api/v1/nodes", "/metrics"] {
            codes.push(c.stranger(Request::get(path).body(Body::empty()).unwrap()).await.status().as_u16());
        }
        assert_eq!(codes, expected, "{shown}");
        c.stop().await;
    }
}

#[tokio::test]
async fn a_bearer_of_such_a_token_is_who_it_says_over_the_socket() {
    let key = Key::new("k1");
    let issuer = Issuer::start(&key).await;
    let authentication = issuer.authentication();
    let c = Cluster::start_with(|config| Config { authentication, ..config }).await;
    let ask = |token: String| {
        let request =
            Request::get("/api/v1/namespaces/default/pods").header("authorization", format!("Bearer {token}"));
        c.stranger(request.body(Body::empty()).unwrap())
    };
    let refused = ask(issuer.token(&key, "jane")).await;
    assert_eq!(refused.status(), 403);
    let status: Value = serde_json::from_slice(&refused.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert!(status["message"].as_str().unwrap().contains("User \"x:jane\" cannot list"), "{status}");
    let wrong = ask(issuer.token(&Key::new("k1"), "jane")).await;
    assert_eq!(wrong.status(), 401);
    c.stop().await;
}

#[tokio::test]
async fn groups_that_are_elsewhere_are_asked_for_and_believed_only_when_they_are_signed() {
    let key = Key::new("k1");
    let issuer = Issuer::start(&key).await;
    let authentication = issuer.of_named_groups();
    let c = Cluster::start_with(|config| Config { authentication, ..config }).await;
    let (root, now) = (issuer.hook.root(), jiff::Timestamp::now().as_second());
    let there = json!({"endpoint": format!("{root}/groups"), "access_token": "s3cret"});
    let good = json!({"iss": root, "aud": "ours", "exp": now + 600, "roles": ["crew", "many"]});
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let say = |code: u16, body: String| *issuer.groups.lock().unwrap() = (code, body);
    say(200, format!("{}\n", key.sign(&good)));
    let token = issuer.token_without_groups(&key, "jane", &there);
    for _ in 0..3 {
        let status = review(&c, &token, &[]).await;
        assert_eq!(status["user"]["groups"], json!(["g:crew", "g:many", "system:authenticated"]), "{status}");
    }
    let asked = issuer.asked_for_groups();
    assert_eq!(asked.first().unwrap()["authorization"], "Bearer s3cret");
    // Each answer that is wrong in one way makes the token worth nothing; users differ, so nothing is held of them.
    for (n, (code, body, what)) in [
        (500, key.sign(&good), "an error"),
        (302, key.sign(&good), "a redirect"),
        (200, String::new(), "nothing"),
        (200, good.to_string(), "no token"),
        (200, "x".repeat(3 << 20), "too much"),
        (200, Key::new("k1").sign(&good), "another's signature"),
        (200, key.sign(&but("aud", json!("theirs"))), "for somebody else"),
        (200, key.sign(&but("exp", json!(now - 1))), "of the past"),
        (200, key.sign(&but("iss", json!("http://127.0.0.1:1"))), "an issuer without TLS"),
        (200, key.sign(&but("iss", json!("https://127.0.0.1:1"))), "an issuer nobody is"),
        (200, key.sign(&but("roles", json!({"a": 1}))), "no groups"),
        (200, key.sign(&json!({"iss": root, "aud": "ours", "exp": now + 600})), "without them"),
    ]
    .into_iter()
    .enumerate()
    {
        say(code, body);
        let status = review(&c, &issuer.token_without_groups(&key, &format!("u{n}"), &there), &[]).await;
        assert_ne!(status["authenticated"], true, "{what}: {status}");
    }
    say(200, key.sign(&good));
    let plain = json!({"endpoint": format!("{}/groups", root.replace("https:", "http:"))});
    assert_ne!(review(&c, &issuer.token_without_groups(&key, "v1", &plain), &[]).await["authenticated"], true);
    // A token inside the token is passed over.
    let inside = issuer.token_without_groups(&key, "v2", &json!({"JWT": key.sign(&good)}));
    assert_eq!(review(&c, &inside, &[]).await["user"]["groups"], json!(["system:authenticated"]));
    // What is there need not be asked for.
    let before = issuer.asked_for_groups().len();
    let status = review(&c, &issuer.token(&key, "jane"), &[]).await;
    assert_eq!(status["user"]["groups"], json!(["g:crew", "system:authenticated"]));
    assert_eq!(issuer.asked_for_groups().len(), before);
    c.stop().await;
}

#[tokio::test]
async fn groups_may_be_signed_by_another_issuer_of_the_same_authority_only() {
    let (first, second) = (Key::new("k1"), Key::new("k2"));
    let (issuer, other) = (Issuer::start(&first).await, Issuer::start(&second).await);
    let now = jiff::Timestamp::now().as_second();
    let of_other = json!({"iss": other.hook.root(), "aud": "ours", "exp": now + 600, "roles": "crew"});
    *issuer.groups.lock().unwrap() = (200, second.sign(&of_other));
    let there = json!({"endpoint": format!("{}/groups", issuer.hook.root())});
    // The first issuer's authority has not signed the other's certificate; one configured with both has.
    for (is_known, bundle) in
        [(false, issuer.hook.pem().to_owned()), (true, format!("{}{}", issuer.hook.pem(), other.hook.pem()))]
    {
        let mut authentication = issuer.of_named_groups();
        bundle.clone_into(&mut authentication.issuers[0].certificate_authority);
        let c = Cluster::start_with(|config| Config { authentication, ..config }).await;
        let status = review(&c, &issuer.token_without_groups(&first, "jane", &there), &[]).await;
        assert_eq!(status["authenticated"] == true, is_known, "{status}");
        if is_known {
            assert_eq!(status["user"]["groups"], json!(["g:crew", "system:authenticated"]));
        }
        c.stop().await;
    }
    assert_eq!(other.fetches(), 1);
}

/// What `/metrics` tells of changes of the file that went well, or did not.
async fn reloads(c: &Cluster, status: &str) -> u32 {
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(c.service(), request).await.unwrap();
    let page = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap();
    let line = page.lines().find(|line| line.contains("automatic_reloads_total{") && line.contains(status)).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Waits until so many changes were seen; the file is watched, and nothing else tells that it was read.
async fn reloaded(c: &Cluster, status: &str, times: u32) {
    let seen = async {
        while reloads(c, status).await < times {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), seen).await.expect("the change is seen");
}

#[tokio::test]
async fn a_changed_file_says_whose_tokens_are_taken_and_a_wrong_one_changes_nothing() {
    let (first, second) = (Key::new("k1"), Key::new("k2"));
    let (one, other) = (Issuer::start(&first).await, Issuer::start(&second).await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authentication.yaml");
    std::fs::write(&file, one.file()).unwrap();
    let authentication = Authentication { file: Some(file.clone()), ..one.authentication() };
    let c = Cluster::start_with(|config| Config { authentication, ..config }).await;
    let is_taken = async |token: &str| review(&c, token, &[]).await["authenticated"] == true;
    assert!(is_taken(&one.token(&first, "jane")).await && !is_taken(&other.token(&second, "jane")).await);
    std::fs::write(&file, other.file()).unwrap();
    reloaded(&c, "success", 1).await;
    assert!(!is_taken(&one.token(&first, "jane")).await && is_taken(&other.token(&second, "jane")).await);
    for wrong in ["kind: [", &format!("{}anonymous: {{enabled: true}}\n", one.file())] {
        let before = reloads(&c, "failure").await;
        std::fs::write(dir.path().join("new"), wrong).unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        reloaded(&c, "failure", before + 1).await;
        assert!(is_taken(&other.token(&second, "jane")).await, "what was taken before still is");
    }
    assert_eq!(reloads(&c, "success").await, 1);
    c.stop().await;
}
