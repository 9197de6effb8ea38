//! A kind without its type: what the shared code calls a [`Strategy`] through.
//!
//! [`KindOps`] over a built-in kind's strategy is [`Typed`]; a kind that is only known at run time implements it over
//! JSON. Objects travel as [`AnyObject`].

mod base64;
mod decode;
mod explain;

use std::{any::Any, borrow::Cow};

use bytes::Bytes;
use coracle_proto::{apply::BuiltIn, field, protobuf::WrongTime, resource::Resource};
use coracle_store::Revision;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    custom::Converter,
    go_json,
    kind::{Context, Deletion, Object, Scale, Strategy},
    ownership::{self, BySchema, Owners, Versions},
};

use self::decode::decode;
pub(crate) use self::{
    decode::dotted,
    explain::{explain_metadata, in_apply},
};

/// An object of a kind that the holder need not know.
pub trait AnyObject: Any + Send + Sync {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// For a look at its type.
    fn as_any(&self) -> &dyn Any;
    /// For a change by its type.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// Another one like it.
    fn copied(&self) -> BoxObject;
    /// Its JSON.
    ///
    /// # Errors
    /// The type cannot be written as JSON.
    fn to_json(&self) -> serde_json::Result<Value>;
}

/// An object on the heap.
pub type BoxObject = Box<dyn AnyObject>;

impl<T: Object> AnyObject for T {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn copied(&self) -> BoxObject {
        Box::new(self.clone())
    }

    fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}

/// An object as it was read from a client.
pub struct Decoded {
    /// The object.
    pub object: BoxObject,
    /// Paths of fields the kind does not have.
    pub unknown: Vec<String>,
}

/// JSON that is not of the kind: where and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", in_go.clone().unwrap_or_else(|| format!("json: cannot unmarshal field {path}: {why}")))]
pub struct DecodeError {
    /// The field, from the kind's name on: `ConfigMap.data`.
    pub path: String,
    /// What is wrong there.
    pub why: String,
    /// The same as Go would say it, where that is known.
    pub in_go: Option<String>,
}

impl DecodeError {
    /// What Go says of a time, for which it names no field.
    pub(crate) fn of_time(kind: &str, WrongTime { path, why }: WrongTime) -> Self {
        Self { path: format!("{kind}.{path}"), why: why.clone(), in_go: Some(why) }
    }
}

/// Which part of an object an update is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object itself.
    Main,
    /// `/status`.
    Status,
    /// `/finalize` of a namespace.
    Finalize,
    /// `/approval` of a certificate signing request.
    Approval,
    /// `/ephemeralcontainers` of a pod.
    EphemeralContainers,
    /// `/resize` of a pod.
    Resize,
}

impl Part {
    /// Whether it is a part of what is wanted of the object, so that its changes make new generations.
    #[must_use]
    pub fn is_of_spec(self) -> bool {
        matches!(self, Self::Main | Self::EphemeralContainers | Self::Resize)
    }
}

/// What the shared code asks of a kind; see [`Strategy`] for what each means and when it is called.
#[expect(missing_docs, reason = "each is documented in Strategy")]
pub trait KindOps: Send + Sync {
    fn resource(&self) -> &'static Resource;
    /// Today's kind, of an old version's: what objects are stored, admitted and validated as.
    fn modern(&self) -> Option<&std::sync::Arc<dyn KindOps>> {
        None
    }
    fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError>;
    /// What came of an apply, which is in today's shape whatever version the configuration was in.
    fn decode_merged(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        self.decode(json)
    }
    /// A configuration in today's shape, if it is of an old version.
    fn modernized(&self, config: &Value) -> Option<Value> {
        let _ = config;
        None
    }
    #[expect(clippy::wrong_self_convention, reason = "it is from the store, and the kind knows how")]
    fn from_stored(&self, stored: &[u8]) -> serde_json::Result<BoxObject>;
    fn to_stored(&self, object: &dyn AnyObject) -> serde_json::Result<Vec<u8>>;
    fn to_shown(&self, object: &dyn AnyObject) -> serde_json::Result<Vec<u8>>;
    fn is_stored_as_shown(&self) -> bool;
    fn name_rule(&self) -> coracle_proto::name::NameRule;
    fn default(&self, object: &mut dyn AnyObject);
    fn prepare_create(&self, object: &mut dyn AnyObject, context: &Context<'_>);
    fn prepare(&self, part: Part, new: &mut dyn AnyObject, old: &dyn AnyObject, context: &Context<'_>);
    fn validate(&self, object: &dyn AnyObject) -> field::Errors;
    fn validate_change(&self, part: Part, new: &dyn AnyObject, old: &dyn AnyObject) -> field::Errors;
    /// What is wrong with an object that takes another's place, but was before and so is only warned of.
    fn let_be(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> field::Errors {
        let _ = (new, old);
        field::Errors::new()
    }
    fn counts_generations(&self) -> bool;
    fn generation_counts_annotations(&self) -> bool;
    fn is_finalized(&self, object: &dyn AnyObject) -> bool;
    /// Who owns which fields, as writes of the part have it. Objects in other versions may come from `versions`.
    fn owners<'k>(&'k self, part: Part, versions: &'k Versions) -> Box<dyn Owners + 'k>;
    fn warnings(&self, object: &dyn AnyObject) -> Vec<String>;
    fn begin_deletion(&self, object: &mut dyn AnyObject, grace: Option<i64>) -> Deletion;
    /// What field selectors may ask of a stored object.
    fn fields(&self, stored: &[u8]) -> serde_json::Result<Vec<(Cow<'static, str>, String)>>;
    fn field_names(&self) -> Vec<Cow<'static, str>>;
    /// The columns as a table's `columnDefinitions`.
    fn column_definitions(&self) -> Value;
    fn row(&self, object: &dyn AnyObject, now: Timestamp) -> Vec<Value>;
    fn scale(&self, object: &dyn AnyObject) -> Option<Scale>;
    fn set_scale(&self, object: &mut dyn AnyObject, replicas: i32);

    fn allows_unconditional_update(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        false
    }

    /// Whether the kind is one that a definition made.
    fn is_custom(&self) -> bool {
        false
    }

    /// Whether a change of the object makes a new generation; none where that shows in the stored JSON: anything outside
    /// of metadata and status does.
    fn counts_as_change(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Option<bool> {
        let _ = (new, old);
        None
    }

    /// Whether the fields for selectors can become others while objects stay as they are, so that they are not kept.
    fn fields_change(&self) -> bool {
        false
    }

    /// What every answer about the kind warns of.
    fn deprecation(&self) -> Option<&str> {
        None
    }

    /// Who converts what is stored in another version; none where the kind does it itself. Such a kind reads only its own
    /// version, and `to_stored` writes that: see `registry::versions`.
    fn converter(&self) -> Option<&Converter> {
        None
    }

    /// What must be in the store, and since when, for objects to be created: the definition.
    fn guard(&self) -> Option<(Bytes, Revision)> {
        None
    }

    /// Cancelled when the kind is served no longer, or otherwise; watches end then.
    fn ended(&self) -> Option<&CancellationToken> {
        None
    }
}

/// [`KindOps`] of a built-in kind.
#[derive(Clone, Copy, Debug)]
pub struct Typed<S> {
    strategy: S,
    /// The strategy's row, which is asked for at every turn.
    resource: &'static Resource,
}

/// Objects reach a kind's operations only from the same kind's `decode` and `from_stored`.
fn of<T: Object>(object: &dyn AnyObject) -> &T {
    match object.as_any().downcast_ref() {
        Some(object) => object,
        None => unreachable!("an object of another kind"),
    }
}

fn of_mut<T: Object>(object: &mut dyn AnyObject) -> &mut T {
    match object.as_any_mut().downcast_mut() {
        Some(object) => object,
        None => unreachable!("an object of another kind"),
    }
}

impl<S: Strategy> KindOps for Typed<S> {
    fn resource(&self) -> &'static Resource {
        self.resource
    }

    fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        decode::<S::Object>(self.resource, json)
    }

    fn from_stored(&self, stored: &[u8]) -> serde_json::Result<BoxObject> {
        Ok(Box::new(self.strategy.from_stored(stored)?))
    }

    fn to_stored(&self, object: &dyn AnyObject) -> serde_json::Result<Vec<u8>> {
        let object = of::<S::Object>(object);
        if self.strategy.is_stored_as_shown() {
            go_json::to_vec(object)
        } else {
            go_json::to_vec(&self.strategy.to_stored(object)?)
        }
    }

    fn to_shown(&self, object: &dyn AnyObject) -> serde_json::Result<Vec<u8>> {
        go_json::to_vec(of::<S::Object>(object))
    }

    fn is_stored_as_shown(&self) -> bool {
        self.strategy.is_stored_as_shown()
    }

    fn name_rule(&self) -> coracle_proto::name::NameRule {
        self.strategy.name_rule()
    }

    fn default(&self, object: &mut dyn AnyObject) {
        self.strategy.default(of_mut(object));
    }

    fn prepare_create(&self, object: &mut dyn AnyObject, context: &Context<'_>) {
        self.strategy.prepare_create(of_mut(object), context);
    }

    fn prepare(&self, part: Part, new: &mut dyn AnyObject, old: &dyn AnyObject, context: &Context<'_>) {
        let (new, old) = (of_mut(new), of(old));
        match part {
            Part::Main => self.strategy.prepare_update(new, old, context),
            Part::Status => self.strategy.prepare_status(new, old, context),
            Part::Finalize => self.strategy.prepare_finalize(new, old, context),
            Part::Approval => self.strategy.prepare_approval(new, old, context),
            Part::EphemeralContainers => self.strategy.prepare_ephemeral_containers(new, old, context),
            Part::Resize => self.strategy.prepare_resize(new, old, context),
        }
    }

    fn validate(&self, object: &dyn AnyObject) -> field::Errors {
        self.strategy.validate(of(object))
    }

    fn validate_change(&self, part: Part, new: &dyn AnyObject, old: &dyn AnyObject) -> field::Errors {
        let (new, old) = (of(new), of(old));
        match part {
            Part::Main => self.strategy.validate_update(new, old),
            Part::Status => self.strategy.validate_status(new, old),
            Part::Finalize => self.strategy.validate_finalize(new, old),
            Part::Approval => self.strategy.validate_approval(new, old),
            Part::EphemeralContainers => self.strategy.validate_ephemeral_containers(new, old),
            Part::Resize => self.strategy.validate_resize(new, old),
        }
    }

    fn counts_generations(&self) -> bool {
        self.strategy.counts_generations()
    }

    fn generation_counts_annotations(&self) -> bool {
        self.strategy.generation_counts_annotations()
    }

    fn is_finalized(&self, object: &dyn AnyObject) -> bool {
        self.strategy.is_finalized(of(object))
    }

    fn owners<'k>(&'k self, part: Part, _: &'k Versions) -> Box<dyn Owners + 'k> {
        let resource = self.resource;
        let place = BuiltIn::of_kind(resource.group, resource.version, resource.kind).unwrap_or(BuiltIn::Any);
        Box::new(BySchema {
            place,
            version: resource.api_version(),
            reset: self.strategy.reset_fields(part),
            convert: ownership::versions::of_built_in(self),
        })
    }

    fn allows_unconditional_update(&self) -> bool {
        self.strategy.allows_unconditional_update()
    }

    fn orphans_by_default(&self) -> bool {
        self.strategy.orphans_by_default()
    }

    fn deprecation(&self) -> Option<&str> {
        self.strategy.deprecation()
    }

    fn warnings(&self, object: &dyn AnyObject) -> Vec<String> {
        self.strategy.warnings(of(object))
    }

    fn begin_deletion(&self, object: &mut dyn AnyObject, grace: Option<i64>) -> Deletion {
        self.strategy.begin_deletion(of_mut(object), grace)
    }

    fn fields(&self, stored: &[u8]) -> serde_json::Result<Vec<(Cow<'static, str>, String)>> {
        let fields = self.strategy.fields_of_stored(stored)?;
        Ok(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    fn field_names(&self) -> Vec<Cow<'static, str>> {
        // The names do not depend on the object, so that of the emptiest one will do.
        let empty = self.strategy.from_stored(br#"{"metadata":{}}"#);
        empty
            .map(|object| self.strategy.fields(&object).into_iter().map(|(name, _)| name.into()).collect())
            .unwrap_or_default()
    }

    fn column_definitions(&self) -> Value {
        let column = |c: &crate::kind::Column| {
            serde_json::json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description,
                               "priority": c.priority})
        };
        self.strategy.columns().iter().map(column).collect()
    }

    fn row(&self, object: &dyn AnyObject, now: Timestamp) -> Vec<Value> {
        self.strategy.row(of(object), now)
    }

    fn scale(&self, object: &dyn AnyObject) -> Option<Scale> {
        self.strategy.scale(of(object))
    }

    fn set_scale(&self, object: &mut dyn AnyObject, replicas: i32) {
        self.strategy.set_scale(of_mut(object), replicas);
    }
}

impl<S: Strategy> Typed<S> {
    /// The kind of a strategy.
    #[must_use]
    pub fn new(strategy: S) -> Self {
        Self { resource: strategy.resource(), strategy }
    }

    /// The kind as the shared code holds it.
    #[must_use]
    pub fn shared(strategy: S) -> std::sync::Arc<dyn KindOps> {
        std::sync::Arc::new(Self::new(strategy))
    }
}

/// The kind that JSON says it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TypeMeta {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
}
