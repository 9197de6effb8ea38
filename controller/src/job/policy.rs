//! What a Job's policies say about pods that failed, and about indexes that succeeded. Pure.

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement as ExitCodes, PodFailurePolicyOnPodConditionsPattern as Condition,
    PodFailurePolicyRule,
};
use kube::ResourceExt;

use super::indexes::Indexes;
use crate::view::{ContainerStatusView, PodView};

/// What becomes of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts as a failure.
    Count,
    /// It counts as none.
    Ignore,
    /// It counts, and its index is not tried again.
    FailIndex,
    /// The whole Job has failed, and why.
    FailJob(String),
}

fn matches_exit(rule: &ExitCodes, container: &ContainerStatusView) -> Option<i32> {
    let code = container.state.terminated.as_ref()?.exit_code;
    let is_meant = rule.container_name.as_ref().is_none_or(|name| *name == container.name);
    let is_listed = rule.values.contains(&code);
    let holds = match rule.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        _ => false,
    };
    (code != 0 && is_meant && holds).then_some(code)
}

/// What a rule matches in a pod, in words.
fn matched(rule: &PodFailurePolicyRule, at: usize, pod: &PodView) -> Option<String> {
    let name = format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), pod.name_any());
    if let Some(codes) = &rule.on_exit_codes {
        let mut containers = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
        return containers.find_map(|container| {
            let code = matches_exit(codes, container)?;
            let who = &container.name;
            Some(format!(
                "Container {who} for pod {name} failed with exit code {code} matching {} rule at index {at}",
                rule.action
            ))
        });
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let holds = |pattern: &Condition, kind: &str, status: &str| {
        pattern.type_ == kind && pattern.status.as_deref().unwrap_or("True") == status
    };
    let found = pod.status.conditions.iter().find(|c| patterns.iter().any(|p| holds(p, &c.kind, &c.status)))?;
    Some(format!("Pod {name} has condition {} matching {} rule at index {at}", found.kind, rule.action))
}

/// What the Job's `podFailurePolicy` says about a failed pod: the first rule that matches counts.
pub(super) fn verdict(job: &Job, pod: &PodView) -> Verdict {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    for (at, rule) in policy.iter().flat_map(|policy| &policy.rules).enumerate() {
        let Some(why) = matched(rule, at, pod) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" => return Verdict::FailIndex,
            "Count" => return Verdict::Count,
            "FailJob" => return Verdict::FailJob(why),
            // An action of a later version is none.
            _ => {}
        }
    }
    Verdict::Count
}

/// Which of the rules for success is met by these indexes, in words.
pub(super) fn success(job: &Job, completions: i32, succeeded: &Indexes) -> Option<String> {
    let policy = job.spec.as_ref()?.success_policy.as_ref()?;
    let met = policy.rules.iter().position(|rule| match &rule.succeeded_indexes {
        Some(text) => {
            let required = Indexes::parse(text, completions);
            let common = required.common(succeeded);
            required.count() > 0
                && (common == required.count() || rule.succeeded_count.is_some_and(|count| common >= count))
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.count() >= count),
    });
    met.filter(|_| succeeded.count() > 0).map(|at| format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(spec: Value) -> Job {
        serde_json::from_value(json!({"metadata": {"name": "j"}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let exit = |operator: &str, values: Value, container: Value, action: &str| json!({"action": action, "onExitCodes": {"operator": operator, "values": values, "containerName": container}});
        let policy = json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            exit("In", json!([3]), json!("side"), "Count"),
            exit("In", json!([3, 4]), Value::Null, "FailIndex"),
            exit("NotIn", json!([5]), json!("main"), "FailJob"),
        ]});
        let job = job(json!({"podFailurePolicy": policy, "template": {}}));
        let pod = |condition: &str, container: &str, code: i32| -> PodView {
            let ended = json!([{"name": "other", "state": {"running": {}}},
                               {"name": container, "state": {"terminated": {"exitCode": code}}}]);
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d"}, "status": {
                "conditions": [{"type": condition, "status": "True"}], "containerStatuses": ended}}))
            .unwrap()
        };
        let why = "Container main for pod d/p failed with exit code 1 matching FailJob rule at index 3";
        for (pod, expected) in [
            (pod("DisruptionTarget", "main", 3), Verdict::Ignore),
            (pod("X", "side", 3), Verdict::Count),
            (pod("X", "main", 3), Verdict::FailIndex),
            (pod("X", "main", 1), Verdict::FailJob(why.to_owned())),
            (pod("X", "main", 5), Verdict::Count),
            (pod("X", "main", 0), Verdict::Count),
            (pod("X", "side", 1), Verdict::Count),
        ] {
            assert_eq!(verdict(&job, &pod), expected);
        }
    }

    #[test]
    fn success_may_be_less_than_all() {
        let rules = json!({"rules": [{"succeededIndexes": "0,7-8"}, {"succeededIndexes": "1-4", "succeededCount": 2},
                                     {"succeededCount": 5}]});
        let job = job(json!({"successPolicy": rules, "template": {}}));
        for (succeeded, expected) in
            [("", None), ("0,7", None), ("0,7,8", Some(0)), ("1,3", Some(1)), ("0,1,5,6,7", Some(2)), ("1,5,6", None)]
        {
            let expected = expected.map(|at: usize| format!("Matched rules at index {at}"));
            assert_eq!(success(&job, 10, &Indexes::parse(succeeded, 10)), expected, "{succeeded}");
        }
    }
}
