//! The objects of all kinds over the store: who wants an object by its kind asks here.

mod apply;
mod attempts;
mod beside;
mod built_ins;
mod delete;
mod event_life;
mod quotas;
mod read;
mod select;
mod service_addresses;
pub(crate) mod versions;
mod watch;
mod write;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use coracle_proto::resource::Resource;
use coracle_store::{Entry, Range, Store};

use crate::{
    admission::{
        self, Figures,
        policy::{Policies, mutating::MutatingPolicies},
        webhook::Webhooks,
    },
    authz::Authorizer,
    custom::Catalogs,
    kind::{Object, Strategy},
    kinds, old,
    ops::{KindOps, Typed},
    status_of::{self, Result},
    stored,
};

use self::built_ins::BuiltIns;
pub use self::{
    beside::Facts,
    delete::Deleted,
    read::{ListOptions, Listed, Wanted},
    select::Selection,
    watch::{Kind, Told, Watch, WatchOptions},
    write::{Change, Current, Writer, random_suffix},
};

pub(crate) use self::{
    watch::{Share, shared_line},
    write::unstored,
};

/// The kinds and the store they are in. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    store: Store,
    kinds: Arc<BuiltIns>,
    custom: Arc<Catalogs>,
    facts: Arc<Facts>,
    authorizer: Arc<OnceLock<Authorizer>>,
    event_life: Arc<event_life::EventLife>,
    webhooks: Arc<Webhooks>,
    policies: Arc<Policies>,
    mutating_policies: Arc<MutatingPolicies>,
    figures: Arc<Figures>,
}

#[derive(Default)]
struct Collect(Vec<Arc<dyn KindOps>>);

impl kinds::Visitor for Collect {
    fn visit<S: Strategy>(&mut self, strategy: S) {
        self.0.push(Typed::shared(strategy));
    }
}

impl Registry {
    /// All built-in kinds over a store.
    #[must_use]
    pub fn new(store: Store, facts: Facts) -> Self {
        let mut collect = Collect::default();
        kinds::each(&mut collect);
        let old = old::of(&collect.0);
        collect.0.extend(old);
        Self {
            webhooks: Arc::new(Webhooks::new(store.clone())),
            policies: Arc::new(Policies::new(store.clone())),
            mutating_policies: Arc::new(MutatingPolicies::new(store.clone())),
            figures: Arc::new(admission::figures()),
            store,
            kinds: Arc::new(BuiltIns::new(collect.0)),
            custom: Arc::default(),
            facts: Arc::new(facts),
            authorizer: Arc::default(),
            event_life: Arc::default(),
        }
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who decides on access, as soon as RBAC's objects are read.
    #[must_use]
    pub fn authorizer(&self) -> Option<&Authorizer> {
        self.authorizer.get()
    }

    /// Who outside the server is asked about writes.
    pub(crate) fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// How long admission takes, and what comes of it.
    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Whether there is anybody who may want to see an object that is written: a webhook or a policy.
    pub(super) fn asks_outside(&self) -> bool {
        !(self.webhooks.is_empty() && self.policies.is_empty() && self.mutating_policies.is_empty())
    }

    /// The rules in CEL that writes must keep.
    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The changes in CEL that writes undergo.
    pub(crate) fn mutating_policies(&self) -> &MutatingPolicies {
        &self.mutating_policies
    }

    /// What a write of this resource changes in the server itself is taken over before the writer has his answer.
    pub(super) fn take_over(&self, resource: &Resource) {
        let loaded = if Webhooks::follows(resource) {
            self.webhooks.load()
        } else if Policies::follows(resource) {
            self.policies.load()
        } else if MutatingPolicies::follows(resource) {
            self.mutating_policies.load()
        } else {
            return;
        };
        if let Err(error) = loaded {
            // The watch reads it again.
            tracing::warn!(error = &error as &dyn std::error::Error, "what admission is configured by cannot be read");
        }
    }

    pub(crate) fn set_authorizer(&self, authorizer: Authorizer) {
        // A server is started once, so there is none yet.
        let _ = self.authorizer.set(authorizer);
    }

    /// The kind served at `group`, `version` and `plural`, built-in or made by a definition.
    #[must_use]
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Arc<dyn KindOps>> {
        self.kinds.find(group, version, plural).cloned().or_else(|| self.custom.find(group, version, plural))
    }

    /// The kind that objects of `group`, `version` and `kind` are of, built-in or made by a definition.
    #[must_use]
    pub fn kind_of(&self, group: &str, version: &str, kind: &str) -> Option<Arc<dyn KindOps>> {
        self.kinds.find_kind(group, version, kind).cloned().or_else(|| self.custom.find_kind(group, version, kind))
    }

    /// All built-in kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<dyn KindOps>> {
        self.kinds.iter()
    }

    /// The kinds that definitions make.
    #[must_use]
    pub fn custom(&self) -> &Catalogs {
        &self.custom
    }

    fn resource_of<T: Object + k8s_openapi::Resource>() -> &'static Resource {
        match coracle_proto::resource::find_kind(T::GROUP, T::VERSION, T::KIND) {
            Some(resource) => resource,
            None => unreachable!("{} is no built-in kind", T::KIND),
        }
    }

    /// The stored version of a built-in kind's object.
    #[must_use]
    pub fn entry(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.store.get(&stored::key(resource.storage, namespace, name))
    }

    /// A built-in kind's object with its resourceVersion, as the store has it now.
    ///
    /// # Errors
    /// 500 when the stored bytes cannot be read.
    pub fn get_typed<T: Object>(&self, namespace: &str, name: &str) -> Result<Option<T>> {
        let entry = self.entry(Self::resource_of::<T>(), namespace, name);
        entry.map(|entry| decode(&entry)).transpose()
    }

    /// Creates a built-in kind's object.
    ///
    /// # Errors
    /// As [`Registry::create`].
    pub async fn create_typed<T: Object>(&self, namespace: &str, object: T, writer: &Writer) -> Result<T> {
        let kind = self.kind_typed::<T>()?;
        let written = self.create(&kind, namespace, Box::new(object), writer).await?;
        decode(&written)
    }

    /// Replaces a built-in kind's object; the object's resourceVersion, if it has one, must be the stored one's.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn update_typed<T: Object>(&self, object: T, writer: &Writer) -> Result<T> {
        let kind = self.kind_typed::<T>()?;
        let meta = object.metadata().clone();
        let at = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let change = |_: &Current<'_>| Ok(Box::new(object.clone()) as crate::ops::BoxObject);
        let written = self.update(&kind, at, Change::Of(crate::ops::Part::Main), writer, change).await?;
        decode(&written)
    }

    /// Deletes a built-in kind's object, at once unless finalizers keep it.
    ///
    /// # Errors
    /// As [`Registry::delete`].
    pub async fn delete_typed<T: Object>(&self, namespace: &str, name: &str, writer: &Writer) -> Result<Deleted> {
        let kind = self.kind_typed::<T>()?;
        self.delete(&kind, (namespace, name), &Default::default(), writer).await
    }

    fn kind_typed<T: Object>(&self) -> Result<Arc<dyn KindOps>> {
        let kind = self.kind_of(T::GROUP, T::VERSION, T::KIND);
        kind.ok_or_else(|| Box::new(coracle_proto::status::Status::no_such_path()))
    }

    /// A built-in kind's objects in a namespace (in all, when it is empty), as the store has them now.
    ///
    /// # Errors
    /// 500 when stored bytes cannot be read.
    pub fn list_typed<T: Object>(&self, namespace: &str) -> Result<Vec<T>> {
        let range = Range::prefix(stored::prefix(Self::resource_of::<T>().storage, namespace));
        let found = self.store.range(&range).map_err(|error| status_of::store(&error))?;
        found.entries.iter().map(|entry| decode(entry)).collect()
    }
}

fn decode<T: Object>(entry: &Entry) -> Result<T> {
    let json: Bytes = stored::object(entry);
    serde_json::from_slice(&json).map_err(|error| status_of::broken("a stored object cannot be read", &error))
}
