//! What is allowed in a pod spec and yet probably not meant.

use std::collections::BTreeMap;

use coracle_proto::field::Path;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::kinds::{
    blank::{list, text},
    pod::annotations::app_armor_warnings,
    resources,
};

/// Labels of nodes with a new name.
const OLD_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

/// Volume sources that do nothing any more.
const OLD_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn old_label(label: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(old, _)| *old == label).map(|(_, message)| *message)
}

/// The warnings about a pod or template; `path` is where it stands (empty for a pod).
pub(in crate::kinds) fn of(path: &Path, meta: Option<&ObjectMeta>, spec: &PodSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    let at = path.child("spec");
    for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
        warnings.extend(old_label(key).map(|why| format!("{}: {why}", at.child("nodeSelector").key(key))));
    }
    for (i, constraint) in list(&spec.topology_spread_constraints).iter().enumerate() {
        let at = at.child("topologySpreadConstraints").index(i);
        let why = old_label(&constraint.topology_key);
        warnings.extend(why.map(|why| format!("{}: {} is {why}", at.child("topologyKey"), constraint.topology_key)));
        if constraint.label_selector.is_none() {
            let at = at.child("labelSelector");
            warnings.push(format!("{at}: a null labelSelector results in matching no pod"));
        }
    }
    let annotations = meta.and_then(|m| m.annotations.as_ref());
    for key in annotations.into_iter().flatten().map(|(key, _)| key) {
        if key.starts_with("seccomp.security.alpha.kubernetes.io/") {
            let at = path.child("metadata").child("annotations").key(key);
            warnings.push(format!("{at}: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
        }
    }
    warnings.extend(app_armor_warnings(path, meta, spec));
    for (i, volume) in list(&spec.volumes).iter().enumerate() {
        for source in super::volumes::sources(volume) {
            let why = OLD_VOLUMES.iter().find(|(old, _)| *old == source).map(|(_, why)| why);
            // The one source whose name is written in another way here.
            let shown = if source == "storageos" { "storageOS" } else { source };
            warnings.extend(why.map(|why| format!("{}: {why}", at.child("volumes").index(i).child(shown))));
        }
    }
    let mut seen = Vec::new();
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        if seen.contains(&&alias.ip) {
            warnings.push(format!("{}: duplicate ip {:?}", at.child("hostAliases").index(i).child("ip"), alias.ip));
        }
        seen.push(&alias.ip);
    }
    let mut seen = Vec::new();
    for (i, secret) in list(&spec.image_pull_secrets).iter().enumerate() {
        let at = at.child("imagePullSecrets").index(i).child("name");
        if seen.contains(&&secret.name) {
            warnings.push(format!("{at}: duplicate name {:?}", secret.name));
        }
        if secret.name.is_empty() {
            warnings.push(format!("{at}: invalid empty name \"\""));
        }
        seen.push(&secret.name);
    }
    for (field, containers) in
        [("initContainers", list(&spec.init_containers)), ("containers", spec.containers.as_slice())]
    {
        for (i, container) in containers.iter().enumerate() {
            of_container(&mut warnings, &at.child(field).index(i), container);
        }
    }
    of_ports(&mut warnings, &at.child("containers"), &spec.containers);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let at = at.child("terminationGracePeriodSeconds");
        warnings.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings
}

fn of_container(warnings: &mut Vec<String>, path: &Path, container: &Container) {
    if let Some(requirements) = &container.resources {
        for (field, list) in [("limits", &requirements.limits), ("requests", &requirements.requests)] {
            for name in ["memory", "ephemeral-storage"] {
                let Some(amount) = list.as_ref().and_then(|l| l.get(name)).and_then(resources::parse) else { continue };
                if amount.milli_value() % 1000 != 0 {
                    let at = path.child("resources").child(field).key(name);
                    let text = amount.to_string();
                    warnings.push(format!("{at}: fractional byte value {text:?} is invalid, must be an integer"));
                }
            }
        }
    }
    let variables = list(&container.env);
    for (i, variable) in variables.iter().enumerate() {
        let is_repeated = variables.iter().take(i).any(|before| before.name == variable.name);
        // A value that builds on the one before does not hide it.
        let own = format!("$({})", variable.name);
        let value = text(&variable.value);
        let builds_on = variable.value_from.is_none() && value != own && value.contains(&own);
        if is_repeated && !builds_on {
            let at = path.child("env").index(i);
            let name = &variable.name;
            warnings
                .push(format!("{at}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

fn of_ports(warnings: &mut Vec<String>, path: &Path, containers: &[Container]) {
    let mut names: BTreeMap<&str, Path> = BTreeMap::new();
    let mut seen = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in list(&container.ports).iter().enumerate() {
            let at = path.index(i).child("ports").index(j);
            let key = (port.container_port, text(&port.protocol));
            let (host, number) = (text(&port.host_ip), port.host_port.unwrap_or(0));
            for (other_key, other_host, other_number, other) in &seen {
                if *other_key != key {
                    continue;
                }
                if host == *other_host && number == *other_number {
                    warnings.push(format!("{at}: duplicate port definition with {other}"));
                } else if number == 0 || *other_number == 0 {
                    warnings.push(format!("{at}: overlapping port definition with {other}"));
                }
            }
            seen.push((key, host, number, at.clone()));
            // Within one container a repeated name is an error already.
            match (text(&port.name), names.get(text(&port.name))) {
                ("", _) => {}
                (name, Some(other)) if !other.as_str().starts_with(path.index(i).child("ports").as_str()) => {
                    let why = format!("services and probes that select ports by name will use {other}");
                    warnings.push(format!("{at}: duplicate port name {name:?} with {other}, {why}"));
                }
                (_, Some(_)) => {}
                (name, None) => {
                    names.insert(name, at);
                }
            }
        }
    }
}
