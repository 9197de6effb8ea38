//! Device requests, selectors and configurations, which device classes and resource claims share (KEP-4381).
//!
//! Selectors' CEL expressions are bounded and compiled here, and not run: nothing in Coracle allocates devices yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::{
    api::resource::v1::{
        CapacityRequirements, DeviceClaim, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceToleration,
        OpaqueDeviceConfiguration,
    },
    apimachinery::pkg::runtime::RawExtension,
};

use super::{
    blank::{items_mut, list, text},
    resources, rules,
};
use crate::cel::{self, Environment, Field, ObjectType, Type};

const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_EXPRESSION: usize = 10 * 1024;
const MAX_PARAMETERS: usize = 10 * 1024;

/// Characters of an attribute's name, and of a driver's or a domain's.
const MAX_ID: u64 = 32;
const MAX_DOMAIN: u64 = 63;

/// Attributes and capacities of a device.
const MAX_ATTRIBUTES: u64 = 32;

/// Configurations of a class or a claim.
pub(super) const MAX_CONFIGS: usize = 32;

/// A list that may not be longer than this; says whether its items are worth a look.
pub(super) fn bounded<T>(errors: &mut Errors, path: &Path, items: &[T], max: usize) -> bool {
    if items.len() > max {
        errors.push(Error::too_many(path, items.len(), max));
    }
    items.len() <= max
}

/// Names that may each stand once.
fn unique<'a>(errors: &mut Errors, path: &Path, names: impl Iterator<Item = &'a str>, field: Option<&str>) {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            let at = path.index(i);
            let at = field.map_or_else(|| at.clone(), |field| at.child(field));
            errors.push(Error::duplicate(&at, name));
        }
    }
}

/// Opaque configuration for a driver.
pub(super) fn validate_opaque(errors: &mut Errors, path: &Path, opaque: Option<&OpaqueDeviceConfiguration>) {
    let path = path.child("opaque");
    let Some(opaque) = opaque else { return errors.push(Error::required(&path, "")) };
    rules::csi_driver_name(errors, &path.child("driver"), &opaque.driver);
    validate_raw(errors, &path.child("parameters"), &opaque.parameters, MAX_PARAMETERS);
}

/// JSON that must be an object, of at most so many bytes.
pub(super) fn validate_raw(errors: &mut Errors, path: &Path, raw: &RawExtension, max: usize) {
    if raw.0.is_null() {
        errors.push(Error::required(path, ""));
    } else if raw.0.to_string().len() > max {
        // No value, as it is too large to be worth showing.
        errors.push(Error::too_long(path, max));
    } else if !raw.0.is_object() {
        errors.push(Error::invalid(path, "<value omitted>", "must be a valid JSON object"));
    }
}

/// Selectors by CEL expressions.
pub(super) fn validate_selectors(errors: &mut Errors, path: &Path, selectors: &[DeviceSelector]) {
    if !bounded(errors, path, selectors, MAX_SELECTORS) {
        return;
    }
    for (i, selector) in selectors.iter().enumerate() {
        let at = path.index(i).child("cel");
        match &selector.cel {
            None => errors.push(Error::required(&at, "")),
            Some(cel) if cel.expression.len() > MAX_EXPRESSION => {
                errors.push(Error::too_long(&at.child("expression"), MAX_EXPRESSION));
            }
            Some(cel) => validate_expression(errors, &at.child("expression"), &cel.expression),
        }
    }
}

/// What an expression may ask of a device: `kubernetes.DRADevice` of KEP-4381, each map bounded as slices are.
static OF_A_DEVICE: LazyLock<Environment> = LazyLock::new(|| {
    let names = |value| Type::Map(Box::new(Type::Text(MAX_ID)), Box::new(value), MAX_ATTRIBUTES);
    let by_domain = |value| Type::Map(Box::new(Type::Text(MAX_DOMAIN)), Box::new(names(value)), MAX_ATTRIBUTES);
    let fields = [
        ("driver", Type::Text(MAX_DOMAIN)),
        ("attributes", by_domain(Type::Dyn)),
        ("capacity", by_domain(Type::Named("kubernetes.Quantity"))),
        ("allowMultipleAllocations", Type::Bool),
    ];
    let fields = fields.map(|(name, ty)| (name.to_owned(), Field { ty, name: name.to_owned() }));
    let device = ObjectType { name: "kubernetes.DRADevice".to_owned(), fields: fields.into() };
    Environment::new().with("device", Type::Object(Arc::new(device)))
});

fn validate_expression(errors: &mut Errors, path: &Path, expression: &str) {
    match cel::compile(expression, &OF_A_DEVICE) {
        Err(why) => errors.push(Error::invalid(path, expression, &format!("compilation failed: {why}"))),
        Ok(program) => match program.result() {
            Type::Bool | Type::Dyn if program.cost() > cel::PER_CALL_LIMIT => {
                errors.push(Error::forbidden(path, "too complex, exceeds cost limit"));
            }
            Type::Bool | Type::Dyn => {}
            other => {
                let why = format!("must evaluate to bool or the unknown type, not {other}");
                errors.push(Error::invalid(path, expression, &why));
            }
        },
    }
}

fn validate_toleration(errors: &mut Errors, path: &Path, toleration: &DeviceToleration) {
    let (key, value) = (text(&toleration.key), text(&toleration.value));
    if !key.is_empty() {
        rules::label_name(errors, &path.child("key"), key);
    }
    let at = path.child("operator");
    match text(&toleration.operator) {
        "Exists" if !value.is_empty() => {
            let detail = "must be empty for operator `Exists`";
            errors.push(Error::invalid(&path.child("value"), value, detail));
        }
        "Exists" => {}
        "Equal" => rules::messages(errors, &path.child("value"), value, name::label_value(value)),
        "" => errors.push(Error::required(&at, "")),
        other => errors.push(Error::not_supported(&at, other, &["Equal", "Exists"])),
    }
    let effect = text(&toleration.effect);
    if !effect.is_empty() {
        rules::known_word(errors, &path.child("effect"), effect, &["NoExecute", "NoSchedule", "None"]);
    }
}

/// What an exact request and an alternative have in common.
struct Wanted<'a> {
    class: &'a str,
    selectors: &'a [DeviceSelector],
    mode: &'a str,
    count: i64,
    tolerations: &'a [DeviceToleration],
    capacity: Option<&'a CapacityRequirements>,
}

fn validate_wanted(errors: &mut Errors, path: &Path, wanted: &Wanted<'_>) {
    let at = path.child("deviceClassName");
    if wanted.class.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        rules::messages(errors, &at, wanted.class, name::dns1123_subdomain(wanted.class));
    }
    validate_selectors(errors, &path.child("selectors"), wanted.selectors);
    let (at, count) = (path.child("count"), wanted.count);
    match wanted.mode {
        "All" if count != 0 => {
            errors.push(Error::invalid(&at, count, "must not be specified when allocationMode is 'All'"));
        }
        "All" => {}
        "ExactCount" if count <= 0 => errors.push(Error::invalid(&at, count, "must be greater than zero")),
        "ExactCount" => {}
        other => errors.push(Error::not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"])),
    }
    for (i, toleration) in wanted.tolerations.iter().enumerate() {
        validate_toleration(errors, &path.child("tolerations").index(i), toleration);
    }
    let requests = wanted.capacity.and_then(|capacity| capacity.requests.as_ref());
    for (name, quantity) in requests.into_iter().flatten() {
        resources::validate_amount(errors, &path.child("capacity").child("requests").key(name), name, quantity);
    }
}

fn validate_name(errors: &mut Errors, path: &Path, given: &str) {
    rules::messages(errors, path, given, name::dns1123_label(given));
}

fn validate_request(errors: &mut Errors, path: &Path, request: &DeviceRequest) {
    validate_name(errors, &path.child("name"), &request.name);
    let alternatives = list(&request.first_available);
    match (&request.exactly, alternatives) {
        (None, []) => {
            errors.push(Error::required(path, "exactly one of `exactly` or `firstAvailable` is required"));
        }
        (Some(_), [_, ..]) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(Error::invalid(path, serde_json::Value::Null, detail));
        }
        (Some(exactly), []) => validate_wanted(
            errors,
            &path.child("exactly"),
            &Wanted {
                class: &exactly.device_class_name,
                selectors: list(&exactly.selectors),
                mode: text(&exactly.allocation_mode),
                count: exactly.count.unwrap_or(0),
                tolerations: list(&exactly.tolerations),
                capacity: exactly.capacity.as_ref(),
            },
        ),
        (None, alternatives) => {
            let at = path.child("firstAvailable");
            if !bounded(errors, &at, alternatives, MAX_ALTERNATIVES) {
                return;
            }
            unique(errors, &at, alternatives.iter().map(|a| a.name.as_str()), None);
            for (i, alternative) in alternatives.iter().enumerate() {
                let at = at.index(i);
                validate_name(errors, &at.child("name"), &alternative.name);
                let wanted = Wanted {
                    class: &alternative.device_class_name,
                    selectors: list(&alternative.selectors),
                    mode: text(&alternative.allocation_mode),
                    count: alternative.count.unwrap_or(0),
                    tolerations: list(&alternative.tolerations),
                    capacity: alternative.capacity.as_ref(),
                };
                validate_wanted(errors, &at, &wanted);
            }
        }
    }
}

/// The names of a claim's requests, each with its alternatives' names.
pub(super) type Names<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// The names that constraints, configurations and allocations of the claim may refer to.
pub(super) fn names(claim: &DeviceClaim) -> Names<'_> {
    let mut names = Names::new();
    for request in list(&claim.requests) {
        let alternatives = list(&request.first_available).iter().map(|alternative| alternative.name.as_str());
        names.insert(request.name.as_str(), alternatives.collect());
    }
    names
}

/// A reference to a request, `request` or `request/alternative`.
pub(super) fn validate_reference(errors: &mut Errors, path: &Path, reference: &str, names: &Names<'_>) {
    let is_there = match reference.split_once('/') {
        None => names.contains_key(reference),
        Some((request, alternative)) => names.get(request).is_some_and(|known| known.contains(alternative)),
    };
    if reference.matches('/').count() < 2 {
        for part in reference.split('/') {
            validate_name(errors, path, part);
        }
    }
    if !is_there {
        let detail =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        errors.push(Error::invalid(path, reference, detail));
    }
}

fn validate_references(errors: &mut Errors, path: &Path, references: &[String], names: &Names<'_>) {
    if !bounded(errors, path, references, MAX_REQUESTS) {
        return;
    }
    unique(errors, path, references.iter().map(String::as_str), None);
    for (i, reference) in references.iter().enumerate() {
        validate_reference(errors, &path.index(i), reference, names);
    }
}

/// The name of an attribute with its domain, `gpu.example.com/model`.
fn validate_qualified(errors: &mut Errors, path: &Path, given: &str) {
    let Some((domain, identifier)) = given.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must include a domain";
        return errors.push(Error::invalid(path, given, detail));
    };
    rules::csi_driver_name(errors, path, domain);
    rules::messages(errors, path, identifier, name::c_identifier(identifier));
}

fn validate_constraint(errors: &mut Errors, path: &Path, constraint: &DeviceConstraint, names: &Names<'_>) {
    validate_references(errors, &path.child("requests"), list(&constraint.requests), names);
    match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(_), Some(_)) => {
            let detail =
                r#"exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#;
            errors.push(Error::required(path, detail));
        }
        (Some(attribute), None) => validate_qualified(errors, &path.child("matchAttribute"), attribute),
        (None, Some(attribute)) => validate_qualified(errors, &path.child("distinctAttribute"), attribute),
        (None, None) => {
            let detail = r#"exactly one of "matchAttribute" or "distinctAttribute" is required"#;
            errors.push(Error::required(path, detail));
        }
    }
}

/// Everything wrong with the devices of a claim.
pub(super) fn validate_claim(errors: &mut Errors, path: &Path, claim: &DeviceClaim) {
    let names = names(claim);
    let (at, requests) = (path.child("requests"), list(&claim.requests));
    if bounded(errors, &at, requests, MAX_REQUESTS) {
        unique(errors, &at, requests.iter().map(|request| request.name.as_str()), None);
        for (i, request) in requests.iter().enumerate() {
            validate_request(errors, &at.index(i), request);
        }
    }
    let (at, constraints) = (path.child("constraints"), list(&claim.constraints));
    if bounded(errors, &at, constraints, MAX_CONSTRAINTS) {
        for (i, constraint) in constraints.iter().enumerate() {
            validate_constraint(errors, &at.index(i), constraint, &names);
        }
    }
    let (at, configs) = (path.child("config"), list(&claim.config));
    if bounded(errors, &at, configs, MAX_CONFIGS) {
        for (i, config) in configs.iter().enumerate() {
            validate_references(errors, &at.index(i).child("requests"), list(&config.requests), &names);
            validate_opaque(errors, &at.index(i), config.opaque.as_ref());
        }
    }
}

/// Fills in how many devices a request is for.
pub(super) fn default_claim(claim: &mut DeviceClaim) {
    let tolerate = |tolerations: &mut Option<Vec<DeviceToleration>>| {
        for toleration in items_mut(tolerations) {
            super::blank::fill_text(&mut toleration.operator, "Equal");
        }
    };
    let default = |mode: &mut Option<String>, count: &mut Option<i64>| {
        super::blank::fill_text(mode, "ExactCount");
        if text(mode) == "ExactCount" && count.unwrap_or(0) == 0 {
            *count = Some(1);
        }
    };
    for request in items_mut(&mut claim.requests) {
        if let Some(exactly) = &mut request.exactly {
            default(&mut exactly.allocation_mode, &mut exactly.count);
            tolerate(&mut exactly.tolerations);
        }
        for alternative in items_mut(&mut request.first_available) {
            default(&mut alternative.allocation_mode, &mut alternative.count);
            tolerate(&mut alternative.tolerations);
        }
    }
}
