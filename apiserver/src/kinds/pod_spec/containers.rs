//! Containers, init containers and ephemeral containers of a pod.

use std::collections::BTreeSet;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EphemeralContainer, PodSpec, ResourceRequirements, SecurityContext, VolumeDevice,
    VolumeMount,
};

use super::{env, probes, security, volumes::Known};
use crate::kinds::{
    blank::{list, text},
    resources, rules,
};

/// What of the pod matters to its containers.
pub(super) struct Surroundings<'a> {
    /// The pod's volumes.
    pub(super) volumes: Known<'a>,
    /// Names of the pod's resource claims.
    pub(super) claims: BTreeSet<&'a str>,
    /// The pod.
    pub(super) spec: &'a PodSpec,
}

impl Surroundings<'_> {
    fn os(&self) -> Option<&str> {
        self.spec.os.as_ref().map(|os| os.name.as_str())
    }

    fn uses_host_users(&self) -> bool {
        self.spec.host_users != Some(false)
    }
}

/// Everything wrong with the regular containers.
pub(super) fn validate(errors: &mut Errors, path: &Path, around: &Surroundings<'_>) {
    let containers = &around.spec.containers;
    if containers.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let mut names = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let at = path.index(i);
        validate_common(errors, &at, container, around);
        if !names.insert(&container.name) {
            errors.push(Error::duplicate(&at.child("name"), container.name.as_str()));
        }
        probes::validate(errors, &at, container, around.spec.termination_grace_period_seconds, around.os());
        validate_restarts(errors, &at, container);
    }
    validate_host_ports(errors, path, containers);
}

/// Everything wrong with the init containers, the sidecars among them included (KEP-753).
pub(super) fn validate_init(errors: &mut Errors, path: &Path, around: &Surroundings<'_>) {
    let mut names: BTreeSet<&str> = around.spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (i, container) in list(&around.spec.init_containers).iter().enumerate() {
        let at = path.index(i);
        validate_common(errors, &at, container, around);
        validate_restarts(errors, &at, container);
        if names.contains(container.name.as_str()) {
            errors.push(Error::duplicate(&at.child("name"), container.name.as_str()));
        } else if !container.name.is_empty() {
            names.insert(&container.name);
        }
        validate_host_ports(errors, path, std::slice::from_ref(container));
        let is_sidecar = container.restart_policy.as_deref() == Some("Always");
        if is_sidecar {
            probes::validate(errors, &at, container, around.spec.termination_grace_period_seconds, around.os());
            continue;
        }
        for (field, is_set) in [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ] {
            if is_set {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(Error::forbidden(&at.child(field), detail));
            }
        }
        for (j, policy) in list(&container.resize_policy).iter().enumerate() {
            if policy.restart_policy == "RestartContainer" {
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                let at = at.child("resizePolicy").index(j).child("restartPolicy");
                errors.push(Error::invalid(&at, policy.restart_policy.as_str(), detail));
            }
        }
    }
}

/// Everything wrong with the ephemeral containers.
pub(super) fn validate_ephemeral(errors: &mut Errors, path: &Path, around: &Surroundings<'_>) {
    let init = list(&around.spec.init_containers);
    let others: BTreeSet<&str> = around.spec.containers.iter().chain(init).map(|c| c.name.as_str()).collect();
    let mut names = others.clone();
    for (i, ephemeral) in list(&around.spec.ephemeral_containers).iter().enumerate() {
        let at = path.index(i);
        let container = as_container(ephemeral);
        validate_common(errors, &at, &container, around);
        validate_image_spaces(errors, &at, &container);
        if !names.insert(&ephemeral.name) {
            errors.push(Error::duplicate(&at.child("name"), ephemeral.name.as_str()));
        }
        let target = text(&ephemeral.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.push(Error::not_found(&at.child("targetContainerName"), target));
        }
        let detail = "cannot be set for an Ephemeral Container";
        let has_resources = ephemeral.resources.as_ref().is_some_and(|r| *r != ResourceRequirements::default());
        for (field, is_set) in [
            ("ports", !list(&ephemeral.ports).is_empty()),
            ("resources", has_resources),
            ("resizePolicy", !list(&ephemeral.resize_policy).is_empty()),
            ("restartPolicy", ephemeral.restart_policy.is_some()),
            ("restartPolicyRules", !list(&ephemeral.restart_policy_rules).is_empty()),
            ("livenessProbe", ephemeral.liveness_probe.is_some()),
            ("readinessProbe", ephemeral.readiness_probe.is_some()),
            ("startupProbe", ephemeral.startup_probe.is_some()),
            ("lifecycle", ephemeral.lifecycle.is_some()),
        ] {
            if is_set {
                errors.push(Error::forbidden(&at.child(field), detail));
            }
        }
        for (j, mount) in list(&ephemeral.volume_mounts).iter().enumerate() {
            let at = at.child("volumeMounts").index(j);
            if !text(&mount.sub_path).is_empty() {
                errors.push(Error::forbidden(&at.child("subPath"), detail));
            }
            if !text(&mount.sub_path_expr).is_empty() {
                errors.push(Error::forbidden(&at.child("subPathExpr"), detail));
            }
        }
    }
}

fn as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        name: ephemeral.name.clone(),
        image: ephemeral.image.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        ports: ephemeral.ports.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        volume_devices: ephemeral.volume_devices.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        resources: ephemeral.resources.clone(),
        resize_policy: ephemeral.resize_policy.clone(),
        security_context: ephemeral.security_context.clone(),
        ..Container::default()
    }
}

/// What is asked of a pod's containers and not of a template's: no spaces around the image.
pub(in crate::kinds) fn validate_image_spaces(errors: &mut Errors, path: &Path, container: &Container) {
    let image = text(&container.image);
    if image.trim().len() != image.len() {
        errors.push(Error::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"));
    }
}

fn validate_common(errors: &mut Errors, path: &Path, container: &Container, around: &Surroundings<'_>) {
    let at = path.child("name");
    if container.name.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        rules::messages(errors, &at, &container.name, name::dns1123_label(&container.name));
    }
    if text(&container.image).is_empty() {
        errors.push(Error::required(&path.child("image"), ""));
    }
    let policy = text(&container.termination_message_policy);
    let policies = &["File", "FallbackToLogsOnError"];
    rules::one_of(errors, &path.child("terminationMessagePolicy"), policy, policies);
    validate_ports(errors, &path.child("ports"), list(&container.ports));
    env::validate(errors, &path.child("env"), list(&container.env));
    env::validate_env_from(errors, &path.child("envFrom"), list(&container.env_from));
    let (mounts, devices) = (list(&container.volume_mounts), list(&container.volume_devices));
    let privileges = container.security_context.as_ref();
    validate_mounts(errors, &path.child("volumeMounts"), mounts, devices, &around.volumes, privileges);
    validate_devices(errors, &path.child("volumeDevices"), devices, mounts, &around.volumes);
    let policies = &["Always", "IfNotPresent", "Never"];
    rules::one_of(errors, &path.child("imagePullPolicy"), text(&container.image_pull_policy), policies);
    if let Some(requirements) = &container.resources {
        let at = path.child("resources");
        resources::validate(errors, &at, requirements, resources::Holder::Container);
        validate_claims(errors, &at.child("claims"), requirements, &around.claims);
    }
    validate_resize_policy(errors, &path.child("resizePolicy"), container, around);
    if let Some(context) = &container.security_context {
        security::validate_container(errors, &path.child("securityContext"), context, around.uses_host_users());
    }
}

fn validate_ports(errors: &mut Errors, path: &Path, ports: &[ContainerPort]) {
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            let wrong = name::port_name(name);
            if !wrong.is_empty() {
                rules::messages(errors, &at.child("name"), name, wrong);
            } else if !names.insert(name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
        }
        let mut number = |field: &str, value: i32| match (field, value) {
            ("containerPort", 0) => errors.push(Error::required(&at.child(field), "")),
            (_, 0) => {}
            _ => errors
                .extend(name::port_number(value.into()).iter().map(|m| Error::invalid(&at.child(field), value, m))),
        };
        number("containerPort", port.container_port);
        number("hostPort", port.host_port.unwrap_or(0));
        rules::one_of(errors, &at.child("protocol"), text(&port.protocol), &["SCTP", "TCP", "UDP"]);
    }
}

/// No two containers that run side by side may ask for one port of the host.
fn validate_host_ports(errors: &mut Errors, path: &Path, containers: &[Container]) {
    let mut taken = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in list(&container.ports).iter().enumerate() {
            let Some(number) = port.host_port.filter(|number| *number != 0) else { continue };
            let shown = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if !taken.insert(shown.clone()) {
                errors.push(Error::duplicate(&path.index(i).child("ports").index(j).child("hostPort"), shown));
            }
        }
    }
}

fn validate_mounts(
    errors: &mut Errors,
    path: &Path,
    mounts: &[VolumeMount],
    devices: &[VolumeDevice],
    volumes: &Known<'_>,
    privileges: Option<&SecurityContext>,
) {
    let mut taken = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = path.index(i);
        let (name, target) = (mount.name.as_str(), mount.mount_path.as_str());
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        if !volumes.contains_key(name) {
            errors.push(Error::not_found(&at.child("name"), name));
        }
        if target.is_empty() {
            errors.push(Error::required(&at.child("mountPath"), ""));
        }
        if !taken.insert(target) {
            errors.push(Error::invalid(&at.child("mountPath"), target, "must be unique"));
        }
        if devices.iter().any(|device| device.name == name) {
            errors.push(Error::invalid(&at.child("name"), name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|device| device.device_path == target) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(Error::invalid(&at.child("mountPath"), target, detail));
        }
        let (sub_path, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
        // Kubernetes gives the paths of the following without the mount's index.
        rules::descending_path(errors, &path.child("subPath"), sub_path);
        if !expression.is_empty() {
            if !sub_path.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.push(Error::invalid(&at.child("subPathExpr"), expression, detail));
            }
            rules::descending_path(errors, &path.child("subPathExpr"), expression);
        }
        validate_propagation(errors, path, mount, privileges);
    }
}

fn validate_propagation(errors: &mut Errors, path: &Path, mount: &VolumeMount, privileges: Option<&SecurityContext>) {
    let propagation = mount.mount_propagation.as_deref();
    if let Some(mode) = propagation {
        let at = path.child("mountPropagation");
        rules::known_word(errors, &at, mode, &["Bidirectional", "HostToContainer", "None"]);
        if mode == "Bidirectional" && privileges.is_none_or(|p| p.privileged != Some(true)) {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(Error::forbidden(&at, detail));
        }
    }
    let at = path.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.push(Error::forbidden(&at, "may only be specified when readOnly is true"));
            }
            if propagation.is_some_and(|mode| mode != "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(Error::forbidden(&at, detail));
            }
        }
        Some(other) => errors.push(Error::not_supported(&at, other, &["Disabled", "Enabled", "IfPossible"])),
    }
}

fn validate_devices(
    errors: &mut Errors,
    path: &Path,
    devices: &[VolumeDevice],
    mounts: &[VolumeMount],
    volumes: &Known<'_>,
) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in devices.iter().enumerate() {
        let at = path.index(i);
        let (name, target) = (device.name.as_str(), device.device_path.as_str());
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        if !names.insert(name) {
            errors.push(Error::invalid(&at.child("name"), name, "must be unique"));
        }
        match volumes.get(name) {
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(Error::invalid(&at.child("name"), name, detail));
            }
            Some(_) => {}
            None => errors.push(Error::not_found(&at.child("name"), name)),
        }
        if target.is_empty() {
            errors.push(Error::required(&at.child("devicePath"), ""));
        }
        if !paths.insert(target) {
            errors.push(Error::invalid(&at.child("devicePath"), target, "must be unique"));
        }
        if target.split('/').any(|part| part == "..") {
            errors.push(Error::invalid(&at.child("devicePath"), target, "can not contain backsteps ('..')"));
        }
        if mounts.iter().any(|mount| mount.name == name) {
            errors.push(Error::invalid(&at.child("name"), name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|mount| mount.mount_path == target) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(Error::invalid(&at.child("devicePath"), target, detail));
        }
    }
}

fn validate_claims(errors: &mut Errors, path: &Path, requirements: &ResourceRequirements, known: &BTreeSet<&str>) {
    let mut seen = BTreeSet::new();
    for (i, claim) in list(&requirements.claims).iter().enumerate() {
        let at = path.index(i);
        let name = claim.name.as_str();
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        if !seen.insert((name, text(&claim.request))) {
            errors.push(Error::duplicate(&at, name));
        }
        if !known.contains(name) {
            let mut error = Error::not_found(&at, name);
            let names: Vec<&str> = known.iter().copied().collect();
            error.message.push_str(": must be one of the names in pod.spec.resourceClaims");
            match names.as_slice() {
                [] => error.message.push_str(" which is empty"),
                names => error.message.push_str(&format!(": {}", names.join(", "))),
            }
            errors.push(error);
        }
    }
}

fn validate_resize_policy(errors: &mut Errors, path: &Path, container: &Container, around: &Surroundings<'_>) {
    let policies = list(&container.resize_policy);
    for (i, policy) in policies.iter().enumerate() {
        if policies.iter().take(i).any(|p| p.resource_name == policy.resource_name) {
            errors.push(Error::duplicate(&path.index(i), policy.resource_name.as_str()));
        }
        rules::one_of(errors, path, &policy.resource_name, &["cpu", "memory"]);
        rules::one_of(errors, path, &policy.restart_policy, &["NotRequired", "RestartContainer"]);
        if text(&around.spec.restart_policy) == "Never" && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(Error::invalid(path, policy.restart_policy.as_str(), detail));
        }
    }
}

/// A container's own restart policy and its rules by exit code (KEP-5307).
fn validate_restarts(errors: &mut Errors, path: &Path, container: &Container) {
    let rules_given = list(&container.restart_policy_rules);
    let at = path.child("restartPolicy");
    match container.restart_policy.as_deref() {
        None if rules_given.is_empty() => return,
        None => errors.push(Error::required(&at, "must specify restartPolicy when restart rules are used")),
        Some(policy) => rules::known_word(errors, &at, policy, &["Always", "Never", "OnFailure"]),
    }
    let at = path.child("restartPolicyRules");
    if rules_given.len() > 20 {
        errors.push(Error::too_many(&at, rules_given.len(), 20));
    }
    for (i, rule) in rules_given.iter().enumerate() {
        let at = at.index(i);
        rules::known_word(errors, &at.child("action"), &rule.action, &["Restart", "RestartAllContainers"]);
        let Some(codes) = &rule.exit_codes else {
            errors.push(Error::required(&at.child("exitCodes"), "must be specified"));
            continue;
        };
        let at = at.child("exitCodes");
        rules::known_word(errors, &at.child("operator"), &codes.operator, &["In", "NotIn"]);
        let count = list(&codes.values).len();
        if count > 255 {
            errors.push(Error::too_many(&at.child("values"), count, 255));
        }
    }
}
