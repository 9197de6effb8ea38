//! Secrets of type `kubernetes.io/service-account-token` get what they are for: a token of their account, the cluster's
//! certificate, their namespace. Those whose account is gone are deleted.
//!
//! The server does this itself, since the key that signs tokens is nowhere else.

use std::sync::Arc;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::keeper::keep;
use crate::{
    authn::{Reference, TOKEN_SECRET, Tokens},
    kind::Object,
    ops::{BoxObject, KindOps, Part},
    pki::Pki,
    registry::{self, Change, Current, Registry, Selection, Told, Watch, WatchOptions, Writer},
    status_of::{self, Result},
    user::User,
};

const ACCOUNT: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// See the module.
pub(crate) struct TokenSecrets {
    pub(crate) registry: Registry,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) pki: Arc<Pki>,
}

/// What tells such a Secret from others.
#[derive(Deserialize)]
struct Sort {
    #[serde(default, rename = "type")]
    type_: String,
}

/// What is to be done about a Secret.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    Delete,
    Fill,
}

fn text<'a>(secret: &'a Secret, annotation: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|all| all.get(annotation)).map_or("", String::as_str)
}

fn decide(secret: &Secret, account: Option<&Reference>, authority: &str) -> Verdict {
    if secret.type_.as_deref() != Some(TOKEN_SECRET)
        || secret.metadata.deletion_timestamp.is_some()
        || text(secret, ACCOUNT).is_empty()
    {
        return Verdict::Nothing;
    }
    let Some(account) = account else { return Verdict::Delete };
    let uid = text(secret, UID);
    // Another account of the same name is not the one it was made for.
    if !uid.is_empty() && uid != account.uid {
        return Verdict::Delete;
    }
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let is_whole = uid == account.uid
        && value("token").is_some_and(|token| !token.is_empty())
        && value("ca.crt") == Some(authority.as_bytes())
        && value("namespace").is_some_and(|own| !own.is_empty());
    if is_whole || secret.immutable == Some(true) { Verdict::Nothing } else { Verdict::Fill }
}

impl TokenSecrets {
    /// Looks after the Secrets until `shutdown`.
    ///
    /// # Cancel safety
    /// Dropping the future stops it at once; what was begun is begun anew the next time.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        keep("token secrets", &shutdown, || self.follow()).await;
    }

    async fn watch(&self, kind: &Arc<dyn KindOps>) -> Result<Watch> {
        let options = WatchOptions { after: None, sends_initial: true, marks_initial: false, bookmarks: false };
        self.registry.watch("", &Selection::everything(kind), &**kind, options).await
    }

    async fn follow(&self) -> Result<()> {
        let (Some(secrets), Some(accounts)) =
            (self.registry.kind("", "v1", "secrets"), self.registry.kind("", "v1", "serviceaccounts"))
        else {
            return Ok(());
        };
        let (mut secrets, mut accounts) = (self.watch(&secrets).await?, self.watch(&accounts).await?);
        loop {
            tokio::select! {
                told = secrets.next() => {
                    let Told::Object(what, entry, ..) = told? else { continue };
                    let is_one = |sort: Sort| sort.type_ == TOKEN_SECRET;
                    if what != registry::Kind::Deleted && serde_json::from_slice(&entry.value).is_ok_and(is_one) {
                        self.look(&decode(&entry.value)?).await;
                    }
                }
                told = accounts.next() => {
                    let Told::Object(what, entry, ..) = told? else { continue };
                    // An account that is new has Secrets only if they were made before it.
                    if what != registry::Kind::Modified {
                        let account: ServiceAccount = decode(&entry.value)?;
                        let name = account.metadata.name.as_deref().unwrap_or_default();
                        let namespace = account.metadata.namespace.as_deref().unwrap_or_default();
                        for secret in self.registry.list_typed::<Secret>(namespace)? {
                            if text(&secret, ACCOUNT) == name {
                                self.look(&secret).await;
                            }
                        }
                    }
                }
            }
        }
    }

    async fn look(&self, secret: &Secret) {
        if let Err(status) = self.settle(secret).await {
            let name = secret.metadata.name.as_deref().unwrap_or_default();
            // Whoever changed it in between caused another event.
            tracing::warn!(name, reason = %status.message, "a token secret was not handled");
        }
    }

    async fn settle(&self, secret: &Secret) -> Result<()> {
        let namespace = secret.metadata.namespace.clone().unwrap_or_default();
        let name = secret.metadata.name.clone().unwrap_or_default();
        let account = self.registry.get_typed::<ServiceAccount>(&namespace, text(secret, ACCOUNT))?;
        let account = account.map(|account| Reference {
            name: account.metadata.name.unwrap_or_default(),
            uid: account.metadata.uid.unwrap_or_default(),
        });
        let authority = self.pki.authority().pem();
        let writer = Writer::new(User::new("system:kube-controller-manager", &["system:masters"]));
        let gone = |status: Box<coracle_proto::status::Status>| if status.code == 404 { Ok(()) } else { Err(status) };
        match (decide(secret, account.as_ref(), authority), account) {
            (Verdict::Nothing, _) => Ok(()),
            (Verdict::Delete, _) | (Verdict::Fill, None) => {
                let deleted = self.registry.delete_typed::<Secret>(&namespace, &name, &writer).await;
                deleted.map(drop).or_else(gone)
            }
            (Verdict::Fill, Some(account)) => {
                let token = self.tokens.sign_for_secret(&namespace, &name, &account);
                let token = token.map_err(|error| status_of::broken("a token cannot be signed", &error))?;
                let Some(kind) = self.registry.kind("", "v1", "secrets") else { return Ok(()) };
                let change = |current: &Current<'_>| {
                    let mut object = current.object.copied();
                    if let Some(secret) = object.as_any_mut().downcast_mut::<Secret>()
                        && decide(secret, Some(&account), authority) == Verdict::Fill
                    {
                        fill(secret, &account, &token, authority);
                    }
                    Ok::<BoxObject, _>(object)
                };
                let at = (namespace.as_str(), name.as_str());
                let written = self.registry.update(&kind, at, Change::Of(Part::Main), &writer, change).await;
                written.map(drop).or_else(gone)
            }
        }
    }
}

fn decode<T: Object>(value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| status_of::broken("a stored object cannot be read", &error))
}

/// Puts in what is missing.
fn fill(secret: &mut Secret, account: &Reference, token: &str, authority: &str) {
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    secret.metadata.annotations.get_or_insert_default().insert(UID.to_owned(), account.uid.clone());
    let data = secret.data.get_or_insert_default();
    data.insert("ca.crt".to_owned(), ByteString(authority.as_bytes().to_vec()));
    for (key, value) in [("token", token), ("namespace", namespace.as_str())] {
        let place = data.entry(key.to_owned()).or_insert_with(|| ByteString(Vec::new()));
        if place.0.is_empty() {
            place.0 = value.as_bytes().to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(change: Value) -> Secret {
        let mut value = json!({
            "metadata": {"name": "s", "namespace": "a", "annotations": {ACCOUNT: "robot"}},
            "type": TOKEN_SECRET,
        });
        coracle_proto::patch::merge::apply(&mut value, change);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_becomes_of_a_secret_follows_from_its_account() {
        let robot = Reference { name: "robot".to_owned(), uid: "u1".to_owned() };
        let annotated = |uid: &str| json!({"metadata": {"annotations": {UID: uid}}});
        for (change, account, expected) in [
            (json!({}), Some(&robot), Verdict::Fill),
            (json!({}), None, Verdict::Delete),
            (json!({"type": "Opaque"}), None, Verdict::Nothing),
            (json!({"metadata": {"annotations": {ACCOUNT: null}}}), None, Verdict::Nothing),
            (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), None, Verdict::Nothing),
            (annotated("u1"), Some(&robot), Verdict::Fill),
            (annotated("u0"), Some(&robot), Verdict::Delete),
            (json!({"immutable": true}), Some(&robot), Verdict::Nothing),
        ] {
            assert_eq!(decide(&secret(change.clone()), account, "ca"), expected, "{change} {account:?}");
        }
        let mut whole = secret(json!({}));
        fill(&mut whole, &robot, "t", "ca");
        assert_eq!(decide(&whole, Some(&robot), "ca"), Verdict::Nothing);
        assert_eq!(decide(&whole, Some(&robot), "another ca"), Verdict::Fill);
        fill(&mut whole, &robot, "another", "another ca");
        assert_eq!(whole.data.unwrap()["token"].0, b"t", "a token that is there stays");
    }
}
