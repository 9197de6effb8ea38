//! Every namespace has a ServiceAccount `default`. The API server makes it together with the namespace; here it comes
//! back when it was deleted.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{Api, Client, api::PostParams};

use crate::{
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError, is_namespace_going},
    work_queue::WorkQueue,
};

/// The name of the one every namespace has.
pub(crate) const DEFAULT: &str = "default";

/// See the module. Its keys are namespaces.
pub(crate) struct ServiceAccounts {
    client: Client,
    namespaces: Reader<Namespace>,
    accounts: Reader<ServiceAccount>,
}

/// Whether something may be made in the namespace: it is there, and stays.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

impl ServiceAccounts {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let changed = Arc::clone(&queue);
        informers.namespaces.on_change(move |change: &Change<'_, Namespace>| {
            if !matches!(change, Change::Deleted(_)) && is_active(change.object()) {
                changed.add(ObjectKey::of(change.object()));
            }
        });
        let changed = Arc::clone(&queue);
        informers.default_accounts.on_change(move |change: &Change<'_, ServiceAccount>| {
            if let Change::Deleted(account) = change {
                changed.add(ObjectKey::new("", account.metadata.namespace.clone().unwrap_or_default()));
            }
        });
        let (namespaces, accounts) = (informers.namespaces.reader(), informers.default_accounts.reader());
        Control::new(Self { client: informers.client.clone(), namespaces, accounts }, queue)
    }
}

impl Reconcile for ServiceAccounts {
    type Key = ObjectKey;

    const NAME: &'static str = "serviceaccount";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let there = self.accounts.get(&ObjectKey::new(&key.name, DEFAULT)).is_some();
        if there || !self.namespaces.get(key).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(Next::OnChange);
        }
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(DEFAULT.to_owned());
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.name);
        match api.create(&PostParams::default(), &account).await {
            Ok(_) => Ok(Next::OnChange),
            // It is there after all, or the namespace is going.
            Err(kube::Error::Api(status)) if status.code == 409 || is_namespace_going(&status) => Ok(Next::OnChange),
            Err(error) => Err(ReconcileError::api("creating the default service account")(error)),
        }
    }
}
