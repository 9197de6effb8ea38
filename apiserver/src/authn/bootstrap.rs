//! Join tokens (Kubernetes' bootstrap tokens): Secrets of `kube-system`.

use coracle_proto::join_token::{BootstrapToken, Record, SECRET_NAMESPACE};
use coracle_store::Store;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use crate::{stored, user::User};

/// Whether the text has a join token's form.
pub(super) fn looks_like(token: &str) -> bool {
    token.parse::<BootstrapToken>().is_ok()
}

/// Whether two texts are the same, in a time that tells nothing about where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0_u8, |difference, (a, b)| difference | (a ^ b)) == 0
}

pub(super) fn authenticate(store: &Store, token: &str, now: Timestamp) -> Result<User, String> {
    let token: BootstrapToken = token.parse().map_err(|_| "not a join token")?;
    let name = BootstrapToken::secret_name(token.id());
    let entry = store.get(&stored::key("secrets", SECRET_NAMESPACE, &name)).ok_or("no such join token")?;
    let secret: Secret = serde_json::from_slice(&entry.value).map_err(|error| error.to_string())?;
    if secret.metadata.deletion_timestamp.is_some() {
        return Err("the join token is being deleted".to_owned());
    }
    let record = Record::from_secret(&secret).ok_or("the secret holds no join token")?;
    if !same(record.token.secret(), token.secret()) {
        return Err("the join token's secret is wrong".to_owned());
    }
    if !record.is_valid(now) {
        return Err("the join token has ended".to_owned());
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    groups.extend(record.groups.into_iter().filter(|g| g != "system:bootstrappers"));
    groups.push("system:authenticated".to_owned());
    Ok(User { name: format!("system:bootstrap:{}", token.id()), groups, ..User::default() })
}
