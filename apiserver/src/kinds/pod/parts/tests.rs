//! Ephemeral containers and resizing: what is kept, what is refused.

use expect_test::expect;
use serde_json::{Value, json};

use crate::{
    kind::{Context, Strategy},
    kinds::{
        pod::Pods,
        testing::{created, defaulted, lines, merged, now},
    },
    user::User,
};

fn base() -> Value {
    let amounts = json!({"cpu": "1", "memory": "1Gi"});
    json!({
        "metadata": {"name": "p", "namespace": "d", "labels": {"a": "b"}},
        "spec": {"nodeName": "n", "containers": [
            {"name": "c", "image": "i", "resources": {"requests": amounts, "limits": {"cpu": "2"}}}]},
    })
}

/// What becomes of the pod, and what is said, when each patch comes through the part.
fn through(part: &str, patches: &[Value]) -> String {
    let user = User::new("alice", &[]);
    let context = Context { user: &user, now: now() };
    let old = created(&Pods, &base());
    let stored = serde_json::to_value(&old).unwrap();
    let mut text = String::new();
    for patch in patches {
        let mut new = defaulted(&Pods, &merged(&stored, patch));
        let errors = if part == "resize" {
            Pods.prepare_resize(&mut new, &old, &context);
            Pods.validate_resize(&new, &old)
        } else {
            Pods.prepare_ephemeral_containers(&mut new, &old, &context);
            Pods.validate_ephemeral_containers(&new, &old)
        };
        assert_eq!((&new.metadata.labels, &new.status), (&old.metadata.labels, &old.status));
        text.push_str(&format!("{patch}\n"));
        text.push_str(&lines(&errors).lines().map(|line| format!("    {line}\n")).collect::<String>());
    }
    text
}

fn resources(resources: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "other", "resources": resources}]}})
}

#[test]
fn cpu_and_memory_can_be_resized_and_nothing_else() {
    let patches = [
        resources(json!({"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"cpu": "3"}})),
        resources(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})),
        resources(
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "ephemeral-storage": "1Gi"}}),
        ),
        resources(json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}})),
        json!({"spec": {"containers": [{"name": "x", "image": "i"}]}}),
        json!({"spec": {"containers": []}}),
    ];
    expect![[r#"
        {"spec":{"containers":[{"image":"other","name":"c","resources":{"limits":{"cpu":"3"},"requests":{"cpu":"500m","memory":"2Gi"}}}]}}
        {"spec":{"containers":[{"image":"other","name":"c","resources":{"limits":{"cpu":"2"},"requests":{"cpu":"1"}}}]}}
            spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed
        {"spec":{"containers":[{"image":"other","name":"c","resources":{"limits":{"cpu":"2","ephemeral-storage":"1Gi"},"requests":{"cpu":"1","memory":"1Gi"}}}]}}
            spec: Forbidden: only cpu and memory resources are mutable
        {"spec":{"containers":[{"image":"other","name":"c","resources":{"limits":{"cpu":"2","memory":"1Gi"},"requests":{"cpu":"2","memory":"1Gi"}}}]}}
            spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing
        {"spec":{"containers":[{"image":"i","name":"x"}]}}
            spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing
            spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize
        {"spec":{"containers":[]}}
            spec.containers: Required value
            spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing
            spec.containers: Forbidden: containers may not be added or removed on resize
    "#]]
    .assert_eq(&through("resize", &patches));
}

#[test]
fn ephemeral_containers_are_added_one_by_one() {
    let debugger = json!({"name": "d", "image": "busybox"});
    let patches = [
        json!({"spec": {"ephemeralContainers": [debugger], "containers": [{"name": "c", "image": "other"}]}}),
        json!({"spec": {"ephemeralContainers": [{"name": "c", "image": "busybox"}]}}),
    ];
    expect![[r#"
        {"spec":{"containers":[{"image":"other","name":"c"}],"ephemeralContainers":[{"image":"busybox","name":"d"}]}}
        {"spec":{"ephemeralContainers":[{"image":"busybox","name":"c"}]}}
            spec.ephemeralContainers[0].name: Duplicate value: "c"
    "#]]
    .assert_eq(&through("ephemeralcontainers", &patches));
}
