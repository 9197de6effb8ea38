//! Creating and updating.

use std::sync::Arc;

use bytes::Bytes;
use coracle_proto::{
    apply::Who,
    field::{self, Path},
    meta,
    resource::Resource,
    status::Status,
};
use coracle_store::{Compare, Entry, Op, OpResult, Revision, Txn, TxnResult};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::value::RawValue;

use super::{
    Registry,
    attempts::{exhausted, rounds},
    beside::Beside,
    versions::{is_in_storage_version, one_seen_as, to_store, unchanged},
};
use crate::{
    admission::{self, Notes, Operation},
    kind::Context,
    ops::{AnyObject, BoxObject, KindOps, Part},
    ownership,
    status_of::{self, Result},
    stored,
    user::User,
};

/// How often another name is generated when one is taken; five random letters rarely are.
const NAME_ATTEMPTS: usize = 8;

/// Letters of generated names: no vowels and no look-alikes, as Kubernetes' own.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The circumstances of a write.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Who writes.
    pub user: Arc<User>,
    /// The name what is written is owned under.
    pub manager: Arc<str>,
    /// Whether everything is done but the storing.
    pub dry_run: bool,
    /// The time of the request.
    pub now: Timestamp,
    /// What admission tells the client and the audit.
    pub notes: Arc<Notes>,
}

impl Writer {
    /// A user who writes now, in earnest.
    #[must_use]
    pub fn new(user: impl Into<Arc<User>>) -> Self {
        let user = user.into();
        let manager = ownership::manager("", "", &user).into();
        Self { user, manager, dry_run: false, now: Timestamp::now(), notes: Arc::default() }
    }

    pub(super) fn who<'a>(&'a self, subresource: &'a str) -> Who<'a> {
        Who { name: &self.manager, subresource, now: self.now }
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context { user: &self.user, now: self.now }
    }
}

/// What an update begins with.
pub struct Current<'a> {
    /// The object, with its resourceVersion.
    pub object: &'a dyn AnyObject,
    /// The stored version.
    pub entry: &'a Entry,
}

/// What an update is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A part that a client may write, with that part's rules.
    Of(Part),
    /// The object itself through its `scale`.
    Scale,
    /// A part to which a configuration was applied, which has settled who owns what.
    Applied(Part),
    /// A change that the server itself works out (a binding, a deletion mark) and that needs no rules.
    Own,
}

impl Change {
    /// Whose rules hold, if any.
    const fn part(self) -> Option<Part> {
        match self {
            Self::Of(part) | Self::Applied(part) => Some(part),
            Self::Scale => Some(Part::Main),
            Self::Own => None,
        }
    }
}

/// Whether it is settled who owns what of an object that is created.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// The writer is to own all of it.
    Open,
    /// They stand in the object.
    Settled,
}

/// Five random letters.
#[must_use]
pub fn random_suffix() -> String {
    let letter = || ALPHABET.get(rand::random_range(0..ALPHABET.len())).copied().unwrap_or(b'x');
    (0..5).map(|_| char::from(letter())).collect()
}

/// The value as it would be stored under `key`.
pub(crate) fn unstored(key: Bytes, value: Vec<u8>, revision: Revision) -> Arc<Entry> {
    Arc::new(Entry {
        key,
        value: value.into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: None,
        derived: coracle_store::Derived::default(),
    })
}

/// A value as the store keeps it: as long as the object is there, and longer in the history, so without room to grow.
fn kept(value: Vec<u8>) -> Bytes {
    value.into_boxed_slice().into()
}

/// The entry that the first step of a transaction put.
pub(super) fn first_put(result: &TxnResult) -> Result<Arc<Entry>> {
    match result.results.first() {
        Some(OpResult::Put { entry, .. }) => Ok(Arc::clone(entry)),
        _ => Err(Box::new(Status::internal("the store answered with something else than was asked"))),
    }
}

pub(super) fn encode(kind: &dyn KindOps, object: &dyn AnyObject) -> Result<Vec<u8>> {
    kind.to_stored(object).map_err(|error| status_of::broken("an object cannot be encoded", &error))
}

fn is_empty(text: Option<&String>) -> bool {
    text.is_none_or(String::is_empty)
}

/// Finalizers and grace have had their way: a marked object may go.
pub(super) fn is_done(kind: &dyn KindOps, object: &dyn AnyObject) -> bool {
    let meta = object.meta();
    meta.deletion_timestamp.is_some()
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && kind.is_finalized(object)
}

/// Whether anything but metadata and status differs in two JSON objects.
fn spec_differs(new: &[u8], old: &[u8]) -> bool {
    type Parts<'a> = std::collections::BTreeMap<&'a str, &'a RawValue>;
    let (Ok(mut new), Ok(mut old)) =
        (serde_json::from_slice::<Parts<'_>>(new), serde_json::from_slice::<Parts<'_>>(old))
    else {
        return true;
    };
    for parts in [&mut new, &mut old] {
        parts.remove("metadata");
        parts.remove("status");
    }
    new.len() != old.len() || new.iter().zip(&old).any(|(a, b)| a.0 != b.0 || a.1.get() != b.1.get())
}

/// Clears and sets what creation implies, of an object that has its defaults.
fn prepare_new(kind: &dyn KindOps, object: &mut dyn AnyObject, uid: &str, writer: &Writer) {
    let meta = object.meta_mut();
    meta.uid = Some(uid.to_owned());
    meta.creation_timestamp = Some(Time(writer.now));
    kind.prepare_create(object, &writer.context());
    let meta = object.meta_mut();
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.self_link = None;
    meta.resource_version = None;
    meta.generation = kind.counts_generations().then_some(1);
}

impl Registry {
    /// Creates an object.
    ///
    /// # Errors
    /// As Kubernetes: 400 for a namespace that is not the request's, 404 for a namespace that is not there, 403 from
    /// admission, 409 for a name that is taken, 422 for what is invalid.
    ///
    /// # Cancel safety
    /// Not cancel-safe: run it to its end.
    pub async fn create(
        &self,
        kind: &Arc<dyn KindOps>,
        namespace: &str,
        mut object: BoxObject,
        writer: &Writer,
    ) -> Result<Arc<Entry>> {
        let kind = kind.modern().unwrap_or(kind);
        let resource = kind.resource();
        let meta = object.meta_mut();
        put_in_namespace(meta, namespace)?;
        let prefix = meta.generate_name.clone().unwrap_or_default();
        let generates = is_empty(meta.name.as_ref()) && !prefix.is_empty();
        if !generates {
            return self.create_named(kind, object, Owners::Open, writer).await;
        }
        let mut last = None;
        for _ in 0..NAME_ATTEMPTS {
            match self.create_named(kind, object.copied(), Owners::Open, writer).await {
                Err(status) if status.reason == "AlreadyExists" => last = Some(status),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| Box::new(Status::already_exists(resource.group, resource.plural, &prefix))))
    }

    /// Creates an object under its name, or one that is made of its `generateName`, which those who change it do not see yet.
    pub(super) async fn create_named(
        &self,
        kind: &Arc<dyn KindOps>,
        mut object: BoxObject,
        owners: Owners,
        writer: &Writer,
    ) -> Result<Arc<Entry>> {
        let resource = kind.resource();
        drop_empty(object.meta_mut());
        kind.default(&mut *object);
        let mut fresh = match owners {
            Owners::Open => ownership::created(&**kind, &mut *object, &writer.who(""))?,
            Owners::Settled => None,
        };
        if self.asks_outside()
            && let Some(fresh) = fresh.take()
        {
            fresh.put(&mut *object)?;
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let has_version = !is_empty(object.meta().resource_version.as_ref());
        prepare_new(&**kind, &mut *object, &uid, writer);
        let meta = object.meta();
        let (mut name, namespace) = (meta.name.clone().unwrap_or_default(), meta.namespace.clone().unwrap_or_default());
        let prefix = meta.generate_name.clone().unwrap_or_default();
        let write = admission::Write {
            registry: self,
            user: &writer.user,
            operation: Operation::Create,
            kind: &**kind,
            namespace: &namespace,
            name: &name,
            generate_name: &prefix,
            subresource: "",
            old: None,
            dry_run: writer.dry_run,
            delete_options: None,
            notes: &writer.notes,
        };
        let owned = object.meta().managed_fields.clone();
        if admission::mutate(&write, Some(&mut object)).await? {
            ownership::readable_or(&mut *object, owned, &writer.notes);
            if object.meta().namespace.as_deref().unwrap_or_default() != namespace {
                return Err(wrong_namespace());
            }
            kind.default(&mut *object);
            prepare_new(&**kind, &mut *object, &uid, writer);
        }
        name_anew(object.meta_mut());
        name = object.meta().name.clone().unwrap_or_default();
        kind.default(&mut *object);
        let path = Path::new("metadata");
        let mut errors = meta::validate_object_meta(object.meta(), resource.scope, kind.name_rule(), &path);
        errors.extend(check_finalizers(&**kind, object.meta(), &path));
        errors.extend(kind.validate(&*object));
        refuse(resource, &name, &errors)?;
        let write = admission::Write {
            registry: self,
            user: &writer.user,
            operation: Operation::Create,
            kind: &**kind,
            namespace: &namespace,
            name: &name,
            generate_name: "",
            subresource: "",
            old: None,
            dry_run: writer.dry_run,
            delete_options: None,
            notes: &writer.notes,
        };
        admission::validate(&write, Some(&*object)).await?;
        let key = stored::key(resource.storage, &namespace, &name);
        let taken = || Box::new(Status::already_exists(resource.group, resource.plural, &name));
        for () in rounds() {
            if self.store.get(&key).is_some() {
                return Err(taken());
            }
            let beside = self.beside(&**kind, Some(&mut *object), None, writer)?;
            let beside = beside.and(self.charge(&write, &*object, writer.now)?);
            let value = encode(&**kind, &*object)?;
            let value = match fresh.as_ref().map(|fresh| fresh.insert(&value)).transpose()? {
                Some(Some(value)) => value,
                None => value,
                Some(None) => {
                    fresh.take().map_or(Ok(()), |fresh| fresh.put(&mut *object))?;
                    encode(&**kind, &*object)?
                }
            };
            kind.warnings(&*object).into_iter().for_each(|sentence| writer.notes.warn(sentence));
            if writer.dry_run {
                // What cannot be converted for the store is refused here as well.
                to_store(&**kind, value.clone()).await?;
                return Ok(unstored(key, value, Revision::NONE));
            }
            if has_version {
                let message = "resourceVersion should not be set on objects to be created";
                return Err(Box::new(Status::failure(500, "InternalError", message)));
            }
            let value = to_store(&**kind, value).await?;
            let mut compare = vec![Compare::absent(key.clone())];
            compare.extend(beside.compare);
            if let Some(home) = (!namespace.is_empty()).then(|| self.namespace_entry(&namespace)).flatten() {
                // The namespace is still the one that admission saw.
                compare.push(Compare::CreateRevision {
                    key: home.key.clone(),
                    is: coracle_store::Is::Equal,
                    value: home.create_revision,
                });
            }
            if let Some((key, value)) = kind.guard() {
                compare.push(Compare::CreateRevision { key, is: coracle_store::Is::Equal, value });
            }
            let lease = self.event_life.lease_of(resource, &self.store).await?;
            let mut then = vec![Op::Put { key: key.clone(), value: kept(value), lease }];
            then.extend(beside.then);
            let result = self.commit(Txn { compare, then, or_else: Vec::new() }).await?;
            if result.succeeded {
                self.take_over(resource);
                let entry = one_seen_as(&**kind, first_put(&result)?).await?;
                return Ok(entry);
            }
            if self.store.get(&key).is_some() {
                return Err(taken());
            }
            if !namespace.is_empty() && self.namespace_entry(&namespace).is_none() {
                return Err(Box::new(Status::not_found("", "namespaces", &namespace)));
            }
            if let Some((key, since)) = kind.guard()
                && self.store.get(&key).is_none_or(|entry| entry.create_revision != since)
            {
                return Err(Box::new(Status::no_such_path()));
            }
        }
        Err(exhausted())
    }

    pub(super) async fn commit(&self, txn: Txn) -> Result<TxnResult> {
        self.store.txn(txn).await.map_err(|error| status_of::store(&error))
    }

    /// The stored version of a namespace.
    #[must_use]
    pub fn namespace_entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.store.get(&stored::key("namespaces", "", name))
    }

    /// The object of a stored version, with its resourceVersion.
    pub(crate) fn object_of(&self, kind: &dyn KindOps, entry: &Entry) -> Result<BoxObject> {
        let mut object = kind
            .from_stored(&entry.value)
            .map_err(|error| status_of::broken("a stored object cannot be read", &error))?;
        object.meta_mut().resource_version = Some(entry.mod_revision.to_string());
        Ok(object)
    }

    /// Changes an object into what `change` makes of it, again from the start when another write came first, unless the
    /// new object names a resourceVersion. A change that changes nothing writes nothing.
    ///
    /// # Errors
    /// 404 when it is not there, 409 for another resourceVersion or uid than the object's, 403 from admission, 422 for
    /// what is invalid; and whatever `change` refuses with.
    ///
    /// # Cancel safety
    /// Not cancel-safe: run it to its end.
    pub async fn update(
        &self,
        kind: &Arc<dyn KindOps>,
        (namespace, name): (&str, &str),
        what: Change,
        writer: &Writer,
        mut change: impl FnMut(&Current<'_>) -> Result<BoxObject>,
    ) -> Result<Arc<Entry>> {
        let kind = kind.modern().unwrap_or(kind);
        let resource = kind.resource();
        let key = stored::key(resource.storage, namespace, name);
        for () in rounds() {
            let entry = self
                .store
                .get(&key)
                .ok_or_else(|| Box::new(Status::not_found(resource.group, resource.plural, name)))?;
            let seen = one_seen_as(&**kind, Arc::clone(&entry)).await?;
            let old = self.object_of(&**kind, &seen)?;
            let mut new = change(&Current { object: &*old, entry: &seen })?;
            let is_by_client = matches!(what, Change::Of(_));
            let is_blind = is_by_client && is_empty(new.meta().resource_version.as_ref());
            self.check_identity(&**kind, &*old, &mut *new, name, namespace)?;
            if is_blind && !kind.allows_unconditional_update() {
                // Kubernetes names the resource here where it names the kind elsewhere.
                // And writes the missing number as it does no other.
                let error = field::Error {
                    path: Path::new("metadata").child("resourceVersion"),
                    kind: field::ErrorKind::Invalid,
                    message: "Invalid value: 0: must be specified for an update".to_owned(),
                };
                return Err(Box::new(Status::invalid(resource.group, resource.plural, name, &[error])));
            }
            let mut charged = Beside::default();
            if let Some(part) = what.part() {
                // Validation looks at the version the update is based on.
                new.meta_mut().resource_version.clone_from(&old.meta().resource_version);
                kind.default(&mut *new);
                let subresource = if what == Change::Scale { "scale" } else { ownership::subresource(part) };
                if !matches!(what, Change::Applied(_)) {
                    ownership::updated(&**kind, part, &mut *new, &*old, &writer.who(subresource)).await?;
                }
                kind.prepare(part, &mut *new, &*old, &writer.context());
                let write = admission::Write {
                    registry: self,
                    user: &writer.user,
                    operation: Operation::Update,
                    kind: &**kind,
                    namespace,
                    name,
                    generate_name: "",
                    subresource,
                    old: Some(&*old),
                    dry_run: writer.dry_run,
                    delete_options: None,
                    notes: &writer.notes,
                };
                let owned = new.meta().managed_fields.clone();
                if admission::mutate(&write, Some(&mut new)).await? {
                    ownership::readable_or(&mut *new, owned, &writer.notes);
                    self.check_identity(&**kind, &*old, &mut *new, name, namespace)?;
                    new.meta_mut().resource_version.clone_from(&old.meta().resource_version);
                    kind.default(&mut *new);
                    kind.prepare(part, &mut *new, &*old, &writer.context());
                }
                let errors = check_change(&**kind, part, &*new, &*old);
                refuse(resource, name, &errors)?;
                let let_be = kind.let_be(&*new, &*old);
                let_be.iter().for_each(|error| writer.notes.warn(error.to_string()));
                admission::validate(&write, Some(&*new)).await?;
                charged = self.charge(&write, &*new, writer.now)?;
            }
            new.meta_mut().resource_version = None;
            if what.part() == Some(Part::Main) {
                let mut told = kind.warnings(&*new);
                if is_extension(&**kind) {
                    // Only what is new is worth a word.
                    let before = kind.warnings(&*old);
                    told.retain(|sentence| !before.contains(sentence));
                }
                told.into_iter().for_each(|sentence| writer.notes.warn(sentence));
            }
            let is_done = is_done(&**kind, &*new);
            let beside = self.beside(&**kind, (!is_done).then_some(&mut *new), Some(&*old), writer)?.and(charged);
            let before = unchanged(&**kind, &entry, &seen, &*old)?;
            let mut value = encode(&**kind, &*new)?;
            if value != before && ownership::keep_times(&mut *new, &*old) {
                value = encode(&**kind, &*new)?;
            }
            if value == before && !is_done && is_in_storage_version(&**kind, &entry.value) {
                return Ok(seen);
            }
            if kind.counts_generations() && what.part().is_some_and(Part::is_of_spec) {
                let annotations = |o: &dyn AnyObject| o.meta().annotations.clone();
                let counts = kind.counts_as_change(&*new, &*old).unwrap_or_else(|| spec_differs(&value, &before))
                    || (kind.generation_counts_annotations() && annotations(&*new) != annotations(&*old));
                if counts {
                    new.meta_mut().generation = Some(old.meta().generation.unwrap_or(0) + 1);
                    value = encode(&**kind, &*new)?;
                }
            }
            if writer.dry_run {
                to_store(&**kind, value.clone()).await?;
                return Ok(unstored(key, value, entry.mod_revision));
            }
            let mut compare = vec![Compare::unchanged(key.clone(), entry.mod_revision)];
            compare.extend(beside.compare);
            let first = if is_done {
                Op::delete(key.clone())
            } else {
                let lease = self.event_life.lease_of(resource, &self.store).await?;
                let value = to_store(&**kind, value.clone()).await?;
                Op::Put { key: key.clone(), value: kept(value), lease }
            };
            let mut then = vec![first];
            then.extend(beside.then);
            let result = self.commit(Txn { compare, then, or_else: Vec::new() }).await?;
            if result.succeeded {
                self.take_over(resource);
                if is_done {
                    return Ok(unstored(key, value, result.revision));
                }
                let entry = one_seen_as(&**kind, first_put(&result)?).await?;
                return Ok(entry);
            }
        }
        Err(exhausted())
    }

    /// Checks that the new object is the old one by name, uid and version, and keeps what only the server writes.
    fn check_identity(
        &self,
        kind: &dyn KindOps,
        old: &dyn AnyObject,
        new: &mut dyn AnyObject,
        name: &str,
        namespace: &str,
    ) -> Result<()> {
        let resource = kind.resource();
        let (old, new) = (old.meta(), new.meta_mut());
        let given = new.name.as_deref().unwrap_or_default();
        if given != name {
            return Err(wrong_name(given, name));
        }
        match new.namespace.as_deref().unwrap_or_default() {
            // An object without a namespace of its own may be said to be in one: manifests are written so.
            _ if namespace.is_empty() => new.namespace = None,
            "" => new.namespace.clone_from(&old.namespace),
            given if given != namespace => return Err(wrong_namespace()),
            _ => {}
        }
        if !is_empty(new.uid.as_ref()) && new.uid != old.uid {
            let (asked, is) = (new.uid.clone().unwrap_or_default(), old.uid.clone().unwrap_or_default());
            let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {is}");
            return Err(Box::new(Status::conflict(resource.group, resource.plural, name, &why)));
        }
        match new.resource_version.as_deref().unwrap_or_default() {
            "" => {}
            given => {
                meta::parse_resource_version(given).map_err(|why| {
                    let error = field::Error::invalid(&Path::new("metadata").child("resourceVersion"), given, &why);
                    Box::new(Status::invalid(resource.group, resource.kind, name, &[error]))
                })?;
                if Some(given) != old.resource_version.as_deref() && given != "0" {
                    return Err(Box::new(Status::stale(resource.group, resource.plural, name)));
                }
            }
        }
        new.uid.clone_from(&old.uid);
        new.creation_timestamp.clone_from(&old.creation_timestamp);
        if old.deletion_timestamp.is_some() || new.deletion_timestamp.is_none() {
            // A mark is made by DELETE alone, and stays.
            new.deletion_timestamp.clone_from(&old.deletion_timestamp);
            new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
        }
        drop_empty(new);
        new.generation = old.generation;
        new.generate_name = new.generate_name.take().or_else(|| old.generate_name.clone());
        new.resource_version = None;
        new.self_link = None;
        Ok(())
    }
}

/// What has nothing in it is not there.
fn drop_empty(meta: &mut ObjectMeta) {
    for map in [&mut meta.labels, &mut meta.annotations] {
        *map = map.take().filter(|map| !map.is_empty());
    }
    meta.finalizers = meta.finalizers.take().filter(|list| !list.is_empty());
    meta.owner_references = meta.owner_references.take().filter(|list| !list.is_empty());
}

fn wrong_namespace() -> Box<Status> {
    let message = "the namespace of the provided object does not match the namespace sent on the request";
    Box::new(Status::bad_request(message))
}

pub(super) fn wrong_name(given: &str, name: &str) -> Box<Status> {
    Box::new(Status::bad_request(if given.is_empty() {
        format!("the name of the object ({name} based on URL) was undeterminable: name must be provided")
    } else {
        format!("the name of the object ({given}) does not match the name on the URL ({name})")
    }))
}

/// Says what is wrong with an object, if anything is.
fn refuse(resource: &Resource, name: &str, errors: &field::Errors) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    if let Some(unreadable) = status_of::unreadable(resource, errors) {
        return Err(unreadable);
    }
    Err(Box::new(Status::invalid(resource.group, resource.kind, name, errors)))
}

/// Gives an object that has none a name that begins as it is to.
fn name_anew(meta: &mut ObjectMeta) {
    let prefix = meta.generate_name.as_deref().unwrap_or_default();
    if is_empty(meta.name.as_ref()) && !prefix.is_empty() {
        let short: String = prefix.chars().take(58).collect();
        meta.name = Some(format!("{short}{}", random_suffix()));
    }
}

/// Puts an object to be created into the request's namespace; one that is in none is taken out of any it names.
pub(super) fn put_in_namespace(meta: &mut ObjectMeta, namespace: &str) -> Result<()> {
    if namespace.is_empty() || is_empty(meta.namespace.as_ref()) {
        meta.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    } else if meta.namespace.as_deref() != Some(namespace) {
        return Err(wrong_namespace());
    }
    Ok(())
}

/// Whether a kind extends the API, or came by such an extension.
fn is_extension(kind: &dyn KindOps) -> bool {
    const EXTENSIONS: &[&str] = &["admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io"];
    kind.is_custom() || EXTENSIONS.contains(&kind.resource().group)
}

/// Kinds of Kubernetes' oldest groups want finalizers with a domain; what extends the API takes any.
fn check_finalizers(kind: &dyn KindOps, meta: &ObjectMeta, path: &Path) -> field::Errors {
    if is_extension(kind) {
        return field::Errors::new();
    }
    meta::validate_qualified_finalizers(meta.finalizers.as_deref().unwrap_or_default(), &path.child("finalizers"))
}

fn check_change(kind: &dyn KindOps, part: Part, new: &dyn AnyObject, old: &dyn AnyObject) -> field::Errors {
    let path = Path::new("metadata");
    let mut errors = meta::validate_object_meta_update(new.meta(), old.meta(), &path);
    errors.extend(check_finalizers(kind, new.meta(), &path));
    errors.extend(kind.validate_change(part, new, old));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_outside_metadata_and_status_makes_a_new_generation() {
        let old = br#"{"kind":"X","metadata":{"a":1},"spec":{"b":1},"status":{"c":1}}"#;
        assert!(!spec_differs(br#"{"kind":"X","metadata":{"a":2},"spec":{"b":1}}"#, old));
        assert!(spec_differs(br#"{"kind":"X","metadata":{"a":1},"spec":{"b":2},"status":{"c":1}}"#, old));
        assert!(spec_differs(br#"{"kind":"X","metadata":{"a":1}}"#, old));
    }

    #[test]
    fn generated_letters_are_of_kubernetes_alphabet() {
        let suffix = random_suffix();
        assert!(suffix.len() == 5 && suffix.bytes().all(|b| ALPHABET.contains(&b)), "{suffix}");
    }
}
