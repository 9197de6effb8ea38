//! Volumes of drivers that Kubernetes once had inside, as pods and volumes name them: what is missing or wrong of their
//! parameters. Nothing here mounts them; they are taken as Kubernetes takes them.

use std::sync::LazyLock;

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use regex::Regex;
use serde_json::Value;

use super::rules;

/// What must be given of each source. (Cephfs is spelled in two ways.)
const NEEDED: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephFS", &["monitors"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("glusterfs", &["endpoints", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("storageos", &["volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];

fn text<'v>(source: &'v Value, field: &str) -> &'v str {
    source.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn number(source: &Value, field: &str) -> i64 {
    source.get(field).and_then(Value::as_i64).unwrap_or(0)
}

fn is_empty(source: &Value, field: &str) -> bool {
    match source.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// Everything wrong with the source of this name, as JSON has it; `volume` is the name of the volume it is of, unless it
/// stands in a pod.
pub(super) fn validate(errors: &mut Errors, path: &Path, name: &str, source: &Value, volume: Option<&str>) {
    let needed = NEEDED.iter().find(|(known, _)| *known == name).map(|(_, needed)| *needed).unwrap_or_default();
    for field in needed.iter().filter(|field| is_empty(source, field)) {
        errors.push(Error::required(&path.child(field), ""));
    }
    match name {
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let partition = number(source, "partition");
            if !(0..=255).contains(&partition) {
                errors.push(Error::invalid(
                    &path.child("partition"),
                    partition,
                    "must be between 1 and 255, inclusive",
                ));
            }
        }
        "azureDisk" => validate_azure_disk(errors, path, source),
        "azureFile" if source.get("secretNamespace").is_some() && is_empty(source, "secretNamespace") => {
            errors.push(Error::required(&path.child("secretNamespace"), ""));
        }
        "fc" => validate_fibre_channel(errors, path, source),
        "flexVolume" => validate_options(errors, path, source),
        "flocker" => validate_flocker(errors, path, source),
        "glusterfs" if source.get("endpointsNamespace").is_some() => {
            let (at, namespace) = (path.child("endpointsNamespace"), text(source, "endpointsNamespace"));
            if namespace.is_empty() {
                let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                errors.push(Error::invalid(&at, namespace, detail));
            } else {
                rules::messages(errors, &at, namespace, name::dns1123_label(namespace));
            }
        }
        "iscsi" => validate_iscsi(errors, path, source, volume),
        "quobyte" => validate_quobyte(errors, path, source),
        "storageos" => {
            for field in ["volumeName", "volumeNamespace"].into_iter().filter(|field| !is_empty(source, field)) {
                let value = text(source, field);
                rules::messages(errors, &path.child(field), value, name::dns1123_label(value));
            }
            validate_secret(errors, path, source);
        }
        "cinder" => validate_secret(errors, path, source),
        _ => {}
    }
}

fn validate_secret(errors: &mut Errors, path: &Path, source: &Value) {
    if source.get("secretRef").is_some_and(|secret| is_empty(secret, "name")) {
        errors.push(Error::required(&path.child("secretRef").child("name"), ""));
    }
}

fn validate_azure_disk(errors: &mut Errors, path: &Path, source: &Value) {
    if source.get("cachingMode").is_some() {
        let known = &["None", "ReadOnly", "ReadWrite"];
        rules::known_word(errors, &path.child("cachingMode"), text(source, "cachingMode"), known);
    }
    if source.get("kind").is_none() {
        return;
    }
    let (kind, uri) = (text(source, "kind"), text(source, "diskURI"));
    rules::known_word(errors, &path.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let (begins, known) = if kind == "Managed" {
        let known = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
        ("/subscriptions/", known)
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    if !uri.starts_with(begins) {
        errors.push(Error::not_supported(&path.child("diskURI"), uri, &[known]));
    }
}

fn validate_fibre_channel(errors: &mut Errors, path: &Path, source: &Value) {
    let at = path.child("targetWWNs");
    let has_names = !is_empty(source, "targetWWNs");
    match (has_names, !is_empty(source, "wwids")) {
        (false, false) => {
            errors.push(Error::required(&at, "must specify either targetWWNs or wwids, but not both"));
        }
        (true, true) => {
            let names = source.get("targetWWNs").cloned().unwrap_or_default();
            errors.push(Error::invalid(&at, names, "targetWWNs and wwids can not be specified simultaneously"));
        }
        _ => {}
    }
    if has_names && source.get("lun").is_none() {
        errors.push(Error::required(&path.child("lun"), "lun is required if targetWWNs is specified"));
    } else if has_names {
        validate_unit(errors, path, source);
    }
}

fn validate_unit(errors: &mut Errors, path: &Path, source: &Value) {
    let unit = number(source, "lun");
    if !(0..=255).contains(&unit) {
        errors.push(Error::invalid(&path.child("lun"), unit, "must be between 0 and 255, inclusive"));
    }
}

fn validate_options(errors: &mut Errors, path: &Path, source: &Value) {
    for key in source.get("options").and_then(Value::as_object).into_iter().flat_map(serde_json::Map::keys) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace).to_lowercase();
        let is_of = |own: &str| namespace == own || namespace.ends_with(&format!(".{own}"));
        if is_of("kubernetes.io") || is_of("k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(Error::invalid(&path.child("options").key(key), key.as_str(), detail));
        }
    }
}

fn validate_flocker(errors: &mut Errors, path: &Path, source: &Value) {
    match (is_empty(source, "datasetName"), is_empty(source, "datasetUUID")) {
        (true, true) => errors.push(Error::required(path, "one of datasetName and datasetUUID is required")),
        (false, false) => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(Error::invalid(path, "resource", detail));
        }
        _ => {}
    }
    let name = text(source, "datasetName");
    if name.contains('/') {
        errors.push(Error::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

/// The three ways to name an initiator or target of iSCSI.
static INITIATORS: LazyLock<[(&str, Option<Regex>); 3]> = LazyLock::new(|| {
    [
        ("iqn", Regex::new(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$").ok()),
        ("eui", Regex::new(r"^eui.[[:alnum:]]{16}$").ok()),
        ("naa", Regex::new(r"^naa.[[:alnum:]]{32}$").ok()),
    ]
});

fn validate_iscsi(errors: &mut Errors, path: &Path, source: &Value, volume: Option<&str>) {
    let begins =
        if volume.is_some() { "must be valid format" } else { "must be valid format starting with iqn, eui, or naa" };
    let check = |errors: &mut Errors, field: &str, value: &str| {
        let way = INITIATORS.iter().find(|(begin, _)| value.starts_with(begin));
        match way {
            None => errors.push(Error::invalid(&path.child(field), value, begins)),
            Some((_, form)) if form.as_ref().is_some_and(|form| !form.is_match(value)) => {
                errors.push(Error::invalid(&path.child(field), value, "must be valid format"));
            }
            Some(_) => {}
        }
    };
    let (portal, has_initiator) = (text(source, "targetPortal"), source.get("initiatorName").is_some());
    if volume.is_some_and(|volume| has_initiator && volume.len() + 1 + portal.len() > 64) {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                      iscsi.initiatorName is specified.";
        errors.push(Error::invalid(&path.child("targetportal"), portal, detail));
    }
    if !is_empty(source, "iqn") {
        check(errors, "iqn", text(source, "iqn"));
    }
    validate_unit(errors, path, source);
    let is_asked = |field: &str| source.get(field).and_then(Value::as_bool) == Some(true);
    if (is_asked("chapAuthDiscovery") || is_asked("chapAuthSession")) && source.get("secretRef").is_none() {
        errors.push(Error::required(&path.child("secretRef"), ""));
    }
    if volume.is_some() {
        validate_secret(errors, path, source);
    }
    if has_initiator {
        check(errors, "initiatorname", text(source, "initiatorName"));
    }
}

fn validate_quobyte(errors: &mut Errors, path: &Path, source: &Value) {
    let (registry, detail) =
        (text(source, "registry"), "must be a host:port pair or multiple pairs separated by commas");
    if registry.is_empty() {
        errors.push(Error::required(&path.child("registry"), detail));
    } else if text(source, "tenant").len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(Error::required(&path.child("tenant"), detail));
    } else {
        let wrong = registry.split(',').filter(|pair| !is_host_and_port(pair));
        errors.extend(wrong.map(|_| Error::invalid(&path.child("registry"), registry, detail)));
    }
    if is_empty(source, "volume") {
        errors.push(Error::required(&path.child("volume"), ""));
    }
}

/// Whether Go's `net.SplitHostPort` takes it apart.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_one = |text: &str| !text.contains(['[', ']']);
    is_one(port) && inner.map_or(is_one(host) && !host.contains(':'), is_one)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(name: &str, source: &Value, volume: Option<&str>) -> Vec<String> {
        let mut errors = Errors::new();
        validate(&mut errors, &Path::new(name), name, source, volume);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_missing_or_wrong_of_a_source_is_told() {
        for (name, source, expected) in [
            ("cephfs", json!({}), &["cephfs.monitors: Required value"][..]),
            ("rbd", json!({"monitors": ["m"], "image": "i"}), &[]),
            (
                "gcePersistentDisk",
                json!({"pdName": "a", "partition": 256}),
                &["gcePersistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive"],
            ),
            (
                "azureDisk",
                json!({"diskName": "a", "diskURI": "b", "kind": "Managed", "cachingMode": "x"}),
                &[
                    "azureDisk.cachingMode: Unsupported value: \"x\": supported values: \"None\", \"ReadOnly\", \"ReadWrite\"",
                    "azureDisk.diskURI: Unsupported value: \"b\": supported values: \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\"",
                ],
            ),
            (
                "fc",
                json!({"targetWWNs": ["a"]}),
                &["fc.lun: Required value: lun is required if targetWWNs is specified"],
            ),
            (
                "fc",
                json!({}),
                &["fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"],
            ),
            (
                "flexVolume",
                json!({"driver": "d", "options": {"a.k8s.io/x": "y", "notk8s.io": "z"}}),
                &[
                    "flexVolume.options[a.k8s.io/x]: Invalid value: \"a.k8s.io/x\": kubernetes.io and k8s.io namespaces are reserved",
                ],
            ),
            (
                "flocker",
                json!({"datasetName": "a/b"}),
                &["flocker.datasetName: Invalid value: \"a/b\": must not contain '/'"],
            ),
            ("iscsi", json!({"targetPortal": "p", "iqn": "iqn.2001-04.com.example:storage:x", "lun": 0}), &[]),
            (
                "iscsi",
                json!({"targetPortal": "p", "iqn": "wrong", "lun": 256, "chapAuthSession": true}),
                &[
                    "iscsi.iqn: Invalid value: \"wrong\": must be valid format starting with iqn, eui, or naa",
                    "iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
                    "iscsi.secretRef: Required value",
                ],
            ),
            ("quobyte", json!({"registry": "a:1,[::1]:2", "volume": "v"}), &[]),
            (
                "quobyte",
                json!({"registry": "a", "volume": "v"}),
                &[
                    "quobyte.registry: Invalid value: \"a\": must be a host:port pair or multiple pairs separated by commas",
                ],
            ),
            ("storageos", json!({"volumeName": "v", "secretRef": {}}), &["storageos.secretRef.name: Required value"]),
        ] {
            assert_eq!(wrong(name, &source, None), expected, "{name} {source}");
        }
        let long = json!({"targetPortal": "p".repeat(60), "iqn": "x", "initiatorName": "eui.0123456789abcdef"});
        assert_eq!(wrong("iscsi", &long, Some("volume")).len(), 2);
    }
}
