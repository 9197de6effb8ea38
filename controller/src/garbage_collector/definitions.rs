//! The kinds that CustomResourceDefinitions make are watched like the built-in ones, from when they are served until they
//! are gone.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use coracle_proto::resource::{CUSTOM_VERBS, Described, Resource, Scope, interned};
use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::GarbageCollector;

/// The watches under way, by the definition's name.
struct Watches {
    collector: Arc<GarbageCollector>,
    running: BTreeMap<String, (&'static Resource, CancellationToken)>,
    tasks: JoinSet<()>,
}

/// The resource to watch of a definition that is established: its objects are the same in all versions.
fn resource_of(definition: &CustomResourceDefinition) -> Option<&'static Resource> {
    let status = definition.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    if !conditions.any(|condition| condition.type_ == "Established" && condition.status == "True") {
        return None;
    }
    let (spec, names) = (&definition.spec, status.accepted_names.as_ref()?);
    let served = || spec.versions.iter().filter(|version| version.served);
    let version = served().find(|version| version.storage).or_else(|| served().next())?;
    interned(&Described {
        group: &spec.group,
        version: &version.name,
        kind: &names.kind,
        list_kind: names.list_kind.as_deref().unwrap_or_default(),
        plural: &names.plural,
        singular: names.singular.as_deref().unwrap_or_default(),
        short_names: &[],
        categories: &[],
        scope: if spec.scope == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: CUSTOM_VERBS,
        has_status: false,
        has_scale: false,
    })
}

impl Watches {
    fn set(&mut self, name: &str, wanted: Option<&'static Resource>) {
        if self.running.get(name).map(|(resource, _)| *resource) == wanted {
            return;
        }
        if let Some((resource, stop)) = self.running.remove(name) {
            stop.cancel();
            self.collector.forget(resource);
        }
        let Some(resource) = wanted else { return };
        let stop = CancellationToken::new();
        self.tasks.spawn(Arc::clone(&self.collector).watch(resource, |_| {}, stop.clone()));
        self.running.insert(name.to_owned(), (resource, stop));
    }

    fn see(&mut self, definition: &CustomResourceDefinition) -> String {
        let name = definition.metadata.name.clone().unwrap_or_default();
        self.set(&name, resource_of(definition));
        name
    }
}

/// Follows the definitions until `shutdown`.
pub(super) async fn follow(collector: Arc<GarbageCollector>, shutdown: CancellationToken) {
    let api: Api<CustomResourceDefinition> = Api::all(collector.client.clone());
    let stream = watcher::watcher(api, watcher::Config::default());
    let mut events: BoxStream<'_, _> = stream.default_backoff().boxed();
    let mut watches = Watches { collector, running: BTreeMap::new(), tasks: JoinSet::new() };
    let mut listed = HashSet::new();
    loop {
        let event = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            event = events.next() => event,
            // Ended watches are taken off the set.
            Some(_) = watches.tasks.join_next(), if !watches.tasks.is_empty() => continue,
        };
        match event {
            None => break,
            Some(Err(error)) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                warn!(error, kind = "CustomResourceDefinition", "a watch broke off and starts over");
            }
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(definition))) => {
                listed.insert(watches.see(&definition));
            }
            Some(Ok(Event::InitDone)) => {
                let gone: Vec<String> =
                    watches.running.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| watches.set(name, None));
            }
            Some(Ok(Event::Apply(definition))) => {
                watches.see(&definition);
            }
            Some(Ok(Event::Delete(definition))) => {
                watches.set(definition.metadata.name.as_deref().unwrap_or_default(), None);
            }
        }
    }
    watches.running.values().for_each(|(_, stop)| stop.cancel());
    while watches.tasks.join_next().await.is_some() {}
}
