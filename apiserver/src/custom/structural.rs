//! Whether a definition's schema may be one: structural (KEP-1111), without what Kubernetes does not serve, its defaults
//! fitting, its rules compiling and cheap enough. All errors at once, in Kubernetes' words and order of kinds.

use coracle_proto::field::{Error, Errors, Path};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps as Props, JSONSchemaPropsOrArray as Items, JSONSchemaPropsOrBool as OrBool,
};

use super::{checks, defaults, path::SimplePath, prune, rules, schema::Schema};
use crate::go_regex;

/// As many errors are told of one schema.
const MAX_ERRORS: usize = 100;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// What a status subresource leaves to the schema's root.
const AT_ROOT: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength \
                       Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example \
                       XPreserveUnknownFields XValidations]";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

fn is(flag: Option<bool>) -> bool {
    flag == Some(true)
}

fn ty(props: &Props) -> &str {
    props.type_.as_deref().unwrap_or_default()
}

fn some(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

fn any<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// Everything wrong with a schema.
pub(crate) fn validate(props: &Props, path: &Path, has_status: bool) -> Errors {
    let mut errors = Errors::new();
    if has_status {
        root_beside_status(props, path, &mut errors);
    }
    if is(props.nullable) {
        errors.push(Error::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    let mut shape = Errors::new();
    invariants(props, Level::Root, path, &mut shape);
    complete(props, props, path, &mut shape);
    shape.sort_by_key(ToString::to_string);
    let is_structural = shape.is_empty();
    errors.extend(shape);
    if is_structural {
        let schema = Schema::of(props);
        fitting_defaults(props, &schema, path, &mut errors);
    }
    let before = errors.len();
    let context = Context { defaults: None, meta: false, root: true };
    terms(props, path, &context, &mut errors);
    if is_structural && errors.len() == before {
        errors.extend(rules::compile(&mut Schema::of(props), props, path));
    }
    errors.truncate(MAX_ERRORS);
    errors
}

fn root_beside_status(props: &Props, path: &Path, errors: &mut Errors) {
    if ty(props) != "object" && props.type_.is_some() {
        let why =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(Error::invalid(&path.child("type"), ty(props), why));
    }
    let others = any(&props.all_of)
        || any(&props.any_of)
        || any(&props.one_of)
        || props.not.is_some()
        || any(&props.enum_)
        || props.additional_properties.is_some()
        || props.default.is_some()
        || props.max_properties.is_some()
        || props.min_properties.is_some();
    if others {
        let why =
            format!("only {AT_ROOT} fields are allowed at the root of the schema if the status subresource is enabled");
        errors.push(Error::invalid(path, "", &why));
    }
}

/// `anyOf: [{type: integer}, {type: string}]`, which int-or-string may say.
fn is_int_or_string(any_of: &Option<Vec<Props>>) -> bool {
    let only = |ty: &str| Props { type_: Some(ty.to_owned()), ..Props::default() };
    any_of.as_ref().is_some_and(|all| *all == [only("integer"), only("string")])
}

fn below<'p>(props: &'p Props, path: &Path) -> Vec<(Path, &'p Props, Level)> {
    let mut found = Vec::new();
    if let Some(Items::Schema(items)) = &props.items {
        found.push((path.child("items"), &**items, Level::Item));
    }
    for (name, props) in props.properties.iter().flatten() {
        found.push((path.child("properties").key(name), props, Level::Field));
    }
    if let Some(OrBool::Schema(props)) = &props.additional_properties {
        found.push((path.child("additionalProperties"), &**props, Level::Field));
    }
    found
}

fn invariants(props: &Props, level: Level, path: &Path, errors: &mut Errors) {
    if errors.len() > MAX_ERRORS {
        return;
    }
    if ty(props) == "array" && props.items.is_none() {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    for (path, props, level) in below(props, path) {
        invariants(props, level, &path, errors);
    }
    if props.additional_properties.is_some() && level == Level::Root {
        errors.push(Error::forbidden(&path.child("additionalProperties"), "must not be used at the root"));
    }
    let (int_or_string, preserves, embedded) = (
        is(props.x_kubernetes_int_or_string),
        is(props.x_kubernetes_preserve_unknown_fields),
        is(props.x_kubernetes_embedded_resource),
    );
    if int_or_string && preserves {
        let why = "must be false if x-kubernetes-int-or-string is true";
        errors.push(Error::invalid(&path.child("x-kubernetes-preserve-unknown-fields"), true, why));
    }
    if int_or_string && embedded {
        let why = "must be false if x-kubernetes-int-or-string is true";
        errors.push(Error::invalid(&path.child("x-kubernetes-embedded-resource"), true, why));
    }
    junctors(props, int_or_string, path, errors);
    types_of(props, level, (int_or_string, preserves, embedded), path, errors);
    for name in ["kind", "apiVersion"] {
        let found = props.properties.as_ref().and_then(|all| all.get(name));
        if let Some(found) = found.filter(|found| (level == Level::Root || embedded) && ty(found) != "string") {
            errors.push(Error::invalid(&path.child("properties").key(name).child("type"), ty(found), "must be string"));
        }
    }
    if let Some(meta) = props.properties.as_ref().and_then(|all| all.get("metadata")) {
        metadata(meta, level, embedded, &path.child("properties").key("metadata"), errors);
    }
    if embedded && !preserves && props.properties.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                   x-kubernetes-preserve-unknown-fields";
        errors.push(Error::required(&path.child("properties"), why));
    }
}

fn types_of(
    props: &Props,
    level: Level,
    (int_or_string, preserves, embedded): (bool, bool, bool),
    path: &Path,
    errors: &mut Errors,
) {
    let (at, own) = (path.child("type"), ty(props));
    if embedded && own != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if own.is_empty() { Error::required(&at, why) } else { Error::invalid(&at, own, why) });
    } else if own.is_empty() && !int_or_string && !preserves {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(Error::required(&at, why));
    }
    if embedded && props.additional_properties.is_some() {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(Error::forbidden(&path.child("additionalProperties"), why));
    }
    if level == Level::Root && !own.is_empty() && own != "object" {
        errors.push(Error::invalid(&at, own, "must be object at the root"));
    }
}

fn metadata(meta: &Props, level: Level, embedded: bool, path: &Path, errors: &mut Errors) {
    if (level == Level::Root || embedded) && ty(meta) != "object" {
        errors.push(Error::invalid(&path.child("type"), ty(meta), "must be object"));
    }
    if level != Level::Root {
        return;
    }
    let only_names = meta.properties.iter().flatten().all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    let plain = Props { type_: None, properties: None, default: None, description: None, title: None, ..meta.clone() };
    if !only_names || plain != Props::default() {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(Error::forbidden(path, why));
    }
}

/// What stands in `allOf`, `anyOf`, `oneOf` and `not`: checks of values, no structure.
fn junctors(props: &Props, int_or_string: bool, path: &Path, errors: &mut Errors) {
    let skip_any = int_or_string && is_int_or_string(&props.any_of);
    let skip_first_all = int_or_string
        && props.all_of.as_ref().and_then(|all| all.first()).is_some_and(|first| is_int_or_string(&first.any_of));
    for (i, inner) in props.any_of.iter().flatten().enumerate().filter(|_| !skip_any) {
        nested(inner, false, &path.child("anyOf").index(i), errors);
    }
    for (i, inner) in props.all_of.iter().flatten().enumerate() {
        nested(inner, skip_first_all && i == 0, &path.child("allOf").index(i), errors);
    }
    for (i, inner) in props.one_of.iter().flatten().enumerate() {
        nested(inner, false, &path.child("oneOf").index(i), errors);
    }
    if let Some(inner) = &props.not {
        nested(inner, false, &path.child("not"), errors);
    }
    if let Some(pattern) = props.pattern.as_deref().filter(|pattern| !pattern.is_empty())
        && let Err(why) = go_regex::compile(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(Error::invalid(&path.child("pattern"), pattern, &why));
    }
}

fn nested(props: &Props, skip_any: bool, path: &Path, errors: &mut Errors) {
    if errors.len() > MAX_ERRORS {
        return;
    }
    junctors(props, skip_any, path, errors);
    if let Some(Items::Schema(items)) = &props.items {
        nested(items, false, &path.child("items"), errors);
    }
    for (name, inner) in props.properties.iter().flatten() {
        nested(inner, false, &path.child("properties").key(name), errors);
    }
    let undefined = "must be undefined to be structural";
    let empty = "must be empty to be structural";
    let not_true = "must be false to be structural";
    for (name, is_there, why) in [
        ("type", some(&props.type_), empty),
        ("additionalProperties", props.additional_properties.is_some(), undefined),
        ("default", props.default.is_some(), undefined),
        ("title", some(&props.title), empty),
        ("description", some(&props.description), empty),
        ("nullable", is(props.nullable), not_true),
        ("x-kubernetes-preserve-unknown-fields", is(props.x_kubernetes_preserve_unknown_fields), not_true),
        ("x-kubernetes-embedded-resource", is(props.x_kubernetes_embedded_resource), not_true),
        ("x-kubernetes-int-or-string", is(props.x_kubernetes_int_or_string), not_true),
        ("x-kubernetes-list-map-keys", any(&props.x_kubernetes_list_map_keys), empty),
        ("x-kubernetes-list-type", props.x_kubernetes_list_type.is_some(), undefined),
        ("x-kubernetes-map-type", props.x_kubernetes_map_type.is_some(), undefined),
        ("x-kubernetes-validations", any(&props.x_kubernetes_validations), empty),
    ] {
        if is_there {
            errors.push(Error::forbidden(&path.child(name), why));
        }
    }
    if props.properties.as_ref().is_some_and(|all| all.contains_key("metadata")) {
        let at = path.child("properties").key("metadata");
        errors.push(Error::forbidden(&at, "must not be specified in a nested context"));
    }
}

/// Every field that a junctor speaks of must be in the structure as well.
fn complete(structure: &Props, props: &Props, path: &Path, errors: &mut Errors) {
    let lists = [("allOf", &props.all_of), ("anyOf", &props.any_of), ("oneOf", &props.one_of)];
    for (name, list) in lists {
        for (i, inner) in list.iter().flatten().enumerate() {
            mentioned(structure, inner, path, &path.child(name).index(i), errors);
        }
    }
    if let Some(inner) = &props.not {
        mentioned(structure, inner, path, &path.child("not"), errors);
    }
    for (path, props, _) in below(props, path) {
        complete(props, props, &path, errors);
    }
}

fn mentioned(structure: &Props, inner: &Props, at: &Path, from: &Path, errors: &mut Errors) {
    if errors.len() > MAX_ERRORS {
        return;
    }
    if let Some(Items::Schema(items)) = &inner.items {
        let from = from.child("items");
        match &structure.items {
            Some(Items::Schema(own)) => mentioned(own, items, &at.child("items"), &from, errors),
            _ => errors.push(Error::required(&at.child("items"), &format!("because it is defined in {from}"))),
        }
    }
    for (name, props) in inner.properties.iter().flatten() {
        let (place, from) = (at.child("properties").key(name), from.child("properties").key(name));
        match structure.properties.as_ref().and_then(|all| all.get(name)) {
            Some(own) => mentioned(own, props, &place, &from, errors),
            None if is(structure.x_kubernetes_preserve_unknown_fields) && structure.properties.is_none() => {}
            None => errors.push(Error::required(&place, &format!("because it is defined in {from}"))),
        }
    }
    for list in [&inner.all_of, &inner.any_of, &inner.one_of] {
        for props in list.iter().flatten() {
            mentioned(structure, props, at, from, errors);
        }
    }
}

fn fitting_defaults(props: &Props, schema: &Schema, path: &Path, errors: &mut Errors) {
    if let Some(default) = &props.default {
        let at = path.child("default");
        let mut value = default.0.clone();
        let unknown = prune::value(&mut value, schema);
        if !unknown.is_empty() {
            errors.push(Error::invalid(&at, default.0.clone(), "must not have unknown fields"));
        } else {
            defaults::fill_value(&mut value, schema);
            let mut wrong = Errors::new();
            checks::check(schema, &value, None, "", &mut wrong);
            for error in wrong {
                let place = match error.path.as_str() {
                    "" | "<nil>" => at.clone(),
                    inner => at.child(inner),
                };
                errors.push(Error { path: place, ..error });
            }
        }
    }
    for (name, inner) in props.properties.iter().flatten() {
        if let Some(schema) = schema.property(name) {
            fitting_defaults(inner, schema, &path.child("properties").key(name), errors);
        }
    }
    if let (Some(OrBool::Schema(inner)), super::schema::Additional::Of(schema)) =
        (&props.additional_properties, &schema.additional)
    {
        fitting_defaults(inner, schema, &path.child("additionalProperties"), errors);
    }
    if let (Some(Items::Schema(inner)), Some(schema)) = (&props.items, &schema.items) {
        fitting_defaults(inner, schema, &path.child("items"), errors);
    }
}

/// Where a schema stands.
#[derive(Clone, Copy)]
struct Context {
    /// Why there must be no defaults.
    defaults: Option<&'static str>,
    /// Within `metadata`, `kind` or `apiVersion` of a resource.
    meta: bool,
    root: bool,
}

/// The terms that Kubernetes does not take, and those that must fit each other.
fn terms(props: &Props, path: &Path, context: &Context, errors: &mut Errors) {
    if errors.len() > MAX_ERRORS {
        return;
    }
    let own = ty(props);
    if !own.is_empty() && !TYPES.contains(&own) {
        errors.push(Error::not_supported(&path.child("type"), own, TYPES));
    }
    if let (Some(why), true) = (context.defaults, props.default.is_some()) {
        errors.push(Error::forbidden(&path.child("default"), &format!("must not be set {why}")));
    }
    let lists_items = matches!(&props.items, Some(Items::Schemas(all)) if !all.is_empty());
    let unique = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
    for (name, is_there, why) in [
        ("id", some(&props.id), "id is not supported"),
        ("additionalItems", props.additional_items.is_some(), "additionalItems is not supported"),
        (
            "patternProperties",
            props.pattern_properties.as_ref().is_some_and(|all| !all.is_empty()),
            "patternProperties is not supported",
        ),
        ("definitions", props.definitions.as_ref().is_some_and(|all| !all.is_empty()), "definitions is not supported"),
        ("dependencies", props.dependencies.is_some(), "dependencies is not supported"),
        ("$ref", props.ref_path.is_some(), "$ref is not supported"),
        ("type", own == "null", "type cannot be set to null, use nullable as an alternative"),
        ("items", lists_items, "items must be a schema object and not an array"),
        (
            "x-kubernetes-embedded-resource",
            context.meta && is(props.x_kubernetes_embedded_resource),
            "must not be used inside of resource meta",
        ),
        ("uniqueItems", is(props.unique_items), unique),
    ] {
        if is_there {
            errors.push(Error::forbidden(&path.child(name), why));
        }
    }
    if let Some(additional) = &props.additional_properties {
        let has_properties = props.properties.as_ref().is_some_and(|all| !all.is_empty());
        if has_properties && !matches!(additional, OrBool::Bool(true)) {
            let why = "additionalProperties and properties are mutual exclusive";
            errors.push(Error::forbidden(&path.child("additionalProperties"), why));
        }
    }
    list_and_map(props, path, errors);
    validations(props, path, errors);
    let plain = Context { root: false, ..*context };
    for (name, inner) in props.properties.iter().flatten() {
        let is_meta =
            (context.root || is(props.x_kubernetes_embedded_resource)) && prune::META.contains(&name.as_str());
        let reason = match name.as_str() {
            "metadata" => "in top-level metadata",
            "kind" => "in top-level kind",
            _ => "in top-level apiVersion",
        };
        let defaults = if is_meta && context.root { Some(reason) } else { context.defaults };
        let context = Context { defaults, meta: context.meta || is_meta, root: false };
        terms(inner, &path.child("properties").key(name), &context, errors);
    }
    if let Some(OrBool::Schema(inner)) = &props.additional_properties {
        let why = "inside additionalProperties applying to object metadata";
        let context = Context { defaults: if context.meta { Some(why) } else { context.defaults }, ..plain };
        terms(inner, &path.child("additionalProperties"), &context, errors);
    }
    if let Some(Items::Schema(inner)) = &props.items {
        terms(inner, &path.child("items"), &plain, errors);
    }
    for (name, list) in [("allOf", &props.all_of), ("oneOf", &props.one_of), ("anyOf", &props.any_of)] {
        for (i, inner) in list.iter().flatten().enumerate() {
            terms(inner, &path.child(name).index(i), &plain, errors);
        }
    }
    if let Some(inner) = &props.not {
        terms(inner, &path.child("not"), &plain, errors);
    }
}

fn list_and_map(props: &Props, path: &Path, errors: &mut Errors) {
    let own = ty(props);
    let mut needs = |name: &str, wanted: &str, term: &str| {
        let (at, why) = (path.child(name), format!("must be {wanted} if {term} is specified"));
        errors.push(if own.is_empty() { Error::required(&at, &why) } else { Error::invalid(&at, own, &why) });
    };
    if props.x_kubernetes_map_type.is_some() && own != "object" {
        needs("type", "object", "x-kubernetes-map-type");
    }
    if props.x_kubernetes_list_type.is_some() && own != "array" {
        needs("type", "array", "x-kubernetes-list-type");
    }
    if props.x_kubernetes_preserve_unknown_fields == Some(false) {
        let at = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(Error::invalid(&at, false, "must be true or undefined"));
    }
    if let Some(word) = props.x_kubernetes_map_type.as_deref().filter(|word| !matches!(*word, "atomic" | "granular")) {
        errors.push(Error::not_supported(&path.child("x-kubernetes-map-type"), word, &["atomic", "granular"]));
    }
    let list_type = props.x_kubernetes_list_type.as_deref();
    if let Some(word) = list_type.filter(|word| !matches!(*word, "atomic" | "set" | "map")) {
        errors.push(Error::not_supported(&path.child("x-kubernetes-list-type"), word, &["atomic", "set", "map"]));
    }
    let keys = props.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
    if !keys.is_empty() && list_type != Some("map") {
        let (at, why) =
            (path.child("x-kubernetes-list-type"), "must be map if x-kubernetes-list-map-keys is non-empty");
        errors.push(match list_type {
            None => Error::required(&at, why),
            Some(word) => Error::invalid(&at, word, why),
        });
    }
    let item = match &props.items {
        Some(Items::Schema(item)) => Some(&**item),
        _ => None,
    };
    if let (Some("set" | "map"), Some(item)) = (list_type, item)
        && is(item.nullable)
    {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {}", list_type.unwrap_or_default());
        errors.push(Error::forbidden(&path.child("items").child("nullable"), &why));
    }
    match (list_type, item) {
        (Some("set"), Some(item)) => set(item, path, errors),
        (Some("map"), item) => map(keys, item, path, errors),
        _ => {}
    }
}

fn set(item: &Props, path: &Path, errors: &mut Errors) {
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let word = |word: &Option<String>| word.clone().map_or(serde_json::Value::Null, Into::into);
    match ty(item) {
        "array" if item.x_kubernetes_list_type.as_deref().is_some_and(|word| word != "atomic") => {
            let at = path.child("items").child("x-kubernetes-list-type");
            errors.push(Error::invalid(&at, word(&item.x_kubernetes_list_type), why));
        }
        "object" if item.x_kubernetes_map_type.as_deref() != Some("atomic") => {
            let at = path.child("items").child("x-kubernetes-map-type");
            errors.push(Error::invalid(&at, word(&item.x_kubernetes_map_type), why));
        }
        _ => {}
    }
}

fn map(keys: &[String], item: Option<&Props>, path: &Path, errors: &mut Errors) {
    let at = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.push(Error::required(&at, "must not be empty if x-kubernetes-list-type is map"));
    }
    let Some(item) = item else {
        errors.push(Error::required(&path.child("items"), "must have a schema if x-kubernetes-list-type is map"));
        return;
    };
    if ty(item) != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(Error::invalid(&path.child("items").child("type"), ty(item), why));
        return;
    }
    for (i, key) in keys.iter().enumerate() {
        let place = path.child("items").child("properties").key(key);
        if keys.iter().take(i).any(|other| other == key) {
            errors.push(Error::invalid(&at, keys.to_vec(), "must not contain duplicate entries"));
        }
        let Some(own) = item.properties.as_ref().and_then(|all| all.get(key)) else {
            errors.push(Error::invalid(&at, keys.to_vec(), "entries must all be names of item properties"));
            continue;
        };
        if matches!(ty(own), "array" | "object") {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.push(Error::invalid(&place.child("type"), ty(item), why));
        }
        if !item.required.iter().flatten().any(|name| name == key) && own.default.is_none() {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(Error::required(&place.child("default"), why));
        }
        if is(own.nullable) {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(Error::forbidden(&place.child("nullable"), why));
        }
    }
}

const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What is wrong with rules before they are compiled.
fn validations(props: &Props, path: &Path, errors: &mut Errors) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    for (i, rule) in props.x_kubernetes_validations.iter().flatten().enumerate() {
        let at = path.child("x-kubernetes-validations").index(i);
        let (text, message) = (rule.rule.trim(), rule.message.as_deref().unwrap_or_default());
        if text.is_empty() {
            errors.push(Error::required(&at.child("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.push(Error::invalid(&at.child("message"), message, "must be non-empty if specified"));
        } else if breaks(message.trim()) {
            errors.push(Error::invalid(&at.child("message"), message, "must not contain line breaks"));
        } else if breaks(text) && message.trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            errors.push(Error::required(&at.child("message"), why));
        }
        let expression = rule.message_expression.as_deref().unwrap_or_default();
        if !expression.is_empty() && expression.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            errors.push(Error::required(&at.child("messageExpression"), why));
        }
        if let Some(reason) = rule.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
            errors.push(Error::not_supported(&at.child("reason"), reason, REASONS));
        }
        let field = rule.field_path.as_deref().unwrap_or_default();
        if !field.is_empty() && field.trim().is_empty() {
            errors.push(Error::invalid(&at.child("fieldPath"), field, "must be non-empty if specified"));
        } else if breaks(field) {
            errors.push(Error::invalid(&at.child("fieldPath"), field, "must not contain line breaks"));
        } else if !field.is_empty() && find(props, field).is_none() {
            errors.push(Error::invalid(&at.child("fieldPath"), field, "must be a valid path"));
        }
    }
}

/// The schema that a path of names leads to.
pub(crate) fn find<'p>(props: &'p Props, path: &str) -> Option<&'p Props> {
    let path = SimplePath::parse(path)?;
    path.names()?.into_iter().try_fold(props, |props, name| {
        let own = props.properties.as_ref().and_then(|all| all.get(name));
        own.or(match &props.additional_properties {
            Some(OrBool::Schema(props)) => Some(&**props),
            _ => None,
        })
    })
}
