//! Everything wrong with a definition. Kubernetes reads what all versions say alike as said once, and its paths with it:
//! `spec.validation` is the schema of all versions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresources,
    CustomResourceValidation, JSONSchemaProps, SelectableField,
};

use super::super::{
    blank::{list, text},
    rules,
};
use crate::{
    cel::format::is_uri,
    custom::{SimplePath, structural},
};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};

/// As many fields may be selected by.
const MAX_SELECTABLE: usize = 8;

const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// Everything wrong with a definition, and with changing another one into it.
pub(super) fn whole(new: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    if old.is_none() {
        let name = text(&new.metadata.name);
        if name != format!("{}.{}", new.spec.names.plural, new.spec.group) {
            let why = "must be spec.names.plural+\".\"+spec.group";
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, why));
        }
    }
    let spec = &new.spec;
    group(spec, &path, &mut errors);
    rules::one_of(&mut errors, &path.child("scope"), &spec.scope, &["Cluster", "Namespaced"]);
    versions(spec, old.map(|old| &old.spec), &path, &mut errors);
    names(&spec.names, &path.child("names"), &mut errors);
    let preserved = |object: &CustomResourceDefinition| object.spec.preserve_unknown_fields == Some(true);
    if preserved(new) && !old.is_some_and(preserved) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(Error::invalid(&path.child("preserveUnknownFields"), true, why));
    }
    if let Some(value) = &spec.conversion {
        conversion(value, &path.child("conversion"), &mut errors);
    }
    if let Some(old) = old {
        let names = path.child("names");
        if super::is_true(old, "Established") {
            rules::immutable(&mut errors, &path.child("scope"), &spec.scope, &old.spec.scope);
            rules::immutable(&mut errors, &names.child("kind"), &spec.names.kind, &old.spec.names.kind);
        }
        rules::immutable(&mut errors, &path.child("group"), &spec.group, &old.spec.group);
        rules::immutable(&mut errors, &names.child("plural"), &spec.names.plural, &old.spec.names.plural);
    }
    errors.extend(stored_versions(new));
    approval(new, old, &mut errors);
    errors
}

fn group(spec: &CustomResourceDefinitionSpec, path: &Path, errors: &mut Errors) {
    let at = path.child("group");
    if spec.group.is_empty() {
        errors.push(Error::required(&at, ""));
        return;
    }
    let wrong = name::dns1123_subdomain(&spec.group);
    if !wrong.is_empty() {
        errors.push(Error::invalid(&at, spec.group.as_str(), &wrong.join(",")));
    } else if !spec.group.contains('.') {
        errors.push(Error::invalid(&at, spec.group.as_str(), "should be a domain with at least one dot"));
    }
}

/// A group of Kubernetes' own needs leave (KEP-1111).
fn approval(new: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>, errors: &mut Errors) {
    const ANNOTATION: &str = "api-approved.kubernetes.io";
    let group = &new.spec.group;
    let is_protected =
        ["k8s.io", "kubernetes.io"].iter().any(|own| group == own || group.ends_with(&format!(".{own}")));
    let note = |object: &CustomResourceDefinition| {
        object.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION)).cloned().unwrap_or_default()
    };
    let own = note(new);
    if !is_protected || old.is_some_and(|old| note(old) == own) {
        return;
    }
    let at = Path::new("metadata").child("annotations").key(ANNOTATION);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    if own.is_empty() {
        let why = format!("protected groups must have approval annotation \"{ANNOTATION}\", {see}");
        errors.push(Error::required(&at, &why));
    } else if !own.starts_with("unapproved") && !is_uri(&own) {
        let why = format!(
            "protected groups must have approval annotation \"{ANNOTATION}\" with either a URL or a reason starting with \
             \"unapproved\", {see}"
        );
        errors.push(Error::invalid(&at, own, &why));
    }
}

/// Versions that were stored must stay.
pub(super) fn stored_versions(object: &CustomResourceDefinition) -> Errors {
    let path = Path::new("status").child("storedVersions");
    let stored = object.status.as_ref().map_or(&[][..], |status| list(&status.stored_versions));
    if stored.is_empty() {
        return vec![Error::invalid(&path, serde_json::Value::Null, "must have at least one stored version")];
    }
    let mut errors = Errors::new();
    for version in object.spec.versions.iter().filter(|version| version.storage && !stored.contains(&version.name)) {
        let why = format!("must have the storage version {}", version.name);
        errors.push(Error::invalid(&path, stored.to_vec(), &why));
    }
    for (i, name) in stored.iter().enumerate() {
        if !object.spec.versions.iter().any(|version| version.name == *name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.push(Error::invalid(&path.index(i), name.as_str(), &why));
        }
    }
    errors
}

/// What all versions say alike, if they do.
fn alike<'s, T: PartialEq>(
    spec: &'s CustomResourceDefinitionSpec,
    part: impl Fn(&'s CustomResourceDefinitionVersion) -> T,
) -> Option<T> {
    let mut all = spec.versions.iter().map(part);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

fn has_status(version: &CustomResourceDefinitionVersion) -> bool {
    version.subresources.as_ref().is_some_and(|sub| sub.status.is_some())
}

fn versions(
    spec: &CustomResourceDefinitionSpec,
    old: Option<&CustomResourceDefinitionSpec>,
    path: &Path,
    errors: &mut Errors,
) {
    let at = path.child("versions");
    for (i, version) in spec.versions.iter().enumerate() {
        let is_there = version.schema.as_ref().is_some_and(|schema| schema.open_api_v3_schema.is_some());
        if !is_there {
            errors.push(Error::required(&at.index(i).child("schema").child("openAPIV3Schema"), ""));
        }
        rules_of_version(version, &at.index(i), errors);
    }
    let mut seen = std::collections::BTreeSet::new();
    if !spec.versions.iter().all(|version| seen.insert(&version.name)) {
        errors.push(Error::invalid(&at, rules::json(&spec.versions), "must contain unique version names"));
    }
    if spec.versions.iter().filter(|version| version.storage).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        let told = if spec.versions.is_empty() { serde_json::Value::Null } else { rules::json(&spec.versions) };
        errors.push(Error::invalid(&at, told, why));
    }
    // A schema that stays as it is was checked when it came.
    match alike(spec, |version| version.schema.as_ref()) {
        Some(all) => {
            if old.and_then(|old| alike(old, |version| version.schema.as_ref())) != Some(all) {
                schema(all, spec.versions.iter().any(has_status), &path.child("validation"), errors);
            }
        }
        None => {
            for (i, version) in spec.versions.iter().enumerate() {
                let before = old.and_then(|old| old.versions.iter().find(|other| other.name == version.name));
                if before.is_none_or(|before| before.schema != version.schema) {
                    schema(version.schema.as_ref(), has_status(version), &at.index(i).child("schema"), errors);
                }
            }
        }
    }
    match alike(spec, |version| version.subresources.as_ref()) {
        Some(all) => subresources(all, &path.child("subresources"), errors),
        None => {
            for (i, version) in spec.versions.iter().enumerate() {
                subresources(version.subresources.as_ref(), &at.index(i).child("subresources"), errors);
            }
        }
    }
    match alike(spec, |version| list(&version.additional_printer_columns)) {
        Some(all) => columns(all, &path.child("additionalPrinterColumns"), errors),
        None => {
            for (i, version) in spec.versions.iter().enumerate() {
                let at = at.index(i).child("additionalPrinterColumns");
                columns(list(&version.additional_printer_columns), &at, errors);
            }
        }
    }
    match alike(spec, |version| (list(&version.selectable_fields), version.schema.as_ref())) {
        Some((all, schema)) => selectable(all, schema, &path.child("selectableFields"), errors),
        None => {
            for (i, version) in spec.versions.iter().enumerate() {
                let at = at.index(i).child("selectableFields");
                selectable(list(&version.selectable_fields), version.schema.as_ref(), &at, errors);
            }
        }
    }
}

fn rules_of_version(version: &CustomResourceDefinitionVersion, path: &Path, errors: &mut Errors) {
    let wrong = name::dns1035_label(&version.name);
    if !wrong.is_empty() {
        errors.push(Error::invalid(&path.child("name"), version.name.as_str(), &wrong.join(",")));
    }
    let Some(warning) = &version.deprecation_warning else { return };
    let at = path.child("deprecationWarning");
    let mut tell = |why: &str| errors.push(Error::invalid(&at, warning.as_str(), why));
    if version.deprecated != Some(true) {
        tell("can only be set for deprecated versions");
        return;
    }
    if warning.len() > 256 {
        tell("must be <= 256 characters long");
    }
    if warning.is_empty() {
        tell("must not be an empty string");
    }
    if let Some((i, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        tell(&format!("must only contain printable UTF-8 characters; non-printable character found at index {i}"));
    }
}

fn schema(value: Option<&CustomResourceValidation>, has_status: bool, path: &Path, errors: &mut Errors) {
    if let Some(props) = value.and_then(|value| value.open_api_v3_schema.as_ref()) {
        errors.extend(structural::validate(props, &path.child("openAPIV3Schema"), has_status));
    }
}

fn names(names: &CustomResourceDefinitionNames, path: &Path, errors: &mut Errors) {
    for (field, value) in [
        ("plural", names.plural.as_str()),
        ("singular", text(&names.singular)),
        ("kind", names.kind.as_str()),
        ("listKind", text(&names.list_kind)),
    ] {
        let at = path.child(field);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let (own, why) = match field {
            "kind" | "listKind" => (value.to_lowercase(), "may have mixed case, but should otherwise match: "),
            _ => (value.to_owned(), ""),
        };
        let wrong = name::dns1035_label(&own);
        if !wrong.is_empty() {
            errors.push(Error::invalid(&at, value, &format!("{why}{}", wrong.join(","))));
        }
    }
    for (field, values) in [("shortNames", list(&names.short_names)), ("categories", list(&names.categories))] {
        for (i, value) in values.iter().enumerate() {
            let wrong = name::dns1035_label(value);
            if !wrong.is_empty() {
                errors.push(Error::invalid(&path.child(field).index(i), value.as_str(), &wrong.join(",")));
            }
        }
    }
    if !names.kind.is_empty() && names.list_kind.as_ref() == Some(&names.kind) {
        let why = "kind and listKind may not be the same";
        errors.push(Error::invalid(&path.child("listKind"), names.kind.as_str(), why));
    }
}

/// Whether a path starts as one must; an error if not.
fn starts_well(path: &str, at: &Path, errors: &mut Errors) -> bool {
    let is = path.starts_with('.');
    if !is {
        errors.push(Error::invalid(at, path, "must be a simple json path starting with ."));
    }
    is
}

fn subresources(value: Option<&CustomResourceSubresources>, path: &Path, errors: &mut Errors) {
    let Some(scale) = value.and_then(|value| value.scale.as_ref()) else { return };
    let path = path.child("scale");
    for (field, value, prefix) in [
        ("specReplicasPath", &scale.spec_replicas_path, ".spec."),
        ("statusReplicasPath", &scale.status_replicas_path, ".status."),
    ] {
        let at = path.child(field);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if starts_well(value, &at, errors) && !value.starts_with(prefix) {
            let why = format!("should be a json path under {}", prefix.trim_end_matches('.'));
            errors.push(Error::invalid(&at, value.as_str(), &why));
        }
    }
    if let Some(value) = scale.label_selector_path.as_deref().filter(|value| !value.is_empty()) {
        let at = path.child("labelSelectorPath");
        if starts_well(value, &at, errors) && !value.starts_with(".spec.") && !value.starts_with(".status.") {
            errors.push(Error::invalid(&at, value, "should be a json path under either .spec or .status"));
        }
    }
}

fn columns(columns: &[CustomResourceColumnDefinition], path: &Path, errors: &mut Errors) {
    for (i, column) in columns.iter().enumerate() {
        let at = path.index(i);
        if column.name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        let why = format!("must be one of {}", COLUMN_TYPES.join(","));
        if column.type_.is_empty() {
            errors.push(Error::required(&at.child("type"), &why));
        } else if !COLUMN_TYPES.contains(&column.type_.as_str()) {
            errors.push(Error::invalid(&at.child("type"), column.type_.as_str(), &why));
        }
        let format = text(&column.format);
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(Error::invalid(&at.child("format"), format, &why));
        }
        // The name is Kubernetes'.
        let path = at.child("JSONPath");
        if column.json_path.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if starts_well(&column.json_path, &path, errors) && SimplePath::parse(&column.json_path).is_none() {
            errors.push(Error::invalid(&path, column.json_path.as_str(), "must be a json path in the dot notation"));
        }
    }
}

fn selectable(fields: &[SelectableField], schema: Option<&CustomResourceValidation>, path: &Path, errors: &mut Errors) {
    let root = schema.and_then(|schema| schema.open_api_v3_schema.as_ref());
    let mut seen = std::collections::BTreeSet::new();
    for (i, field) in fields.iter().enumerate() {
        let (at, own) = (path.index(i).child("jsonPath"), field.json_path.as_str());
        if own.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let found: Option<&JSONSchemaProps> = root.and_then(|root| structural::find(root, own));
        let Some(found) = found else {
            errors.push(Error::invalid(&at, own, "is an invalid path: does not refer to a valid field"));
            continue;
        };
        if own.starts_with(".metadata") {
            errors.push(Error::invalid(&at, own, "must not point to fields in metadata"));
        }
        if !matches!(text(&found.type_), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                       formats are allowed.";
            errors.push(Error::invalid(&at, own, why));
        }
        if !seen.insert(own) {
            errors.push(Error::duplicate(&at, own));
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.push(Error::too_many(path, seen.len(), MAX_SELECTABLE));
    }
}

fn conversion(value: &CustomResourceConversion, path: &Path, errors: &mut Errors) {
    rules::one_of(errors, &path.child("strategy"), &value.strategy, &["None", "Webhook"]);
    let at = path.child("webhookClientConfig");
    let client = value.webhook.as_ref().and_then(|webhook| webhook.client_config.as_ref());
    if value.strategy != "Webhook" {
        if client.is_some() {
            errors.push(Error::forbidden(&at, "should not be set when strategy is not set to Webhook"));
        }
        return;
    }
    let Some(client) = client else {
        errors.push(Error::required(&at, "required when strategy is set to Webhook"));
        return;
    };
    match (&client.url, &client.service) {
        (Some(url), None) => {
            if !url.starts_with("https://") || !is_uri(url) {
                let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
                errors.push(Error::invalid(&at.child("url"), url.as_str(), why));
            }
        }
        (None, Some(service)) => {
            let at = at.child("service");
            if service.name.is_empty() {
                errors.push(Error::required(&at.child("name"), "service name is required"));
            }
            if service.namespace.is_empty() {
                errors.push(Error::required(&at.child("namespace"), "service namespace is required"));
            }
        }
        _ => errors.push(Error::required(&at, "exactly one of url or service is required")),
    }
    let all = value.webhook.as_ref().map(|webhook| webhook.conversion_review_versions.clone()).unwrap_or_default();
    let at = path.child("conversionReviewVersions");
    if all.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if !all.iter().any(|version| matches!(version.as_str(), "v1" | "v1beta1")) {
        errors.push(Error::invalid(&at, all, "must include at least one of v1, v1beta1"));
    }
}
