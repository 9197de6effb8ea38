//! Security contexts of pods and of their containers.

use std::collections::BTreeSet;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext};

use crate::kinds::{blank::list, rules};

/// Everything wrong with the pod's own security context.
pub(super) fn validate_pod(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let Some(context) = &spec.security_context else { return };
    for (field, id) in
        [("fsGroup", context.fs_group), ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)]
    {
        validate_id(errors, &path.child(field), id);
    }
    for (i, group) in list(&context.supplemental_groups).iter().enumerate() {
        validate_id(errors, &path.child("supplementalGroups").index(i), Some(*group));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(Error::invalid(&path.child("shareProcessNamespace"), true, detail));
    }
    validate_sysctls(errors, &path.child("sysctls"), spec);
    for (field, value, known) in [
        ("fsGroupChangePolicy", &context.fs_group_change_policy, &["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &context.supplemental_groups_policy, &["Merge", "Strict"]),
        ("seLinuxChangePolicy", &context.se_linux_change_policy, &["MountOption", "Recursive"]),
    ] {
        if let Some(value) = value {
            rules::known_word(errors, &path.child(field), value, known);
        }
    }
    if let Some(profile) = &context.seccomp_profile {
        validate_seccomp(errors, &path.child("seccompProfile"), profile);
    }
    if let Some(profile) = &context.app_armor_profile {
        validate_app_armor(errors, &path.child("appArmorProfile"), profile);
    }
}

/// Everything wrong with a container's security context.
pub(super) fn validate_container(errors: &mut Errors, path: &Path, context: &SecurityContext, uses_host_users: bool) {
    validate_id(errors, &path.child("runAsUser"), context.run_as_user);
    validate_id(errors, &path.child("runAsGroup"), context.run_as_group);
    if let Some(mount) = &context.proc_mount {
        let at = path.child("procMount");
        rules::known_word(errors, &at, mount, &["Default", "Unmasked"]);
        if uses_host_users && mount == "Unmasked" {
            errors.push(Error::invalid(&at, mount.as_str(), "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    if let Some(profile) = &context.seccomp_profile {
        validate_seccomp(errors, &path.child("seccompProfile"), profile);
    }
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(path, rules::json(context), detail));
        }
        let added = context.capabilities.as_ref().map_or(&[][..], |c| list(&c.add));
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid(path, rules::json(context), detail));
        }
    }
    if let Some(profile) = &context.app_armor_profile {
        validate_app_armor(errors, &path.child("appArmorProfile"), profile);
    }
}

fn validate_id(errors: &mut Errors, path: &Path, id: Option<i64>) {
    let Some(id) = id else { return };
    for message in name::user_or_group_id(id) {
        errors.push(Error::invalid(path, id, &message));
    }
}

fn validate_seccomp(errors: &mut Errors, path: &Path, profile: &SeccompProfile) {
    let at = path.child("type");
    match profile.type_.as_str() {
        "" => errors.push(Error::required(&at, "type is required when seccompProfile is set")),
        kind => rules::known_word(errors, &at, kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
    let at = path.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => {
            errors.push(Error::required(&at, "must be set when seccomp type is Localhost"));
        }
        ("Localhost", Some(file)) => rules::descending_path(errors, &at, file),
        (_, Some(_)) => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(Error::invalid(&at, rules::json(profile), detail));
        }
        (_, None) => {}
    }
}

/// Longest name of an AppArmor profile, in bytes.
const APP_ARMOR_NAME: usize = 4095;

fn validate_app_armor(errors: &mut Errors, path: &Path, profile: &AppArmorProfile) {
    let at = path.child("localhostProfile");
    let missing = "must be set when AppArmor type is Localhost";
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => errors.push(Error::required(&at, missing)),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(Error::invalid(&at, name.as_str(), "must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(Error::required(&at, missing));
            }
            if name.len() > APP_ARMOR_NAME {
                errors.push(Error::too_long(&at, APP_ARMOR_NAME));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.push(Error::invalid(&at, name.as_str(), "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(Error::required(&path.child("type"), "type is required when appArmorProfile is set"));
        }
        (other, _) => {
            let known = &["Localhost", "RuntimeDefault", "Unconfined"];
            errors.push(Error::not_supported(&path.child("type"), other, known));
        }
    }
}

/// Longest name of a sysctl, in bytes.
const SYSCTL_NAME: usize = 253;

fn is_sysctl(name: &str) -> bool {
    let is_word = |word: &str| {
        let is_edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        is_edge(word.bytes().next())
            && is_edge(word.bytes().last())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= SYSCTL_NAME && name.split(['.', '/']).all(is_word)
}

fn validate_sysctls(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let sysctls = spec.security_context.as_ref().map_or(&[][..], |c| list(&c.sysctls));
    let mut seen = BTreeSet::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let at = path.index(i).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if !is_sysctl(name) {
            let word = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            let detail = format!("must have at most {SYSCTL_NAME} characters and match regex ^({word}[\\./])*{word}$");
            errors.push(Error::invalid(&at, name, &detail));
        } else if seen.contains(name) {
            errors.push(Error::duplicate(&at, name));
        }
        let dotted = name.replace('/', ".");
        let of_ipc = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            errors.push(Error::invalid(&at, name, "may not be specified when 'hostNetwork' is true"));
        } else if spec.host_ipc == Some(true) && of_ipc {
            errors.push(Error::invalid(&at, name, "may not be specified when 'hostIPC' is true"));
        }
        seen.insert(name);
    }
}

/// What a pod with users of its own (`hostUsers: false`, KEP-127) cannot have.
pub(super) fn validate_host_users(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    if spec.host_users != Some(false) {
        return;
    }
    let detail = "when `hostUsers` is false";
    // The capitals are Kubernetes'.
    for (field, flag) in [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)] {
        if flag == Some(true) {
            errors.push(Error::forbidden(&path.child(field), detail));
        }
    }
    let lists = [("initContainers", list(&spec.init_containers)), ("containers", spec.containers.as_slice())];
    for (field, containers) in lists {
        for (i, container) in containers.iter().enumerate() {
            if !list(&container.volume_devices).is_empty() {
                errors.push(Error::forbidden(&path.child(field).index(i).child("volumeDevices"), detail));
            }
        }
    }
}

/// What the operating system that the pod is written for rules out (KEP-2802).
pub(super) fn validate_os(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let Some(os) = &spec.os else { return };
    let at = path.child("os").child("name");
    match os.name.as_str() {
        "" => errors.push(Error::required(&at, "cannot be empty")),
        "linux" => {
            let detail = "windows options cannot be set for a linux pod";
            if spec.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
                errors.push(Error::forbidden(&path.child("securityContext").child("windowsOptions"), detail));
            }
            let lists = [("initContainers", list(&spec.init_containers)), ("containers", spec.containers.as_slice())];
            for (field, containers) in lists {
                for (i, container) in containers.iter().enumerate() {
                    if container.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
                        let at = path.child(field).index(i).child("securityContext").child("windowsOptions");
                        errors.push(Error::forbidden(&at, detail));
                    }
                }
            }
        }
        "windows" => validate_windows(errors, path, spec),
        other => rules::known_word(errors, &at, other, &["linux", "windows"]),
    }
}

/// What of a pod's security context no Windows has, as its fields are called.
const NOT_OF_WINDOWS_PODS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];

/// And what of a container's.
const NOT_OF_WINDOWS_CONTAINERS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// What a pod for Windows asks for that Windows does not have.
fn validate_windows(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let detail = "cannot be set for a windows pod";
    for (field, is_set) in [
        ("hostUsers", spec.host_users.is_some()),
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("shareProcessNamespace", spec.share_process_namespace.is_some()),
    ] {
        if is_set {
            errors.push(Error::forbidden(&path.child(field), detail));
        }
    }
    let mut check = |at: &Path, context: serde_json::Value, unknown: &[&str]| {
        let set = unknown.iter().filter(|field| context.get(field).is_some_and(|value| !value.is_null()));
        errors.extend(set.map(|field| Error::forbidden(&at.child(field), detail)));
    };
    if let Some(context) = &spec.security_context {
        check(&path.child("securityContext"), rules::json(context), NOT_OF_WINDOWS_PODS);
    }
    let lists = [("containers", spec.containers.as_slice()), ("initContainers", list(&spec.init_containers))];
    for (field, containers) in lists {
        for (i, container) in containers.iter().enumerate() {
            if let Some(context) = &container.security_context {
                let at = path.child(field).index(i).child("securityContext");
                check(&at, rules::json(context), NOT_OF_WINDOWS_CONTAINERS);
            }
        }
    }
}
