//! Bootstrap tokens whose time is over: their Secrets in `kube-system` are deleted when they expire.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use tracing::info;

use crate::{
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    view::TokenView,
    work_queue::WorkQueue,
};

/// Where bootstrap tokens are.
pub(crate) const NAMESPACE: &str = "kube-system";
/// The type of their Secrets.
pub(crate) const TYPE: &str = "bootstrap.kubernetes.io/token";

/// See the module.
pub(crate) struct TokenCleaner {
    client: Client,
    tokens: Reader<TokenView>,
}

/// How long the token is still good; `None` for ever. One whose expiration cannot be read is no good at all, as the
/// API server sees it.
fn time_left(token: &TokenView, now: Timestamp) -> Option<Duration> {
    let expiration = token.data.expiration.as_ref()?;
    let expiration = std::str::from_utf8(&expiration.0).ok().and_then(|text| text.parse::<Timestamp>().ok());
    Some(expiration.and_then(|at| Duration::try_from(at.duration_since(now)).ok()).unwrap_or_default())
}

impl TokenCleaner {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let changed = Arc::clone(&queue);
        informers.tokens.on_change(move |change: &Change<'_, TokenView>| changed.add(ObjectKey::of(change.object())));
        Control::new(Self { client: informers.client.clone(), tokens: informers.tokens.reader() }, queue)
    }
}

impl Reconcile for TokenCleaner {
    type Key = ObjectKey;

    const NAME: &'static str = "token-cleaner";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(token) = self.tokens.get(key) else { return Ok(Next::OnChange) };
        match time_left(&token, Timestamp::now()) {
            None => return Ok(Next::OnChange),
            Some(left) if !left.is_zero() => return Ok(Next::After(left)),
            Some(_) => {}
        }
        let meta = &token.metadata;
        let preconditions =
            Some(Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        let api: Api<TokenView> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.delete(&key.name, &params).await {
            Ok(_) => info!(secret = key.name, "deleted a bootstrap token that expired"),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(ReconcileError::api("deleting a bootstrap token")(error)),
        }
        Ok(Next::OnChange)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_good_until_they_expire() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let left = |base64: Option<&str>| {
            let token = json!({"metadata": {"name": "t"}, "data": {"token-id": "eA==", "expiration": base64}});
            time_left(&serde_json::from_value(token).unwrap(), now)
        };
        assert_eq!(left(None), None);
        // 2026-01-01T00:00:30Z, and the same with an offset; 2025-12-31T00:00:00Z; "soon".
        assert_eq!(left(Some("MjAyNi0wMS0wMVQwMDowMDozMFo=")), Some(Duration::from_secs(30)));
        assert_eq!(left(Some("MjAyNi0wMS0wMVQwMTowMDozMCswMTowMA==")), Some(Duration::from_secs(30)));
        assert_eq!(left(Some("MjAyNS0xMi0zMVQwMDowMDowMFo=")), Some(Duration::ZERO));
        assert_eq!(left(Some("c29vbg==")), Some(Duration::ZERO));
    }
}
