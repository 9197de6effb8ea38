//! What makes an Ingress invalid.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::{
    core::v1::TypedLocalObjectReference,
    networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressRule, IngressSpec, IngressTLS},
};

use super::CLASS;
use crate::kinds::{
    addresses,
    blank::{list, text},
    rules,
};

/// What an update may leave as it is although it would be refused in a new object.
#[derive(Clone, Copy, Default)]
struct Tolerated {
    secret_names: bool,
    wildcard_rules: bool,
}

/// Everything wrong with a new Ingress.
pub(super) fn validate_new(object: &Ingress) -> Errors {
    let mut errors = validate(object, Tolerated::default());
    let annotation = object.metadata.annotations.as_ref().and_then(|a| a.get(CLASS));
    let named = object.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_ref());
    if let (Some(annotation), Some(named)) = (annotation, named)
        && annotation != named
    {
        let at = Path::new("annotations").child(CLASS);
        let detail = "must match `ingressClassName` when both are specified";
        errors.push(Error::invalid(&at, annotation.as_str(), detail));
    }
    errors
}

/// Everything wrong with an Ingress that was `old` before.
pub(super) fn validate_update(new: &Ingress, old: &Ingress) -> Errors {
    let spec = old.spec.clone().unwrap_or_default();
    let is_faulty = |rule: &IngressRule| {
        let mut errors = Errors::new();
        validate_paths(&mut errors, &Path::new("http"), rule);
        !errors.is_empty()
    };
    let tolerated = Tolerated {
        secret_names: list(&spec.tls).iter().any(|tls| !secret_name_faults(tls).is_empty()),
        wildcard_rules: list(&spec.rules).iter().any(|rule| text(&rule.host).contains('*') && is_faulty(rule)),
    };
    validate(new, tolerated)
}

/// Everything wrong with a new status.
pub(super) fn validate_status(new: &Ingress, old: &Ingress) -> Errors {
    let entries = |object: &Ingress| {
        let balancer = object.status.clone().unwrap_or_default().load_balancer.unwrap_or_default();
        balancer.ingress.unwrap_or_default()
    };
    let (mut errors, path) = (Errors::new(), Path::new("status").child("loadBalancer").child("ingress"));
    let before = entries(old);
    let before: Vec<&str> = before.iter().map(|entry| text(&entry.ip)).filter(|ip| !ip.is_empty()).collect();
    for (i, entry) in entries(new).iter().enumerate() {
        addresses::reached_at(&mut errors, &path.index(i), text(&entry.ip), text(&entry.hostname), &before);
    }
    errors
}

fn validate(object: &Ingress, tolerated: Tolerated) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("spec"));
    let spec = object.spec.clone().unwrap_or_default();
    validate_spec(&mut errors, &path, &spec, tolerated);
    errors
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &IngressSpec, tolerated: Tolerated) {
    if list(&spec.rules).is_empty() && spec.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(path, serde_json::Value::Null, detail));
    }
    if let Some(backend) = &spec.default_backend {
        validate_backend(errors, &path.child("defaultBackend"), backend);
    }
    for (i, rule) in list(&spec.rules).iter().enumerate() {
        validate_rule(errors, &path.child("rules").index(i), rule, tolerated);
    }
    for (i, tls) in list(&spec.tls).iter().enumerate() {
        validate_tls(errors, &path.child("tls").index(i), tls, tolerated);
    }
    if let Some(class) = &spec.ingress_class_name {
        rules::messages(errors, &path.child("ingressClassName"), class, name::dns1123_subdomain(class));
    }
}

fn host_faults(host: &str) -> Vec<String> {
    if host.contains('*') { name::wildcard_dns1123_subdomain(host) } else { name::dns1123_subdomain(host) }
}

fn secret_name_faults(tls: &IngressTLS) -> Vec<String> {
    let secret = text(&tls.secret_name);
    if secret.is_empty() { Vec::new() } else { name::dns1123_subdomain(secret) }
}

fn validate_tls(errors: &mut Errors, path: &Path, tls: &IngressTLS, tolerated: Tolerated) {
    for (i, host) in list(&tls.hosts).iter().enumerate() {
        rules::messages(errors, &path.child("hosts").index(i), host, host_faults(host));
    }
    if !tolerated.secret_names {
        rules::messages(errors, &path.child("secretName"), text(&tls.secret_name), secret_name_faults(tls));
    }
}

fn validate_rule(errors: &mut Errors, path: &Path, rule: &IngressRule, tolerated: Tolerated) {
    let host = text(&rule.host);
    if !host.is_empty() {
        let at = path.child("host");
        addresses::not_an_address(errors, &at, host);
        rules::messages(errors, &at, host, host_faults(host));
    }
    if !(host.contains('*') && tolerated.wildcard_rules) {
        validate_paths(errors, &path.child("http"), rule);
    }
}

fn validate_paths(errors: &mut Errors, path: &Path, rule: &IngressRule) {
    let Some(http) = &rule.http else { return };
    let path = path.child("paths");
    if http.paths.is_empty() {
        errors.push(Error::required(&path, ""));
    }
    for (i, entry) in http.paths.iter().enumerate() {
        validate_path(errors, &path.index(i), entry);
    }
}

fn validate_path(errors: &mut Errors, path: &Path, entry: &HTTPIngressPath) {
    let (at, given) = (path.child("path"), text(&entry.path));
    match entry.path_type.as_str() {
        "" => return errors.push(Error::required(&path.child("pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !given.starts_with('/') {
                errors.push(Error::invalid(&at, given, "must be an absolute path"));
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if given.contains(sequence) {
                    errors.push(Error::invalid(&at, given, &format!("must not contain '{sequence}'")));
                }
            }
            for end in ["/..", "/."] {
                if given.ends_with(end) {
                    errors.push(Error::invalid(&at, given, &format!("cannot end with '{end}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if !given.is_empty() && !given.starts_with('/') {
                errors.push(Error::invalid(&at, given, "must be an absolute path"));
            }
        }
        other => {
            let known = &["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(Error::not_supported(&path.child("pathType"), other, known));
        }
    }
    validate_backend(errors, &path.child("backend"), &entry.backend);
}

fn validate_backend(errors: &mut Errors, path: &Path, backend: &IngressBackend) {
    let service = match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            return errors.push(Error::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => return errors.push(Error::invalid(path, "", "resource or service backend is required")),
        (Some(resource), None) => return validate_resource(errors, &path.child("resource"), resource),
        (None, Some(service)) => service,
    };
    let at = path.child("service");
    if service.name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    } else {
        rules::messages(errors, &at.child("name"), &service.name, name::dns1123_label(&service.name));
    }
    let port = service.port.clone().unwrap_or_default();
    let (named, number) = (text(&port.name), port.number.unwrap_or(0));
    let at = at.child("port");
    match (named.is_empty(), number) {
        (false, 0) => rules::messages(errors, &at.child("name"), named, name::port_name(named)),
        (false, _) => errors.push(Error::invalid(path, "", "cannot set both port name & port number")),
        (true, 0) => errors.push(Error::required(path, "port name or number is required")),
        (true, number) => {
            for message in name::port_number(number.into()) {
                errors.push(Error::invalid(&at.child("number"), number, &message));
            }
        }
    }
}

fn validate_resource(errors: &mut Errors, path: &Path, resource: &TypedLocalObjectReference) {
    if let Some(group) = &resource.api_group {
        rules::messages(errors, &path.child("apiGroup"), group, name::dns1123_subdomain(group));
    }
    for (field, value) in [("kind", &resource.kind), ("name", &resource.name)] {
        rules::required_segment(errors, &path.child(field), value);
    }
}
