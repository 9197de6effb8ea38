//! Type checking of validating policies (KEP-3488): their expressions compiled once more, with `object` and `params` of the
//! types they are about, and what is wrong then told in `status.typeChecking`.
//!
//! Warnings never change what a policy does: an expression may be meant for other types than those that were looked at. The
//! types are read from the server's own OpenAPI documents, so that built-in kinds and those of definitions are alike.

use std::collections::{BTreeMap, BTreeSet};

use coracle_proto::status::Status;
use coracle_store::{Error as StoreError, Range, Revision, WatchRequest};
use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, NamedRuleWithOperations, TypeChecking, ValidatingAdmissionPolicy,
};
use serde_json::{Map, Value as Json};
use tokio_util::sync::CancellationToken;

use super::{
    POLICIES,
    expressions::{Names, Wanted, compile, environment, with_variables},
    text,
};
use crate::{
    cel::{Environment, Type},
    documents,
    ops::Part,
    registry::{Change, Current, Registry, Writer},
    status_of::Result,
    stored,
    user::User,
};

/// As many types are looked at for one rule: Kubernetes' own limit.
const MAX_TYPES: usize = 10;

/// As deep as a type is looked into: below it everything is of any type. Built-in types end long before, unless they are
/// their own part.
const MAX_DEPTH: usize = 24;

/// Group, version and kind.
type Kind = (String, String, String);

/// The schemas of one group and version's document.
struct Schemas(Map<String, Json>);

impl Schemas {
    fn of(registry: &Registry, group: &str, version: &str) -> Option<Self> {
        let mut document = documents::v3_of(registry, group, version)?;
        match document.pointer_mut("/components/schemas").map(Json::take)? {
            Json::Object(all) => Some(Self(all)),
            _ => None,
        }
    }

    fn root(&self, (group, version, kind): &Kind) -> Option<(&String, &Json)> {
        let is = |said: &Json| {
            let text = |name: &str| said.get(name).and_then(Json::as_str).unwrap_or_default();
            (text("group"), text("version"), text("kind")) == (group.as_str(), version.as_str(), kind.as_str())
        };
        let mut all = self.0.iter();
        all.find(|(_, schema)| {
            let said = schema.get("x-kubernetes-group-version-kind").and_then(Json::as_array);
            said.is_some_and(|said| said.iter().any(&is))
        })
    }

    /// What a schema refers to, by name.
    fn referred<'s>(&'s self, schema: &'s Json) -> Option<(&'s str, &'s Json)> {
        let direct = schema.get("$ref");
        let wrapped = || schema.get("allOf")?.as_array()?.iter().find_map(|part| part.get("$ref"));
        let name = direct.or_else(wrapped)?.as_str()?.rsplit('/').next()?;
        Some((name, self.0.get(name)?))
    }

    /// The type of values of a schema, which is called `name`.
    fn type_of(&self, schema: &Json, name: &str, depth: usize, known: &mut BTreeMap<String, Type>) -> Type {
        if depth == 0 {
            return Type::Dyn;
        }
        if let Some((name, of)) = self.referred(schema) {
            if let Some(found) = known.get(name) {
                return found.clone();
            }
            // What is its own part is of any type there: nobody writes expressions that deep.
            known.insert(name.to_owned(), Type::Dyn);
            let made = self.type_of(of, name, depth - 1, known);
            known.insert(name.to_owned(), made.clone());
            return made;
        }
        let said = |field: &str| schema.get(field).and_then(Json::as_str).unwrap_or_default();
        let is_either =
            schema.get("x-kubernetes-int-or-string") == Some(&Json::Bool(true)) || said("format") == "int-or-string";
        match (said("type"), said("format")) {
            _ if is_either => Type::Dyn,
            ("boolean", _) => Type::Bool,
            ("integer", _) => Type::Int,
            ("number", _) => Type::Double,
            ("string", "byte") => Type::Bytes(u64::MAX),
            ("string", "date" | "date-time") => Type::Timestamp,
            ("string", "duration") => Type::Duration,
            ("string", _) => Type::text(),
            ("array", _) => {
                let item = schema.get("items");
                Type::list(item.map_or(Type::Dyn, |item| self.type_of(item, &format!("{name}.@idx"), depth - 1, known)))
            }
            ("object", _) => self.object(schema, name, depth, known),
            _ => Type::Dyn,
        }
    }

    fn object(&self, schema: &Json, name: &str, depth: usize, known: &mut BTreeMap<String, Type>) -> Type {
        if let Some(value) = schema.get("additionalProperties").filter(|value| value.is_object()) {
            return Type::map(self.type_of(value, &format!("{name}.@elem"), depth - 1, known));
        }
        let keeps = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Json::Bool(true));
        match schema.get("properties").and_then(Json::as_object) {
            Some(properties) if !keeps => {
                let mut own = Vec::with_capacity(properties.len());
                for (field, of) in properties {
                    own.push((field.clone(), self.type_of(of, &format!("{name}.{field}"), depth - 1, known)));
                }
                Type::of_properties(name, own)
            }
            _ => Type::Dyn,
        }
    }
}

/// The type of a kind's objects, if the kind is served.
fn type_of(registry: &Registry, kind: &Kind) -> Option<Type> {
    let schemas = Schemas::of(registry, &kind.0, &kind.1)?;
    let (name, root) = schemas.root(kind)?;
    Some(schemas.type_of(root, name, MAX_DEPTH, &mut BTreeMap::new()))
}

/// The names of a rule's list, if it says no more than names.
fn names(list: &Option<Vec<String>>) -> BTreeSet<&str> {
    let all: BTreeSet<&str> = list.iter().flatten().map(String::as_str).collect();
    if all.iter().any(|name| name.contains('*')) { BTreeSet::new() } else { all }
}

/// The kinds that a policy's rules name.
fn kinds(registry: &Registry, rules: &[NamedRuleWithOperations]) -> BTreeSet<Kind> {
    let mut found = BTreeSet::new();
    for rule in rules {
        let resources = rule.resources.iter().flatten().map(String::as_str);
        let resources: BTreeSet<&str> = resources.filter(|name| !name.contains(['*', '/'])).collect();
        let mut own = BTreeSet::new();
        for group in names(&rule.api_groups) {
            for version in names(&rule.api_versions) {
                for resource in &resources {
                    let Some(kind) = registry.kind(group, version, resource) else { continue };
                    own.insert((group.to_owned(), version.to_owned(), kind.resource().kind.to_owned()));
                }
            }
        }
        found.extend(own.into_iter().take(MAX_TYPES));
    }
    found
}

/// `apps/v1, Kind=Deployment`.
fn shown((group, version, kind): &Kind) -> String {
    format!("{group}/{version}, Kind={kind}")
}

/// What is wrong with a policy's expressions, for the types it is about.
fn check(registry: &Registry, policy: &ValidatingAdmissionPolicy) -> Vec<ExpressionWarning> {
    let spec = policy.spec.clone().unwrap_or_default();
    let rules = spec.match_constraints.and_then(|constraints| constraints.resource_rules).unwrap_or_default();
    let names = Names { params: spec.param_kind.is_some(), authorizer: true };
    let params = spec.param_kind.as_ref().and_then(|kind| {
        let said = text(&kind.api_version);
        let (group, version) = said.split_once('/').unwrap_or(("", said));
        type_of(registry, &(group.to_owned(), version.to_owned(), text(&kind.kind).to_owned()))
    });
    let mut environments: Vec<(Kind, Environment)> = Vec::new();
    for kind in kinds(registry, &rules) {
        let Some(object) = type_of(registry, &kind) else { continue };
        let typed = || {
            let typed = environment(names).with("object", object.clone()).with("oldObject", object.clone());
            match &params {
                Some(params) => typed.with("params", params.clone()),
                None => typed,
            }
        };
        let mut variables = Vec::new();
        for variable in spec.variables.iter().flatten() {
            let program = compile(&variable.expression, &with_variables(typed(), &variables), Wanted::Anything);
            // What is wrong with a variable shows where it is used otherwise than it may be.
            let ty = program.map_or(Type::Dyn, |program| program.result().clone());
            variables.push((variable.name.clone(), ty));
        }
        environments.push((kind, with_variables(typed(), &variables)));
    }
    let warning = |field: String, expression: &str| {
        let wrong = environments.iter().filter_map(|(kind, environment)| {
            let why = compile(expression, environment, Wanted::Anything).err()?;
            Some(format!("{}: {why}\n", shown(kind)))
        });
        let wrong: Vec<String> = wrong.collect();
        (!wrong.is_empty()).then(|| ExpressionWarning { field_ref: field, warning: wrong.join("\n") })
    };
    let mut warnings = Vec::new();
    for (index, validation) in spec.validations.iter().flatten().enumerate() {
        warnings.extend(warning(format!("spec.validations[{index}].expression"), &validation.expression));
        let message = text(&validation.message_expression);
        if !message.is_empty() {
            warnings.extend(warning(format!("spec.validations[{index}].messageExpression"), message));
        }
    }
    warnings
}

/// Checks a policy whose status is of an earlier generation, and says what came of it.
async fn settle(registry: &Registry, name: &str) -> Result<()> {
    let Some(policy) = registry.get_typed::<ValidatingAdmissionPolicy>("", name)? else { return Ok(()) };
    let generation = policy.metadata.generation;
    let seen = policy.status.as_ref().and_then(|status| status.observed_generation);
    if seen == generation || policy.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let warnings = check(registry, &policy);
    let kind = registry
        .kind("admissionregistration.k8s.io", "v1", POLICIES)
        .ok_or_else(|| Box::new(Status::no_such_path()))?;
    let change = |current: &Current<'_>| {
        let mut object = current.object.copied();
        let typed = object.as_any_mut().downcast_mut::<ValidatingAdmissionPolicy>();
        // Another specification by now is checked when the watch tells of it.
        if let Some(policy) = typed.filter(|policy| policy.metadata.generation == generation) {
            let status = policy.status.get_or_insert_default();
            status.observed_generation = generation;
            let expression_warnings = (!warnings.is_empty()).then(|| warnings.clone());
            status.type_checking = Some(TypeChecking { expression_warnings });
        }
        Ok(object)
    };
    let writer = Writer::new(User::new("system:apiserver", &["system:masters"]));
    registry.update(&kind, ("", name), Change::Of(Part::Status), &writer, change).await.map(drop)
}

/// Checks policies as they are written, until `shutdown`.
///
/// # Errors
/// The store is closed.
pub(crate) async fn run(registry: &Registry, shutdown: CancellationToken) -> Result<(), StoreError> {
    let follow = async {
        loop {
            let prefix = stored::prefix(POLICIES, "");
            let found = registry.store().range(&Range::prefix(prefix.clone()))?;
            settle_all(registry, found.entries.iter().map(|entry| stored::Header::of(entry).name.clone())).await;
            let from: Revision = found.revision.next();
            let mut watcher = match registry.store().watch(WatchRequest::prefix(prefix, from)) {
                Ok(watcher) => watcher,
                Err(StoreError::Compacted { .. }) => continue,
                Err(error) => return Err(error),
            };
            loop {
                let batch = match watcher.next().await {
                    Some(Ok(batch)) => batch,
                    None | Some(Err(StoreError::SlowWatcher { .. } | StoreError::Compacted { .. })) => break,
                    Some(Err(error)) => return Err(error),
                };
                let written = batch.events.iter().filter(|event| !event.entry.is_tombstone());
                settle_all(registry, written.map(|event| stored::Header::of(&event.entry).name.clone())).await;
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        ended = follow => ended,
    }
}

async fn settle_all(registry: &Registry, names: impl Iterator<Item = String>) {
    for name in names.collect::<BTreeSet<String>>() {
        match settle(registry, &name).await {
            Ok(()) => {}
            Err(status) if status.code == 404 => {}
            Err(status) => {
                tracing::warn!(policy = name, status = status.message, "a policy's status is not written");
            }
        }
    }
}
