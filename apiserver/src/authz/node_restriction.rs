//! What a node may not write even where the authorizer lets it: facts about the objects themselves.
//!
//! The words are those of Kubernetes' admission plugin `NodeRestriction`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::node;
use crate::user::User;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a create-only subresource.
    Create,
    /// An update or patch.
    Update,
    /// A deletion.
    Delete,
}

/// A write on its way to the store.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// What it does.
    pub operation: Operation,
    /// API group.
    pub group: &'a str,
    /// `pods`.
    pub resource: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
    /// The object's name in the request's path, or in the object.
    pub name: &'a str,
    /// The stored object: of a subresource the parent (the pod that is evicted).
    pub old: Option<&'a Value>,
    /// The object to be stored; of a create-only subresource its body (the TokenRequest).
    pub new: Option<&'a Value>,
    /// For a TokenRequest bound to a pod, that pod.
    pub pod: Option<&'a Value>,
}

fn text<'a>(object: Option<&'a Value>, pointer: &str) -> &'a str {
    object.and_then(|o| o.pointer(pointer)).and_then(Value::as_str).unwrap_or_default()
}

/// Labels a node may set on itself besides those outside Kubernetes' own domains.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

fn in_domain(key: &str, domain: &str) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    prefix == domain || prefix.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn is_forbidden_label(key: &str, operation: Operation) -> bool {
    if in_domain(key, "node-restriction.kubernetes.io") {
        return true;
    }
    if !in_domain(key, "kubernetes.io") && !in_domain(key, "k8s.io") {
        return false;
    }
    if OWN_LABELS.contains(&key) || in_domain(key, "kubelet.kubernetes.io") || in_domain(key, "node.kubernetes.io") {
        return false;
    }
    // On updates only these are refused to keep old nodes working; all unknown ones are on creation.
    operation == Operation::Create || in_domain(key, "node-role.kubernetes.io")
}

fn labels(object: Option<&Value>) -> BTreeMap<&str, &Value> {
    let map = object.and_then(|o| o.pointer("/metadata/labels")).and_then(Value::as_object);
    map.into_iter().flatten().map(|(k, v)| (k.as_str(), v)).collect()
}

/// Checks what a node writes: its own Node and lease, and the pods bound to it. Of other users nothing is asked.
///
/// # Errors
/// Why not, as the sentence of a 403.
pub fn restrict_node(user: &User, write: &Write<'_>) -> Result<(), String> {
    if !user.is_in("system:nodes") || user.is_in(super::MASTERS) {
        return Ok(());
    }
    let Some(node) = node::name(user) else {
        return Err(format!("could not determine node from user {:?}", user.name));
    };
    match (write.group, write.resource, write.subresource) {
        ("", "pods", "") => pod(node, write),
        ("", "pods", "status") => pod_status(node, write),
        ("", "pods", "eviction") => match text(write.old, "/spec/nodeName") {
            on if on == node => Ok(()),
            _ => Err(format!("node {node} can only evict pods with spec.nodeName set to itself")),
        },
        ("", "pods", other) => {
            Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        ("", "nodes", _) => own_node(node, write),
        ("", "serviceaccounts", "token") => token(node, write),
        ("coordination.k8s.io", "leases", _) if write.name != node => {
            Err("can only access node lease with the same name as the requesting node".to_owned())
        }
        ("storage.k8s.io", "csinodes", _) if write.name != node => {
            Err("can only access CSINode with the same name as the requesting node".to_owned())
        }
        _ => Ok(()),
    }
}

fn pod(node: &str, write: &Write<'_>) -> Result<(), String> {
    match write.operation {
        Operation::Delete if text(write.old, "/spec/nodeName") == node => Ok(()),
        Operation::Delete => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
        Operation::Create => pod_create(node, write.new),
        Operation::Update => {
            Err(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"))
        }
    }
}

fn pod_create(node: &str, pod: Option<&Value>) -> Result<(), String> {
    let mirror = "kubernetes.io/config.mirror";
    if pod.and_then(|p| p.pointer("/metadata/annotations")).and_then(|a| a.get(mirror)).is_none() {
        return Err(format!("pod does not have {mirror:?} annotation, node {node:?} can only create mirror pods"));
    }
    if text(pod, "/spec/nodeName") != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod.and_then(|p| p.pointer("/metadata/ownerReferences")).and_then(Value::as_array);
    match owners.map_or(&[][..], Vec::as_slice) {
        [] => {}
        [owner] if text(Some(owner), "/kind") == "Node" && text(Some(owner), "/name") == node => {}
        [_] => return Err(format!("node {node:?} can only create pods with an owner reference set to itself")),
        _ => return Err(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    }
    for (pointer, what) in
        [("/spec/serviceAccountName", "serviceaccounts"), ("/spec/imagePullSecrets/0/name", "secrets")]
    {
        if !text(pod, pointer).is_empty() {
            return Err(format!("node {node:?} can not create pods that reference {what}"));
        }
    }
    let volumes = pod.and_then(|p| p.pointer("/spec/volumes")).and_then(Value::as_array);
    for volume in volumes.into_iter().flatten() {
        for (key, what) in [
            ("secret", "secrets"),
            ("configMap", "configmaps"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            ("projected", "serviceaccounts"),
        ] {
            if volume.get(key).is_some() {
                return Err(format!("node {node:?} can not create pods that reference {what}"));
            }
        }
    }
    Ok(())
}

fn pod_status(node: &str, write: &Write<'_>) -> Result<(), String> {
    if text(write.old, "/spec/nodeName") != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if labels(write.old) != labels(write.new) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    Ok(())
}

fn own_node(node: &str, write: &Write<'_>) -> Result<(), String> {
    if write.name != node {
        return Err(format!("node {node:?} is not allowed to modify node {:?}", write.name));
    }
    let (old, new) = (labels(write.old), labels(write.new));
    let changed = new.iter().filter(|(k, v)| old.get(*k) != Some(*v)).map(|(k, _)| *k);
    let removed = old.keys().filter(|k| !new.contains_key(*k)).copied();
    let mut forbidden: Vec<&str> =
        changed.chain(removed).filter(|key| is_forbidden_label(key, write.operation)).collect();
    forbidden.sort_unstable();
    match write.operation {
        Operation::Delete => Ok(()),
        Operation::Create if forbidden.is_empty() => Ok(()),
        Operation::Create => {
            Err(format!("node {node:?} is not allowed to set the following labels: {}", forbidden.join(", ")))
        }
        Operation::Update => {
            let part = |object: Option<&Value>, pointer: &str| {
                object
                    .and_then(|o| o.pointer(pointer))
                    .filter(|v| !v.is_null() && **v != Value::Array(Vec::new()))
                    .cloned()
            };
            if part(write.old, "/spec/taints") != part(write.new, "/spec/taints") {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            let owners = "/metadata/ownerReferences";
            if part(write.old, owners) != part(write.new, owners) {
                return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            if !forbidden.is_empty() {
                return Err(format!("is not allowed to modify labels: {}", forbidden.join(", ")));
            }
            Ok(())
        }
    }
}

fn token(node: &str, write: &Write<'_>) -> Result<(), String> {
    let reference = write.new.and_then(|r| r.pointer("/spec/boundObjectRef")).filter(|r| !r.is_null());
    if text(reference, "/kind") != "Pod" || text(reference, "/name").is_empty() {
        return Err("node requested token not bound to a pod".to_owned());
    }
    let uid = text(reference, "/uid");
    if uid.is_empty() {
        return Err("node requested token with a pod binding without a uid".to_owned());
    }
    if text(write.pod, "/metadata/uid") != uid {
        return Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ));
    }
    if text(write.pod, "/spec/nodeName") != node {
        return Err("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_writes_itself_and_its_pods_only() {
        let node = User::new("system:node:n1", &["system:nodes"]);
        let here = json!({"metadata": {"labels": {"a": "b"}, "uid": "u1"}, "spec": {"nodeName": "n1"}});
        let there = json!({"metadata": {"labels": {"a": "b"}, "uid": "u1"}, "spec": {"nodeName": "n2"}});
        let relabelled = json!({"metadata": {"labels": {"a": "c"}}, "spec": {"nodeName": "n1"}});
        let own = json!({"metadata": {"labels": {"kubernetes.io/os": "linux", "x.example/y": "z"}}});
        let grabbing = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
        let tainted = json!({"metadata": {}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
        let plain = json!({});
        let bound = |uid: &str| json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "p", "uid": uid}}});
        let (right, wrong, unbound) = (bound("u1"), bound("u2"), json!({"spec": {}}));
        let mirror =
            json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "n1"}});
        let write = |operation, path: &'static str, name, old, new| {
            let (resource, subresource) = path.split_once('/').unwrap_or((path, ""));
            let group = if resource == "leases" { "coordination.k8s.io" } else { "" };
            Write { operation, group, resource, subresource, name, old, new, pod: Some(&here) }
        };
        use Operation::{Create, Delete, Update};
        for (write, refused) in [
            (write(Update, "pods/status", "p", Some(&here), Some(&here)), ""),
            (
                write(Update, "pods/status", "p", Some(&there), Some(&there)),
                "node \"n1\" can only update pod status for pods with spec.nodeName set to itself",
            ),
            (
                write(Update, "pods/status", "p", Some(&here), Some(&relabelled)),
                "node \"n1\" cannot update labels through pod status",
            ),
            (write(Delete, "pods", "p", Some(&here), None), ""),
            (
                write(Delete, "pods", "p", Some(&there), None),
                "node \"n1\" can only delete pods with spec.nodeName set to itself",
            ),
            (
                write(Create, "pods", "p", None, Some(&here)),
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
            ),
            (write(Create, "pods", "p", None, Some(&mirror)), ""),
            (
                write(Update, "pods", "p", Some(&here), Some(&here)),
                "unexpected operation \"UPDATE\", node \"n1\" can only create and delete mirror pods",
            ),
            (
                write(Create, "pods/eviction", "p", Some(&there), None),
                "node n1 can only evict pods with spec.nodeName set to itself",
            ),
            (write(Create, "nodes", "n1", None, Some(&own)), ""),
            (write(Create, "nodes", "n2", None, Some(&own)), "node \"n1\" is not allowed to modify node \"n2\""),
            (
                write(Create, "nodes", "n1", None, Some(&grabbing)),
                "node \"n1\" is not allowed to set the following labels: node-role.kubernetes.io/control-plane",
            ),
            (
                write(Update, "nodes", "n1", Some(&own), Some(&grabbing)),
                "is not allowed to modify labels: node-role.kubernetes.io/control-plane",
            ),
            (write(Update, "nodes", "n1", Some(&tainted), Some(&plain)), "node \"n1\" is not allowed to modify taints"),
            (write(Update, "nodes/status", "n1", Some(&own), Some(&own)), ""),
            (write(Create, "leases", "n1", None, None), ""),
            (
                write(Create, "leases", "n2", None, None),
                "can only access node lease with the same name as the requesting node",
            ),
            (write(Create, "serviceaccounts/token", "default", None, Some(&right)), ""),
            (
                write(Create, "serviceaccounts/token", "default", None, Some(&unbound)),
                "node requested token not bound to a pod",
            ),
            (
                write(Create, "serviceaccounts/token", "default", None, Some(&wrong)),
                "the UID in the bound object reference (u2) does not match the UID in record. The object might have been deleted and then recreated",
            ),
            (write(Create, "configmaps", "c", None, None), ""),
        ] {
            let found = restrict_node(&node, &write).err().unwrap_or_default();
            assert_eq!(found, refused, "{write:?}");
            assert_eq!(restrict_node(&User::new("alice", &[]), &write), Ok(()), "nothing is asked of others");
        }
        let elsewhere =
            Write { pod: Some(&there), ..write(Create, "serviceaccounts/token", "default", None, Some(&right)) };
        assert_eq!(
            restrict_node(&node, &elsewhere).unwrap_err(),
            "node requested token bound to a pod scheduled on a different node"
        );
        let nameless = User::new("alice", &["system:nodes"]);
        assert_eq!(restrict_node(&nameless, &elsewhere).unwrap_err(), "could not determine node from user \"alice\"");
    }
}
