//! What makes an event invalid: little in the core group, more in `events.k8s.io`.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::api::core::v1::Event;

use crate::kinds::{blank::text, rules};

/// Longest parts of an event, in bytes.
const INSTANCE: usize = 128;
const ACTION: usize = 128;
const REASON: usize = 128;
const NOTE: usize = 1024;

/// The group an event is written through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// The core group.
    Core,
    /// `events.k8s.io`.
    Events,
}

/// Everything wrong with a new event.
pub(super) fn validate(event: &Event, group: Group) -> Errors {
    let mut errors = validate_both(event, group);
    if group == Group::Core {
        return errors;
    }
    let name = text(&event.metadata.name);
    // That there is one is seen to for all kinds.
    if !name.is_empty() {
        rules::messages(&mut errors, &Path::new("metadata").child("name"), name, name::dns1123_subdomain(name));
    }
    validate_series(&mut errors, event);
    if event.event_time.is_none() {
        errors.push(Error::required(&Path::new("eventTime"), ""));
    }
    let kind = text(&event.type_);
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(Error::invalid(&Path::new("type"), "", &format!("has invalid value: {kind}")));
    }
    let source = event.source.clone().unwrap_or_default();
    for (field, is_set) in [
        ("firstTimestamp", event.first_timestamp.is_some()),
        ("lastTimestamp", event.last_timestamp.is_some()),
        ("count", event.count.unwrap_or(0) != 0),
        ("source", !text(&source.component).is_empty() || !text(&source.host).is_empty()),
    ] {
        if is_set {
            errors.push(Error::invalid(&Path::new(field), "", "needs to be unset"));
        }
    }
    errors
}

/// Everything wrong with a changed event: in `events.k8s.io` only its series grows.
pub(super) fn validate_update(new: &Event, old: &Event, group: Group) -> Errors {
    let mut errors = validate_both(new, group);
    if group == Group::Core {
        return errors;
    }
    if new.series != old.series {
        validate_series(&mut errors, new);
    }
    let at = |field: &str| Path::new(field);
    rules::immutable(&mut errors, &at("involvedObject"), &new.involved_object, &old.involved_object);
    rules::immutable(&mut errors, &at("reason"), &new.reason, &old.reason);
    rules::immutable(&mut errors, &at("message"), &new.message, &old.message);
    rules::immutable(&mut errors, &at("source"), &new.source, &old.source);
    rules::immutable(&mut errors, &at("firstTimestamp"), &new.first_timestamp, &old.first_timestamp);
    rules::immutable(&mut errors, &at("lastTimestamp"), &new.last_timestamp, &old.last_timestamp);
    rules::immutable(&mut errors, &at("count"), &new.count, &old.count);
    rules::immutable(&mut errors, &at("type"), &new.type_, &old.type_);
    let micros = |event: &Event| event.event_time.as_ref().map(|time| time.0.as_microsecond());
    if micros(new) != micros(old) {
        errors.push(Error::immutable(&at("eventTime"), rules::json(&new.event_time)));
    }
    rules::immutable(&mut errors, &at("action"), &new.action, &old.action);
    rules::immutable(&mut errors, &at("related"), &new.related, &old.related);
    rules::immutable(&mut errors, &at("reportingController"), &new.reporting_component, &old.reporting_component);
    rules::immutable(&mut errors, &at("reportingInstance"), &new.reporting_instance, &old.reporting_instance);
    errors
}

fn validate_series(errors: &mut Errors, event: &Event) {
    let Some(series) = &event.series else { return };
    if series.count.unwrap_or(0) < 2 {
        errors.push(Error::invalid(&Path::new("series.count"), "", "should be at least 2"));
    }
    if series.last_observed_time.is_none() {
        errors.push(Error::required(&Path::new("series.lastObservedTime"), ""));
    }
}

fn validate_both(event: &Event, group: Group) -> Errors {
    let mut errors = Errors::new();
    let namespace = text(&event.metadata.namespace);
    let about = text(&event.involved_object.namespace);
    let reporter_field = match group {
        Group::Core => "reportingComponent",
        Group::Events => "reportingController",
    };
    let is_new_style = event.event_time.is_some();
    // An event about an object without a namespace lives in `default`, that of a new reporter also in `kube-system`.
    let fits = match (about, namespace) {
        ("", "default") => true,
        ("", "kube-system") => is_new_style,
        ("", "") => !is_new_style,
        ("", _) => false,
        (about, namespace) => is_new_style || about == namespace,
    };
    if !fits {
        let at = Path::new("involvedObject").child("namespace");
        errors.push(Error::invalid(&at, about, "does not match event.namespace"));
    }
    if is_new_style {
        let reporter = text(&event.reporting_component);
        let at = Path::new(reporter_field);
        if reporter.is_empty() {
            errors.push(Error::required(&at, ""));
        }
        rules::label_name(&mut errors, &at, reporter);
        for (field, value, most) in [
            ("reportingInstance", &event.reporting_instance, INSTANCE),
            ("action", &event.action, ACTION),
            ("reason", &event.reason, REASON),
        ] {
            if text(value).is_empty() {
                errors.push(Error::required(&Path::new(field), ""));
            }
            validate_length(&mut errors, field, text(value), most);
        }
        validate_length(&mut errors, "message", text(&event.message), NOTE);
    }
    rules::messages(&mut errors, &Path::new("namespace"), namespace, name::dns1123_subdomain(namespace));
    errors
}

fn validate_length(errors: &mut Errors, field: &str, value: &str, most: usize) {
    if value.len() > most {
        errors.push(Error::invalid(&Path::new(field), "", &format!("can have at most {most} characters")));
    }
}
