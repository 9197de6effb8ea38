//! Kubeconfig files of the cluster's own identities.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use super::Identity;

/// A kubeconfig that reaches `server` (its authority's certificate in PEM given) as `user` with the given credential.
/// Its only context is called `coracle`.
#[must_use]
pub fn kubeconfig(server: &str, authority: &str, user: &str, identity: &Identity) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "coracle", "cluster": {
            "certificate-authority-data": BASE64.encode(authority),
            "server": server,
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": BASE64.encode(identity.chain_pem()),
            "client-key-data": BASE64.encode(identity.key_pem()),
        }}],
        "contexts": [{"name": "coracle", "context": {"cluster": "coracle", "user": user}}],
        "current-context": "coracle",
    });
    // A map of strings always has a YAML form.
    serde_yaml::to_string(&config).unwrap_or_default()
}

/// Server and credential of a file that [`kubeconfig`] wrote.
pub(super) fn parse(text: &str) -> Option<(String, Identity)> {
    let config: Value = serde_yaml::from_str(text).ok()?;
    let server = config.pointer("/clusters/0/cluster/server")?.as_str()?.to_owned();
    let data = |key: &str| -> Option<String> {
        let text = config.pointer(&format!("/users/0/user/{key}"))?.as_str()?;
        String::from_utf8(BASE64.decode(text).ok()?).ok()
    };
    let identity = Identity::parse(&(data("client-certificate-data")? + &data("client-key-data")?)).ok()?;
    Some((server, identity))
}
