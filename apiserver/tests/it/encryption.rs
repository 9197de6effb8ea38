//! What is kept of Secrets, and what clients see of that: nothing.

use std::path::Path;

use coracle_apiserver::{
    config::Config,
    server::{ApiServer, Error},
};
use coracle_store::{Op, Txn};
use serde_json::{Value, json};

use crate::{harness::Cluster, watching::Following};

const SECRETS: &str = "/api/v1/namespaces/kube-public/secrets";
const KEY: &[u8] = b"/registry/secrets/kube-public/s";

async fn start(dir: &Path) -> Cluster {
    Cluster::start_with(|config| Config { data_dir: dir.to_owned(), ..config }).await
}

async fn refused(dir: &Path) -> String {
    let Err(Error::Encryption(error)) = ApiServer::open(Config::new(dir, "127.0.0.1:0".parse().unwrap())).await else {
        panic!("the server started");
    };
    error.to_string()
}

fn kept(c: &Cluster, key: &[u8]) -> Vec<u8> {
    c.server.registry().store().as_kept().get(key).unwrap().value.to_vec()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn secret(value: &str) -> Value {
    json!({"metadata": {"name": "s"}, "stringData": {"password": value}})
}

/// Every file below a directory, as one run of bytes.
fn everything(dir: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { everything(&path) } else { std::fs::read(&path).unwrap() }).collect()
}

#[tokio::test]
async fn secrets_are_kept_sealed_and_shown_plain() {
    let dir = tempfile::tempdir().unwrap();
    let c = start(dir.path()).await;
    let begin = c.get(SECRETS).await.version().to_owned();
    assert_eq!(c.post(SECRETS, &secret("hunter2hunter2")).await.code, 201);
    // "hunter2hunter2" in base64, as an object has it.
    let shown = "aHVudGVyMmh1bnRlcjI=";
    let bytes = kept(&c, KEY);
    assert!(bytes.starts_with(b"k8s:enc:aesgcm:v1:key-") && !holds(&bytes, shown.as_bytes()));
    let one = c.get(&format!("{SECRETS}/s")).await;
    assert_eq!(one.body["data"]["password"], shown);
    assert_eq!(c.get(SECRETS).await.body["items"][0]["data"]["password"], shown);
    assert_eq!(
        c.get("/api/v1/secrets?fieldSelector=metadata.name=s").await.body["items"][0]["data"]["password"],
        shown
    );
    let patched = c.merge(&format!("{SECRETS}/s"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!((patched.code, &patched.body["data"]["password"]), (200, &json!(shown)));
    assert_eq!(c.delete(&format!("{SECRETS}/s")).await.code, 200);
    // What happened before is told plain to who watches from there.
    let mut watch = Following::begin(&c, &format!("{SECRETS}?watch=1&resourceVersion={begin}")).await;
    for wanted in ["ADDED", "MODIFIED", "DELETED"] {
        let event = watch.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["data"]["password"]), (&json!(wanted), &json!(shown)));
    }
    let exact = c.get(&format!("{SECRETS}?resourceVersion={}&resourceVersionMatch=Exact", patched.version())).await;
    assert_eq!(exact.body["items"][0]["data"]["password"], shown);
    // Other kinds are kept as they are.
    c.post("/api/v1/namespaces/kube-public/configmaps", &json!({"metadata": {"name": "m"}})).await;
    assert_eq!(kept(&c, b"/registry/configmaps/kube-public/m")[0], b'{');
    c.stop().await;
    assert!(!holds(&everything(&dir.path().join("store")), shown.as_bytes()));
    use std::os::unix::fs::PermissionsExt as _;
    let keys = dir.path().join("pki/encryption.yaml");
    assert_eq!(std::fs::metadata(keys).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_was_written_plain_is_read_on_and_sealed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let c = start(dir.path()).await;
    c.post(SECRETS, &secret("x")).await;
    let store = c.server.registry().store().clone();
    let plain = store.get(KEY).unwrap().value.clone();
    store.as_kept().txn(Txn { then: vec![Op::put(KEY, plain)], ..Txn::default() }).await.unwrap();
    assert_eq!(kept(&c, KEY)[0], b'{');
    assert_eq!(c.get(&format!("{SECRETS}/s")).await.body["data"]["password"], "eA==");
    let before = c.get("/coracle/v1/encryption").await;
    assert_eq!(before.body["stale"], 1, "{}", before.body);
    c.stop().await;

    let c = start(dir.path()).await;
    let mut watch = Following::begin(&c, &format!("{SECRETS}?watch=1")).await;
    // It is there, or there already and sealed.
    while kept(&c, KEY)[0] == b'{' {
        watch.next().await.unwrap();
    }
    assert_eq!(c.get(&format!("{SECRETS}/s")).await.body["data"]["password"], "eA==");
    c.stop().await;
}

#[tokio::test]
async fn without_the_right_key_the_server_does_not_start_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let c = start(dir.path()).await;
    c.post(SECRETS, &secret("x")).await;
    c.stop().await;
    let keys = dir.path().join("pki/encryption.yaml");
    let text = std::fs::read_to_string(&keys).unwrap();
    std::fs::remove_file(&keys).unwrap();
    let why = refused(dir.path()).await;
    assert!(why.contains("/registry/secrets/") && why.contains("which is not there"), "{why}");
    assert!(why.contains("encryption.yaml holds no keys. Put back the file that has that key"), "{why}");
    assert!(!keys.exists(), "no new key was made, which would hide what is missing");
    let at = text.find("secret: ").unwrap() + "secret: ".len();
    let other = format!("{}{}{}", &text[..at], if &text[at..=at] == "A" { "B" } else { "A" }, &text[at + 1..]);
    std::fs::write(&keys, other).unwrap();
    let why = refused(dir.path()).await;
    assert!(why.contains("does not open it: cipher: message authentication failed"), "{why}");
    std::fs::write(&keys, "resources: []\n").unwrap();
    assert!(refused(dir.path()).await.contains("encryption.yaml: it holds"));
    std::fs::write(&keys, text).unwrap();
    let c = start(dir.path()).await;
    assert_eq!(c.get(&format!("{SECRETS}/s")).await.body["data"]["password"], "eA==");
    c.stop().await;
}

#[tokio::test]
async fn a_new_key_seals_everything_and_the_one_before_goes_at_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let c = start(dir.path()).await;
    for at in 0..150 {
        c.post(SECRETS, &json!({"metadata": {"name": format!("s{at}")}, "stringData": {"at": at.to_string()}})).await;
    }
    let first = c.get("/coracle/v1/encryption").await.body;
    assert_eq!(first["keys"].as_array().unwrap().len(), 1);
    let begin = c.get(SECRETS).await.version().to_owned();
    let second = c.post("/coracle/v1/encryption/rotate", &json!(null)).await;
    assert_eq!(second.code, 200, "{}", second.body);
    let second = second.body;
    assert_eq!((&second["stale"], &second["sealed"]), (&json!(0), &first["sealed"]));
    assert_eq!(second["rewritten"], first["sealed"]);
    assert_eq!(second["keys"][1], first["keys"][0]);
    let prefix = format!("k8s:enc:aesgcm:v1:{}:", second["keys"][0].as_str().unwrap());
    assert!(kept(&c, b"/registry/secrets/kube-public/s7").starts_with(prefix.as_bytes()));
    let mut watch = Following::begin(&c, &format!("{SECRETS}?watch=1&resourceVersion={begin}")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], event["object"]["data"].is_object()), (&json!("MODIFIED"), true));
    let third = c.post("/coracle/v1/encryption/rotate", &json!(null)).await.body;
    assert_eq!(third["keys"], json!([third["keys"][0], second["keys"][0]]), "the oldest is gone");
    assert_eq!(c.post("/coracle/v1/encryption", &json!(null)).await.code, 405);
    assert_eq!(c.get("/coracle/v1/encryption/rotate").await.code, 405);
    drop(watch);
    c.stop().await;
    let c = start(dir.path()).await;
    assert_eq!(c.get(&format!("{SECRETS}/s7")).await.body["data"]["at"], "Nw==");
    assert_eq!(c.get("/coracle/v1/encryption").await.body["keys"], third["keys"]);
    c.stop().await;
}

#[tokio::test]
async fn an_operators_own_file_says_which_kinds_and_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.yaml");
    let key = "{name: mine, secret: AAECAwQFBgcICQoLDA0ODw==}";
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - {{resources: [configmaps], providers: [{{aesgcm: {{keys: [{key}]}}}}, {{identity: {{}}}}]}}\n"
    );
    std::fs::write(&file, &text).unwrap();
    let own = file.clone();
    let c = Cluster::start_with(|config| Config { encryption: Some(own), ..config }).await;
    c.post("/api/v1/namespaces/kube-public/configmaps", &json!({"metadata": {"name": "m"}, "data": {"a": "b"}})).await;
    c.post(SECRETS, &secret("x")).await;
    assert!(kept(&c, b"/registry/configmaps/kube-public/m").starts_with(b"k8s:enc:aesgcm:v1:mine:"));
    assert_eq!(kept(&c, KEY)[0], b'{');
    let refused = c.post("/coracle/v1/encryption/rotate", &json!(null)).await;
    assert_eq!(refused.code, 400);
    assert!(refused.refusal().2.contains("mine.yaml, given with --encryption-provider-config"), "{}", refused.body);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    // A value nobody has the key for is an error of its own object and its list, and of nothing else.
    let store = c.server.registry().store().as_kept();
    let foreign = Op::put("/registry/configmaps/kube-public/n", "k8s:enc:aesgcm:v1:other:0123456789abcdef");
    store.txn(Txn { then: vec![foreign], ..Txn::default() }).await.unwrap();
    let broken = c.get("/api/v1/namespaces/kube-public/configmaps/n").await;
    assert_eq!(broken.code, 500);
    assert!(broken.refusal().2.contains("unable to transform key \"/registry/configmaps/kube-public/n\""));
    assert_eq!(c.get("/api/v1/namespaces/kube-public/configmaps").await.code, 500);
    assert_eq!(c.get("/api/v1/namespaces/kube-public/configmaps/m").await.code, 200);
    c.stop().await;
}

#[tokio::test]
async fn only_who_was_granted_it_may_rotate() {
    use coracle_apiserver::user::User;
    use tower::ServiceExt as _;
    let c = Cluster::start().await;
    let request = http::Request::post("/coracle/v1/encryption/rotate").body(axum::body::Body::empty()).unwrap();
    let somebody = c.server.service(User::new("somebody", &["system:authenticated"]));
    assert_eq!(somebody.oneshot(request).await.unwrap().status(), 403);
    c.stop().await;
}
