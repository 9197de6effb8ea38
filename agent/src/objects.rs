//! ConfigMaps and Secrets that pods of this node use: each one watched by itself while someone holds it, and no longer.
//!
//! A node may not list secrets, only read those its pods name, so there is one watch an object. A watch costs nothing
//! while nothing changes; their number is bounded by what at most `max_pods` pods name.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What is known of an object.
#[derive(Clone, Debug)]
pub(crate) enum State<K> {
    /// The API server has not answered yet.
    Unknown,
    /// There is none.
    Missing,
    /// This is it.
    Present(Arc<K>),
}

type Entries<K> = Mutex<BTreeMap<(String, String), watch::Sender<State<K>>>>;

/// Objects of one kind.
struct Kind<K> {
    entries: Entries<K>,
}

/// The objects pods of this node use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ObjectCache {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    config_maps: Kind<ConfigMap>,
    secrets: Kind<Secret>,
}

impl ObjectCache {
    /// A cache whose watches run in `tasks` and end with `shutdown`.
    pub(crate) fn new(client: kube::Client, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        let inner = Inner {
            client,
            tasks,
            shutdown,
            config_maps: Kind { entries: Mutex::default() },
            secrets: Kind { entries: Mutex::default() },
        };
        Self { inner: Arc::new(inner) }
    }

    /// A ConfigMap, watched while the receiver is held.
    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> watch::Receiver<State<ConfigMap>> {
        self.hold(namespace, name, |inner| &inner.config_maps)
    }

    /// A Secret, watched while the receiver is held.
    pub(crate) fn secret(&self, namespace: &str, name: &str) -> watch::Receiver<State<Secret>> {
        self.hold(namespace, name, |inner| &inner.secrets)
    }

    fn hold<K>(&self, namespace: &str, name: &str, kind: fn(&Inner) -> &Kind<K>) -> watch::Receiver<State<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = kind(&self.inner).entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = entries.get(&key) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(State::Unknown);
        entries.insert(key.clone(), sender.clone());
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn(async move { follow(&inner, key, &sender, kind).await });
        receiver
    }
}

/// Follows one object until nobody holds it.
async fn follow<K>(inner: &Inner, key: (String, String), sender: &watch::Sender<State<K>>, kind: fn(&Inner) -> &Kind<K>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let api: Api<K> = Api::namespaced(inner.client.clone(), &key.0);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.1));
    let mut events = Box::pin(watcher(api, config).default_backoff());
    let mut found = false;
    loop {
        let event = tokio::select! {
            biased;
            () = inner.shutdown.cancelled() => break,
            () = sender.closed() => {
                let mut entries = kind(inner).entries.lock().unwrap_or_else(PoisonError::into_inner);
                // Someone may have come between; under the lock nobody can.
                if sender.receiver_count() == 0 {
                    entries.remove(&key);
                    return;
                }
                continue;
            }
            event = events.next() => event,
        };
        match event {
            Some(Ok(Event::Init)) => found = false,
            Some(Ok(Event::InitApply(object))) => {
                found = true;
                sender.send_replace(State::Present(Arc::new(object)));
            }
            Some(Ok(Event::Apply(object))) => {
                sender.send_replace(State::Present(Arc::new(object)));
            }
            Some(Ok(Event::InitDone)) => {
                if !found {
                    sender.send_replace(State::Missing);
                }
            }
            Some(Ok(Event::Delete(_))) => {
                sender.send_replace(State::Missing);
            }
            Some(Err(error)) => {
                tracing::debug!(
                    namespace = key.0,
                    name = key.1,
                    error = &error as &dyn std::error::Error,
                    "watch failed"
                );
            }
            None => break,
        }
    }
    kind(inner).entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
}
