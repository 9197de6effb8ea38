//! The standards' checks, each broken once, and what namespaces' labels mean.

use serde_json::{Value, json};

use super::*;

fn told(level: Level, minor: Option<u32>, spec: &Value, annotations: &Value) -> String {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap();
    details(&found(Standard { level, minor }, &Subject::new(&pod.metadata, pod.spec.as_ref().unwrap())))
}

/// A container that the strictest standard takes, changed.
fn container(name: &str, change: &Value) -> Value {
    let base = json!({"name": name, "image": "i", "securityContext": {
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
    }});
    crate::kinds::testing::merged(&base, change)
}

fn spec(change: &Value) -> Value {
    let base = json!({
        "containers": [container("a", &json!({}))],
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
    });
    crate::kinds::testing::merged(&base, change)
}

fn one(security: Value) -> Value {
    spec(&json!({"containers": [container("a", &json!({"securityContext": security}))]}))
}

#[test]
fn each_baseline_check_is_told_in_kubernetes_words() {
    for (spec, expected) in [
        (spec(&json!({})), ""),
        (
            one(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            one(json!({"capabilities": {"add": ["SYS_TIME", "KILL", "NET_RAW"]}})),
            "non-default capabilities (container \"a\" must not include \"NET_RAW\", \"SYS_TIME\" in securityContext.capabilities.add)",
        ),
        (
            spec(&json!({"hostNetwork": true, "hostPID": true, "hostIPC": true})),
            "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
        ),
        (
            spec(
                &json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]}),
            ),
            "hostPath volumes (volumes \"v\", \"w\")",
        ),
        (
            spec(&json!({"containers": [
                container("a", &json!({"ports": [{"containerPort": 1, "hostPort": 80}]})),
                container("b", &json!({"ports": [{"containerPort": 1, "hostPort": 443}, {"containerPort": 2}]})),
            ]})),
            "hostPort (containers \"a\", \"b\" use hostPorts 443, 80)",
        ),
        (
            spec(&json!({"containers": [container("a", &json!({
                "livenessProbe": {"httpGet": {"host": "h", "port": 1}},
                "lifecycle": {"preStop": {"tcpSocket": {"host": "k", "port": 1}}},
            }))]})),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle hosts \"h\", \"k\")",
        ),
        (one(json!({"privileged": true})), "privileged (container \"a\" must not set securityContext.privileged=true)"),
        (
            one(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            spec(&json!({"securityContext": {"seLinuxOptions": {"type": "x_t", "user": "u", "role": "r"}}})),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x_t\"; user may not be set; role may not be set)",
        ),
        (
            spec(&json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            spec(
                &json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}, {"name": "net.ipv4.tcp_rmem", "value": "1"}]}}),
            ),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            one(json!({"windowsOptions": {"hostProcess": true}})),
            "hostProcess (container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
    ] {
        assert_eq!(told(Level::Baseline, None, &spec, &json!({})), expected);
        assert_eq!(told(Level::Privileged, None, &spec, &json!({})), "");
    }
}

#[test]
fn each_restricted_check_is_told_in_kubernetes_words() {
    let bare = json!({"containers": [{"name": "a", "image": "i"}]});
    let all = "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
               unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
               runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
               seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    for (spec, expected) in [
        (spec(&json!({})), ""),
        (bare, all),
        (
            one(json!({"capabilities": {"add": ["CHOWN", "NET_BIND_SERVICE"]}})),
            "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            spec(&json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}]})),
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")",
        ),
        (
            one(json!({"runAsNonRoot": false})),
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
        ),
        (spec(&json!({"securityContext": {"runAsUser": 0}})), "runAsUser=0 (pod must not set runAsUser=0)"),
        (
            one(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            spec(
                &json!({"os": {"name": "windows"}, "containers": [{"name": "a", "image": "i"}], "securityContext": {"seccompProfile": null}}),
            ),
            "",
        ),
    ] {
        assert_eq!(told(Level::Restricted, None, &spec, &json!({})), expected);
    }
}

#[test]
fn a_standard_is_as_it_was_in_the_version_asked_for() {
    let rmem = spec(&json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]}}));
    let probe = spec(
        &json!({"containers": [container("a", &json!({"livenessProbe": {"tcpSocket": {"host": "h", "port": 1}}}))]}),
    );
    let root = spec(&json!({"securityContext": {"runAsUser": 0}}));
    let own_users = spec(&json!({"hostUsers": false, "securityContext": {"runAsUser": 0, "runAsNonRoot": null}}));
    for (level, minor, spec, reason) in [
        (Level::Baseline, Some(31), &rmem, "forbidden sysctls (net.ipv4.tcp_rmem)"),
        (Level::Baseline, Some(32), &rmem, ""),
        (Level::Baseline, Some(33), &probe, ""),
        (
            Level::Baseline,
            Some(99),
            &probe,
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
        ),
        (Level::Restricted, Some(22), &root, ""),
        (Level::Restricted, Some(23), &root, "runAsUser=0 (pod must not set runAsUser=0)"),
        (Level::Restricted, Some(35), &own_users, ""),
    ] {
        assert_eq!(told(level, minor, spec, &json!({})), reason, "{minor:?}");
    }
    let annotated = json!({"container.seccomp.security.alpha.kubernetes.io/a": "unconfined"});
    assert_eq!(
        told(Level::Baseline, Some(18), &spec(&json!({})), &annotated),
        "seccompProfile (forbidden annotation container.seccomp.security.alpha.kubernetes.io/a=\"unconfined\")"
    );
    assert_eq!(told(Level::Baseline, Some(19), &spec(&json!({})), &annotated), "");
}

#[test]
fn labels_say_what_a_namespace_wants() {
    let read = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(k, v)| (format!("pod-security.kubernetes.io/{k}"), (*v).to_owned())).collect();
        let (policy, errors) = Policy::of(&labels);
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        (format!("{} {} {}", policy.enforce, policy.audit, policy.warn), lines.join("; "))
    };
    for (labels, policy, errors) in [
        (&[][..], "privileged:latest privileged:latest privileged:latest", ""),
        (
            &[("enforce", "restricted"), ("enforce-version", "v1.20")],
            "restricted:v1.20 privileged:latest restricted:v1.20",
            "",
        ),
        (&[("enforce", "baseline"), ("warn", "privileged")], "baseline:latest privileged:latest privileged:latest", ""),
        (
            &[("enforce", "strict"), ("audit-version", "1.20")],
            "restricted:latest privileged:latest privileged:latest",
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted; \
             metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"1.20\": must be \"latest\" or \"v1.x\"",
        ),
    ] {
        assert_eq!(read(labels), (policy.to_owned(), errors.to_owned()));
    }
}

#[test]
fn pods_that_are_there_are_told_of_once_a_reason() {
    let pod = |name: &str, owner: Option<&str>, privileged: bool| -> Pod {
        let owners: Vec<Value> = owner
            .map(|uid| json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true}))
            .into_iter()
            .collect();
        let spec = one(json!({"privileged": privileged}));
        serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": owners}, "spec": spec})).unwrap()
    };
    let enforce = Standard { level: Level::Baseline, minor: None };
    let pods = [pod("c", Some("1"), true), pod("b", Some("1"), true), pod("a", None, true), pod("d", None, false)];
    assert_eq!(
        existing(&pods, "n", enforce),
        [
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 2 other pods): privileged"
        ]
    );
    assert_eq!(existing(&pods[3..], "n", enforce), Vec::<String>::new());
}
