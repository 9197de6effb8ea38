//! What a pod spec is completed with, by the API server or, for static pods, by the node.

use std::sync::LazyLock;

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle, ObjectFieldSelector, PodSpec,
        Probe, ResourceRequirements, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use regex::Regex;

use crate::{
    blank::{drop_blank, fill, fill_number, fill_text, items_mut, text},
    pod_resources as resources,
};

/// Mode 0644 of files in volumes.
const FILE_MODE: i32 = 0o644;

/// Completes the spec of a pod or of a pod template.
pub fn default_pod_spec(spec: &mut PodSpec) {
    fill_text(&mut spec.dns_policy, "ClusterFirst");
    fill_text(&mut spec.restart_policy, "Always");
    fill(&mut spec.security_context, Default::default());
    fill(&mut spec.termination_grace_period_seconds, 30);
    fill_text(&mut spec.scheduler_name, "default-scheduler");
    same_service_account(spec);
    drop_blanks(spec);
    for volume in items_mut(&mut spec.volumes) {
        default_volume(volume);
    }
    for container in items_mut(&mut spec.init_containers) {
        default_container(container);
    }
    for container in &mut spec.containers {
        default_container(container);
    }
    for container in items_mut(&mut spec.ephemeral_containers) {
        default_ephemeral_container(container);
    }
    if let Some(resources) = &mut spec.resources {
        canonical_resources(resources);
    }
    if let Some(overhead) = &mut spec.overhead {
        resources::canonical(overhead);
    }
}

/// Completes what only a pod itself (not a template) is completed with; run before [`default_pod_spec`].
pub fn default_pod(spec: &mut PodSpec) {
    for container in spec.containers.iter_mut().chain(items_mut(&mut spec.init_containers)) {
        if let Some(resources) = &mut container.resources {
            resources::default_requests(resources);
        }
    }
    default_pod_requests(spec);
    fill(&mut spec.enable_service_links, true);
    if spec.host_network == Some(true) {
        for container in spec.containers.iter_mut().chain(items_mut(&mut spec.init_containers)) {
            for port in items_mut(&mut container.ports) {
                fill_number(&mut port.host_port, port.container_port);
            }
        }
    }
}

/// Requests of the whole pod, when only its limits are given: what the containers ask for together, else the limit
/// (KEP-2837).
fn default_pod_requests(spec: &mut PodSpec) {
    let containers = resources::of_containers(spec, resources::REQUESTS);
    let Some(pod) = &mut spec.resources else { return };
    let Some(limits) = pod.limits.as_ref().filter(|limits| !limits.is_empty()) else { return };
    let requests = pod.requests.get_or_insert_default();
    for name in ["cpu", "memory"] {
        if !requests.contains_key(name)
            && let Some(amount) = containers.get(name)
        {
            requests.insert(name.to_owned(), (*amount).into());
        }
    }
    for (name, limit) in limits {
        let of_pods = matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-");
        if of_pods && !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are written, and the new one wins.
fn same_service_account(spec: &mut PodSpec) {
    drop_blank(&mut spec.service_account);
    drop_blank(&mut spec.service_account_name);
    if spec.service_account_name.is_none() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
}

fn drop_blanks(spec: &mut PodSpec) {
    for flag in [&mut spec.host_ipc, &mut spec.host_network, &mut spec.host_pid] {
        drop_blank(flag);
    }
    for text in [&mut spec.hostname, &mut spec.node_name, &mut spec.priority_class_name, &mut spec.subdomain] {
        drop_blank(text);
    }
    drop_blank(&mut spec.ephemeral_containers);
    drop_blank(&mut spec.host_aliases);
    drop_blank(&mut spec.image_pull_secrets);
    drop_blank(&mut spec.init_containers);
    drop_blank(&mut spec.node_selector);
    drop_blank(&mut spec.readiness_gates);
    drop_blank(&mut spec.resource_claims);
    drop_blank(&mut spec.scheduling_gates);
    drop_blank(&mut spec.tolerations);
    drop_blank(&mut spec.topology_spread_constraints);
    drop_blank(&mut spec.volumes);
    for toleration in items_mut(&mut spec.tolerations) {
        drop_blank(&mut toleration.effect);
        drop_blank(&mut toleration.key);
        drop_blank(&mut toleration.operator);
        drop_blank(&mut toleration.value);
    }
}

/// Defines how a container is completed. Ephemeral ones have the same fields and no type in common with the others.
macro_rules! default_containers {
    ($($name:ident: $container:ty),+) => {$(
        fn $name(container: &mut $container) {
            fill_text(&mut container.image_pull_policy, pull_policy(text(&container.image)));
            fill_text(&mut container.termination_message_path, "/dev/termination-log");
            fill_text(&mut container.termination_message_policy, "File");
            default_ports(&mut container.ports);
            default_env(&mut container.env);
            default_mounts(&mut container.volume_mounts);
            let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
            default_probes(probes);
            default_lifecycle(&mut container.lifecycle);
            canonical_resources(container.resources.get_or_insert_default());
            for flag in [&mut container.stdin, &mut container.stdin_once, &mut container.tty] {
                drop_blank(flag);
            }
            drop_blank(&mut container.working_dir);
            drop_blank(&mut container.command);
            drop_blank(&mut container.args);
            drop_blank(&mut container.env_from);
            drop_blank(&mut container.volume_devices);
            drop_blank(&mut container.resize_policy);
        }
    )+};
}

default_containers!(default_container: Container, default_ephemeral_container: EphemeralContainer);

fn canonical_resources(resources: &mut ResourceRequirements) {
    for list in [&mut resources.limits, &mut resources.requests] {
        drop_blank(list);
        if let Some(list) = list {
            resources::canonical(list);
        }
    }
}

fn default_ports(ports: &mut Option<Vec<ContainerPort>>) {
    drop_blank(ports);
    for port in items_mut(ports) {
        fill_text(&mut port.protocol, "TCP");
        drop_blank(&mut port.name);
        drop_blank(&mut port.host_ip);
        drop_blank(&mut port.host_port);
    }
}

fn default_env(env: &mut Option<Vec<EnvVar>>) {
    drop_blank(env);
    for variable in items_mut(env) {
        drop_blank(&mut variable.value);
        if let Some(from) = &mut variable.value_from {
            if let Some(field) = &mut from.field_ref {
                default_field_ref(field);
            }
            if let Some(resource) = &mut from.resource_field_ref {
                fill_divisor(&mut resource.divisor);
            }
        }
    }
}

fn default_mounts(mounts: &mut Option<Vec<VolumeMount>>) {
    drop_blank(mounts);
    for mount in items_mut(mounts) {
        drop_blank(&mut mount.read_only);
        drop_blank(&mut mount.sub_path);
        drop_blank(&mut mount.sub_path_expr);
    }
}

/// An absent divisor is written as `0`, as a zero quantity that is not a pointer is.
fn fill_divisor(divisor: &mut Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity>) {
    match divisor {
        Some(quantity) if !quantity.0.is_empty() => resources::canonical_quantity(quantity),
        _ => *divisor = Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity("0".to_owned())),
    }
}

fn default_field_ref(field: &mut ObjectFieldSelector) {
    fill_text(&mut field.api_version, "v1");
}

fn default_probes(probes: [&mut Option<Probe>; 3]) {
    for probe in probes.into_iter().flatten() {
        fill_number(&mut probe.timeout_seconds, 1);
        fill_number(&mut probe.period_seconds, 10);
        fill_number(&mut probe.success_threshold, 1);
        fill_number(&mut probe.failure_threshold, 3);
        drop_blank(&mut probe.initial_delay_seconds);
        if let Some(action) = &mut probe.http_get {
            default_http_get(action);
        }
        if let Some(action) = &mut probe.grpc {
            fill(&mut action.service, String::new());
        }
    }
}

fn default_lifecycle(lifecycle: &mut Option<Lifecycle>) {
    let Some(lifecycle) = lifecycle else { return };
    for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
        if let Some(action) = &mut handler.http_get {
            default_http_get(action);
        }
    }
}

fn default_http_get(action: &mut HTTPGetAction) {
    fill_text(&mut action.path, "/");
    fill_text(&mut action.scheme, "HTTP");
    drop_blank(&mut action.host);
    if let IntOrString::String(name) = &action.port
        && name.is_empty()
    {
        action.port = IntOrString::Int(0);
    }
}

fn default_volume(volume: &mut Volume) {
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(source) = &mut volume.secret {
        fill(&mut source.default_mode, FILE_MODE);
    }
    if let Some(source) = &mut volume.config_map {
        fill(&mut source.default_mode, FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        fill(&mut source.default_mode, FILE_MODE);
        for item in items_mut(&mut source.items) {
            if let Some(field) = &mut item.field_ref {
                default_field_ref(field);
            }
            if let Some(resource) = &mut item.resource_field_ref {
                fill_divisor(&mut resource.divisor);
            }
        }
    }
    if let Some(source) = &mut volume.projected {
        fill(&mut source.default_mode, FILE_MODE);
        for projection in items_mut(&mut source.sources) {
            default_projection(projection);
        }
    }
    if let Some(source) = &mut volume.host_path {
        fill(&mut source.type_, String::new());
    }
    if let Some(source) = &mut volume.empty_dir {
        drop_blank(&mut source.medium);
        if let Some(limit) = &mut source.size_limit {
            resources::canonical_quantity(limit);
        }
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(text(&source.reference));
        fill_text(&mut source.pull_policy, policy);
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        fill_text(&mut template.spec.volume_mode, "Filesystem");
    }
    if let Some(source) = &mut volume.iscsi {
        fill_text(&mut source.iscsi_interface, "default");
    }
    if let Some(source) = &mut volume.rbd {
        fill_text(&mut source.pool, "rbd");
        fill_text(&mut source.user, "admin");
        fill_text(&mut source.keyring, "/etc/ceph/keyring");
    }
    if let Some(source) = &mut volume.azure_disk {
        fill(&mut source.caching_mode, "ReadWrite".to_owned());
        fill(&mut source.kind, "Shared".to_owned());
        fill(&mut source.fs_type, "ext4".to_owned());
        fill(&mut source.read_only, false);
    }
    if let Some(source) = &mut volume.scale_io {
        fill_text(&mut source.storage_mode, "ThinProvisioned");
        fill_text(&mut source.fs_type, "xfs");
    }
}

fn default_projection(projection: &mut VolumeProjection) {
    if let Some(token) = &mut projection.service_account_token {
        fill(&mut token.expiration_seconds, 3600);
    }
    if let Some(source) = &mut projection.downward_api {
        for item in items_mut(&mut source.items) {
            if let Some(field) = &mut item.field_ref {
                default_field_ref(field);
            }
            if let Some(resource) = &mut item.resource_field_ref {
                fill_divisor(&mut resource.divisor);
            }
        }
    }
}

/// Whether a name is one that an image can have (the grammar of `distribution/reference`).
fn is_reference(image: &str) -> bool {
    is_simple(image) || is_by_grammar(image)
}

fn is_by_grammar(image: &str) -> bool {
    static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let part = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
        let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
        let host = format!(r"(?:{label}(?:\.{label})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
        let digest = "@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
        let text = format!(r"\A(?:{host}/)?{part}(?:/{part})*(?::[\w][\w.-]{{0,127}})?(?:{digest})?\z");
        Regex::new(&text).ok()
    });
    let name = image.split('@').next().unwrap_or_default();
    name.len() <= 255 && REFERENCE.as_ref().is_some_and(|reference| reference.is_match(image))
}

/// Whether a name is of the form most have, `example.com/some/app:v1`: seen at once, where an expression takes its time.
fn is_simple(image: &str) -> bool {
    let (path, last) = image.rsplit_once('/').map_or((None, image), |(path, last)| (Some(path), last));
    let (last, tag) = last.split_once(':').unwrap_or((last, "1"));
    let is_part = |part: &str| {
        let mut words = part.split(['.', '_', '-']);
        words.all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
    };
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_tag = tag.len() <= 128
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'));
    image.len() <= 255 && is_tag && path.into_iter().flat_map(|path| path.split('/')).chain([last]).all(is_part)
}

/// `Always` for an image of the tag `latest`, which is also meant when neither tag nor digest is given.
fn pull_policy(image: &str) -> &'static str {
    if !is_reference(image) {
        return "IfNotPresent";
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    match (last.split_once(':'), digest) {
        (Some((_, "latest")), _) => "Always",
        (None, None) if !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_latest_is_always_pulled() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:0123456789abcdef0123456789abcdef", "IfNotPresent"),
            ("nginx:latest@sha256:0123456789abcdef0123456789abcdef", "Always"),
            ("Registry.example/a__b/c-d", "Always"),
            ("[::1]:5000/a", "Always"),
            ("A_b!", "IfNotPresent"),
            ("-", "IfNotPresent"),
            ("../x", "IfNotPresent"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    proptest! {
        #[test]
        fn what_is_seen_at_once_is_by_the_grammar(image in "[ab1]([a-bA0._:/@-]|__|--){0,12}", long in 100_usize..140) {
            let tagged = format!("{image}:{}", "x".repeat(long));
            for image in [image, tagged] {
                prop_assert!(!is_simple(&image) || is_by_grammar(&image), "{image}");
            }
        }
    }
}
