//! What Kubernetes knows about its own types beyond their Rust shape: which fields there are, of which type, and how lists
//! and maps merge.
//!
//! The facts are compact tables, one file an API group below `schema/facts/`, read once on first use (some 45 KB of text).
//! Strategic merge patch, strict field checks and OpenAPI's `x-kubernetes-*` extensions walk them from a kind's root
//! without building a JSON schema.
//!
//! ```text
//! package io.k8s.api.core.v1          what the names below are in
//! PodSpec                             a type; `|atomic` when it is owned as a whole
//!   nodeName                          a scalar field
//!   affinity:Affinity                 an object; types of other packages as `meta.v1.ObjectMeta`
//!   containers:[Container]|merge=name|map=name     a list: patch strategy and merge key, list type and its keys
//!   nodeSelector:{}|atomic            a map; `{Type}` when its values are objects
//!   raw:any                           anything
//!   since|time                        a time that the type has to have
//!   data:{}|bytes                     bytes, or a map of them
//! ```

pub mod openapi;
pub mod zero;

use std::{
    collections::HashMap,
    sync::{LazyLock, OnceLock},
};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// A text, number or boolean (also times, quantities, IntOrString, and bytes).
    Scalar,
    /// An object of a known type.
    Object,
    /// A list.
    List,
    /// A map from texts.
    Map,
    /// Any JSON.
    Any,
}

/// How a list is owned and merged by server-side apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    Atomic,
    /// Each scalar by itself.
    Set,
    /// Each object by itself, told apart by these keys.
    Map(Vec<&'static str>),
}

impl ListType {
    /// `atomic`, `set` or `map`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Atomic => "atomic",
            Self::Set => "set",
            Self::Map(_) => "map",
        }
    }
}

/// A field's strategies in a strategic merge patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists merge by key (or as sets of scalars).
    pub merge: bool,
    /// Maps are replaced rather than merged.
    pub replace: bool,
    /// `$retainKeys` may be used.
    pub retain_keys: bool,
}

/// One field of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// How it merges.
    pub strategy: PatchStrategy,
    /// Which field tells a merging list's elements apart.
    pub merge_key: Option<&'static str>,
    /// How it is owned, if it is a list.
    pub list_type: Option<ListType>,
    /// Whether the map or object is owned as a whole here.
    pub atomic: bool,
    /// Whether it is owned field by field here, whatever its type says.
    pub granular: bool,
    /// Whether it is a time that the type has to have.
    pub is_required_time: bool,
    /// Whether it is a map of amounts (`resource.Quantity`).
    pub is_amounts: bool,
    /// Whether it holds bytes, which JSON has in base64, or is a map of them.
    pub is_bytes: bool,
    child: Option<Child>,
}

/// A type by its name, looked up when it is first asked for: types may be parts of themselves.
#[derive(Clone, Debug)]
struct Child {
    name: String,
    ty: OnceLock<Option<&'static Type>>,
}

impl PartialEq for Child {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Child {}

impl Field {
    /// The type of the object, of the list's elements or of the map's values, unless those are scalars.
    #[must_use]
    pub fn child(&self) -> Option<&'static Type> {
        let child = self.child.as_ref()?;
        *child.ty.get_or_init(|| definition(&child.name))
    }
}

/// One object type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    /// Whether server-side apply owns it as a whole.
    pub atomic: bool,
    /// Sorted by name.
    fields: Vec<Field>,
    /// The first byte of each field's name: what is looked for is found beside one another, not field by field.
    firsts: Vec<u8>,
}

impl Type {
    /// The field `name`; names are case-sensitive.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let first = name.as_bytes().first()?;
        let from = self.firsts.partition_point(|known| known < first);
        let alike = self.firsts.get(from..)?.iter().take_while(|known| *known == first).count();
        self.fields.get(from..from + alike)?.iter().find(|field| field.name == name)
    }

    /// All fields.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

static FACTS: &[&str] = &[
    include_str!("schema/facts/admissionregistration.txt"),
    include_str!("schema/facts/apiextensions.txt"),
    include_str!("schema/facts/apiregistration.txt"),
    include_str!("schema/facts/apps.txt"),
    include_str!("schema/facts/authentication.txt"),
    include_str!("schema/facts/authorization.txt"),
    include_str!("schema/facts/autoscaling.txt"),
    include_str!("schema/facts/autoscaling1.txt"),
    include_str!("schema/facts/batch.txt"),
    include_str!("schema/facts/certificates.txt"),
    include_str!("schema/facts/coordination.txt"),
    include_str!("schema/facts/core.txt"),
    include_str!("schema/facts/discovery.txt"),
    include_str!("schema/facts/events.txt"),
    include_str!("schema/facts/flowcontrol.txt"),
    include_str!("schema/facts/meta.txt"),
    include_str!("schema/facts/metrics.txt"),
    include_str!("schema/facts/networking.txt"),
    include_str!("schema/facts/node.txt"),
    include_str!("schema/facts/policy.txt"),
    include_str!("schema/facts/rbac.txt"),
    include_str!("schema/facts/resource.txt"),
    include_str!("schema/facts/scheduling.txt"),
    include_str!("schema/facts/storage.txt"),
];

static TYPES: LazyLock<HashMap<String, Type>> = LazyLock::new(|| {
    let sorted = |(name, mut ty): (String, Type)| {
        ty.fields.sort_by_key(|field| field.name);
        ty.firsts = ty.fields.iter().filter_map(|field| field.name.as_bytes().first().copied()).collect();
        (name, ty)
    };
    FACTS.iter().flat_map(|text| read(text)).map(sorted).collect()
});

/// The definition's name of `meta.v1.ObjectMeta`, `core.v1.PodSpec` or, in its package, `PodSpec`.
pub(crate) fn full_name(package: &str, name: &str) -> String {
    match name.strip_prefix("meta.v1.") {
        Some(local) => format!("{META}.{local}"),
        None if name.starts_with("io.k8s.") => name.to_owned(),
        None if name.contains('.') => format!("io.k8s.api.{name}"),
        None => format!("{package}.{name}"),
    }
}

fn read(text: &'static str) -> Vec<(String, Type)> {
    let mut package = "";
    let mut types: Vec<(String, Type)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("package ") {
            package = name;
        } else if let Some(fields) = line.strip_prefix("  ") {
            if let Some((_, last)) = types.last_mut() {
                last.fields.extend(fields.split_whitespace().map(|token| read_field(package, token)));
            }
        } else {
            let (name, mark) = line.split_once('|').unwrap_or((line, ""));
            let name = full_name(package, name);
            types.push((name.clone(), Type { name, atomic: mark == "atomic", fields: Vec::new(), firsts: Vec::new() }));
        }
    }
    types
}

fn read_field(package: &str, token: &'static str) -> Field {
    let mut parts = token.split('|');
    let head = parts.next().unwrap_or_default();
    let (name, kind) = head.split_once(':').unwrap_or((head, ""));
    let inside = |open: char, close: char| kind.strip_prefix(open).and_then(|k| k.strip_suffix(close));
    let (shape, child) = if let Some(element) = inside('[', ']') {
        (Shape::List, element)
    } else if let Some(value) = inside('{', '}') {
        (Shape::Map, value)
    } else {
        match kind {
            "" => (Shape::Scalar, ""),
            "any" => (Shape::Any, ""),
            other => (Shape::Object, other),
        }
    };
    let mut field = Field {
        name,
        shape,
        strategy: PatchStrategy::default(),
        merge_key: None,
        list_type: None,
        atomic: false,
        granular: false,
        is_required_time: false,
        is_amounts: false,
        is_bytes: false,
        child: (!child.is_empty()).then(|| Child { name: full_name(package, child), ty: OnceLock::new() }),
    };
    for part in parts {
        let (word, value) = part.split_once('=').unwrap_or((part, ""));
        match word {
            "merge" => {
                field.strategy.merge = true;
                field.merge_key = (!value.is_empty()).then_some(value);
            }
            "replace" => field.strategy.replace = true,
            "retainKeys" => field.strategy.retain_keys = true,
            "set" => field.list_type = Some(ListType::Set),
            "map" => field.list_type = Some(ListType::Map(value.split(',').collect())),
            "atomic" if shape == Shape::List => field.list_type = Some(ListType::Atomic),
            "atomic" => field.atomic = true,
            "granular" => field.granular = true,
            "time" => field.is_required_time = true,
            "amounts" => field.is_amounts = true,
            "bytes" => field.is_bytes = true,
            _ => {}
        }
    }
    field
}

/// The type named `io.k8s.api.core.v1.PodSpec`.
#[must_use]
pub fn definition(name: &str) -> Option<&'static Type> {
    TYPES.get(name)
}

/// The definition's name of a built-in kind, whether or not it is in the tables: `apps`, `v1`, `Deployment`.
#[must_use]
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "apiextensions.k8s.io" => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
        }
        "apiregistration.k8s.io" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}"),
        "meta.k8s.io" => format!("{META}.{kind}"),
        "metrics.k8s.io" => format!("io.k8s.metrics.pkg.apis.metrics.{version}.{kind}"),
        _ => format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or(group)),
    }
}

/// The root type of a built-in kind; an old version's is today's, as its lists merge in the same way.
#[must_use]
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    definition(&definition_name(group, version, kind)).or_else(|| {
        let modern = crate::resource::old::modern(group, version, kind)?;
        definition(&definition_name(modern.group, modern.version, kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_from_a_kind_finds_how_a_list_merges() {
        let deployment = of_kind("apps", "v1", "Deployment").unwrap();
        let spec = deployment.field("spec").unwrap().child().unwrap();
        assert!(spec.field("strategy").unwrap().strategy.retain_keys);
        let pod = spec.field("template").unwrap().child().unwrap().field("spec").unwrap().child().unwrap();
        assert_eq!(pod.name, "io.k8s.api.core.v1.PodSpec");
        let volumes = pod.field("volumes").unwrap();
        assert_eq!(volumes.strategy, PatchStrategy { merge: true, replace: false, retain_keys: true });
        assert_eq!((volumes.merge_key, volumes.shape), (Some("name"), Shape::List));
        let ports = pod.field("containers").unwrap().child().unwrap().field("ports").unwrap();
        assert_eq!(ports.merge_key, Some("containerPort"));
        assert_eq!(ports.list_type, Some(ListType::Map(vec!["containerPort", "protocol"])));
    }

    #[test]
    fn every_child_is_in_the_tables_and_every_word_is_known() {
        for ty in TYPES.values() {
            for field in ty.fields() {
                assert!(
                    field.child.is_none() || field.child().is_some(),
                    "{}.{}: {:?}",
                    ty.name,
                    field.name,
                    field.child.as_ref().map(|child| &child.name)
                );
            }
        }
        let words = ["merge", "replace", "retainKeys", "set", "map", "atomic", "granular", "time", "amounts", "bytes"];
        for token in FACTS.iter().flat_map(|text| text.split_whitespace()) {
            for part in token.split('|').skip(1) {
                let word = part.split('=').next().unwrap();
                assert!(words.contains(&word), "{token}");
            }
        }
    }

    #[test]
    fn every_built_in_resource_has_its_type() {
        for resource in crate::resource::RESOURCES {
            let found = of_kind(resource.group, resource.version, resource.kind);
            assert!(found.is_some(), "{}/{} {}", resource.group, resource.version, resource.kind);
        }
    }
}
