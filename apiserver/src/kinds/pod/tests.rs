//! Defaults, creation, deletion and warnings of pods.

use coracle_proto::field::Path;
use expect_test::expect;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::Pods;
use crate::{
    kind::{Deletion, Strategy},
    kinds::{
        pod_spec,
        testing::{created, defaulted, faults, merged, refusals, shown},
    },
};

fn minimal() -> Value {
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

#[test]
fn a_minimal_pod_is_completed() {
    let pod = created(&Pods, &minimal());
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Pod",
          "metadata": {
            "name": "p",
            "namespace": "default"
          },
          "spec": {
            "containers": [
              {
                "image": "nginx",
                "imagePullPolicy": "Always",
                "name": "c",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"
              }
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30
          },
          "status": {
            "phase": "Pending",
            "qosClass": "BestEffort"
          }
        }"#]]
    .assert_eq(&shown(&Pods, &pod));
}

#[test]
fn every_corner_of_a_pod_is_completed() {
    let pod = merged(
        &minimal(),
        &json!({"spec": {
            "hostNetwork": true,
            "serviceAccount": "builder",
            "containers": [{
                "name": "c", "image": "r:5000/nginx:1", "tty": false,
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}},
                "env": [
                    {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
                "livenessProbe": {"httpGet": {"port": 80}},
                "startupProbe": {"grpc": {"port": 81}},
                "volumeMounts": [{"name": "t", "mountPath": "/t", "readOnly": false}],
            }],
            "volumes": [
                {"name": "e"},
                {"name": "h", "hostPath": {"path": "/"}},
                {"name": "s", "secret": {"secretName": "s"}},
                {"name": "c", "configMap": {"name": "c"}},
                {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
        }}),
    );
    let pod = defaulted(&Pods, &pod);
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Pod",
          "metadata": {
            "name": "p",
            "namespace": "default"
          },
          "spec": {
            "containers": [
              {
                "env": [
                  {
                    "name": "A",
                    "valueFrom": {
                      "fieldRef": {
                        "apiVersion": "v1",
                        "fieldPath": "metadata.name"
                      }
                    }
                  },
                  {
                    "name": "B",
                    "valueFrom": {
                      "resourceFieldRef": {
                        "divisor": "0",
                        "resource": "limits.cpu"
                      }
                    }
                  }
                ],
                "image": "r:5000/nginx:1",
                "imagePullPolicy": "IfNotPresent",
                "livenessProbe": {
                  "failureThreshold": 3,
                  "httpGet": {
                    "path": "/",
                    "port": 80,
                    "scheme": "HTTP"
                  },
                  "periodSeconds": 10,
                  "successThreshold": 1,
                  "timeoutSeconds": 1
                },
                "name": "c",
                "ports": [
                  {
                    "containerPort": 80,
                    "hostPort": 80,
                    "protocol": "TCP"
                  }
                ],
                "resources": {
                  "limits": {
                    "cpu": "500m",
                    "memory": "1Gi"
                  },
                  "requests": {
                    "cpu": "500m",
                    "memory": "1Gi"
                  }
                },
                "startupProbe": {
                  "failureThreshold": 3,
                  "grpc": {
                    "port": 81,
                    "service": ""
                  },
                  "periodSeconds": 10,
                  "successThreshold": 1,
                  "timeoutSeconds": 1
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "volumeMounts": [
                  {
                    "mountPath": "/t",
                    "name": "t"
                  }
                ]
              }
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "hostNetwork": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": "builder",
            "serviceAccountName": "builder",
            "terminationGracePeriodSeconds": 30,
            "volumes": [
              {
                "emptyDir": {},
                "name": "e"
              },
              {
                "hostPath": {
                  "path": "/",
                  "type": ""
                },
                "name": "h"
              },
              {
                "name": "s",
                "secret": {
                  "defaultMode": 420,
                  "secretName": "s"
                }
              },
              {
                "configMap": {
                  "defaultMode": 420,
                  "name": "c"
                },
                "name": "c"
              },
              {
                "downwardAPI": {
                  "defaultMode": 420,
                  "items": [
                    {
                      "fieldRef": {
                        "apiVersion": "v1",
                        "fieldPath": "metadata.labels"
                      },
                      "path": "l"
                    }
                  ]
                },
                "name": "d"
              },
              {
                "name": "t",
                "projected": {
                  "defaultMode": 420,
                  "sources": [
                    {
                      "serviceAccountToken": {
                        "expirationSeconds": 3600,
                        "path": "token"
                      }
                    }
                  ]
                }
              }
            ]
          },
          "status": {}
        }"#]]
    .assert_eq(&shown(&Pods, &pod));
}

#[test]
fn a_creator_does_not_set_the_status() {
    let given = merged(&minimal(), &json!({"status": {"phase": "Running", "podIP": "1.1.1.1"}}));
    let status = serde_json::to_value(created(&Pods, &given).status).unwrap();
    assert_eq!(status, json!({"phase": "Pending", "qosClass": "BestEffort"}));
}

#[test]
fn a_gated_pod_says_why_it_waits() {
    let given = merged(&minimal(), &json!({"spec": {"schedulingGates": [{"name": "g"}]}}));
    let conditions = created(&Pods, &given).status.unwrap().conditions.unwrap();
    assert_eq!(conditions[0].reason.as_deref(), Some("SchedulingGated"));
    assert_eq!(conditions[0].status, "False");
}

#[test]
fn the_class_follows_requests_and_limits() {
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "0"}}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
            "Guaranteed",
        ),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "999m"}}), "Burstable"),
        (json!({"limits": {"example.com/gpu": "1"}}), "BestEffort"),
    ] {
        let given = merged(
            &minimal(),
            &json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": resources.clone()}]}}),
        );
        let status = created(&Pods, &given).status.unwrap();
        assert_eq!(status.qos_class.as_deref(), Some(class), "{resources}");
    }
}

#[test]
fn label_keys_are_written_out_as_requirements() {
    let given = merged(
        &minimal(),
        &json!({"metadata": {"labels": {"v": "1"}}, "spec": {"topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"a": "b"}}, "matchLabelKeys": ["v", "missing"]}]}}),
    );
    let pod = created(&Pods, &given);
    let constraint = &pod.spec.as_ref().unwrap().topology_spread_constraints.as_ref().unwrap()[0];
    assert_eq!(
        serde_json::to_value(&constraint.label_selector).unwrap(),
        json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "v", "operator": "In", "values": ["1"]}]})
    );
    assert_eq!(Pods.validate(&pod), Vec::new());
}

#[test]
fn deletion_is_graceful_only_while_a_node_has_the_pod() {
    let on_node = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
    for (patch, grace, expected) in [
        (json!({}), None, Deletion::Immediate),
        (on_node.clone(), None, Deletion::Graceful { seconds: 30 }),
        (on_node.clone(), Some(5), Deletion::Graceful { seconds: 5 }),
        (on_node.clone(), Some(0), Deletion::Immediate),
        (on_node.clone(), Some(-1), Deletion::Graceful { seconds: 1 }),
        (merged(&on_node, &json!({"status": {"phase": "Failed"}})), Some(5), Deletion::Immediate),
        (merged(&on_node, &json!({"status": {"phase": "Succeeded"}})), None, Deletion::Immediate),
        (merged(&on_node, &json!({"spec": {"terminationGracePeriodSeconds": 0}})), None, Deletion::Immediate),
    ] {
        let mut pod = defaulted(&Pods, &merged(&minimal(), &patch));
        assert_eq!(Pods.begin_deletion(&mut pod, grace), expected, "{patch} {grace:?}");
    }
}

#[test]
fn an_old_client_does_not_clear_what_the_node_observed() {
    let old = defaulted(
        &Pods,
        &merged(
            &minimal(),
            &json!({"status": {"qosClass": "BestEffort", "observedGeneration": 4,
                "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 4}]}}),
        ),
    );
    let given = json!({"spec": {"hostname": "sneaky"}, "metadata": {"ownerReferences": [{"name": "x"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}});
    let mut new = defaulted(&Pods, &merged(&minimal(), &given));
    let user = crate::user::User::new("node", &[]);
    let context = crate::kind::Context { user: &user, now: crate::kinds::testing::now() };
    Pods.prepare_status(&mut new, &old, &context);
    assert_eq!(new.spec, old.spec);
    assert_eq!(new.metadata.owner_references, None);
    assert_eq!(
        serde_json::to_value(new.status).unwrap(),
        json!({"phase": "Running", "qosClass": "BestEffort", "observedGeneration": 4,
            "conditions": [{"type": "Ready", "status": "False", "observedGeneration": 4}]})
    );
}

#[test]
fn doubtful_pods_are_warned_about() {
    let given = merged(
        &minimal(),
        &json!({
            "metadata": {"name": "a.b", "annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}},
            "spec": {
                "terminationGracePeriodSeconds": -1,
                "nodeSelector": {"beta.kubernetes.io/arch": "amd64"},
                "imagePullSecrets": [{"name": ""}],
                "volumes": [{"name": "g", "gitRepo": {"repository": "r"}}],
                "containers": [{
                    "name": "c", "image": "i",
                    "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A):3"}],
                    "resources": {"limits": {"memory": "100m"}},
                    "ports": [{"containerPort": 80}, {"containerPort": 80}],
                }],
            },
        }),
    );
    expect![[r#"
        metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]
        spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use "kubernetes.io/arch" instead
        metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead
        spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+
        spec.imagePullSecrets[0].name: invalid empty name ""
        spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer
        spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer
        spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply
        spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]
        spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"#]].assert_eq(&Pods.warnings(&defaulted(&Pods, &given)).join("\n"));
}

#[test]
fn profiles_in_annotations_are_told_to_be_old() {
    let app_armor = "container.apparmor.security.beta.kubernetes.io/";
    let told = format!(
        "metadata.annotations[{app_armor}c]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
    );
    let unconfined = json!({"appArmorProfile": {"type": "Unconfined"}});
    for (annotation, pod, container, of_pod, of_template) in [
        (Some("unconfined"), json!({}), json!({}), true, true),
        (Some("nonsense"), json!({}), json!({}), true, true),
        (None, json!({}), json!({}), false, false),
        // The same is said for the whole pod, or there is a field.
        (Some("unconfined"), unconfined.clone(), json!({}), false, false),
        (Some("runtime/default"), unconfined.clone(), json!({}), true, true),
        (Some("runtime/default"), json!({}), unconfined, false, false),
    ] {
        let annotations = json!({format!("{app_armor}c"): annotation});
        let spec =
            json!({"securityContext": pod, "containers": [{"name": "c", "image": "i", "securityContext": container}]});
        let meta = json!({"name": "p", "namespace": "default", "annotations": annotations});
        let given = merged(&json!({}), &json!({"metadata": meta, "spec": spec}));
        let made = created(&Pods, &given);
        let expected =
            |is_told: bool, path: &str| is_told.then(|| format!("{path}{told}")).into_iter().collect::<Vec<_>>();
        assert_eq!(Pods.warnings(&made), expected(of_pod, ""), "{given}");
        let plain: Pod = serde_json::from_value(given.clone()).unwrap();
        let path = Path::new("spec").child("template");
        let warnings = pod_spec::warnings::of(&path, Some(&plain.metadata), &plain.spec.unwrap());
        assert_eq!(warnings, expected(of_template, "spec.template."), "{given}");
    }
    let volumes = json!([{"name": "v", "storageos": {"volumeName": "x"}}]);
    let given =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": volumes}});
    let told = Pods.warnings(&created(&Pods, &given));
    assert_eq!(told, ["spec.volumes[0].storageOS: deprecated in v1.22, non-functional in v1.25+"]);
}

#[test]
fn annotations_that_mean_something_are_checked_and_kept() {
    let mirror = "kubernetes.io/config.mirror";
    let app_armor = "container.apparmor.security.beta.kubernetes.io/";
    let base = json!({
        "metadata": {"name": "p", "namespace": "default", "annotations": {format!("{app_armor}c"): "unconfined"}},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]},
    });
    let with = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let told = faults(
        &Pods,
        &base,
        &[
            with(mirror, "x"),
            with(&format!("{app_armor}d"), "other"),
            with("controller.kubernetes.io/pod-deletion-cost", "+1"),
        ],
    );
    for line in [
        "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
        "Invalid value: \"d\": container not found",
        "Invalid value: \"other\": invalid AppArmor profile name: \"other\"",
        "Invalid value: \"+1\": must be a 32bit integer",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    let own = format!("{app_armor}c");
    let told = refusals(
        &Pods,
        &base,
        &[json!({"metadata": {"annotations": {own.as_str(): null}}}), with(mirror, "x"), with("any", "y")],
    );
    for line in ["may not remove or update AppArmor annotations", "may not add mirror pod annotation"] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    assert!(told.ends_with("{\"metadata\":{\"annotations\":{\"any\":\"y\"}}}\n"), "{told}");
}
