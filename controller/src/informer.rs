//! Informers: one watch a kind, shared by every controller that needs it.
//!
//! An informer keeps what the watch shows (through a *view*, a struct with just the fields needed), tells its handlers
//! what changed, and knows how far it has seen. That last part is what keeps a controller from acting on a picture older
//! than its own writes: after a write it waits until the informer has seen it ([`Reader::caught_up`]; Kubernetes does
//! the same since KEP-5647).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Debug,
    sync::{Arc, PoisonError, RwLock},
};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::object_key::ObjectKey;

/// What happened to an object.
pub(crate) enum Change<'a, K> {
    /// It is new to us.
    Added(&'a K),
    /// It is another than before; also told for each object again after the watch had to start over.
    Updated {
        /// As it was.
        old: &'a K,
        /// As it is.
        new: &'a K,
    },
    /// It is gone; its last state.
    Deleted(&'a K),
}

impl<'a, K> Change<'a, K> {
    /// The object as it is, or as it last was.
    pub(crate) fn object(&self) -> &'a K {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }
}

/// What an informer can watch.
pub(crate) trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Watched for K {}

type Handler<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;
type IndexBy<K> = fn(&K) -> Vec<String>;

struct Contents<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    index: HashMap<String, BTreeSet<ObjectKey>>,
}

struct Shared<K> {
    contents: RwLock<Contents<K>>,
    index_by: Option<IndexBy<K>>,
    seen: watch::Sender<Seen>,
}

/// How far an informer has come.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The highest resourceVersion seen; 0 until the first list is complete.
    version: u64,
    /// Lists begun, one whenever the watch has to start over, and the last one that was complete.
    begun: u64,
    complete: u64,
    /// It looks no more.
    has_ended: bool,
}

/// Reads what an informer knows. Cheap to clone.
pub(crate) struct Reader<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Reader<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K> Reader<K> {
    /// The object with this key.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read(|contents| contents.objects.get(key).cloned())
    }

    /// Every object for which `wanted` says so.
    pub(crate) fn list(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.read(|contents| contents.objects.values().filter(|o| wanted(o)).cloned().collect())
    }

    /// Every object under `value` of the informer's index, by name.
    pub(crate) fn indexed(&self, value: &str) -> Vec<Arc<K>> {
        self.read(|contents| {
            let keys = contents.index.get(value).into_iter().flatten();
            keys.filter_map(|key| contents.objects.get(key)).cloned().collect()
        })
    }

    /// Waits for the first complete list, or until the informer has ended without one.
    pub(crate) async fn synced(&self) {
        self.caught_up(1).await;
    }

    /// Waits until the informer has seen this resourceVersion, which was written before the call; false if it never will,
    /// since it has ended: then there is nothing to be decided any more.
    ///
    /// A watch that has to start over does not tell of versions that are gone again by then. But a list that was begun
    /// after the write holds what became of it.
    pub(crate) async fn caught_up(&self, resource_version: u64) -> bool {
        let mut seen = self.shared.seen.subscribe();
        let begun = seen.borrow().begun;
        let is_past = |seen: &Seen| seen.version >= resource_version || seen.complete > begun;
        // The sender lives in `self`, so the wait does not fail.
        seen.wait_for(|seen| is_past(seen) || seen.has_ended).await.is_ok_and(|seen| is_past(&seen))
    }

    fn read<T>(&self, look: impl FnOnce(&Contents<K>) -> T) -> T {
        // A handler that panicked has not touched the contents: they are only changed between handlers.
        look(&self.shared.contents.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Watches one kind. Handlers are added before it runs.
pub(crate) struct Informer<K> {
    shared: Arc<Shared<K>>,
    handlers: Vec<Handler<K>>,
    /// Only objects with these fields are watched; empty for all.
    fields: String,
}

impl<K: Watched> Informer<K> {
    /// One that can also find objects by the values `index_by` gives for each.
    pub(crate) fn new(index_by: Option<IndexBy<K>>) -> Self {
        let contents = RwLock::new(Contents { objects: HashMap::new(), index: HashMap::new() });
        let shared = Shared { contents, index_by, seen: watch::Sender::new(Seen::default()) };
        Self { shared: Arc::new(shared), handlers: Vec::new(), fields: String::new() }
    }

    /// One that watches only what this field selector selects.
    pub(crate) fn selecting(fields: &str) -> Self {
        Self { fields: fields.to_owned(), ..Self::new(None) }
    }

    /// Something to read it by.
    pub(crate) fn reader(&self) -> Reader<K> {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// Has `handler` told of every change; it must be quick and must not block.
    pub(crate) fn on_change(&mut self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        self.handlers.push(Box::new(handler));
    }

    /// Watches until `shutdown`.
    pub(crate) async fn run(self, api: Api<K>, shutdown: CancellationToken) {
        let config = if self.fields.is_empty() {
            watcher::Config::default()
        } else {
            watcher::Config::default().fields(&self.fields)
        };
        let _ended = Ended(&self.shared.seen);
        let mut events: BoxStream<'_, _> = watcher::watcher(api, config).default_backoff().boxed();
        let mut listed = HashSet::new();
        let mut highest = 0;
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                None => return,
                Some(Err(error)) => {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    warn!(error, kind = %K::kind(&()), "a watch broke off and starts over");
                }
                // Told before the list is asked for.
                Some(Ok(Event::Init)) => {
                    listed.clear();
                    self.begin_list();
                }
                Some(Ok(Event::InitApply(object))) => {
                    listed.insert(ObjectKey::of(&object));
                    highest = highest.max(version_of(&object));
                    self.set(object);
                }
                Some(Ok(Event::InitDone)) => {
                    self.forget_all_but(&listed);
                    listed.clear();
                    self.complete_list(highest.max(1));
                }
                Some(Ok(Event::Apply(object))) => {
                    let version = version_of(&object);
                    self.set(object);
                    self.saw(version);
                }
                Some(Ok(Event::Delete(object))) => {
                    let version = version_of(&object);
                    self.remove(&ObjectKey::of(&object));
                    self.saw(version);
                }
            }
        }
    }

    fn saw(&self, version: u64) {
        self.shared.seen.send_if_modified(|seen| {
            let newer = version > seen.version;
            seen.version = seen.version.max(version);
            newer
        });
    }

    fn begin_list(&self) {
        self.shared.seen.send_modify(|seen| seen.begun += 1);
    }

    fn complete_list(&self, highest: u64) {
        self.shared.seen.send_modify(|seen| {
            seen.version = seen.version.max(highest);
            seen.complete = seen.begun;
        });
    }

    fn set(&self, mut object: K) {
        // Who wrote which field is half of an object's size, and no controller's business.
        object.meta_mut().managed_fields = None;
        let (key, object) = (ObjectKey::of(&object), Arc::new(object));
        let old = self.write(|contents, index_by| {
            let old = contents.objects.insert(key.clone(), Arc::clone(&object));
            if let Some(index_by) = index_by {
                unindex(contents, &key, old.as_deref(), index_by);
                for value in index_by(&object) {
                    contents.index.entry(value).or_default().insert(key.clone());
                }
            }
            old
        });
        self.tell(&match &old {
            Some(old) => Change::Updated { old: old.as_ref(), new: object.as_ref() },
            None => Change::Added(object.as_ref()),
        });
    }

    fn remove(&self, key: &ObjectKey) {
        let old = self.write(|contents, index_by| {
            let old = contents.objects.remove(key);
            if let Some(index_by) = index_by {
                unindex(contents, key, old.as_deref(), index_by);
            }
            old
        });
        if let Some(old) = old {
            self.tell(&Change::Deleted(old.as_ref()));
        }
    }

    fn forget_all_but(&self, listed: &HashSet<ObjectKey>) {
        let reader = self.reader();
        let gone: Vec<ObjectKey> =
            reader.read(|contents| contents.objects.keys().filter(|key| !listed.contains(*key)).cloned().collect());
        gone.iter().for_each(|key| self.remove(key));
    }

    fn tell(&self, change: &Change<'_, K>) {
        self.handlers.iter().for_each(|handler| handler(change));
    }

    fn write<T>(&self, change: impl FnOnce(&mut Contents<K>, Option<IndexBy<K>>) -> T) -> T {
        let mut contents = self.shared.contents.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut contents, self.shared.index_by)
    }
}

/// Tells whoever waits for an informer that it has ended.
struct Ended<'a>(&'a watch::Sender<Seen>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|seen| seen.has_ended = true);
    }
}

fn unindex<K>(contents: &mut Contents<K>, key: &ObjectKey, old: Option<&K>, index_by: IndexBy<K>) {
    for value in old.map(index_by).unwrap_or_default() {
        if let Some(keys) = contents.index.get_mut(&value) {
            keys.remove(key);
            if keys.is_empty() {
                contents.index.remove(&value);
            }
        }
    }
}

/// An object's resourceVersion as the number it is.
pub(crate) fn version_of(object: &impl Resource) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, version: u64, owner: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.namespace = Some("d".to_owned());
        object.metadata.resource_version = Some(version.to_string());
        object.metadata.labels = Some([("owner".to_owned(), owner.to_owned())].into());
        object
    }

    fn by_owner(object: &ConfigMap) -> Vec<String> {
        object.metadata.labels.iter().flatten().map(|(_, v)| v.clone()).collect()
    }

    #[test]
    fn the_index_follows_every_change() {
        let informer = Informer::new(Some(by_owner));
        let reader = informer.reader();
        informer.set(object("a", 1, "x"));
        informer.set(object("b", 2, "x"));
        assert_eq!(reader.indexed("x").len(), 2);
        informer.set(object("a", 3, "y"));
        assert_eq!((reader.indexed("x").len(), reader.indexed("y").len()), (1, 1));
        informer.remove(&ObjectKey::new("d", "a"));
        informer.forget_all_but(&HashSet::new());
        assert!(reader.read(|c| c.objects.is_empty() && c.index.is_empty()));
    }

    #[test]
    fn handlers_hear_what_happened() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut informer = Informer::new(None);
        let ears = Arc::clone(&heard);
        informer.on_change(move |change: &Change<'_, ConfigMap>| {
            let word = match change {
                Change::Added(_) => "added",
                Change::Updated { .. } => "updated",
                Change::Deleted(_) => "deleted",
            };
            ears.lock().unwrap().push(format!("{word} {}", ObjectKey::of(change.object())));
        });
        informer.set(object("a", 1, "x"));
        informer.set(object("a", 2, "x"));
        informer.remove(&ObjectKey::new("d", "a"));
        informer.remove(&ObjectKey::new("d", "a"));
        assert_eq!(*heard.lock().unwrap(), ["added d/a", "updated d/a", "deleted d/a"]);
    }

    #[tokio::test]
    async fn a_reader_waits_until_its_own_write_was_seen() {
        let informer: Informer<ConfigMap> = Informer::new(None);
        let reader = informer.reader();
        informer.saw(4);
        let mut waiting = Box::pin(reader.caught_up(5));
        assert!(futures::poll!(&mut waiting).is_pending());
        informer.saw(5);
        assert!(waiting.await);
    }

    #[tokio::test]
    async fn a_list_begun_after_a_write_shows_it_even_if_its_version_is_gone() {
        let informer: Informer<ConfigMap> = Informer::new(None);
        let reader = informer.reader();
        informer.begin_list();
        let mut waiting = Box::pin(reader.caught_up(5));
        assert!(futures::poll!(&mut waiting).is_pending());
        informer.complete_list(3);
        assert!(futures::poll!(&mut waiting).is_pending(), "that list may be older than the write");
        informer.begin_list();
        assert!(futures::poll!(&mut waiting).is_pending());
        informer.complete_list(3);
        assert!(waiting.await);
    }

    #[tokio::test]
    async fn nobody_waits_for_an_informer_that_has_ended() {
        let informer: Informer<ConfigMap> = Informer::new(None);
        let reader = informer.reader();
        let mut waiting = Box::pin(reader.caught_up(5));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(Ended(&informer.shared.seen));
        assert!(!waiting.await);
        reader.synced().await;
    }
}
