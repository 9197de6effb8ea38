//! Which writes a webhook or a policy is about: rules, match policy, selectors.

use std::sync::Arc;

use coracle_proto::{
    resource::{Resource, Scope},
    selector::LabelSelector,
    status::Status,
};
use k8s_openapi::{
    api::admissionregistration::v1::{MatchResources, NamedRuleWithOperations, RuleWithOperations},
    apimachinery::pkg::apis::meta::v1 as metav1,
};

use super::{Operation, Write, connect};
use crate::{
    ops::{AnyObject, KindOps},
    status_of::Result,
    stored::Header,
};

/// One rule, compiled.
#[derive(Debug, PartialEq)]
pub(super) struct Rule {
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    operations: Vec<String>,
    scope: String,
    /// Names of objects; none means all.
    names: Vec<String>,
}

fn matches(items: &[String], wanted: &str) -> bool {
    items.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    pub(super) fn new(rule: &RuleWithOperations) -> Self {
        let owned = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let split = |name: &String| {
            let (resource, sub) = name.split_once('/').unwrap_or((name, ""));
            (resource.to_owned(), sub.to_owned())
        };
        Self {
            groups: owned(&rule.api_groups),
            versions: owned(&rule.api_versions),
            resources: rule.resources.iter().flatten().map(split).collect(),
            operations: owned(&rule.operations),
            scope: rule.scope.clone().unwrap_or_else(|| "*".to_owned()),
            names: Vec::new(),
        }
    }

    fn named(rule: &NamedRuleWithOperations) -> Self {
        let plain = RuleWithOperations {
            api_groups: rule.api_groups.clone(),
            api_versions: rule.api_versions.clone(),
            operations: rule.operations.clone(),
            resources: rule.resources.clone(),
            scope: rule.scope.clone(),
        };
        Self { names: rule.resource_names.clone().unwrap_or_default(), ..Self::new(&plain) }
    }

    fn is_about(&self, write: &Write<'_>, resource: &Resource) -> bool {
        let in_scope = match self.scope.as_str() {
            "Namespaced" => resource.scope == Scope::Namespaced,
            "Cluster" => resource.scope == Scope::Cluster,
            _ => true,
        };
        in_scope
            && (self.names.is_empty() || self.names.iter().any(|name| name == write.name))
            && matches(&self.operations, write.operation.as_str())
            && matches(&self.groups, resource.group)
            && matches(&self.versions, resource.version)
            && self
                .resources
                .iter()
                .any(|(main, sub)| (main == "*" || main == resource.plural) && (sub == "*" || sub == write.subresource))
    }
}

/// What a webhook or a policy is about.
#[derive(Debug)]
pub(super) struct Matcher {
    rules: Vec<Rule>,
    /// What is left out all the same.
    excluded: Vec<Rule>,
    /// Whether all are meant that no rule leaves out.
    all: bool,
    /// Whether a rule about another version of the same objects will do.
    by_equivalents: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

/// A selector that was checked when it was written; what cannot be read all the same leaves nothing out.
fn selector(selector: Option<&metav1::LabelSelector>) -> LabelSelector {
    LabelSelector::from_api(Some(selector.unwrap_or(&metav1::LabelSelector::default()))).unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a stored selector cannot be read");
        LabelSelector::new(Vec::new())
    })
}

impl Matcher {
    pub(super) fn new(
        rules: &[RuleWithOperations],
        match_policy: Option<&str>,
        namespaces: Option<&metav1::LabelSelector>,
        objects: Option<&metav1::LabelSelector>,
    ) -> Self {
        Self {
            rules: rules.iter().map(Rule::new).collect(),
            excluded: Vec::new(),
            all: false,
            by_equivalents: match_policy != Some("Exact"),
            namespaces: selector(namespaces),
            objects: selector(objects),
        }
    }

    /// What a policy or a binding says it is about; all, if it has no rules.
    pub(super) fn of(resources: &MatchResources) -> Self {
        let compiled = |rules: &Option<Vec<NamedRuleWithOperations>>| -> Vec<Rule> {
            rules.iter().flatten().map(Rule::named).collect()
        };
        let rules = compiled(&resources.resource_rules);
        Self {
            all: rules.is_empty(),
            rules,
            excluded: compiled(&resources.exclude_resource_rules),
            by_equivalents: resources.match_policy.as_deref() != Some("Exact"),
            namespaces: selector(resources.namespace_selector.as_ref()),
            objects: selector(resources.object_selector.as_ref()),
        }
    }

    /// The kind as which the write is to be seen, if it is one of those meant.
    ///
    /// # Errors
    /// 404 when the namespace whose labels are asked for is gone.
    pub(super) fn matching(
        &self,
        write: &Write<'_>,
        object: Option<&dyn AnyObject>,
    ) -> Result<Option<Arc<dyn KindOps>>> {
        // Rules first: they cost least, and most writes end here.
        let Some(kind) = self.kind(write) else { return Ok(None) };
        if !self.selects_object(write, object) || !self.selects_namespace(write, object)? {
            return Ok(None);
        }
        Ok(Some(kind))
    }

    fn kind(&self, write: &Write<'_>) -> Option<Arc<dyn KindOps>> {
        let own = write.kind.resource();
        let served = |resource: &Resource| match write.operation {
            Operation::Connect => connect::kind(resource.kind).cloned(),
            _ => write.registry.kind(resource.group, resource.version, resource.plural),
        };
        let catalog = write.registry.custom().newest();
        let others = || {
            let custom = catalog.kinds().iter().map(|kind| Arc::clone(kind) as Arc<dyn KindOps>);
            write.registry.kinds().cloned().chain(custom).filter(|kind| {
                let other = kind.resource();
                other.storage == own.storage && (other.group, other.version) != (own.group, own.version)
            })
        };
        let equivalent = |rules: &[Rule]| {
            let mut rules = rules.iter().filter(|_| self.by_equivalents);
            rules.find_map(|rule| others().find(|kind| rule.is_about(write, kind.resource())))
        };
        let is_meant = |rules: &[Rule]| rules.iter().any(|rule| rule.is_about(write, own));
        if is_meant(&self.excluded) || equivalent(&self.excluded).is_some() {
            return None;
        }
        if self.all || is_meant(&self.rules) {
            return served(own);
        }
        equivalent(&self.rules)
    }

    fn selects_object(&self, write: &Write<'_>, object: Option<&dyn AnyObject>) -> bool {
        // Before or after the write: whoever takes a label away does not slip by.
        self.objects.is_everything()
            || [object, write.old].into_iter().flatten().any(|object| self.objects.matches_object(object.meta()))
    }

    fn selects_namespace(&self, write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<bool> {
        let is_namespace = write.is_of("", "namespaces");
        if self.namespaces.is_everything() || (write.namespace.is_empty() && !is_namespace) {
            return Ok(true);
        }
        if let Some(object) = object.filter(|_| is_namespace && write.operation != Operation::Delete) {
            return Ok(self.namespaces.matches_object(object.meta()));
        }
        let name = if is_namespace { write.name } else { write.namespace };
        let entry =
            write.registry.namespace_entry(name).ok_or_else(|| Box::new(Status::not_found("", "namespaces", name)))?;
        Ok(self.namespaces.matches_labels(&Header::of(&entry).labels))
    }
}
