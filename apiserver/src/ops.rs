//! A kind without its type: what the shared code calls a [`Strategy`] through.
//!
//! [`KindOps`] over a built-in kind's strategy is [`Typed`]; a kind that is only known at run time implements it over
//! JSON. Objects travel as [`AnyObject`].

mod base64;
mod explain;

use std::{any::Any, borrow::Cow};

use bytes::Bytes;
use coracle_proto::{
    apply::BuiltIn,
    field,
    protobuf::{self, WrongTime},
    resource::Resource,
    schema,
};
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

use self::explain::{MAX_NESTING, explain, nesting};
pub(crate) use self::explain::{explain_metadata, in_apply};

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
        if nesting(json) > MAX_NESTING {
            let path = self.resource.kind.to_owned();
            return Err(DecodeError { path, why: "exceeded max depth".to_owned(), in_go: None });
        }
        let resource = self.resource;
        let read_so = read::<S::Object>(json);
        if read_so.is_err() || protobuf::may_have_wrong_time(&resource.api_version(), resource.kind, json) {
            check_times(resource, json)?;
        }
        let refusal = match read_so {
            Ok(decoded) => {
                return Ok(plain::<S::Object>(resource, json, decoded));
            }
            Err(error) => explain(resource, json, &error),
        };
        // Go reads some documents that Rust's types do not.
        let mended = match as_go_reads(resource, json) {
            Ok(Some(mended)) => mended,
            Ok(None) => return Err(refusal),
            Err(corrupt) => return Err(DecodeError { in_go: Some(corrupt.to_string()), ..refusal }),
        };
        let decoded = read::<S::Object>(&mended).map_err(|error| explain(resource, &mended, &error))?;
        Ok(plain::<S::Object>(resource, &mended, decoded))
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

/// The path of a field that was ignored, as Kubernetes writes it: `spec.containers[0].imag`.
pub(crate) fn dotted(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", dotted(parent)),
        Path::Map { parent, key } => match dotted(parent).as_str() {
            "" => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => dotted(parent),
    }
}

/// Reads JSON as a type, and says what in it the type has no field for.
fn read<T: Object>(json: &[u8]) -> serde_json::Result<Decoded> {
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(dotted(&path));
    // Behind a pointer the closure is the same type for all kinds, and so is the code that reads what kinds share:
    // otherwise each kind with a pod template would bring its own copy of it.
    let note: &mut dyn FnMut(serde_ignored::Path<'_>) = &mut note;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let object = serde_ignored::deserialize::<_, _, T>(&mut reader, note)?;
    Ok(Decoded { object: Box::new(object), unknown })
}

/// What Go says of a time that it does not read, before anything else that is wrong: Rust reads more texts as times.
fn check_times(resource: &Resource, json: &[u8]) -> Result<(), DecodeError> {
    let Ok(object) = serde_json::from_slice(json) else { return Ok(()) };
    let wrong = protobuf::wrong_time(&resource.api_version(), resource.kind, &object);
    wrong.map_or(Ok(()), |wrong| Err(DecodeError::of_time(resource.kind, wrong)))
}

/// The object without what Go leaves out; what the kind has not is told of the document as it is.
fn plain<T: Object>(resource: &Resource, json: &[u8], decoded: Decoded) -> Decoded {
    match without_zeros(resource, json).map(|said| read::<T>(&said)) {
        Some(Ok(Decoded { object, .. })) => Decoded { object, ..decoded },
        _ => decoded,
    }
}

/// Whether there may be a zero or something empty in a document: most have none, and need not be looked at closely.
fn may_have_zeros(json: &[u8]) -> bool {
    json.iter().enumerate().filter(|(_, byte)| **byte == b':').any(|(at, _)| {
        let value = json.get(at + 1..).unwrap_or_default().trim_ascii_start();
        match value.first() {
            Some(b'"') => value.get(1) == Some(&b'"'),
            // The brackets that close are two further on in ASCII.
            Some(open @ (b'[' | b'{')) => {
                value.get(1..).unwrap_or_default().trim_ascii_start().first() == Some(&(open + 2))
            }
            Some(b'0') => !value.get(1).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.'),
            Some(b'f') => true,
            _ => false,
        }
    })
}

/// The document without what Go leaves out, if there is any.
fn without_zeros(resource: &Resource, json: &[u8]) -> Option<Vec<u8>> {
    let (version, kind) = (resource.api_version(), resource.kind);
    if !may_have_zeros(json) || !protobuf::has_unsaid(&version, kind, json) {
        return None;
    }
    let mut value: Value = serde_json::from_slice(json).ok()?;
    let has_dropped = protobuf::drop_unsaid(&version, kind, &mut value);
    has_dropped.then(|| serde_json::to_vec(&value).ok()).flatten()
}

/// The document with zeros where it has nothing, and with its base64 in order, if there is anything to mend.
fn as_go_reads(resource: &Resource, json: &[u8]) -> Result<Option<Vec<u8>>, base64::Corrupt> {
    let Some(root) = schema::of_kind(resource.group, resource.version, resource.kind) else { return Ok(None) };
    let Ok(mut value) = serde_json::from_slice(json) else { return Ok(None) };
    let is_changed = schema::zero::fill(&mut value, root) | base64::tidy(&mut value, root)?;
    Ok(is_changed.then(|| serde_json::to_vec(&value).ok()).flatten())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{config_map::ConfigMaps, pod::Pods};

    #[test]
    fn fields_that_the_kind_has_not_are_named_with_their_paths() {
        let json = br#"{"kind":"Pod","apiVersion":"v1","foo":1,"spec":{"containers":[{"name":"a","imag":"b"}]}}"#;
        assert_eq!(
            Typed::new(Pods).decode(json).unwrap_or_else(|e| panic!("{e}")).unknown,
            ["foo", "spec.containers[0].imag"]
        );
    }

    #[test]
    fn zeros_are_looked_for_where_they_may_be() {
        for (json, expected) in [
            (r#"{"a":"b","c":[1],"d":{"e":true},"f":10,"g":null}"#, false),
            (r#"{"a":""}"#, true),
            (r#"{"a": [ ]}"#, true),
            ("{\"a\":{\n}}", true),
            (r#"{"a":0}"#, true),
            (r#"{"a":0.5}"#, false),
            (r#"{"a" : false}"#, true),
            ("{\"a\":", false),
        ] {
            assert_eq!(may_have_zeros(json.as_bytes()), expected, "{json}");
        }
        let pod = br#"{"spec":{"hostNetwork":false,"foo":1,"containers":[],"volumes":[]}}"#;
        let decoded = Typed::new(Pods).decode(pod).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(decoded.unknown, ["spec.foo"]);
        assert_eq!(
            Typed::new(Pods).to_shown(&*decoded.object).unwrap(),
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{},"spec":{"containers":[]}}"#
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_path() {
        let error = Typed::new(ConfigMaps).decode(br#"{"data":{"a":{"b":1}}}"#).err().unwrap();
        assert_eq!(error.path, "ConfigMap.data.a");
        assert!(error.why.contains("invalid type: map, expected a string"), "{}", error.why);
        for (json, path) in [
            ("[]", "Pod"),
            ("{\"spec\": 5}", "Pod.spec"),
            ("{\n \"spec\": {\n  \"containers\": [{\"name\": \"a\"}, {\"name\": 17}]}}", "Pod.spec.containers[1].name"),
            (r#"{"metadata":{"labels":{"a,\"}b":"[{","c":true}}}"#, "Pod.metadata.labels.c"),
            (r#"{"metadata":{"creationTimestamp":"yesterday"}}"#, "Pod.metadata.creationTimestamp"),
            (
                r#"{"spec":{"containers":[{"ports":[{"containerPort":"x"}]}]}}"#,
                "Pod.spec.containers[0].ports[0].containerPort",
            ),
            (r#"{"spec":{"containers":[{"command":["a",[1]]}]}}"#, "Pod.spec.containers[0].command[1]"),
            // No integer: what is beyond 64 bits is a float to Kubernetes, too.
            (r#"{"spec":{"activeDeadlineSeconds":18446744073709551616}}"#, "Pod.spec.activeDeadlineSeconds"),
        ] {
            let error = Typed::new(Pods).decode(json.as_bytes()).err().unwrap();
            assert_eq!(error.path, path, "{json}: {}", error.why);
        }
    }

    #[test]
    fn what_is_left_out_is_its_types_zero() {
        use crate::kinds::service::Services;
        let conditions = r#"[{"type":"A","status":"True","lastTransitionTime":null},{"type":"B","foo":1}]"#;
        let json = format!(r#"{{"metadata":{{"annotations":{{"a":null}}}},"status":{{"conditions":{conditions}}}}}"#);
        let decoded = Typed::new(Services).decode(json.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(decoded.unknown, ["status.conditions[1].foo"]);
        let json = decoded.object.to_json().unwrap();
        assert_eq!(json["metadata"]["annotations"]["a"], "");
        assert_eq!(json["status"]["conditions"][1]["lastTransitionTime"], schema::zero::TIME);
        let wrong = br#"{"metadata":{"annotations":{"a":null}},"spec":{"ports":5}}"#;
        assert_eq!(Typed::new(Services).decode(wrong).err().unwrap().path, "Service.spec.ports");
    }
}
