//! The flow schemas and priority levels every cluster has (KEP-1040; `flowcontrol/bootstrap` in Kubernetes 1.36).

use k8s_openapi::{
    api::flowcontrol::v1::{
        ExemptPriorityLevelConfiguration, FlowDistinguisherMethod, FlowSchema, FlowSchemaSpec, GroupSubject,
        LimitResponse, LimitedPriorityLevelConfiguration, NonResourcePolicyRule, PolicyRulesWithSubjects,
        PriorityLevelConfiguration, PriorityLevelConfigurationReference, PriorityLevelConfigurationSpec,
        QueuingConfiguration, ResourcePolicyRule, ServiceAccountSubject, Subject, UserSubject,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// `false` on an object keeps it as its owner wants it.
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Priority levels: name, shares, percent that may be lent, queues and hand size (0: what does not fit is rejected).
/// `exempt`, which has neither, stands by itself.
const LEVELS: &[(&str, i32, i32, i32, i32)] = &[
    ("catch-all", 5, 0, 0, 0),
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

/// Requests that wait in one queue at most.
const QUEUE_LENGTH: i32 = 50;

/// Flow schemas: name, level, precedence, what tells flows apart, whose (`g:` a group, `u:` a user, `s:` a service
/// account of `kube-system`), and what: one rule of `verbs groups resources scope` each (scope `*` with the cluster's own
/// objects, `namespaced` without), or `verbs url paths`.
type Row = (&'static str, &'static str, i32, &'static str, &'static [&'static str], &'static [&'static str]);

const EVERYTHING: &[&str] = &["* * * *", "* url *"];

const EVERYONE: &[&str] = &["g:system:unauthenticated", "g:system:authenticated"];

const SCHEMAS: &[Row] = &[
    ("exempt", "exempt", 1, "", &["g:system:masters"], EVERYTHING),
    ("catch-all", "catch-all", 10_000, "ByUser", EVERYONE, EVERYTHING),
    ("probes", "exempt", 2, "", EVERYONE, &["get url /healthz,/readyz,/livez"]),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        &["u:system:kube-controller-manager", "u:system:kube-scheduler", "s:*"],
        &["get,create,update coordination.k8s.io leases namespaced"],
    ),
    (
        "system-node-high",
        "node-high",
        400,
        "ByUser",
        &["g:system:nodes"],
        &["* core nodes,nodes/status *", "* coordination.k8s.io leases namespaced"],
    ),
    ("system-nodes", "system", 500, "ByUser", &["g:system:nodes"], EVERYTHING),
    ("kube-controller-manager", "workload-high", 800, "ByNamespace", &["u:system:kube-controller-manager"], EVERYTHING),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", &["u:system:kube-scheduler"], EVERYTHING),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &["s:*"], EVERYTHING),
    ("service-accounts", "workload-low", 9000, "ByUser", &["g:system:serviceaccounts"], EVERYTHING),
    ("global-default", "global-default", 9900, "ByUser", EVERYONE, EVERYTHING),
];

/// Those that keep their specs whatever anybody writes.
pub(crate) const MANDATORY: &[&str] = &["exempt", "catch-all"];

fn meta(name: &str) -> ObjectMeta {
    let note = [(AUTOUPDATE.to_owned(), "true".to_owned())];
    ObjectMeta { name: Some(name.to_owned()), annotations: Some(note.into()), ..ObjectMeta::default() }
}

fn subject(text: &str) -> Subject {
    let (kind, name) = text.split_once(':').unwrap_or_default();
    let name = name.to_owned();
    match kind {
        "g" => Subject { kind: "Group".to_owned(), group: Some(GroupSubject { name }), ..Subject::default() },
        "u" => Subject { kind: "User".to_owned(), user: Some(UserSubject { name }), ..Subject::default() },
        _ => {
            let account = ServiceAccountSubject { name, namespace: "kube-system".to_owned() };
            Subject { kind: "ServiceAccount".to_owned(), service_account: Some(account), ..Subject::default() }
        }
    }
}

fn rules(subjects: &[&str], lines: &[&str]) -> PolicyRulesWithSubjects {
    let mut rules = PolicyRulesWithSubjects {
        subjects: subjects.iter().map(|text| subject(text)).collect(),
        ..PolicyRulesWithSubjects::default()
    };
    let split = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    for line in lines {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let (verbs, group, resources, scope) = (split(next()), next(), split(next()), next());
        if group == "url" {
            let rule = NonResourcePolicyRule { verbs, non_resource_urls: resources };
            rules.non_resource_rules.get_or_insert_default().push(rule);
            continue;
        }
        let group = if group == "core" { "" } else { group };
        rules.resource_rules.get_or_insert_default().push(ResourcePolicyRule {
            verbs,
            api_groups: vec![group.to_owned()],
            resources,
            cluster_scope: (scope == "*").then_some(true),
            namespaces: Some(vec!["*".to_owned()]),
        });
    }
    rules
}

fn exempt() -> PriorityLevelConfiguration {
    let exempt = ExemptPriorityLevelConfiguration { lendable_percent: Some(0), nominal_concurrency_shares: Some(0) };
    let spec = PriorityLevelConfigurationSpec {
        exempt: Some(exempt),
        type_: "Exempt".to_owned(),
        ..PriorityLevelConfigurationSpec::default()
    };
    PriorityLevelConfiguration { metadata: meta("exempt"), spec: Some(spec), ..Default::default() }
}

/// Every default priority level.
#[must_use]
pub fn levels() -> Vec<PriorityLevelConfiguration> {
    let limited = LEVELS.iter().map(|(name, shares, lendable, queues, hand_size)| {
        let queuing = (*queues > 0).then_some(QueuingConfiguration {
            queues: Some(*queues),
            hand_size: Some(*hand_size),
            queue_length_limit: Some(QUEUE_LENGTH),
        });
        let response = if queuing.is_some() { "Queue" } else { "Reject" };
        let limited = LimitedPriorityLevelConfiguration {
            nominal_concurrency_shares: Some(*shares),
            lendable_percent: Some(*lendable),
            limit_response: Some(LimitResponse { queuing, type_: response.to_owned() }),
            borrowing_limit_percent: None,
        };
        let spec = PriorityLevelConfigurationSpec {
            limited: Some(limited),
            type_: "Limited".to_owned(),
            ..PriorityLevelConfigurationSpec::default()
        };
        PriorityLevelConfiguration { metadata: meta(name), spec: Some(spec), ..Default::default() }
    });
    std::iter::once(exempt()).chain(limited).collect()
}

/// Every default flow schema.
#[must_use]
pub fn schemas() -> Vec<FlowSchema> {
    let schema = |(name, level, precedence, by, subjects, lines): &Row| FlowSchema {
        metadata: meta(name),
        spec: Some(FlowSchemaSpec {
            priority_level_configuration: PriorityLevelConfigurationReference { name: (*level).to_owned() },
            matching_precedence: Some(*precedence),
            distinguisher_method: (!by.is_empty()).then(|| FlowDistinguisherMethod { type_: (*by).to_owned() }),
            rules: Some(vec![rules(subjects, lines)]),
        }),
        ..FlowSchema::default()
    };
    SCHEMAS.iter().map(schema).collect()
}

/// The flow schema of this name, if its spec is fixed.
pub(crate) fn mandatory_schema(name: &str) -> Option<FlowSchema> {
    let found = MANDATORY.contains(&name).then(schemas)?;
    found.into_iter().find(|schema| schema.metadata.name.as_deref() == Some(name))
}

/// The priority level of this name, if its spec is fixed.
pub(crate) fn mandatory_level(name: &str) -> Option<PriorityLevelConfiguration> {
    let found = MANDATORY.contains(&name).then(levels)?;
    found.into_iter().find(|level| level.metadata.name.as_deref() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kind::Strategy,
        kinds::{flow_schema::FlowSchemas, priority_level::PriorityLevels, testing::lines},
    };

    #[test]
    fn every_default_is_valid_as_it_is_and_its_level_is_there() {
        let levels = levels();
        for mut level in levels.clone() {
            let before = level.spec.clone();
            PriorityLevels.default(&mut level);
            assert_eq!(level.spec, before, "nothing is left to default");
            assert_eq!(lines(&PriorityLevels.validate(&level)), "", "{:?}", level.metadata.name);
        }
        for mut schema in schemas() {
            let before = schema.spec.clone();
            FlowSchemas.default(&mut schema);
            assert_eq!(schema.spec, before, "nothing is left to default");
            assert_eq!(lines(&FlowSchemas.validate(&schema)), "", "{:?}", schema.metadata.name);
            let level = schema.spec.unwrap().priority_level_configuration.name;
            assert!(levels.iter().any(|l| l.metadata.name.as_ref() == Some(&level)), "{level}");
        }
    }
}
