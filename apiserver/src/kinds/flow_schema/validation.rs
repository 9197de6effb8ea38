//! What makes a flow schema invalid.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, ServiceAccountSubject, Subject,
};

use crate::kinds::{blank::list, rules};

const VERBS: &[&str] = &["get", "list", "create", "update", "delete", "deletecollection", "patch", "watch", "proxy"];

/// The last place a schema can have.
const LAST: i32 = 10_000;

/// Everything wrong with the spec of the schema `schema`.
pub(super) fn validate_spec(errors: &mut Errors, path: &Path, schema: &str, spec: &FlowSchemaSpec) {
    let (at, precedence) = (path.child("matchingPrecedence"), spec.matching_precedence.unwrap_or(0));
    if precedence <= 0 {
        errors.push(Error::invalid(&at, precedence, "must be a positive value"));
    }
    if precedence > LAST {
        errors.push(Error::invalid(&at, precedence, &format!("must not be greater than {LAST}")));
    }
    if precedence == 1 && schema != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(Error::invalid(&at, precedence, detail));
    }
    if let Some(method) = &spec.distinguisher_method
        && !["ByNamespace", "ByUser"].contains(&method.type_.as_str())
    {
        let at = path.child("distinguisherMethod").child("type");
        errors.push(Error::not_supported(&at, rules::json(method), &["ByNamespace", "ByUser"]));
    }
    let (at, level) = (path.child("priorityLevelConfiguration").child("name"), &spec.priority_level_configuration.name);
    if level.is_empty() {
        errors.push(Error::required(&at, "must reference a priority level"));
    } else {
        rules::messages(errors, &at, level, name::dns1123_subdomain(level));
    }
    for (i, rule) in list(&spec.rules).iter().enumerate() {
        validate_rule(errors, &path.child("rules").index(i), rule);
    }
}

fn validate_rule(errors: &mut Errors, path: &Path, rule: &PolicyRulesWithSubjects) {
    if rule.subjects.is_empty() {
        errors.push(Error::required(&path.child("subjects"), "subjects must contain at least one value"));
    }
    for (i, subject) in rule.subjects.iter().enumerate() {
        validate_subject(errors, &path.child("subjects").index(i), subject);
    }
    let (resources, others) = (list(&rule.resource_rules), list(&rule.non_resource_rules));
    if resources.is_empty() && others.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(Error::required(path, detail));
    }
    for (i, rule) in resources.iter().enumerate() {
        validate_resources(errors, &path.child("resourceRules").index(i), rule);
    }
    for (i, rule) in others.iter().enumerate() {
        validate_urls(errors, &path.child("nonResourceRules").index(i), rule);
    }
}

fn validate_subject(errors: &mut Errors, path: &Path, subject: &Subject) {
    let kind = subject.kind.as_str();
    let kinds = [
        ("ServiceAccount", "serviceAccount", subject.service_account.is_some()),
        ("User", "user", subject.user.is_some()),
        ("Group", "group", subject.group.is_some()),
    ];
    if !kinds.iter().any(|(known, ..)| *known == kind) {
        let known = &["Group", "ServiceAccount", "User"];
        return errors.push(Error::not_supported(&path.child("kind"), kind, known));
    }
    for (known, field, is_set) in kinds {
        let at = path.child(field);
        if known == kind && !is_set {
            errors.push(Error::required(&at, &format!("{field} is required when subject kind is '{kind}'")));
        } else if known != kind && is_set {
            errors.push(Error::forbidden(&at, &format!("{field} is forbidden when subject kind is not '{known}'")));
        }
    }
    let named = match kind {
        "User" => subject.user.as_ref().map(|user| (&user.name, "user")),
        "Group" => subject.group.as_ref().map(|group| (&group.name, "group")),
        _ => None,
    };
    if let Some((_, field)) = named.filter(|(name, _)| name.is_empty()) {
        errors.push(Error::required(&path.child(field).child("name"), ""));
    }
    if let (Some(account), "ServiceAccount") = (&subject.service_account, kind) {
        validate_account(errors, &path.child("serviceAccount"), account);
    }
}

fn validate_account(errors: &mut Errors, path: &Path, account: &ServiceAccountSubject) {
    match account.name.as_str() {
        "" => errors.push(Error::required(&path.child("name"), "")),
        "*" => {}
        named => rules::messages(errors, &path.child("name"), named, name::dns1123_subdomain(named)),
    }
    let at = path.child("namespace");
    match account.namespace.as_str() {
        "" => errors.push(Error::required(&at, "must specify namespace for service account")),
        namespace => rules::messages(errors, &at, namespace, name::dns1123_label(namespace)),
    }
}

fn has_all(items: &[String]) -> bool {
    items.iter().any(|item| item == "*")
}

/// A list that must hold something, and nothing else beside `*`. Says whether its items are to be looked at.
fn validate_set(errors: &mut Errors, path: &Path, items: &[String], what: &str, missing: &str) -> bool {
    if items.is_empty() {
        errors.push(Error::required(path, missing));
    } else if has_all(items) && items.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(Error::invalid(path, items.to_vec(), &detail));
    }
    !has_all(items)
}

fn validate_verbs(errors: &mut Errors, path: &Path, verbs: &[String]) {
    let at = path.child("verbs");
    let each = validate_set(errors, &at, verbs, "verbs", "verbs must contain at least one value");
    if each && verbs.iter().any(|verb| !VERBS.contains(&verb.as_str())) {
        errors.push(Error::not_supported(&at, verbs.to_vec(), VERBS));
    }
}

fn validate_resources(errors: &mut Errors, path: &Path, rule: &ResourcePolicyRule) {
    validate_verbs(errors, path, &rule.verbs);
    let missing = "resource rules must supply at least one api group";
    validate_set(errors, &path.child("apiGroups"), &rule.api_groups, "api groups", missing);
    let missing = "resource rules must supply at least one resource";
    validate_set(errors, &path.child("resources"), &rule.resources, "resources", missing);
    let (at, namespaces) = (path.child("namespaces"), list(&rule.namespaces));
    if namespaces.is_empty() && rule.cluster_scope == Some(true) {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if validate_set(errors, &at, namespaces, "namespaces", missing) {
        for (i, namespace) in namespaces.iter().enumerate() {
            for message in name::dns1123_label(namespace) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                errors.push(Error::invalid(&at.index(i), namespace.as_str(), &detail));
            }
        }
    }
}

fn validate_urls(errors: &mut Errors, path: &Path, rule: &NonResourcePolicyRule) {
    validate_verbs(errors, path, &rule.verbs);
    let (at, urls) = (path.child("nonResourceURLs"), &rule.non_resource_urls);
    let missing = "nonResourceURLs must contain at least one value";
    if !validate_set(errors, &at, urls, "non-resource URLs", missing) {
        return;
    }
    for (i, url) in urls.iter().enumerate() {
        let detail = match url.as_str() {
            "" => "must not be empty",
            "/" => continue,
            url if !url.starts_with('/') => "must start with slash",
            url if url.contains(' ') => "must not contain white-space",
            url if url.contains("//") => "must not contain double slash",
            url if url.strip_suffix("/*").unwrap_or(url).contains('*') => "wildcard can only do suffix matching",
            _ => continue,
        };
        errors.push(Error::invalid(&at.index(i), url.as_str(), detail));
    }
}
