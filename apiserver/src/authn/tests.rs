//! Right, wrong, expired and forged credentials over a real store.

use coracle_proto::join_token::BootstrapToken;
use coracle_store::{Config, Op, Txn};
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::pki::{self, Profile};

struct World {
    dir: tempfile::TempDir,
    store: Store,
    pki: Arc<Pki>,
    tokens: Arc<Tokens>,
    _tasks: JoinSet<()>,
}

fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn open_pki(dir: &std::path::Path) -> Arc<Pki> {
    let config = pki::Config {
        dir: dir.join("pki"),
        kubeconfigs: dir.to_owned(),
        domain: "cluster.local".to_owned(),
        service_ip: "10.43.0.1".parse().unwrap(),
        hostname: "boat".to_owned(),
        advertise: Vec::new(),
        extra_names: Vec::new(),
        server: "https://127.0.0.1:6443".to_owned(),
        lifetime: pki::LEAF_LIFETIME,
    };
    Arc::new(Pki::open(config, start()).unwrap())
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let (store, driver) = Store::open(Config::new(dir.path().join("store"))).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = driver.run(CancellationToken::new()).await;
    });
    let pki = open_pki(dir.path());
    let tokens = Arc::new(Tokens::new(pki.clone(), store.clone()));
    World { dir, store, pki, tokens, _tasks: tasks }
}

impl World {
    async fn put(&self, key: &str, value: Option<&Value>) {
        let op = match value {
            Some(value) => Op::put(key.to_owned(), value.to_string()),
            None => Op::delete(key.to_owned()),
        };
        self.store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }

    fn at(&self, time: Timestamp) -> Authenticators {
        Authenticators::new(
            &self.pki,
            self.tokens.clone(),
            self.store.clone(),
            Arc::new(move || time),
            Arc::clone(&crate::metrics::Metrics::new().clients),
        )
    }

    fn claims(&self) -> Claims {
        let reference = |name: &str, uid: &str| Some(Reference { name: name.to_owned(), uid: uid.to_owned() });
        Claims {
            aud: self.tokens.audiences().to_vec(),
            exp: start().as_second() + 3600,
            iat: start().as_second(),
            iss: self.tokens.issuer().to_owned(),
            jti: "id".to_owned(),
            bound: Bound {
                namespace: "a".to_owned(),
                serviceaccount: reference("robot", "u1"),
                pod: reference("p", "u2"),
                node: reference("n1", "u3"),
                ..Bound::default()
            },
            nbf: start().as_second(),
            sub: "system:serviceaccount:a:robot".to_owned(),
        }
    }
}

fn shows(bearer: &str) -> Credentials {
    Credentials { bearer: Some(bearer.to_owned()), ..Credentials::default() }
}

async fn code(authenticators: &Authenticators, credentials: &Credentials) -> u16 {
    match authenticators.authenticate(credentials).await {
        Ok(Some(_)) => 200,
        Ok(None) => 0,
        Err(status) => status.code,
    }
}

#[test]
fn only_health_and_version_are_open() {
    for (path, open) in [
        ("/healthz", true),
        ("/readyz/etcd", true),
        ("/livez", true),
        ("/version", true),
        ("/versions", false),
        ("/version/x", false),
        ("/healthzx", false),
        ("/", false),
        ("/api", false),
        ("/metrics", false),
    ] {
        assert_eq!(is_open(path), open, "{path}");
    }
}

#[tokio::test]
async fn a_service_account_token_lives_as_long_as_all_it_is_bound_to() {
    let world = world().await;
    let named = |uid: &str| json!({"metadata": {"uid": uid}});
    world.put("/registry/serviceaccounts/a/robot", Some(&named("u1"))).await;
    world.put("/registry/pods/a/p", Some(&named("u2"))).await;
    let now = world.at(start());
    let token = world.tokens.sign(&world.claims()).unwrap();
    let user = now.authenticate(&shows(&token)).await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:a:robot", "u1"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    for (key, value) in
        [("pod-name", "p"), ("pod-uid", "u2"), ("node-name", "n1"), ("node-uid", "u3"), ("credential-id", "JTI=id")]
    {
        assert_eq!(user.extra[&format!("authentication.kubernetes.io/{key}")], [value]);
    }
    let hour = SignedDuration::from_hours(1);
    assert_eq!(code(&world.at(start() + hour), &shows(&token)).await, 401, "expired");
    assert_eq!(code(&world.at(start() - hour), &shows(&token)).await, 401, "not yet valid");
    assert!(now.bearer(&token, &["vault".to_owned()]).await.is_err(), "for another audience");
    world.put("/registry/pods/a/p", Some(&named("u9"))).await;
    assert_eq!(code(&now, &shows(&token)).await, 401, "another pod of that name");
    world.put("/registry/pods/a/p", None).await;
    assert_eq!(code(&now, &shows(&token)).await, 401, "the pod is gone");
    world.put("/registry/pods/a/p", Some(&named("u2"))).await;
    assert_eq!(code(&now, &shows(&token)).await, 200);
    world.put("/registry/serviceaccounts/a/robot", None).await;
    assert_eq!(code(&now, &shows(&token)).await, 401, "the account is gone");
}

#[tokio::test]
async fn what_is_being_deleted_ends_its_tokens_a_minute_after_its_time() {
    let world = world().await;
    let named = |uid: &str| json!({"metadata": {"uid": uid}});
    let going = |uid: &str| json!({"metadata": {"uid": uid, "deletionTimestamp": start().to_string()}});
    let token = world.tokens.sign(&world.claims()).unwrap();
    let (account, pod) = ("/registry/serviceaccounts/a/robot", "/registry/pods/a/p");
    for (of_account, of_pod, which) in [
        (named("u1"), going("u2"), "the pod"),
        (going("u1"), named("u2"), "the account"),
        (going("u1"), going("u2"), "both"),
    ] {
        world.put(account, Some(&of_account)).await;
        world.put(pod, Some(&of_pod)).await;
        for (seconds, expected) in [(0, 200), (60, 200), (61, 401)] {
            let then = world.at(start() + SignedDuration::from_secs(seconds));
            assert_eq!(code(&then, &shows(&token)).await, expected, "{which} is going, {seconds} s later");
        }
    }
}

#[tokio::test]
async fn forged_tokens_are_401() {
    let world = world().await;
    let named = |uid: &str| json!({"metadata": {"uid": uid}});
    world.put("/registry/serviceaccounts/a/robot", Some(&named("u1"))).await;
    world.put("/registry/serviceaccounts/a/root", Some(&named("u1"))).await;
    world.put("/registry/pods/a/p", Some(&named("u2"))).await;
    let now = world.at(start());
    let good = world.tokens.sign(&world.claims()).unwrap();
    assert_eq!(code(&now, &shows(&good)).await, 200);
    let other = tempfile::tempdir().unwrap();
    let stranger = Tokens::new(open_pki(other.path()), world.store.clone());
    let parts: Vec<&str> = good.split('.').collect();
    let encode = |value: &Value| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
    };
    let mut claims = serde_json::to_value(world.claims()).unwrap();
    claims["sub"] = "system:serviceaccount:a:root".into();
    claims["kubernetes.io"]["serviceaccount"]["name"] = "root".into();
    let wrong = |change: fn(&mut Claims)| {
        let mut claims = world.claims();
        change(&mut claims);
        world.tokens.sign(&claims).unwrap()
    };
    for (token, why) in [
        (stranger.sign(&world.claims()).unwrap(), "another key"),
        (format!("{}.{}.{}", parts[0], encode(&claims), parts[2]), "another content"),
        (format!("{}.{}.", encode(&json!({"alg": "none"})), parts[1]), "no signature"),
        (format!("{}.{}.{}", encode(&json!({"alg": "HS256"})), parts[1], parts[2]), "another algorithm"),
        (wrong(|c| c.iss = "https://elsewhere".to_owned()), "another issuer"),
        (wrong(|c| c.aud = vec!["vault".to_owned()]), "another audience"),
        (wrong(|c| c.sub = "system:serviceaccount:a:root".to_owned()), "another subject"),
        (wrong(|c| c.bound.serviceaccount = None), "no account"),
        (wrong(|c| c.exp = 0), "long expired"),
        (String::new(), "empty"),
        ("nonsense".to_owned(), "nonsense"),
        ("x".repeat(1 << 20), "a megabyte"),
    ] {
        assert_eq!(code(&now, &shows(&token)).await, 401, "{why}");
    }
}

#[tokio::test]
async fn join_tokens_are_valid_until_they_end_and_for_their_group_alone() {
    let world = world().await;
    let token = BootstrapToken::generate(|below| below - 1);
    let end = start() + SignedDuration::from_mins(10);
    let secret = serde_json::to_value(token.to_secret(coracle_proto::join_token::Role::Nodes, Some(end), "")).unwrap();
    let key = format!("/registry/secrets/kube-system/{}", BootstrapToken::secret_name(token.id()));
    let now = world.at(start());
    assert_eq!(code(&now, &shows(&token.bearer())).await, 401, "no such token");
    world.put(&key, Some(&secret)).await;
    let user = now.authenticate(&shows(&token.bearer())).await.unwrap().unwrap();
    assert_eq!(user.name, format!("system:bootstrap:{}", token.id()));
    assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:coracle:nodes", "system:authenticated"]);
    assert_eq!(code(&world.at(end), &shows(&token.bearer())).await, 401, "ended");
    let wrong = format!("{}.{}", token.id(), "a".repeat(16));
    assert_eq!(code(&now, &shows(&wrong)).await, 401, "wrong secret");
    world.put(&key, None).await;
    assert_eq!(code(&now, &shows(&token.bearer())).await, 401, "revoked");
}

#[tokio::test]
async fn certificates_name_users_and_a_wrong_one_is_not_taken_for_none() {
    let world = world().await;
    let now = world.at(start());
    let certificate = |pki: &Pki, name: &str| Credentials {
        certificates: pki.issue(&Profile::client(name, Some("crew")), start()).unwrap().chain().to_vec().into(),
        bearer: None,
    };
    let alice = certificate(&world.pki, "alice");
    for _ in 0..2 {
        let user = now.authenticate(&alice).await.unwrap().unwrap();
        assert_eq!(user.name, "alice");
        assert_eq!(user.groups, ["crew", "system:authenticated"]);
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
    }
    assert_eq!(code(&now, &Credentials::default()).await, 0, "nothing is nobody");
    let late = world.at(start() + SignedDuration::from_hours(24 * 366));
    assert_eq!(code(&late, &alice).await, 401, "expired");
    let other = tempfile::tempdir().unwrap();
    let mut forged = certificate(&open_pki(other.path()), "kubernetes-admin");
    assert_eq!(code(&now, &forged).await, 401, "another authority");
    let garbage = Credentials { certificates: vec![b"nonsense".to_vec().into()].into(), bearer: None };
    assert_eq!(code(&now, &garbage).await, 401);
    world.put("/registry/serviceaccounts/a/robot", Some(&json!({"metadata": {"uid": "u1"}}))).await;
    let mut claims = world.claims();
    claims.bound.pod = None;
    claims.bound.node = None;
    forged.bearer = Some(world.tokens.sign(&claims).unwrap());
    assert_eq!(code(&now, &forged).await, 200, "a right token beside a wrong certificate");
    assert!(world.dir.path().exists());
}
