//! Whether a container that has ended is started again: its own rules first, then its own policy, then the pod's (KEP-5307).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use super::facts::{Attempt, Facts, Phase};
use super::{is_sidecar, spec};

/// What a rule does that has all containers of the pod begin anew.
const RESTART_ALL: &str = "RestartAllContainers";

/// Whether `container` of `pod` is started again after an end like that of `attempt`.
pub(crate) fn follows(pod: &Pod, container: &Container, attempt: &Attempt) -> bool {
    if is_sidecar(container) || container.restart_policy_rules.iter().flatten().any(|rule| matches(rule, attempt)) {
        return true;
    }
    let init = spec(pod).init_containers().iter().any(|c| c.name == container.name);
    match container.restart_policy.as_deref().unwrap_or_else(|| spec(pod).restart_policy()) {
        "Never" => false,
        "OnFailure" => !attempt.succeeded(),
        // An init container is run until it succeeds.
        _ => !init || !attempt.succeeded(),
    }
}

/// When all containers of the pod were last told to begin anew, by the end of one whose rules say so (KEP-5532). What was
/// started since tells it too, when that end is no longer on record.
pub(crate) fn round(pod: &Pod, facts: &Facts) -> Option<Timestamp> {
    let sandbox = facts.sandbox.as_ref()?.attempt;
    let rounds = spec(pod).all().flat_map(|container| {
        let attempts = facts.attempts.get(&container.name).into_iter().flatten();
        attempts.filter(move |attempt| attempt.sandbox == sandbox).map(|attempt| {
            let begun = attempt.finished.filter(|_| restarts_all(container, attempt));
            begun.max(attempt.round)
        })
    });
    rounds.max().flatten()
}

fn restarts_all(container: &Container, attempt: &Attempt) -> bool {
    let mut rules = container.restart_policy_rules.iter().flatten();
    attempt.phase == Phase::Exited
        && rules.find(|rule| matches(rule, attempt)).is_some_and(|rule| rule.action == RESTART_ALL)
}

/// Whether some container's rules may have all of them begin anew.
pub(crate) fn may_restart_all(pod: &Pod) -> bool {
    let mut rules = spec(pod).all().flat_map(|container| container.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == RESTART_ALL)
}

/// Whether there is an end that `container` of `pod` is started again after.
pub(crate) fn may_follow(pod: &Pod, container: &Container) -> bool {
    container.restart_policy.as_deref().unwrap_or_else(|| spec(pod).restart_policy()) != "Never"
}

fn matches(rule: &ContainerRestartRule, attempt: &Attempt) -> bool {
    let (Some(codes), Some(code)) = (&rule.exit_codes, attempt.exit_code) else { return false };
    let listed = codes.values.iter().flatten().any(|value| *value == code);
    (rule.action == "Restart" || rule.action == RESTART_ALL)
        && match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::pod;
    use super::*;

    fn check(policy: &str, field: &str, container: Value, code: i32) -> bool {
        let mut spec = json!({"restartPolicy": policy, "containers": []});
        let mut container = container;
        container["name"] = "c".into();
        spec[field] = json!([container]);
        let pod = pod(spec);
        let attempt = Attempt {
            id: "c0".into(),
            attempt: 0,
            sandbox: 0,
            round: None,
            phase: Phase::Exited,
            image: String::new(),
            image_id: String::new(),
            stop_signal: None,
            log: std::path::PathBuf::new(),
            user: None,
            started: None,
            finished: None,
            exit_code: Some(code),
            reason: None,
            message: None,
        };
        follows(&pod, super::super::spec(&pod).container("c").unwrap(), &attempt)
    }

    #[test]
    fn the_pods_policy_holds_where_the_container_says_nothing() {
        for (policy, code, want) in
            [("Always", 0, true), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Never", 1, false)]
        {
            assert_eq!(check(policy, "containers", json!({}), code), want, "{policy} {code}");
        }
        for (policy, code, want) in [("Always", 0, false), ("Always", 1, true), ("Never", 1, false)] {
            assert_eq!(check(policy, "initContainers", json!({}), code), want, "init {policy} {code}");
        }
        assert!(check("Never", "initContainers", json!({"restartPolicy": "Always"}), 0));
    }

    #[test]
    fn a_containers_own_policy_and_rules_come_first() {
        assert!(!check("Always", "containers", json!({"restartPolicy": "Never"}), 1));
        assert!(check("Never", "containers", json!({"restartPolicy": "OnFailure"}), 1));
        let rule = |operator| {
            json!({"restartPolicy": "Never", "restartPolicyRules":
                [{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]})
        };
        for (operator, code, want) in [("In", 42, true), ("In", 1, false), ("NotIn", 42, false), ("NotIn", 1, true)] {
            assert_eq!(check("Never", "containers", rule(operator), code), want, "{operator} {code}");
        }
    }
}
