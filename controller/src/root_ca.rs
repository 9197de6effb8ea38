//! Every namespace has a ConfigMap `kube-root-ca.crt` with the certificates pods check the API server by. It is put
//! back when it was changed or deleted.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::{
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError, is_namespace_going},
    service_account::is_active,
    work_queue::WorkQueue,
};

/// The ConfigMap's name.
pub(crate) const NAME: &str = "kube-root-ca.crt";
/// The one key in it.
const KEY: &str = "ca.crt";

const ABOUT: &str = "kubernetes.io/description";
/// What Kubernetes writes there.
const ABOUT_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                          endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                          guaranteed across distributions of Kubernetes clusters.";

/// Namespaces the API server writes the ConfigMap into itself, where it is read when the configuration names no file.
const GIVEN_IN: [&str; 2] = ["kube-public", "kube-system"];

/// See the module. Its keys are namespaces.
pub(crate) struct RootCa {
    client: Client,
    namespaces: Reader<Namespace>,
    config_maps: Reader<ConfigMap>,
    /// The certificates, PEM; read from the cluster once if they were not given.
    certificates: OnceCell<String>,
}

impl RootCa {
    pub(crate) fn over(informers: &mut Informers, certificates: Option<String>) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let changed = Arc::clone(&queue);
        informers.namespaces.on_change(move |change: &Change<'_, Namespace>| {
            if !matches!(change, Change::Deleted(_)) && is_active(change.object()) {
                changed.add(ObjectKey::of(change.object()));
            }
        });
        let changed = Arc::clone(&queue);
        informers.root_cas.on_change(move |change: &Change<'_, ConfigMap>| {
            changed.add(ObjectKey::new("", change.object().metadata.namespace.clone().unwrap_or_default()));
        });
        let controller = Self {
            client: informers.client.clone(),
            namespaces: informers.namespaces.reader(),
            config_maps: informers.root_cas.reader(),
            certificates: OnceCell::new_with(certificates),
        };
        Control::new(controller, queue)
    }

    async fn certificates(&self) -> Result<&String, ReconcileError> {
        self.certificates.get_or_try_init(|| self.given()).await
    }

    /// What the API server wrote itself.
    async fn given(&self) -> Result<String, ReconcileError> {
        for namespace in GIVEN_IN {
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
            let found =
                api.get_opt(NAME).await.map_err(ReconcileError::api("looking for the cluster's certificates"))?;
            if let Some(found) = found.and_then(|map| map.data).and_then(|mut data| data.remove(KEY)) {
                return Ok(found);
            }
        }
        let first = format!("no ConfigMap {NAME} in {} and no certificates configured", GIVEN_IN.join(" or "));
        Err(ReconcileError::Several { count: 1, first })
    }
}

/// Whether the ConfigMap says what it must, and nothing else.
fn is_right(map: &ConfigMap, data: &BTreeMap<String, String>) -> bool {
    let about = map.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ABOUT));
    map.data.as_ref() == Some(data) && map.binary_data.is_none() && about.map(String::as_str) == Some(ABOUT_TEXT)
}

impl Reconcile for RootCa {
    type Key = ObjectKey;

    const NAME: &'static str = "root-ca-certificate-publisher";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if !self.namespaces.get(key).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(Next::OnChange);
        }
        let data = BTreeMap::from([(KEY.to_owned(), self.certificates().await?.clone())]);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
        let result = match self.config_maps.get(&ObjectKey::new(&key.name, NAME)) {
            Some(map) if is_right(&map, &data) => return Ok(Next::OnChange),
            Some(map) => {
                // A merge patch leaves other keys in place: they are taken out by name.
                let others = map.data.iter().flatten().filter(|(name, _)| *name != KEY);
                let mut wanted: BTreeMap<&str, Option<&str>> = others.map(|(name, _)| (name.as_str(), None)).collect();
                wanted.insert(KEY, data.get(KEY).map(String::as_str));
                let meta = json!({"uid": map.metadata.uid, "annotations": {ABOUT: ABOUT_TEXT}});
                let patch = json!({"metadata": meta, "data": wanted, "binaryData": null});
                api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await
            }
            None => {
                let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
                map.metadata.name = Some(NAME.to_owned());
                map.metadata.annotations = Some([(ABOUT.to_owned(), ABOUT_TEXT.to_owned())].into());
                api.create(&PostParams::default(), &map).await
            }
        };
        match result {
            Ok(_) => Ok(Next::OnChange),
            // Somebody else was quicker (the watch tells), or the namespace is going.
            Err(kube::Error::Api(status)) if status.code == 409 || is_namespace_going(&status) => Ok(Next::OnChange),
            Err(error) => Err(ReconcileError::api("publishing the cluster's certificates")(error)),
        }
    }
}
