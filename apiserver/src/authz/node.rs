//! What a node may do follows from the pods bound to it.
//!
//! Kubernetes keeps a graph of all pods and what they refer to. Here the question is answered from the store's own
//! entries: an object belongs to a node if a pod of that namespace, bound to the node, refers to it. Only the pods of one
//! namespace that mention the node's name at all are decoded, at most a node's worth.

use coracle_store::{Range, Store};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Attributes, Decision, defaults, rule};
use crate::user::User;

/// The node a user is: `system:node:<name>` in the group `system:nodes`.
pub(crate) fn name(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|name| !name.is_empty() && user.is_in("system:nodes"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Referred {
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    Pod,
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

pub(super) fn decide(store: &Store, asked: &Attributes<'_>) -> Decision {
    let Some(node) = name(asked.user) else { return no("") };
    if asked.path.is_some() {
        return no("");
    }
    match (asked.group, asked.resource) {
        ("", "secrets") => read(store, node, Referred::Secret, asked),
        ("", "configmaps") => read(store, node, Referred::ConfigMap, asked),
        ("", "serviceaccounts") => service_account(store, node, asked),
        ("", "persistentvolumeclaims") => match (asked.verb, asked.subresource) {
            ("get", "") | ("update" | "patch", "status") => related(store, node, Referred::Claim, asked),
            (_, "status") => no("can only get/update/patch this type"),
            _ => no("can only get individual resources of this type"),
        },
        ("", "nodes") => own_node(node, asked),
        ("", "pods") => pod(store, node, asked),
        ("coordination.k8s.io", "leases") => lease(node, asked),
        ("storage.k8s.io", "csinodes") => match (asked.verb, asked.name) {
            _ if !asked.subresource.is_empty() => no("cannot authorize CSINode subresources"),
            ("create", _) => Decision::Allow,
            ("get" | "update" | "patch" | "delete", name) if name == node => Decision::Allow,
            ("get" | "update" | "patch" | "delete", _) => {
                no("can only access CSINode with the same name as the requesting node")
            }
            _ => no("can only get, create, update, patch, or delete a CSINode"),
        },
        // What ties volumes and attachments to nodes is not followed: no node here mounts any.
        ("", "persistentvolumes") | ("storage.k8s.io", "volumeattachments") => {
            no(format!("no relationship found between node '{node}' and this object"))
        }
        _ => match defaults::node_rules().iter().any(|r| rule::allows(r, asked)) {
            true => Decision::Allow,
            false => no(""),
        },
    }
}

fn read(store: &Store, node: &str, what: Referred, asked: &Attributes<'_>) -> Decision {
    match asked.verb {
        "get" | "list" | "watch" if !asked.subresource.is_empty() => no("cannot read subresource"),
        "get" | "list" | "watch" if asked.namespace.is_empty() => no("can only read namespaced object of this type"),
        "get" | "list" | "watch" => related(store, node, what, asked),
        _ => no("can only read resources of this type"),
    }
}

fn service_account(store: &Store, node: &str, asked: &Attributes<'_>) -> Decision {
    match (asked.verb, asked.subresource) {
        ("get", "") => read(store, node, Referred::ServiceAccount, asked),
        ("create", "token") if !asked.name.is_empty() => related(store, node, Referred::ServiceAccount, asked),
        ("create", "token") => no("can only create tokens for individual service accounts"),
        ("create", _) if !asked.name.is_empty() => no("can only create token subresource of serviceaccount"),
        _ => no("can only create tokens for individual service accounts"),
    }
}

fn own_node(node: &str, asked: &Attributes<'_>) -> Decision {
    match (asked.verb, asked.subresource, asked.name) {
        // Which node is written is checked where the object is known (`restrict_node`).
        ("create" | "update" | "patch", "", _) | ("update" | "patch", "status", _) => Decision::Allow,
        ("get" | "list" | "watch", "", name) if name == node => Decision::Allow,
        ("get" | "list" | "watch", "", "") => {
            no(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("get" | "list" | "watch", "", other) => {
            no(format!("node '{node}' cannot read '{other}', only its own Node object"))
        }
        _ => no(""),
    }
}

fn pod(store: &Store, node: &str, asked: &Attributes<'_>) -> Decision {
    match (asked.verb, asked.subresource) {
        ("get", "") => related(store, node, Referred::Pod, asked),
        ("list" | "watch", "") if asked.selected("spec.nodeName") == Some(node) => Decision::Allow,
        ("list" | "watch", "") if !asked.name.is_empty() => related(store, node, Referred::Pod, asked),
        ("list" | "watch", "") => no("can only list/watch pods with spec.nodeName field selector"),
        ("create" | "delete", "") | ("update" | "patch", "status") | ("create", "eviction") => Decision::Allow,
        _ => no(""),
    }
}

fn lease(node: &str, asked: &Attributes<'_>) -> Decision {
    match asked.verb {
        "get" | "create" | "update" | "patch" | "delete" if asked.namespace != "kube-node-lease" => {
            no("can only access leases in the \"kube-node-lease\" system namespace")
        }
        "create" => Decision::Allow,
        "get" | "update" | "patch" | "delete" if asked.name == node => Decision::Allow,
        "get" | "update" | "patch" | "delete" => {
            no("can only access node lease with the same name as the requesting node")
        }
        _ => no("can only get, create, update, patch, or delete a node lease"),
    }
}

/// Whether some pod on the node refers to the object that is asked for.
fn related(store: &Store, node: &str, what: Referred, asked: &Attributes<'_>) -> Decision {
    if asked.name.is_empty() {
        return no("No Object name found");
    }
    let found = match what {
        Referred::Pod => store
            .get(format!("/registry/pods/{}/{}", asked.namespace, asked.name).as_bytes())
            .is_some_and(|entry| decode_if_on(&entry.value, node).is_some()),
        _ => {
            let range = Range::prefix(format!("/registry/pods/{}/", asked.namespace).into_bytes());
            store.range(&range).is_ok_and(|pods| {
                let mut pods = pods.entries.iter().filter_map(|entry| decode_if_on(&entry.value, node));
                pods.any(|pod| refers(&pod, what, asked.name))
            })
        }
    };
    match found {
        true => Decision::Allow,
        false => no(format!("no relationship found between node '{node}' and this object")),
    }
}

/// The pod, if it is bound to the node. Most pods of a namespace are elsewhere, which their text tells faster.
fn decode_if_on(value: &[u8], node: &str) -> Option<Pod> {
    let text = std::str::from_utf8(value).ok()?;
    if !text.contains(node) {
        return None;
    }
    let pod: Pod = serde_json::from_str(text).ok()?;
    (pod.spec.as_ref()?.node_name.as_deref() == Some(node)).then_some(pod)
}

/// Whether the pod refers to the object. A mirror pod, which its node wrote itself, gives the node nothing.
fn refers(pod: &Pod, what: Referred, name: &str) -> bool {
    let mirror = "kubernetes.io/config.mirror";
    let Some(spec) = &pod.spec else { return false };
    if pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(mirror)) {
        return false;
    }
    let is = |given: Option<&String>| given.is_some_and(|given| given == name);
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    match what {
        Referred::Pod => true,
        Referred::ServiceAccount => is(spec.service_account_name.as_ref()),
        Referred::Claim => volumes.iter().any(|v| {
            let ephemeral = || {
                let own = format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), v.name);
                v.ephemeral.is_some() && own == name
            };
            v.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == name) || ephemeral()
        }),
        Referred::ConfigMap => {
            volumes.iter().any(|v| {
                is(v.config_map.as_ref().map(|c| &c.name))
                    || v.projected
                        .iter()
                        .flat_map(|p| p.sources.iter().flatten())
                        .any(|s| is(s.config_map.as_ref().map(|c| &c.name)))
            }) || containers(pod).any(|c| {
                c.env_from.iter().flatten().any(|e| is(e.config_map_ref.as_ref().map(|r| &r.name)))
                    || c.env.iter().flatten().any(|e| {
                        let key = e.value_from.as_ref().and_then(|f| f.config_map_key_ref.as_ref());
                        is(key.map(|k| &k.name))
                    })
            })
        }
        Referred::Secret => {
            spec.image_pull_secrets.iter().flatten().any(|s| s.name == name)
                || volumes.iter().any(|v| {
                    is(v.secret.as_ref().and_then(|s| s.secret_name.as_ref()))
                        || v.projected
                            .iter()
                            .flat_map(|p| p.sources.iter().flatten())
                            .any(|s| is(s.secret.as_ref().map(|c| &c.name)))
                        || is(v.csi.as_ref().and_then(|c| c.node_publish_secret_ref.as_ref()).map(|r| &r.name))
                })
                || containers(pod).any(|c| {
                    c.env_from.iter().flatten().any(|e| is(e.secret_ref.as_ref().map(|r| &r.name)))
                        || c.env.iter().flatten().any(|e| {
                            let key = e.value_from.as_ref().and_then(|f| f.secret_key_ref.as_ref());
                            is(key.map(|k| &k.name))
                        })
                })
        }
    }
}

/// Init and main containers. Ephemeral ones may not bring new references, so they are left out.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}
