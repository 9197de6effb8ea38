//! Environment variables and what else is taken from the pod's own fields (the downward API).

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec, ResourceFieldSelector, Volume,
};

use crate::kinds::{
    blank::{list, text},
    resources, rules,
};

/// Fields of the pod that environment variables may be taken from.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the pod that files of a volume may be made from.
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields of the pod that have a name in the downward API at all.
const FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Everything wrong with environment variables.
pub(super) fn validate(errors: &mut Errors, path: &Path, variables: &[EnvVar]) {
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        if variable.name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            rules::messages(errors, &at.child("name"), &variable.name, name::env_var_name(&variable.name));
        }
        if let Some(from) = &variable.value_from {
            validate_from(errors, &at.child("valueFrom"), from, text(&variable.value));
        }
    }
}

fn validate_from(errors: &mut Errors, path: &Path, from: &EnvVarSource, value: &str) {
    let mut count = 0;
    if let Some(field) = &from.field_ref {
        count += 1;
        validate_field_ref(errors, &path.child("fieldRef"), field, ENV_FIELDS);
    }
    if let Some(resource) = &from.resource_field_ref {
        count += 1;
        validate_resource_ref(errors, &path.child("resourceFieldRef"), resource, Container::MayBeOwn);
    }
    if let Some(key) = &from.config_map_key_ref {
        count += 1;
        validate_key_ref(errors, &path.child("configMapKeyRef"), &key.name, &key.key);
    }
    if let Some(key) = &from.secret_key_ref {
        count += 1;
        validate_key_ref(errors, &path.child("secretKeyRef"), &key.name, &key.key);
    }
    if let Some(file) = &from.file_key_ref {
        count += 1;
        let at = path.child("fileKeyRef");
        for (field, value) in [("key", &file.key), ("volumeName", &file.volume_name), ("path", &file.path)] {
            let at = at.child(field);
            if value.is_empty() {
                errors.push(Error::required(&at, ""));
            } else {
                match field {
                    "key" => rules::messages(errors, &at, value, name::env_var_name(value)),
                    "volumeName" => rules::messages(errors, &at, value, name::dns1123_label(value)),
                    _ => rules::no_backsteps(errors, &at, value),
                }
            }
        }
    }
    let detail = match count {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !value.is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(Error::invalid(path, "", detail));
}

fn validate_key_ref(errors: &mut Errors, path: &Path, name: &str, key: &str) {
    rules::messages(errors, &path.child("name"), name, name::dns1123_subdomain(name));
    if key.is_empty() {
        errors.push(Error::required(&path.child("key"), ""));
    } else {
        rules::messages(errors, &path.child("key"), key, name::config_map_key(key));
    }
}

/// Everything wrong with a reference to a field of the pod.
pub(super) fn validate_field_ref(errors: &mut Errors, path: &Path, field: &ObjectFieldSelector, allowed: &[&str]) {
    let at = path.child("fieldPath");
    if field.field_path.is_empty() {
        errors.push(Error::required(&at, ""));
        return;
    }
    let (name, subscript) = match field.field_path.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        Some((name, subscript)) => (name, Some(subscript)),
        None => (field.field_path.as_str(), None),
    };
    let unknown = match text(&field.api_version) {
        "v1" if FIELDS.contains(&name) => None,
        "v1" => Some(format!("field label not supported: {name}")),
        version => Some(format!("unsupported pod version: {version}")),
    };
    if let Some(why) = unknown {
        let shown = field.field_path.as_str();
        errors.push(Error::invalid(&at, shown, &format!("error converting fieldPath: {why}")));
        return;
    }
    match (name, subscript) {
        ("metadata.annotations", Some(key)) => {
            rules::label_name(errors, path, &key.to_lowercase());
        }
        ("metadata.labels", Some(key)) => rules::label_name(errors, path, key),
        (name, Some(_)) => errors.push(Error::invalid(path, name, "does not support subscript")),
        (name, None) => rules::known_word(errors, &at, name, allowed),
    }
}

/// Whether a reference to a container's resources must say which container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// It may be the one the reference stands in.
    MayBeOwn,
    /// There is none around.
    MustBeNamed,
}

/// Everything wrong with a reference to a container's requests or limits.
pub(super) fn validate_resource_ref(
    errors: &mut Errors,
    path: &Path,
    reference: &ResourceFieldSelector,
    container: Container,
) {
    let resource = reference.resource.as_str();
    let is_huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if container == Container::MustBeNamed && text(&reference.container_name).is_empty() {
        errors.push(Error::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(Error::required(&path.child("resource"), ""));
    } else if !is_huge {
        rules::known_word(errors, &path.child("resource"), resource, RESOURCES);
    }
    let Some(divisor) = &reference.divisor else { return };
    if resources::read(errors, &path.child("divisor"), divisor).is_none_or(|divisor| divisor.is_zero()) {
        return;
    }
    const SIZES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (allowed, what): (&[&str], &str) = match resource {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"], "cpu"),
        "limits.memory" | "requests.memory" => (SIZES, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (SIZES, "local ephemeral storage"),
        _ if is_huge => (SIZES, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&divisor.0.as_str()) {
        let list = if what == "cpu" { "1m and 1".to_owned() } else { SIZES.join(", ") };
        let detail = format!("only divisor's values {list} are supported with the {what} resource");
        errors.push(Error::invalid(&path.child("divisor"), resource, &detail));
    }
}

/// Everything wrong with `envFrom`.
pub(super) fn validate_env_from(errors: &mut Errors, path: &Path, sources: &[EnvFromSource]) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            rules::messages(errors, &at.child("prefix"), prefix, name::env_var_name(prefix));
        }
        let references = [
            source.config_map_ref.as_ref().map(|r| ("configMapRef", r.name.as_str())),
            source.secret_ref.as_ref().map(|r| ("secretRef", r.name.as_str())),
        ];
        let mut count = 0;
        for (field, referenced) in references.into_iter().flatten() {
            count += 1;
            let at = at.child(field).child("name");
            if referenced.is_empty() {
                errors.push(Error::required(&at, ""));
            } else {
                rules::messages(errors, &at, referenced, name::subdomain_rule(referenced, true));
            }
        }
        let detail = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(Error::invalid(path, "", detail));
    }
}

/// Variables that are read from files must name an `emptyDir` volume of the pod (KEP-3721).
pub(super) fn validate_file_volumes(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let volumes: &[Volume] = list(&spec.volumes);
    let lists = [("initContainers", list(&spec.init_containers)), ("containers", spec.containers.as_slice())];
    for (field, containers) in lists {
        for (i, container) in containers.iter().enumerate() {
            for (j, variable) in list(&container.env).iter().enumerate() {
                let Some(file) = variable.value_from.as_ref().and_then(|from| from.file_key_ref.as_ref()) else {
                    continue;
                };
                let at = path.child(field).index(i).child("env").index(j).child("valueFrom");
                let at = at.child("fileKeyRef").child("volumeName");
                let volume = file.volume_name.as_str();
                match volumes.iter().find(|v| v.name == volume) {
                    None => errors.push(Error::not_found(&at, volume)),
                    Some(found) if found.empty_dir.is_none() => {
                        errors.push(Error::invalid(&at, volume, "referenced volume must be of type emptyDir"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
