//! Server-side apply: an object made or changed so that it has what a configuration says.

use std::sync::Arc;

use coracle_proto::status::Status;
use coracle_store::Entry;

use super::{
    Registry, Writer,
    attempts::{exhausted, rounds},
    write::{Change, Current, Owners, put_in_namespace, wrong_name},
};
use crate::{
    ops::{KindOps, Part},
    ownership::{self, Config, Versions},
    status_of::Result,
    stored,
};

impl Registry {
    /// Applies a configuration: creates the object when it is not there and `may_create` agrees. Says whether it did.
    ///
    /// # Errors
    /// As [`Registry::create`] and [`Registry::update`]; 409 that names all conflicts, unless forced; 409 for a uid
    /// when there is no object.
    ///
    /// # Cancel safety
    /// Not cancel-safe: run it to its end.
    pub async fn apply(
        &self,
        kind: &Arc<dyn KindOps>,
        (namespace, name): (&str, &str),
        part: Part,
        config: &Config,
        writer: &Writer,
        may_create: impl Fn() -> Result<()>,
    ) -> Result<(Arc<Entry>, bool)> {
        let resource = kind.resource();
        ownership::check(&**kind, part, config)?;
        let who = writer.who(ownership::subresource(part));
        let key = stored::key(resource.storage, namespace, name);
        let versions = Versions::default();
        for () in rounds() {
            if part == Part::Main && self.store.get(&key).is_none() {
                let mut object = ownership::applied(&**kind, part, None, config, &who, &versions)?;
                let meta = object.meta_mut();
                if let Some(uid) = meta.uid.as_ref().filter(|uid| !uid.is_empty()) {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    );
                    return Err(Box::new(Status::conflict(resource.group, resource.plural, name, &why)));
                }
                put_in_namespace(meta, namespace)?;
                if meta.name.as_deref() != Some(name) {
                    return Err(wrong_name(meta.name.as_deref().unwrap_or_default(), name));
                }
                may_create()?;
                match self.create_named(kind, object, Owners::Settled, writer).await {
                    Err(status) if status.reason == "AlreadyExists" => continue,
                    created => return created.map(|written| (written, true)),
                }
            }
            let change = |current: &Current<'_>| {
                ownership::applied(&**kind, part, Some(current.object), config, &who, &versions)
            };
            match self.update(kind, (namespace, name), Change::Applied(part), writer, change).await {
                Err(_) if versions.is_lacking() => versions.fetch(&**kind).await?,
                Err(status) if status.code == 404 && part == Part::Main => {}
                updated => return updated.map(|written| (written, false)),
            }
        }
        Err(exhausted())
    }

    /// Applies a configuration of nothing but the replicas, through `scale`.
    ///
    /// # Errors
    /// As [`Registry::apply`]; 404 when the object is not there.
    ///
    /// # Cancel safety
    /// Not cancel-safe: run it to its end.
    pub async fn apply_scale(
        &self,
        kind: &Arc<dyn KindOps>,
        at: (&str, &str),
        config: &Config,
        writer: &Writer,
    ) -> Result<Arc<Entry>> {
        ownership::check(&**kind, Part::Main, config)?;
        let who = writer.who("scale");
        let versions = Versions::default();
        for () in rounds() {
            let change = |current: &Current<'_>| {
                ownership::applied(&**kind, Part::Main, Some(current.object), config, &who, &versions)
            };
            match self.update(kind, at, Change::Applied(Part::Main), writer, change).await {
                Err(_) if versions.is_lacking() => versions.fetch(&**kind).await?,
                updated => return updated,
            }
        }
        Err(exhausted())
    }
}
