//! A served version of a definition, as the shared code sees any kind.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use coracle_proto::{
    field, meta,
    name::{NameRule, subdomain_rule},
    protobuf,
    resource::Resource,
};
use coracle_store::Revision;
use jiff::Timestamp;
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Custom, SimplePath, checks,
    conversion::Converter,
    defaults,
    place::Spot,
    prune::{self, Nulls},
    rules,
    schema::Schema,
};
use crate::{
    kind::{AGE, Context, Deletion, NAME, Scale, age, human_duration},
    ops::{AnyObject, BoxObject, DecodeError, Decoded, KindOps, Part, dotted, explain_metadata},
    ownership::{self, BySchema, Owners, Versions},
};

/// A column of the table.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) definition: CustomResourceColumnDefinition,
    pub(super) path: SimplePath,
}

/// Where a scale's numbers are.
#[derive(Debug)]
pub(super) struct ScalePaths {
    pub(super) wanted: Vec<String>,
    pub(super) current: Vec<String>,
    pub(super) selector: Option<Vec<String>>,
}

/// What all versions of a definition share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The definition's key in the store and since when it is there.
    pub(super) key: Bytes,
    pub(super) since: Revision,
    /// The version that is stored.
    pub(super) storage: String,
    /// What each version's objects are made of.
    pub(super) schemas: Arc<Schemas>,
    /// Who converts between versions, unless only their name differs.
    pub(super) converter: Option<Converter>,
}

/// The schemas of all versions of a definition, by `apiVersion`.
pub(super) type Schemas = BTreeMap<String, Arc<Schema>>;

/// See the module.
#[derive(Debug)]
pub struct CustomKind {
    pub(super) row: &'static Resource,
    pub(super) api_version: String,
    pub(super) shared: Arc<Shared>,
    pub(super) schema: Arc<Schema>,
    pub(super) has_status: bool,
    pub(super) scale: Option<ScalePaths>,
    pub(super) columns: Vec<Column>,
    pub(super) selectable: Vec<(String, SimplePath)>,
    pub(super) deprecation: Option<String>,
    pub(super) ended: CancellationToken,
}

fn of(object: &dyn AnyObject) -> &Custom {
    match object.as_any().downcast_ref() {
        Some(object) => object,
        None => unreachable!("an object of another kind"),
    }
}

fn of_mut(object: &mut dyn AnyObject) -> &mut Custom {
    match object.as_any_mut().downcast_mut() {
        Some(object) => object,
        None => unreachable!("an object of another kind"),
    }
}

/// A place below an object; none when it is not there or what stands above is no object.
fn look<'v>(content: &'v Map<String, Value>, path: &[String]) -> Option<&'v Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(content.get(first)?, |value, name| value.get(name))
}

fn put(content: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            content.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = content.entry(first.clone()).or_insert_with(|| json!({}));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn int32(value: Option<&Value>) -> i32 {
    value.and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
}

impl CustomKind {
    /// A kind of which nothing is known but its row: its objects are as they come.
    pub(crate) fn open(row: &'static Resource) -> Self {
        Self {
            row,
            api_version: row.api_version(),
            shared: Arc::new(Shared {
                key: Bytes::new(),
                since: Revision::NONE,
                storage: row.version.to_owned(),
                schemas: Arc::default(),
                converter: None,
            }),
            schema: Arc::new(Schema { preserves: true, ..Schema::default() }),
            has_status: false,
            scale: None,
            columns: Vec::new(),
            selectable: Vec::new(),
            deprecation: None,
            ended: CancellationToken::new(),
        }
    }

    /// Its row among the resources.
    #[must_use]
    pub fn row(&self) -> &'static Resource {
        self.row
    }

    /// Whether objects are stored in this version.
    pub(super) fn is_stored_version(&self) -> bool {
        self.row.version == self.shared.storage
    }

    /// Ends its watches: it is no longer served so.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// JSON as an object of this version, with the names of fields that were dropped.
    fn read(&self, json: &[u8], nulls: Nulls) -> Result<Decoded, DecodeError> {
        let wrong = |error: serde_json::Error| DecodeError {
            path: self.row.kind.to_owned(),
            why: error.to_string(),
            in_go: None,
        };
        let content = serde_json::from_slice(json).map_err(wrong)?;
        // Of its fields only the metadata's have types that know of times.
        if let Some(wrong) = protobuf::wrong_time("meta.k8s.io/v1", "PartialObjectMetadata", &content) {
            return Err(DecodeError::of_time(self.row.kind, wrong));
        }
        self.take(content, nulls)
    }

    /// Fields as an object of this version, with the names of those that were dropped.
    fn take(&self, mut content: Map<String, Value>, nulls: Nulls) -> Result<Decoded, DecodeError> {
        let kind = self.row.kind;
        let mut unknown = Vec::new();
        let meta = match content.remove("metadata") {
            None | Some(Value::Null) => ObjectMeta::default(),
            Some(meta) => {
                let see = |path: serde_ignored::Path<'_>| unknown.push(format!("metadata.{}", dotted(&path)));
                serde_ignored::deserialize(&meta, see)
                    .map_err(|error: serde_json::Error| explain_metadata(kind, &meta, &error))?
            }
        };
        unknown.extend(prune::object(&mut content, &self.schema, nulls));
        content.insert("apiVersion".to_owned(), self.api_version.as_str().into());
        content.insert("kind".to_owned(), kind.into());
        Ok(Decoded { object: Box::new(Custom { meta, content }), unknown })
    }

    /// What a cell of the table shows.
    fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
        let found = column.path.find(object);
        let Some(first) = found.first().copied() else { return Value::Null };
        match (column.definition.type_.as_str(), first) {
            ("integer", Value::Number(n)) => n.as_i64().map_or(Value::Null, Into::into),
            ("number", Value::Number(n)) => n.as_f64().map_or(Value::Null, Into::into),
            ("boolean", Value::Bool(b)) => (*b).into(),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(time) => human_duration(now.duration_since(time).as_secs()).into(),
                Err(_) => "<unknown>".into(),
            },
            ("string", _) => {
                let shown = |v: &&Value| match v {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                found.iter().map(shown).collect::<Vec<_>>().join(" ").into()
            }
            _ => Value::Null,
        }
    }

    fn errors(&self, new: &Custom, old: Option<&Custom>, part: Part) -> field::Errors {
        let mut errors = field::Errors::new();
        let (new, old) = (new.to_value(), old.map(Custom::to_value));
        // Metadata has its own checks, by which a schema of it (of names alone) is not replaced.
        if part == Part::Status {
            if let (Some(of), Some(status)) = (self.schema.property("status"), new.get("status")) {
                let before = old.as_ref().and_then(|old| old.get("status"));
                checks::check(of, status, before, "status", &mut errors);
            }
        } else {
            checks::check(&self.schema, &new, old.as_ref(), "", &mut errors);
        }
        if let Some(scale) = &self.scale {
            let wanted = (part != Part::Status).then_some(&scale.wanted);
            for steps in wanted.into_iter().chain([&scale.current]) {
                check_replicas(&new, steps, &mut errors);
            }
        }
        if !self.schema.has_rules {
            return errors;
        }
        // Rules may rely on what the schema says only where it holds.
        let breaks_schema = |error: &field::Error| {
            use field::ErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
            matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
        };
        if errors.iter().any(breaks_schema) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing \
                       errors to complete validation";
            errors.push(field::Error::invalid(&field::Path::new("<nil>"), Value::Null, why));
        } else {
            rules::check(&self.schema, &new, old.as_ref(), &mut errors);
        }
        errors
    }
}

/// Whether a scale can tell the number at this path.
fn check_replicas(object: &Value, steps: &[String], errors: &mut field::Errors) {
    let Some(number) = steps.iter().try_fold(object, |value, step| value.get(step)).and_then(Value::as_i64) else {
        return;
    };
    let why = match number {
        ..0 => "should be a non-negative integer".to_owned(),
        number if number > i64::from(i32::MAX) => format!("should be less than or equal to {}", i32::MAX),
        _ => return,
    };
    errors.push(field::Error::invalid(&field::Path::new(format!(".{}", steps.join("."))), number, &why));
}

impl KindOps for CustomKind {
    fn resource(&self) -> &'static Resource {
        self.row
    }

    fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        self.read(json, Nulls::Dropped)
    }

    fn decode_merged(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        self.read(json, Nulls::Checked)
    }

    fn from_stored(&self, stored: &[u8]) -> serde_json::Result<BoxObject> {
        let mut content: Map<String, Value> = serde_json::from_slice(stored)?;
        let said = content.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        if said != self.api_version {
            if self.shared.converter.is_some() {
                let why = format!("an object of {said} is to be converted to {} by webhook", self.api_version);
                return Err(serde::de::Error::custom(why));
            }
            // What is stored has the defaults of the version it was stored in.
            if let Some(schema) = self.shared.schemas.get(said) {
                defaults::fill(&mut content, schema);
            }
            let taken =
                self.take(content, Nulls::Dropped).map_err(|error| serde::de::Error::custom(error.to_string()))?;
            return Ok(taken.object);
        }
        defaults::fill(&mut content, &self.schema);
        let taken = self.take(content, Nulls::Dropped).map_err(|error| serde::de::Error::custom(error.to_string()))?;
        Ok(taken.object)
    }

    fn to_stored(&self, object: &dyn AnyObject) -> serde_json::Result<Vec<u8>> {
        if self.is_stored_version() || self.shared.converter.is_some() {
            return of(object).to_bytes();
        }
        let mut object = of(object).clone();
        object.content.insert("apiVersion".to_owned(), format!("{}/{}", self.row.group, self.shared.storage).into());
        object.to_bytes()
    }

    fn to_shown(&self, object: &dyn AnyObject) -> serde_json::Result<Vec<u8>> {
        of(object).to_bytes()
    }

    fn is_stored_as_shown(&self) -> bool {
        // What is stored may be of another version, lack a default, or have a field that is no longer known.
        false
    }

    fn name_rule(&self) -> NameRule {
        subdomain_rule
    }

    fn default(&self, object: &mut dyn AnyObject) {
        defaults::fill(&mut of_mut(object).content, &self.schema);
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn prepare_create(&self, object: &mut dyn AnyObject, _: &Context<'_>) {
        if self.has_status {
            of_mut(object).content.remove("status");
        }
    }

    fn prepare(&self, part: Part, new: &mut dyn AnyObject, old: &dyn AnyObject, _: &Context<'_>) {
        let (new, old) = (of_mut(new), of(old));
        match part {
            Part::Main if self.has_status => match old.content.get("status") {
                Some(status) => {
                    new.content.insert("status".to_owned(), status.clone());
                }
                None => {
                    new.content.remove("status");
                }
            },
            Part::Status => {
                // The status, and of the metadata who wrote it, are all that is taken.
                let status = new.content.remove("status");
                let managed = new.meta.managed_fields.take();
                let version = new.meta.resource_version.take();
                new.content = old.content.clone();
                match status {
                    Some(status) => new.content.insert("status".to_owned(), status),
                    None => new.content.remove("status"),
                };
                new.meta = old.meta.clone();
                new.meta.managed_fields = managed;
                new.meta.resource_version = version;
            }
            Part::Main | Part::Finalize | Part::Approval | Part::EphemeralContainers | Part::Resize => {}
        }
    }

    fn validate(&self, object: &dyn AnyObject) -> field::Errors {
        self.errors(of(object), None, Part::Main)
    }

    fn validate_change(&self, part: Part, new: &dyn AnyObject, old: &dyn AnyObject) -> field::Errors {
        self.errors(of(new), Some(of(old)), part)
    }

    fn let_be(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> field::Errors {
        if !self.schema.has_rules {
            return field::Errors::new();
        }
        rules::let_be(&self.schema, &of(new).to_value(), &of(old).to_value())
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn generation_counts_annotations(&self) -> bool {
        false
    }

    fn counts_as_change(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Option<bool> {
        let differs = |skip: &[&str]| {
            let own = |object: &'_ Custom| -> Map<String, Value> {
                object
                    .content
                    .iter()
                    .filter(|(k, _)| !skip.contains(&k.as_str()))
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect()
            };
            own(of(new)) != own(of(old))
        };
        Some(if self.has_status { differs(&["apiVersion", "status"]) } else { differs(&["apiVersion"]) })
    }

    fn is_finalized(&self, _: &dyn AnyObject) -> bool {
        true
    }

    fn owners<'k>(&'k self, part: Part, versions: &'k Versions) -> Box<dyn Owners + 'k> {
        let reset = ownership::reset_by(self.row, part);
        let convert = move |object: &Value, version: &str| {
            let schema = self.shared.schemas.get(version)?;
            let is_there = object.as_object().is_some_and(|object| !object.is_empty());
            if is_there && self.shared.converter.is_some() {
                return Some((Spot::root(schema), versions.get(object, version)?));
            }
            let mut object = object.clone();
            if let Some(said) = object.get_mut("apiVersion") {
                *said = version.into();
            }
            Some((Spot::root(schema), object))
        };
        Box::new(BySchema {
            place: Spot::root(&self.schema),
            version: self.api_version.clone(),
            reset,
            convert: Box::new(convert),
        })
    }

    fn warnings(&self, object: &dyn AnyObject) -> Vec<String> {
        let finalizers = object.meta().finalizers.iter().flatten();
        let bare = finalizers.filter(|finalizer| !meta::is_qualified_finalizer(finalizer));
        let tell = |finalizer: &String| {
            let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
            format!(
                "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name{path} to avoid accidental \
                 conflicts with other finalizer writers"
            )
        };
        bare.map(tell).collect()
    }

    fn deprecation(&self) -> Option<&str> {
        self.deprecation.as_deref()
    }

    fn begin_deletion(&self, _: &mut dyn AnyObject, _: Option<i64>) -> Deletion {
        Deletion::Immediate
    }

    fn fields(&self, stored: &[u8]) -> serde_json::Result<Vec<(Cow<'static, str>, String)>> {
        let object = Value::Object(of(&*self.from_stored(stored)?).content.clone());
        let value = |path: &SimplePath| match path.find(&object).first() {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        Ok(self.selectable.iter().map(|(name, path)| (name.clone().into(), value(path))).collect())
    }

    fn field_names(&self) -> Vec<Cow<'static, str>> {
        self.selectable.iter().map(|(name, _)| name.clone().into()).collect()
    }

    fn fields_change(&self) -> bool {
        true
    }

    fn column_definitions(&self) -> Value {
        let builtin = |c: &crate::kind::Column| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description,
                   "priority": c.priority})
        };
        let mut all = vec![builtin(&NAME)];
        for column in &self.columns {
            let c = &column.definition;
            let description =
                c.description.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| {
                    format!("Custom resource definition column (in JSONPath format): {}", c.json_path)
                });
            all.push(json!({"name": c.name, "type": c.type_, "format": c.format.clone().unwrap_or_default(),
                            "description": description, "priority": c.priority.unwrap_or(0)}));
        }
        if self.columns.is_empty() {
            let mut age = builtin(&AGE);
            if let Some(age) = age.as_object_mut() {
                // Clients count it themselves.
                age.insert("type".to_owned(), "date".into());
            }
            all.push(age);
        }
        all.into()
    }

    fn row(&self, object: &dyn AnyObject, now: Timestamp) -> Vec<Value> {
        let custom = of(object);
        let mut cells: Vec<Value> = vec![custom.meta.name.clone().unwrap_or_default().into()];
        if self.columns.is_empty() {
            cells.push(age(&custom.meta, now).into());
            return cells;
        }
        let whole = custom.to_value();
        cells.extend(self.columns.iter().map(|column| Self::cell(column, &whole, now)));
        cells
    }

    fn scale(&self, object: &dyn AnyObject) -> Option<Scale> {
        let (paths, content) = (self.scale.as_ref()?, &of(object).content);
        let selector = paths.selector.as_ref().and_then(|path| look(content, path)).and_then(Value::as_str);
        Some(Scale {
            replicas: int32(look(content, &paths.wanted)),
            current: int32(look(content, &paths.current)),
            selector: selector.unwrap_or_default().to_owned(),
        })
    }

    fn set_scale(&self, object: &mut dyn AnyObject, replicas: i32) {
        if let Some(paths) = &self.scale {
            put(&mut of_mut(object).content, &paths.wanted, replicas.into());
        }
    }

    fn is_custom(&self) -> bool {
        true
    }

    fn converter(&self) -> Option<&Converter> {
        self.shared.converter.as_ref()
    }

    fn guard(&self) -> Option<(Bytes, Revision)> {
        Some((self.shared.key.clone(), self.shared.since))
    }

    fn ended(&self) -> Option<&CancellationToken> {
        Some(&self.ended)
    }
}
