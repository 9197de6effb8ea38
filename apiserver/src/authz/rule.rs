//! One RBAC rule: what it allows, and whether it covers another.
//!
//! The matching and the words follow Kubernetes (`rbac/v1` evaluation helpers, `registry/rbac/validation`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::Attributes;

const ALL: &str = "*";

fn list(values: Option<&Vec<String>>) -> &[String] {
    values.map_or(&[], Vec::as_slice)
}

fn has(values: &[String], wanted: &str) -> bool {
    values.iter().any(|v| v == ALL || v == wanted)
}

/// Whether `rule` allows what is asked.
pub(crate) fn allows(rule: &PolicyRule, asked: &Attributes<'_>) -> bool {
    if !has(&rule.verbs, asked.verb) {
        return false;
    }
    if let Some(path) = asked.path {
        return list(rule.non_resource_urls.as_ref()).iter().any(|url| url_covers(url, path));
    }
    has(list(rule.api_groups.as_ref()), asked.group)
        && list(rule.resources.as_ref()).iter().any(|r| resource_matches(r, asked.resource, asked.subresource))
        && matches!(list(rule.resource_names.as_ref()), names if names.is_empty() || names.iter().any(|n| n == asked.name))
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    match (rule.split_once('/'), subresource) {
        (None, "") => rule == resource,
        (Some((parent, sub)), wanted) if !wanted.is_empty() => sub == wanted && (parent == ALL || parent == resource),
        _ => false,
    }
}

fn url_covers(rule: &str, path: &str) -> bool {
    rule == ALL || rule == path || (rule.ends_with(ALL) && path.starts_with(rule.trim_end_matches('*')))
}

/// The rules of `wanted`, taken apart, that no rule of `held` covers.
pub(crate) fn missing(held: &[&PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(take_apart).filter(|part| !held.iter().any(|rule| covers(rule, part))).collect()
}

/// The rule as rules with one group, one resource, one verb and at most one name (or one URL and one verb).
fn take_apart(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    let names: Vec<Option<&String>> = match list(rule.resource_names.as_ref()) {
        [] => vec![None],
        names => names.iter().map(Some).collect(),
    };
    for group in list(rule.api_groups.as_ref()) {
        for resource in list(rule.resources.as_ref()) {
            for verb in &rule.verbs {
                for name in &names {
                    parts.push(PolicyRule {
                        api_groups: Some(vec![group.clone()]),
                        resources: Some(vec![resource.clone()]),
                        verbs: vec![verb.clone()],
                        resource_names: name.map(|n| vec![n.clone()]),
                        non_resource_urls: None,
                    });
                }
            }
        }
    }
    for url in list(rule.non_resource_urls.as_ref()) {
        for verb in &rule.verbs {
            parts.push(PolicyRule {
                non_resource_urls: Some(vec![url.clone()]),
                verbs: vec![verb.clone()],
                ..PolicyRule::default()
            });
        }
    }
    parts
}

/// Whether `rule` alone allows all that `part` does.
fn covers(rule: &PolicyRule, part: &PolicyRule) -> bool {
    let all = |wanted: &[String], by: &dyn Fn(&str) -> bool| wanted.iter().all(|w| by(w));
    let held =
        |values: Option<&Vec<String>>, wanted: Option<&Vec<String>>| all(list(wanted), &|w| has(list(values), w));
    let resources = list(rule.resources.as_ref());
    let names = list(rule.resource_names.as_ref());
    let wanted_names = list(part.resource_names.as_ref());
    all(&part.verbs, &|verb| has(&rule.verbs, verb))
        && held(rule.api_groups.as_ref(), part.api_groups.as_ref())
        && all(list(part.resources.as_ref()), &|wanted| {
            has(resources, wanted)
                || wanted.split_once('/').is_some_and(|(_, sub)| {
                    resources.iter().any(|r| r.split_once('/').is_some_and(|(p, s)| p == ALL && s == sub))
                })
        })
        && (names.is_empty() || (!wanted_names.is_empty() && wanted_names.iter().all(|wanted| names.contains(wanted))))
        && all(list(part.non_resource_urls.as_ref()), &|wanted| {
            list(rule.non_resource_urls.as_ref()).iter().any(|url| url_covers(url, wanted))
        })
}

/// Rules about the same resource (and name), each with one verb, put together again.
pub(crate) fn compact(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut merged: BTreeMap<(String, String, Option<String>), PolicyRule> = BTreeMap::new();
    let mut rest = Vec::new();
    for rule in rules {
        let simple = match (list(rule.api_groups.as_ref()), list(rule.resources.as_ref())) {
            ([group], [resource]) if list(rule.non_resource_urls.as_ref()).is_empty() => {
                match list(rule.resource_names.as_ref()) {
                    [] => Some((group.clone(), resource.clone(), None)),
                    [name] => Some((group.clone(), resource.clone(), Some(name.clone()))),
                    _ => None,
                }
            }
            _ => None,
        };
        match simple.map(|key| merged.entry(key)) {
            Some(std::collections::btree_map::Entry::Occupied(mut there)) => {
                for verb in rule.verbs {
                    if !there.get().verbs.contains(&verb) {
                        there.get_mut().verbs.push(verb);
                    }
                }
            }
            Some(std::collections::btree_map::Entry::Vacant(free)) => {
                free.insert(rule);
            }
            None => rest.push(rule),
        }
    }
    merged.into_values().chain(rest).collect()
}

/// A list as Go's `%q` prints it: `["a" "b"]`.
pub(crate) fn quoted(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("[{}]", values.join(" "))
}

/// The rule in one line, as the message about an escalation has it.
fn line(rule: &PolicyRule) -> String {
    let parts: Vec<String> = [
        ("APIGroups", list(rule.api_groups.as_ref())),
        ("Resources", list(rule.resources.as_ref())),
        ("NonResourceURLs", list(rule.non_resource_urls.as_ref())),
        ("ResourceNames", list(rule.resource_names.as_ref())),
        ("Verbs", rule.verbs.as_slice()),
    ]
    .iter()
    .filter(|(_, values)| !values.is_empty())
    .map(|(name, values)| format!("{name}:{}", quoted(values)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}

/// The rules in sorted lines, repeats once.
pub(crate) fn lines(rules: &[PolicyRule]) -> String {
    let lines: BTreeSet<String> = rules.iter().map(line).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{authz::defaults::rule, user::User};

    #[test]
    fn rules_match_as_kubernetes_does() {
        let user = User::default();
        let resource = |verb, group, resource, subresource, name| Attributes {
            group,
            resource,
            subresource,
            name,
            ..Attributes::new(&user, verb)
        };
        for (text, asked, allowed) in [
            ("get core pods", resource("get", "", "pods", "", ""), true),
            ("get core pods", resource("list", "", "pods", "", ""), false),
            ("get core pods", resource("get", "apps", "pods", "", ""), false),
            ("get core pods", resource("get", "", "pods", "log", "x"), false),
            ("get core pods/log", resource("get", "", "pods", "log", "x"), true),
            ("get core pods/log", resource("get", "", "pods", "", "x"), false),
            ("get core */log", resource("get", "", "pods", "log", "x"), true),
            ("get * */scale", resource("get", "apps", "deployments", "scale", "x"), true),
            ("get * */scale", resource("get", "apps", "deployments", "status", "x"), false),
            ("get core *", resource("get", "", "pods", "log", "x"), true),
            ("* * *", resource("deletecollection", "a.b", "c", "d", "e"), true),
            ("get core configmaps @a,b", resource("get", "", "configmaps", "", "b"), true),
            ("get core configmaps @a,b", resource("get", "", "configmaps", "", "c"), false),
            ("list core configmaps @a", resource("list", "", "configmaps", "", ""), false),
            ("get url /api/*", resource("get", "", "pods", "", ""), false),
        ] {
            assert_eq!(allows(&rule(text), &asked), allowed, "{text}: {asked:?}");
        }
        for (text, path, allowed) in [
            ("get url /healthz", "/healthz", true),
            ("get url /healthz", "/healthz/etcd", false),
            ("get url /healthz/*", "/healthz/etcd", true),
            ("get url /healthz/*", "/healthz", false),
            ("get url *", "/anything", true),
            ("get core *", "/anything", false),
        ] {
            let asked = Attributes { path: Some(path), ..Attributes::new(&user, "get") };
            assert_eq!(allows(&rule(text), &asked), allowed, "{text}: {path}");
        }
    }

    #[test]
    fn what_is_missing_is_named_once_and_in_order() {
        for (held, wanted, expected) in [
            (vec!["get,list core pods"], vec!["get core pods"], ""),
            (vec!["get core pods", "list core pods"], vec!["get,list core pods"], ""),
            (vec!["* * *"], vec!["get,list apps deployments/scale @x", "create core pods"], ""),
            (vec!["* * *"], vec!["get url /metrics"], r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#),
            (vec!["get url /m*"], vec!["get url /metrics"], ""),
            (vec!["get core */log"], vec!["get core pods/log"], ""),
            (vec!["get core pods @a,b"], vec!["get core pods @a"], ""),
            (vec!["get core pods @a"], vec!["get core pods"], r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#),
            (
                vec!["get core pods"],
                vec!["get,watch,delete core pods,secrets"],
                "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}\n\
                 {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"delete\" \"get\" \"watch\"]}",
            ),
        ] {
            let held_rules: Vec<PolicyRule> = held.iter().map(|t| rule(t)).collect();
            let wanted_rules: Vec<PolicyRule> = wanted.iter().map(|t| rule(t)).collect();
            let held_refs: Vec<&PolicyRule> = held_rules.iter().collect();
            let found = lines(&compact(missing(&held_refs, &wanted_rules)));
            assert_eq!(found, expected, "{held:?} against {wanted:?}");
        }
    }
}
