//! Updates of pods and their statuses.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::{
    kind::Strategy,
    kinds::{
        pod::Pods,
        testing::{created, defaulted, lines, merged, refusals},
    },
};

fn pod() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "activeDeadlineSeconds": 60,
            "containers": [{"name": "c", "image": "nginx:1"}],
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        },
    })
}

fn check(base: &Value, patches: &[Value], expected: &Expect) {
    let patches: Vec<Value> = patches.iter().map(|spec| json!({"spec": spec})).collect();
    expected.assert_eq(&refusals(&Pods, base, &patches));
}

#[test]
fn few_fields_of_a_running_pod_may_change() {
    let container = serde_json::to_value(&created(&Pods, &pod()).spec.unwrap().containers[0]).unwrap();
    let patches = [
        json!({"activeDeadlineSeconds": 30}),
        json!({"activeDeadlineSeconds": 61}),
        json!({"activeDeadlineSeconds": null}),
        json!({"containers": [merged(&container, &json!({"image": "nginx:2"}))]}),
        json!({"containers": [merged(&container, &json!({"image": " "}))]}),
        json!({"containers": [container, {"name": "d", "image": "i"}]}),
        json!({"containers": [merged(&container, &json!({"command": ["sh"]}))]}),
        json!({"hostname": "h", "nodeSelector": {"a": "b"}}),
        json!({"terminationGracePeriodSeconds": 1}),
        json!({"schedulingGates": [{"name": "late"}]}),
        json!({"tolerations": []}),
        json!({"tolerations": [
            {"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9},
            {"key": "l", "operator": "Exists"}]}),
    ];
    check(
        &pod(),
        &patches,
        &expect![[r#"
        {"spec":{"activeDeadlineSeconds":30}}
        {"spec":{"activeDeadlineSeconds":61}}
            spec.activeDeadlineSeconds: Invalid value: 61: must be less than or equal to previous value
        {"spec":{"activeDeadlineSeconds":null}}
            spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value
        {"spec":{"containers":[{"image":"nginx:2","imagePullPolicy":"IfNotPresent","name":"c","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}]}}
        {"spec":{"containers":[{"image":" ","imagePullPolicy":"IfNotPresent","name":"c","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}]}}
            spec.containers[0].image: Invalid value: " ": must not have leading or trailing whitespace
            spec.containers[0].image: Invalid value: " ": must not have leading or trailing whitespace
        {"spec":{"containers":[{"image":"nginx:1","imagePullPolicy":"IfNotPresent","name":"c","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"},{"image":"i","name":"d"}]}}
            spec.containers: Forbidden: pod updates may not add or remove containers
        {"spec":{"containers":[{"command":["sh"],"image":"nginx:1","imagePullPolicy":"IfNotPresent","name":"c","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}]}}
            spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
        + spec.containers[0].command: ["sh"]
        {"spec":{"hostname":"h","nodeSelector":{"a":"b"}}}
            spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
        + spec.hostname: "h"
        + spec.nodeSelector: {"a":"b"}
        {"spec":{"terminationGracePeriodSeconds":1}}
            spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
        - spec.terminationGracePeriodSeconds: 30
        + spec.terminationGracePeriodSeconds: 1
        {"spec":{"schedulingGates":[{"name":"late"}]}}
            spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'late'
        {"spec":{"tolerations":[]}}
            spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds
        {"spec":{"tolerations":[{"effect":"NoExecute","key":"k","operator":"Exists","tolerationSeconds":9},{"key":"l","operator":"Exists"}]}}
    "#]],
    );
}

#[test]
fn a_gated_pod_may_be_narrowed_down_and_let_go() {
    let gated = merged(
        &pod(),
        &json!({"spec": {"schedulingGates": [{"name": "g"}, {"name": "h"}], "nodeSelector": {"a": "b"}}}),
    );
    let terms = |terms: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}})
    };
    let patches = [
        json!({"schedulingGates": [{"name": "h"}]}),
        json!({"schedulingGates": null}),
        json!({"schedulingGates": [{"name": "x"}]}),
        json!({"nodeSelector": {"c": "d"}}),
        json!({"nodeSelector": {"a": "c"}}),
        terms(json!([{"matchExpressions": [{"key": "k", "operator": "Exists"}]}])),
    ];
    check(
        &gated,
        &patches,
        &expect![[r#"
        {"spec":{"schedulingGates":[{"name":"h"}]}}
        {"spec":{"schedulingGates":null}}
        {"spec":{"schedulingGates":[{"name":"x"}]}}
            spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'x'
        {"spec":{"nodeSelector":{"c":"d"}}}
        {"spec":{"nodeSelector":{"a":"c"}}}
            spec.nodeSelector: Invalid value: {"a":"c"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)
        {"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"k","operator":"Exists"}]}]}}}}}
    "#]],
    );
}

#[test]
fn what_a_go_client_leaves_out_is_no_change() {
    let given = merged(&pod(), &json!({"spec": {"hostNetwork": false, "subdomain": "", "volumes": []}}));
    check(
        &given,
        &[json!({"hostNetwork": null, "subdomain": null, "volumes": null})],
        &expect![[r#"
        {"spec":{"hostNetwork":null,"subdomain":null,"volumes":null}}
    "#]],
    );
}

#[test]
fn a_status_does_not_raise_the_dead_or_change_the_class() {
    let ended = |code: i32, policy: &str| {
        let base = merged(&pod(), &json!({"spec": {"restartPolicy": policy}}));
        let mut old = serde_json::to_value(created(&Pods, &base)).unwrap();
        old["status"]["containerStatuses"] =
            json!([{"name": "c", "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]);
        old
    };
    let running =
        json!({"status": {"containerStatuses": [{"name": "c", "restartCount": 1, "state": {"running": {}}}]}});
    let said = |old: &Value, patch: &Value| {
        let new = defaulted(&Pods, &merged(old, patch));
        lines(&Pods.validate_status(&new, &defaulted(&Pods, old)))
    };
    let refusal = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state\n";
    for (code, policy, expected) in [
        (0, "Always", ""),
        (1, "Always", ""),
        (0, "OnFailure", refusal),
        (1, "OnFailure", ""),
        (0, "Never", refusal),
        (1, "Never", refusal),
    ] {
        assert_eq!(said(&ended(code, policy), &running), expected, "{code} {policy}");
    }
    let old = ended(0, "Always");
    assert_eq!(
        said(&old, &json!({"status": {"qosClass": "Guaranteed"}})),
        "status.qosClass: Invalid value: \"Guaranteed\": field is immutable\n"
    );
    assert_eq!(
        said(&old, &json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "x"}]}})),
        "status.podIPs[2]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)\n\
         status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"},{\"ip\":\"x\"}]: may specify no more \
         than one IP for each IP family\n"
    );
}
